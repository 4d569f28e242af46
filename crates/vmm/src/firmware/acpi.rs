//! The ACPI tables of the board: what the device tree says, and where records of memory errors appear.
//!
//! Source: ACPI 6.5, 5.2 and 18.3.2; Arm BBR 2.1, 8.4 (which tables); SPCR 4; for the devices' names Linux,
//! arch/arm64/acpi_object_usage.rst.

use std::ops::Range;

use seawall::apei::ghes::GhesRegion;
use seawall::apei::hest;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{Immutable, IntoBytes, Unaligned};

use super::{aml, einj};
use crate::fdt::Platform;
use crate::layout;

const OEM: [u8; 6] = *b"SEAWLL";
const OEM_TABLE: [u8; 8] = *b"SEAWALL ";
const OEM_REVISION: u32 = 1;
const CREATOR: [u8; 4] = *b"SWLL";
/// Tables begin at multiples of this.
const ALIGN: usize = 64;
/// GSI of SPI 0.
const FIRST_SPI: u32 = 32;
/// GSIs of the secure, physical, virtual and hypervisor timers.
const TIMERS: [u32; 4] = [29, 30, 27, 26];
/// GSIs of EL2's virtual timer, and of the maintenance interrupt of the GIC's virtual interface.
const HYPERVISOR_VIRTUAL_TIMER: u32 = 28;
const MAINTENANCE: u32 = 25;
/// GSI of the PMU.
const PMU: u32 = 23;
/// Level-sensitive, active high, and it goes on while the CPU sleeps.
const TIMER_FLAGS: u32 = 1 << 2;
/// Of the FADT: there is PSCI, and one calls it by HVC, or else by SMC.
const PSCI: u16 = 1;
const BY_HVC: u16 = 1 << 1;
/// There is no register.
const NO_REGISTER: u64 = u64::MAX;

/// ACPI 6.5, 5.2.25: what follows the header.
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct Gtdt {
    counter_control: U64,
    reserved: U32,
    /// GSI and flags, of [`TIMERS`].
    timers: [[U32; 2]; 4],
    counter_read: U64,
    platform_timers: U32,
    platform_timer_offset: U32,
    virtual_el2: [U32; 2],
}

/// SPCR 2: what follows the header.
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct Spcr {
    interface: u8,
    reserved: [u8; 3],
    address_space: [u8; 4],
    address: U64,
    interrupt_type: u8,
    irq: u8,
    gsi: U32,
    baud_rate: u8,
    parity: u8,
    stop_bits: u8,
    flow_control: u8,
    terminal: u8,
    language: u8,
    pci_ids: [U16; 2],
    pci_place: [u8; 3],
    pci_flags: U32,
    pci_segment: u8,
    reserved_end: U32,
}

/// ACPI 6.5, 5.2.6: how each table begins.
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct Header {
    signature: [u8; 4],
    length: U32,
    revision: u8,
    checksum: u8,
    oem: [u8; 6],
    oem_table: [u8; 8],
    oem_revision: U32,
    creator: [u8; 4],
    creator_revision: U32,
}

/// ACPI 6.5, 5.2.5.3.
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct Rsdp {
    signature: [u8; 8],
    checksum: u8,
    oem: [u8; 6],
    revision: u8,
    rsdt: U32,
    length: U32,
    xsdt: U64,
    extended_checksum: u8,
    reserved: [u8; 3],
}

/// ACPI 6.5, 5.2.9: what follows the header; all else of it is about hardware that there is not.
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct Fadt {
    of_full_hardware: [u8; 76],
    flags: U32,
    reset: [u8; 13],
    arm_boot: U16,
    minor_version: u8,
    firmware_control: U64,
    dsdt: U64,
    registers: [u8; 120],
    hypervisor: U64,
}

/// ACPI 6.5, 5.2.12.15: a GIC distributor.
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct Gicd {
    kind: u8,
    length: u8,
    reserved: U16,
    id: U32,
    base: U64,
    vector_base: U32,
    version: u8,
    reserved_end: [u8; 3],
}

/// ACPI 6.5, 5.2.12.14: a CPU with its GIC interface.
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct Gicc {
    kind: u8,
    length: u8,
    reserved: U16,
    number: U32,
    uid: U32,
    flags: U32,
    parking_version: U32,
    performance_gsi: U32,
    of_gicv2: [U64; 4],
    maintenance_gsi: U32,
    redistributor: U64,
    mpidr: U64,
    efficiency_class: u8,
    reserved_end: u8,
    profiling_gsi: U16,
    trace_gsi: U16,
}

