//! The vCPU of `kvm-ioctls`.

use kvm_bindings::{kvm_vcpu_events, kvm_vcpu_events__bindgen_ty_1 as Exception};
use kvm_ioctls::VcpuFd;
use seawall_events::wire::VCPU_EVENTS_SIZE;

use crate::{Errno, KvmVcpu};

impl KvmVcpu for VcpuFd {
    fn set_vcpu_events(&self, bytes: &[u8; VCPU_EVENTS_SIZE]) -> Result<(), Errno> {
        VcpuFd::set_vcpu_events(self, &from_bytes(bytes)).map_err(Errno::from)
    }

    fn get_vcpu_events(&self) -> Result<[u8; VCPU_EVENTS_SIZE], Errno> {
        VcpuFd::get_vcpu_events(self).map(|events| to_bytes(&events)).map_err(Errno::from)
    }

    fn get_one_reg(&self, id: u64) -> Result<u64, Errno> {
        let mut value = [0; 8];
        VcpuFd::get_one_reg(self, id, &mut value).map_err(Errno::from)?;
        Ok(u64::from_le_bytes(value))
    }

    fn set_one_reg(&self, id: u64, value: u64) -> Result<(), Errno> {
        VcpuFd::set_one_reg(self, id, &value.to_le_bytes()).map_err(Errno::from)?;
        Ok(())
    }
}

impl From<kvm_ioctls::Error> for Errno {
    fn from(error: kvm_ioctls::Error) -> Self {
        Self(error.errno())
    }
}

/// The kernel's structure for these bytes; an extended layout has its fields in `pad` and `reserved`.
fn from_bytes(bytes: &[u8; VCPU_EVENTS_SIZE]) -> kvm_vcpu_events {
    let [serror_pending, serror_has_esr, ext_dabt_pending, rest @ ..] = *bytes;
    let mut rest = rest.into_iter();
    let mut next = || rest.next().unwrap_or(0);
    let exception = Exception {
        serror_pending,
        serror_has_esr,
        ext_dabt_pending,
        pad: core::array::from_fn(|_| next()),
        serror_esr: u64::from_ne_bytes(core::array::from_fn(|_| next())),
    };
    let reserved = core::array::from_fn(|_| u32::from_ne_bytes(core::array::from_fn(|_| next())));
    kvm_vcpu_events { exception, reserved }
}

fn to_bytes(events: &kvm_vcpu_events) -> [u8; VCPU_EVENTS_SIZE] {
    let Exception { serror_pending, serror_has_esr, ext_dabt_pending, pad, serror_esr } = events.exception;
    let first = [serror_pending, serror_has_esr, ext_dabt_pending].into_iter().chain(pad);
    let reserved = events.reserved.iter().flat_map(|word| word.to_ne_bytes());
    let mut all = first.chain(serror_esr.to_ne_bytes()).chain(reserved);
    core::array::from_fn(|_| all.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_goes_to_the_kernel_and_comes_back() {
        let bytes: [u8; VCPU_EVENTS_SIZE] = core::array::from_fn(|n| n as u8 + 1);
        let events = from_bytes(&bytes);
        assert_eq!(
            (events.exception.ext_dabt_pending, events.exception.serror_esr),
            (3, 0x100f_0e0d_0c0b_0a09)
        );
        assert_eq!(events.reserved[11], 0x403f_3e3d);
        assert_eq!(to_bytes(&events), bytes);
    }
}
