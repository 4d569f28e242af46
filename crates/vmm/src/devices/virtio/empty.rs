//! A transport without a device behind it: a driver finds device id 0 and leaves it alone (virtio 1.2, 4.2.3.1).

use vm_device::MutDeviceMmio;
use vm_device::bus::{MmioAddress, MmioAddressOffset};

use super::mmio::{MAGIC, MAGIC_VALUE, VENDOR, VENDOR_ID, VERSION, VERSION_2};

/// A transport without a device. All registers but those that say what it is read as zero, and writes change nothing.
#[derive(Clone, Copy, Debug)]
pub struct Empty;

impl MutDeviceMmio for Empty {
    fn mmio_read(&mut self, _base: MmioAddress, offset: MmioAddressOffset, data: &mut [u8]) {
        let value = match offset & !3 {
            MAGIC_VALUE => MAGIC,
            VERSION => VERSION_2,
            VENDOR_ID => VENDOR,
            // DeviceID among them.
            _ => 0,
        };
        data.fill(0);
        data.iter_mut().zip(value.to_le_bytes()).for_each(|(to, from)| *to = from);
    }

    fn mmio_write(&mut self, _base: MmioAddress, _offset: MmioAddressOffset, _data: &[u8]) {}
}