/// ACPI 6.5, 5.2.12.17: redistributors, one after the other.
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct Gicr {
    kind: u8,
    length: u8,
    reserved: U16,
    base: U64,
    size: U32,
}

const _: () = assert!(size_of::<Gtdt>() == 104 - 36 && size_of::<Spcr>() == 80 - 36);
const _: () = assert!(size_of::<Header>() == 36 && size_of::<Rsdp>() == 36 && size_of::<Fadt>() == 276 - 36);
const _: () = assert!(size_of::<Gicd>() == 24 && size_of::<Gicc>() == 82 && size_of::<Gicr>() == 16);

/// The tables, one behind the other from `base` on, and the address of the RSDP among them.
pub fn tables(base: u64, platform: &Platform<'_>, records: &GhesRegion) -> (Vec<u8>, u64) {
    let mut tables = Tables { base, bytes: Vec::new() };
    let dsdt = tables.put(&dsdt(platform));
    let fadt = tables.put(&fadt(dsdt, platform));
    let mut others = vec![madt(platform), gtdt(platform), spcr(), hest::table(&records.sources())];
    if platform.el2 {
        others.push(with_header(*b"EINJ", 2, &einj::body(size_of::<Header>())));
    }
    let mut entries = vec![fadt];
    entries.extend(others.iter().map(|table| tables.put(table)));
    let entries: Vec<u8> = entries.into_iter().flat_map(u64::to_le_bytes).collect();
    let xsdt = tables.put(&with_header(*b"XSDT", 1, &entries));
    let rsdp = tables.put(rsdp(xsdt).as_bytes());
    (tables.bytes, rsdp)
}

struct Tables {
    base: u64,
    bytes: Vec<u8>,
}

impl Tables {
    /// Puts a table behind the others; gives its address.
    fn put(&mut self, table: &[u8]) -> u64 {
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGN), 0);
        let address = self.base + self.bytes.len() as u64;
        self.bytes.extend_from_slice(table);
        address
    }
}

fn with_header(signature: [u8; 4], revision: u8, rest: &[u8]) -> Vec<u8> {
    let mut header = Header {
        signature,
        length: ((size_of::<Header>() + rest.len()) as u32).into(),
        revision,
        checksum: 0,
        oem: OEM,
        oem_table: OEM_TABLE,
        oem_revision: OEM_REVISION.into(),
        creator: CREATOR,
        creator_revision: 1.into(),
    };
    header.checksum = checksum(header.as_bytes()).wrapping_add(checksum(rest));
    [header.as_bytes(), rest].concat()
}

/// What makes the sum of these bytes 0.
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_sub(*byte))
}

fn rsdp(xsdt: u64) -> Rsdp {
    /// Bytes of what ACPI 1.0 had of it, which have a checksum of their own.
    const FIRST: usize = 20;
    let mut rsdp = Rsdp {
        signature: *b"RSD PTR ",
        checksum: 0,
        oem: OEM,
        revision: 2,
        rsdt: 0.into(),
        length: (size_of::<Rsdp>() as u32).into(),
        xsdt: xsdt.into(),
        extended_checksum: 0,
        reserved: [0; 3],
    };
    rsdp.checksum = checksum(rsdp.as_bytes().get(..FIRST).unwrap_or_default());
    rsdp.extended_checksum = checksum(rsdp.as_bytes());
    rsdp
}

fn fadt(dsdt: u64, platform: &Platform<'_>) -> Vec<u8> {
    let fadt = Fadt {
        of_full_hardware: [0; 76],
        flags: (1 << 20).into(), // HW_REDUCED_ACPI
        reset: [0; 13],
        arm_boot: if platform.el2 { PSCI } else { PSCI | BY_HVC }.into(),
        minor_version: 5,
        firmware_control: 0.into(),
        dsdt: dsdt.into(),
        registers: [0; 120],
        hypervisor: 0.into(),
    };
    with_header(*b"FACP", 6, fadt.as_bytes())
}

