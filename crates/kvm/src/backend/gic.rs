//! The kernel's own GICv3: a vCPU with a virtual EL2 does not run without one, and it gives devices their
//! interrupt lines.

use std::sync::Arc;

use kvm_bindings::{
    KVM_ARM_IRQ_TYPE_SHIFT, KVM_ARM_IRQ_TYPE_SPI, KVM_DEV_ARM_VGIC_CTRL_INIT, KVM_DEV_ARM_VGIC_GRP_ADDR,
    KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_VGIC_V3_ADDR_TYPE_DIST, KVM_VGIC_V3_ADDR_TYPE_REDIST, kvm_create_device,
    kvm_device_attr, kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_V3,
};
use kvm_ioctls::{DeviceFd, VmFd};

use super::{Error, Vm, failed};

/// INTID of SPI 0.
const FIRST_SPI: u32 = 32;

/// The kernel's interrupt controller of a [`Vm`]. It lives as long as the VM. KVM connects the timers' and
/// the PMU's PPIs to it.
#[derive(Debug)]
pub struct Gic {
    pub(super) fd: DeviceFd,
    vm: Arc<VmFd>,
}

/// The input of a shared peripheral interrupt.
#[derive(Clone, Debug)]
pub struct SpiLine {
    vm: Arc<VmFd>,
    /// `irq` of `struct kvm_irq_level`.
    irq: u32,
}

impl Vm {
    /// Creates and initialises a GICv3 for the existing vCPUs. Call it after their creation and before the
    /// first run; no vCPU may follow. `distributor` (64 KiB) and `redistributors` (128 KiB each vCPU) are
    /// guest physical addresses, aligned to 64 KiB.
    ///
    /// Source: Linux, Documentation/virt/kvm/devices/arm-vgic-v3.rst.
    ///
    /// # Errors
    /// [`Error::Ioctl`]: ENODEV if the host has no GICv3, EEXIST if there is one already.
    pub fn create_gic(&self, distributor: u64, redistributors: u64) -> Result<Gic, Error> {
        let mut device = kvm_create_device {
            type_: kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_V3,
            ..kvm_create_device::default()
        };
        let fd = self.fd.create_device(&mut device).map_err(failed("KVM_CREATE_DEVICE(VGIC_V3)"))?;
        let gic = Gic { fd, vm: self.fd.clone() };
        let address = KVM_DEV_ARM_VGIC_GRP_ADDR;
        gic.set(address, KVM_VGIC_V3_ADDR_TYPE_DIST, Some(distributor))?;
        gic.set(address, KVM_VGIC_V3_ADDR_TYPE_REDIST, Some(redistributors))?;
        gic.set(KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_VGIC_CTRL_INIT, None)?;
        Ok(gic)
    }
}

impl Gic {
    /// The number of shared peripheral interrupts: KVM's default (`KVM_DEV_ARM_VGIC_GRP_NR_IRQS`).
    pub const SPIS: u32 = 256 - FIRST_SPI;

    /// The input of shared peripheral interrupt `spi` (INTID 32 + `spi`), at low level. `None` from
    /// [`Gic::SPIS`] on.
    ///
    /// # Errors
    /// [`Error::Ioctl`].
    pub fn line(&self, spi: u32) -> Option<Result<SpiLine, Error>> {
        if spi >= Self::SPIS {
            return None;
        }
        let irq = KVM_ARM_IRQ_TYPE_SPI << KVM_ARM_IRQ_TYPE_SHIFT | (FIRST_SPI + spi);
        let line = SpiLine { vm: self.vm.clone(), irq };
        Some(line.set_level(false).map(|()| line))
    }

    /// `KVM_SET_DEVICE_ATTR`, with a value if the attribute has one.
    fn set(&self, group: u32, attribute: u32, value: Option<u64>) -> Result<(), Error> {
        let addr = value.as_ref().map_or(0, |value| std::ptr::from_ref(value) as u64);
        let attribute = kvm_device_attr { group, attr: attribute.into(), addr, flags: 0 };
        self.fd.set_device_attr(&attribute).map_err(failed("KVM_SET_DEVICE_ATTR(VGIC_V3)"))
    }
}

impl SpiLine {
    /// `KVM_IRQ_LINE`.
    ///
    /// # Errors
    /// [`Error::Ioctl`]; none for a line that [`Gic::line`] gave.
    pub fn set_level(&self, high: bool) -> Result<(), Error> {
        self.vm.set_irq_line(self.irq, high).map_err(failed("KVM_IRQ_LINE"))
    }
}
