//! Where things are in guest physical memory, and which interrupts they have: as on QEMU's `virt`; the poison register is where the lab's QEMU has it.

use std::ops::Range;

/// The GICv3's distributor.
pub const GIC_DISTRIBUTOR: Range<u64> = 0x0800_0000..0x0801_0000;
/// The GICv3's redistributors, one after the other.
pub const GIC_REDISTRIBUTORS: Range<u64> = 0x080a_0000..0x0900_0000;
/// Bytes of one redistributor.
pub const GIC_REDISTRIBUTOR_SIZE: u64 = 0x2_0000;
/// How many vCPUs have room for their redistributors.
pub const MAX_CPUS: u32 =
    ((GIC_REDISTRIBUTORS.end - GIC_REDISTRIBUTORS.start) / GIC_REDISTRIBUTOR_SIZE) as u32;
/// PL011.
pub const UART: Range<u64> = 0x0900_0000..0x0900_1000;
/// SPI of the UART.
pub const UART_SPI: u32 = 1;
/// PL031.
pub const RTC: Range<u64> = 0x0901_0000..0x0901_1000;
/// SPI of the RTC.
pub const RTC_SPI: u32 = 2;
/// The second PL011, of a server with EL2.
pub const SECOND_UART: Range<u64> = 0x0904_0000..0x0904_1000;
/// SPI of the second UART.
pub const SECOND_UART_SPI: u32 = 8;
/// The register page that turns memory bad, of a server with EL2.
pub const POISON: Range<u64> = 0x0b00_0000..0x0b00_1000;
/// The registers behind the EINJ table, of a server with EL2 and ACPI. Behind the poison register is a hole, which programs
/// in the lab rely on.
pub const EINJ: Range<u64> = 0x0b01_0000..0x0b01_1000;
/// The first virtio-mmio transport.
pub const VIRTIO: u64 = 0x0a00_0000;
/// From one virtio-mmio transport to the next.
pub const VIRTIO_STEP: u64 = 0x200;
/// SPI of the first virtio-mmio transport; the others follow.
pub const VIRTIO_SPI: u32 = 16;
/// How many virtio-mmio transports there are. Those without a device are empty.
pub const VIRTIO_TRANSPORTS: u32 = 32;
/// The SPIs of the devices are below this.
pub const SPIS: u32 = 64;
/// RAM begins here.
pub const RAM: u64 = 0x4000_0000;

/// The registers of virtio-mmio transport `number`.
pub const fn virtio(number: u32) -> Range<u64> {
    let start = VIRTIO + number as u64 * VIRTIO_STEP;
    start..start + VIRTIO_STEP
}

/// The transport that the virtio device added as `number` has: the first has the last, as on QEMU's `virt`.
pub const fn transport(number: u32) -> u32 {
    VIRTIO_TRANSPORTS.saturating_sub(1).saturating_sub(number)
}

/// MPIDR affinity, `Aff2:Aff1:Aff0`, of vCPU `number`, as KVM gives it: 16 to a cluster, as an SGI reaches
/// no more at once.
pub const fn affinity(number: u32) -> u32 {
    number & 0xf | number >> 4 << 8
}
