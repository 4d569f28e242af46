//! The PL031 real-time clock, of `vm-superio`, on the bus. It shows the host's time and has no alarm.

use vm_device::MutDeviceMmio;
use vm_device::bus::{MmioAddress, MmioAddressOffset};
use vm_superio::Rtc;
use vm_superio::rtc_pl031::NoEvents;

/// The clock.
#[derive(Debug)]
pub struct Pl031(Rtc<NoEvents>);

impl Default for Pl031 {
    fn default() -> Self {
        Self(Rtc::new())
    }
}

/// Registers are 32 bits wide; a narrower access is one to their low bytes.
impl MutDeviceMmio for Pl031 {
    fn mmio_read(&mut self, _base: MmioAddress, offset: MmioAddressOffset, data: &mut [u8]) {
        let mut value = [0; 4];
        self.0.read(offset as u16 & !3, &mut value);
        data.fill(0);
        data.iter_mut().zip(value).for_each(|(to, from)| *to = from);
    }

    fn mmio_write(&mut self, _base: MmioAddress, offset: MmioAddressOffset, data: &[u8]) {
        let mut value = [0; 4];
        value.iter_mut().zip(data).for_each(|(to, from)| *to = *from);
        self.0.write(offset as u16 & !3, &value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Arm DDI 0224, 3.4.2: PrimeCell identification 0xb105f00d.
    #[test]
    fn it_identifies_as_a_primecell_and_shows_the_time() {
        let mut clock = Pl031::default();
        let mut word = |offset| {
            let mut data = [0xff; 4];
            clock.mmio_read(MmioAddress(0), offset, &mut data);
            u32::from_le_bytes(data)
        };
        assert_eq!([0xff0, 0xff4, 0xff8, 0xffc].map(&mut word), [0x0d, 0xf0, 0x05, 0xb1]);
        // 2023-11-14.
        assert!(word(0) > 1_700_000_000);
    }
}