fn madt(platform: &Platform<'_>) -> Vec<u8> {
    // The address of local interrupt controllers, and flags: there is neither.
    let mut rest = vec![0; 8];
    let distributor = Gicd {
        kind: 12,
        length: size_of::<Gicd>() as u8,
        reserved: 0.into(),
        id: 0.into(),
        base: layout::GIC_DISTRIBUTOR.start.into(),
        vector_base: 0.into(),
        version: 3,
        reserved_end: [0; 3],
    };
    rest.extend_from_slice(distributor.as_bytes());
    for cpu in 0..platform.cpus {
        let interface = Gicc {
            kind: 11,
            length: size_of::<Gicc>() as u8,
            reserved: 0.into(),
            number: cpu.into(),
            uid: cpu.into(),
            flags: 1.into(), // enabled; interrupts are level-sensitive
            parking_version: 0.into(),
            performance_gsi: if platform.pmu { PMU } else { 0 }.into(),
            of_gicv2: [0.into(); 4],
            maintenance_gsi: if platform.el2 { MAINTENANCE } else { 0 }.into(),
            redistributor: 0.into(),
            mpidr: u64::from(layout::affinity(cpu)).into(),
            efficiency_class: 0,
            reserved_end: 0,
            profiling_gsi: 0.into(),
            trace_gsi: 0.into(),
        };
        rest.extend_from_slice(interface.as_bytes());
    }
    let redistributors = Gicr {
        kind: 14,
        length: size_of::<Gicr>() as u8,
        reserved: 0.into(),
        base: layout::GIC_REDISTRIBUTORS.start.into(),
        size: ((layout::GIC_REDISTRIBUTOR_SIZE * u64::from(platform.cpus)) as u32).into(),
    };
    rest.extend_from_slice(redistributors.as_bytes());
    with_header(*b"APIC", 1, &rest)
}

fn gtdt(platform: &Platform<'_>) -> Vec<u8> {
    let virtual_el2 = if platform.el2 { [HYPERVISOR_VIRTUAL_TIMER, TIMER_FLAGS] } else { [0; 2] };
    let gtdt = Gtdt {
        counter_control: NO_REGISTER.into(),
        reserved: 0.into(),
        timers: TIMERS.map(|gsi| [gsi.into(), TIMER_FLAGS.into()]),
        counter_read: NO_REGISTER.into(),
        platform_timers: 0.into(),
        platform_timer_offset: 0.into(),
        virtual_el2: virtual_el2.map(U32::new),
    };
    with_header(*b"GTDT", 3, gtdt.as_bytes())
}

fn spcr() -> Vec<u8> {
    let spcr = Spcr {
        interface: 3, // PL011
        reserved: [0; 3],
        address_space: [0, 32, 0, 3],
        address: layout::UART.start.into(),
        interrupt_type: 1 << 3, // GIC
        irq: 0,
        gsi: (FIRST_SPI + layout::UART_SPI).into(),
        baud_rate: 0, // as it is
        parity: 0,
        stop_bits: 1,
        flow_control: 0,
        terminal: 3, // ANSI
        language: 0,
        pci_ids: [0xffff.into(); 2],
        pci_place: [0; 3],
        pci_flags: 0.into(),
        pci_segment: 0,
        reserved_end: 0.into(),
    };
    with_header(*b"SPCR", 2, spcr.as_bytes())
}

/// CPUs, UART and virtio transports; `_OSC`.
fn dsdt(platform: &Platform<'_>) -> Vec<u8> {
    let uart = device("COM0", "ARMH0011", 0, Some((&layout::UART, layout::UART_SPI)));
    let second = (&layout::SECOND_UART, layout::SECOND_UART_SPI);
    let second = platform.el2.then(|| device("COM1", "ARMH0011", 1, Some(second)));
    let cpus = (0..platform.cpus).map(|cpu| device(&format!("C{cpu:03X}"), "ACPI0007", cpu, None));
    let virtio = (0..layout::VIRTIO_TRANSPORTS).map(|number| {
        let spi = layout::VIRTIO_SPI + number;
        device(&format!("VR{number:02X}"), "LNRO0005", number, Some((&layout::virtio(number), spi)))
    });
    // Whatever the guest asks to be in control of, it is: Linux wants to hear that of APEI.
    let granted = aml::method_that_returns("_OSC", 4, 3);
    let content: Vec<Vec<u8>> =
        std::iter::once(granted).chain(cpus).chain([uart]).chain(second).chain(virtio).collect();
    with_header(*b"DSDT", 2, &aml::scope("\\_SB_", &content))
}

fn device(name: &str, hid: &str, uid: u32, resources: Option<(&Range<u64>, u32)>) -> Vec<u8> {
    let mut content = vec![aml::name("_HID", &aml::string(hid)), aml::name("_UID", &aml::integer(uid))];
    if let Some((registers, spi)) = resources {
        // What it reads and writes is coherent with the CPUs' caches.
        content.push(aml::name("_CCA", &aml::integer(1)));
        let memory = aml::memory(registers.start as u32, (registers.end - registers.start) as u32);
        let resources = aml::resources(&[memory, aml::interrupt(FIRST_SPI + spi)]);
        content.push(aml::name("_CRS", &resources));
    }
    aml::device(name, &content)
}
