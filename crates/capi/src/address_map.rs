//! The guest's memory in its VMM's address space.

use crate::pointer::{Out, array, free, shared};
use crate::records::range;
use crate::status::{Error, ErrorOut, Failure, Status};

/// A run of guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct MemoryRegion {
    /// Guest physical address.
    pub guest: u64,
    /// The address of the same byte in the VMM's address space.
    pub host: u64,
    /// Size in bytes.
    pub size: u64,
}

/// A translation between guest physical addresses and the VMM's. A lookup takes time in the logarithm of the
/// number of regions.
pub struct AddressMap(seawall::AddressMap);

/// Makes a map of regions, in any order, which must not overlap.
///
/// # Safety
/// `regions` must be valid for reads of `count` regions, or NULL with `count` 0; `map` NULL or valid for
/// writes of a pointer, and the new map must go to `seawall_address_map_free`; `error` NULL or valid for
/// writes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn seawall_address_map_new(
    regions: *const MemoryRegion,
    count: usize,
    map: *mut *mut AddressMap,
    error: *mut Error,
) -> Status {
    // SAFETY: NULL or valid for writes of a pointer, by the contract.
    let map = unsafe { Out::new(map, "map") };
    // SAFETY: valid for reads of `count` regions or NULL with 0, by the contract.
    let regions = unsafe { array(regions, count, "regions") };
    // SAFETY: NULL or valid for writes, by the contract.
    unsafe { ErrorOut::new(error) }.call(|| {
        let map = map?;
        let regions = regions?.iter();
        let regions = regions.map(|region| seawall::MemoryRegion {
            guest: region.guest,
            host: region.host,
            size: region.size,
        });
        map.give(AddressMap(seawall::AddressMap::new(regions).map_err(Failure::invalid)?));
        Ok(())
    })
}

/// Frees a map; does nothing for NULL.
///
/// # Safety
/// `map` must be NULL, or from `seawall_address_map_new` and no longer in use.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn seawall_address_map_free(map: *mut AddressMap) {
    // SAFETY: NULL, or from `seawall_address_map_new` and no longer in use, by the contract.
    unsafe { free(map) }
}

/// Writes the guest physical address of a byte of the VMM to `gpa`; SEAWALL_STATUS_NOT_FOUND if the byte is
/// not the guest's.
///
/// # Safety
/// `map` must be NULL or from `seawall_address_map_new`, `gpa` and `error` NULL or valid for writes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn seawall_address_map_guest(
    map: *const AddressMap,
    host: u64,
    gpa: *mut u64,
    error: *mut Error,
) -> Status {
    // SAFETY: NULL or a map of `seawall_address_map_new`, by the contract.
    let map = unsafe { shared(map, "map") };
    // SAFETY: NULL or valid for writes, by the contract.
    let gpa = unsafe { Out::new(gpa, "gpa") };
    // SAFETY: NULL or valid for writes, by the contract.
    unsafe { ErrorOut::new(error) }.call(|| {
        let (map, gpa) = (map?, gpa?);
        gpa.set(map.0.guest(host).ok_or_else(|| nothing("guest memory at the VMM's address", host))?);
        Ok(())
    })
}

/// Writes the VMM's address of a byte of the guest to `host`; SEAWALL_STATUS_NOT_FOUND if it is not in the
/// map.
///
/// # Safety
/// `map` must be NULL or from `seawall_address_map_new`, `host` and `error` NULL or valid for writes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn seawall_address_map_host(
    map: *const AddressMap,
    gpa: u64,
    host: *mut u64,
    error: *mut Error,
) -> Status {
    // SAFETY: NULL or a map of `seawall_address_map_new`, by the contract.
    let map = unsafe { shared(map, "map") };
    // SAFETY: NULL or valid for writes, by the contract.
    let host = unsafe { Out::new(host, "host") };
    // SAFETY: NULL or valid for writes, by the contract.
    unsafe { ErrorOut::new(error) }.call(|| {
        let (map, host) = (map?, host?);
        host.set(map.0.host(gpa).ok_or_else(|| nothing("memory of the guest at", gpa))?);
        Ok(())
    })
}

/// Writes one of the guest's ranges behind `size` bytes of the VMM at `host`: for a SIGBUS, `si_addr` and `1
/// << si_addr_lsb`. There are several if regions meet: `index` counts from 0, and SEAWALL_STATUS_NOT_FOUND
/// comes after the last.
///
/// # Safety
/// `map` must be NULL or from `seawall_address_map_new`, `gpa`, `gpa_size` and `error` NULL or valid for
/// writes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn seawall_address_map_guest_range(
    map: *const AddressMap,
    host: u64,
    size: u64,
    index: usize,
    gpa: *mut u64,
    gpa_size: *mut u64,
    error: *mut Error,
) -> Status {
    // SAFETY: NULL or a map of `seawall_address_map_new`, by the contract.
    let map = unsafe { shared(map, "map") };
    // SAFETY: NULL or valid for writes, by the contract.
    let gpa = unsafe { Out::new(gpa, "gpa") };
    // SAFETY: NULL or valid for writes, by the contract.
    let gpa_size = unsafe { Out::new(gpa_size, "gpa_size") };
    // SAFETY: NULL or valid for writes, by the contract.
    unsafe { ErrorOut::new(error) }.call(|| {
        let (map, gpa, gpa_size) = (map?, gpa?, gpa_size?);
        let found = map.0.guest_ranges(range(host, size)?).nth(index);
        let found = found.ok_or_else(|| nothing("more guest memory at the VMM's address", host))?;
        gpa.set(found.start);
        gpa_size.set(found.end - found.start);
        Ok(())
    })
}

fn nothing(what: &str, address: u64) -> Failure {
    Failure::new(Status::NotFound, format_args!("there is no {what} {address:#x}"))
}
