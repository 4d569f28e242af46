//! The flattened device tree: what the guest is told of its machine, with QEMU's `virt`'s names, addresses
//! and properties. It holds no randomness (`rng-seed`, `kaslr-seed`), so that a guest starts the same each time.

use std::ops::Range;

use seawall::apei::efi::{Handover, Property};
use vm_fdt::{FdtReserveEntry, FdtWriter};

use crate::layout;
use crate::ram::Ram;

/// What the tree says beyond what every guest gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform<'a> {
    /// RAM.
    pub memory: &'a Ram,
    /// vCPUs.
    pub cpus: u32,
    /// The command line: `/chosen/bootargs`.
    pub command_line: &'a str,
    /// The initramfs: `/chosen/linux,initrd-start` and `-end`.
    pub initrd: Option<Range<u64>>,
    /// The CPUs have a PMUv3.
    pub pmu: bool,
    /// The CPUs have EL2: a server, with what such a machine has.
    pub el2: bool,
}

/// The tree cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("the device tree cannot be written: {0}; expected a command line without NUL")]
pub struct FdtError(#[from] vm_fdt::Error);

/// phandles.
const GIC: u32 = 0x8001;
const CLOCK: u32 = 0x8000;
/// First cell of an interrupt (Linux, bindings/interrupt-controller/arm,gic-v3.yaml).
const SPI: u32 = 0;
const PPI: u32 = 1;
/// Third cell.
const LEVEL_HIGH: u32 = 4;
/// PPIs of the secure, physical, virtual and hypervisor timers.
const TIMERS: [u32; 4] = [13, 14, 11, 10];
/// PPI of the hypervisor's virtual timer.
const HYPERVISOR_VIRTUAL_TIMER: u32 = 12;
/// PPI of the list registers' maintenance interrupt.
const MAINTENANCE: u32 = 9;
/// PPI of the PMU.
const PMU: u32 = 7;
/// What "arm,psci" says beside its name (Linux, bindings/arm/psci.yaml).
const PSCI_FUNCTIONS: [(&str, u32); 4] = [
    ("cpu_suspend", 0xc400_0001),
    ("cpu_off", 0x8400_0002),
    ("cpu_on", 0xc400_0003),
    ("migrate", 0xc400_0005),
];
const UART_NODE: &str = "pl011@9000000";

/// The tree as a flattened blob (Devicetree specification 0.4, version 17).
///
/// # Errors
/// [`FdtError`] if the command line holds a NUL.
pub fn flatten(platform: &Platform<'_>) -> Result<Vec<u8>, FdtError> {
    let no_reservations: [FdtReserveEntry; 0] = [];
    let mut fdt = FdtWriter::new_with_mem_reserv(&no_reservations)?;
    let root = fdt.begin_node("")?;
    fdt.property_string("compatible", "linux,dummy-virt")?;
    fdt.property_string("model", "linux,dummy-virt")?;
    fdt.property_u32("#address-cells", 2)?;
    fdt.property_u32("#size-cells", 2)?;
    fdt.property_u32("interrupt-parent", GIC)?;
    chosen(&mut fdt, platform)?;
    memory(&mut fdt, platform.memory)?;
    cpus(&mut fdt, platform.cpus)?;
    psci(&mut fdt, platform.el2)?;
    timer(&mut fdt, platform.el2)?;
    if platform.pmu {
        pmu(&mut fdt)?;
    }
    gic(&mut fdt, platform.el2)?;
    clock(&mut fdt)?;
    primecell(&mut fdt, UART_NODE, "arm,pl011", &layout::UART, layout::UART_SPI, &["uartclk", "apb_pclk"])?;
    primecell(&mut fdt, "pl031@9010000", "arm,pl031", &layout::RTC, layout::RTC_SPI, &["apb_pclk"])?;
    if platform.el2 {
        server(&mut fdt)?;
    }
    for number in 0..layout::VIRTIO_TRANSPORTS {
        virtio(&mut fdt, number)?;
    }
    fdt.end_node(root)?;
    Ok(fdt.finish()?)
}

/// A tree that only says where the rest is: Linux then boots with ACPI (Linux, arch/arm/uefi.rst).
///
/// # Errors
/// [`FdtError`] if the command line holds a NUL.
pub fn flatten_stub(platform: &Platform<'_>, efi: &Handover) -> Result<Vec<u8>, FdtError> {
    let no_reservations: [FdtReserveEntry; 0] = [];
    let mut fdt = FdtWriter::new_with_mem_reserv(&no_reservations)?;
    let root = fdt.begin_node("")?;
    fdt.property_u32("#address-cells", 2)?;
    fdt.property_u32("#size-cells", 2)?;
    let node = fdt.begin_node("chosen")?;
    boot(&mut fdt, platform)?;
    for (name, value) in efi.properties() {
        match value {
            Property::U32(value) => fdt.property_u32(name, value)?,
            Property::U64(value) => fdt.property_u64(name, value)?,
        }
    }
    fdt.end_node(node)?;
    fdt.end_node(root)?;
    Ok(fdt.finish()?)
}

fn chosen(fdt: &mut FdtWriter, platform: &Platform<'_>) -> Result<(), vm_fdt::Error> {
    let node = fdt.begin_node("chosen")?;
    fdt.property_string("stdout-path", &format!("/{UART_NODE}"))?;
    boot(fdt, platform)?;
    fdt.end_node(node)
}

/// Command line and initramfs.
fn boot(fdt: &mut FdtWriter, platform: &Platform<'_>) -> Result<(), vm_fdt::Error> {
    if !platform.command_line.is_empty() {
        fdt.property_string("bootargs", platform.command_line)?;
    }
    if let Some(initrd) = &platform.initrd {
        fdt.property_u64("linux,initrd-start", initrd.start)?;
        fdt.property_u64("linux,initrd-end", initrd.end)?;
    }
    Ok(())
}

fn memory(fdt: &mut FdtWriter, ram: &Ram) -> Result<(), vm_fdt::Error> {
    let node = fdt.begin_node(&format!("memory@{:x}", layout::RAM))?;
    fdt.property_string("device_type", "memory")?;
    let usable = ram.usable();
    let reg: Vec<u64> = usable.iter().flat_map(|part| [part.start, part.end - part.start]).collect();
    fdt.property_array_u64("reg", &reg)?;
    fdt.end_node(node)
}

fn cpus(fdt: &mut FdtWriter, count: u32) -> Result<(), vm_fdt::Error> {
    let node = fdt.begin_node("cpus")?;
    fdt.property_u32("#address-cells", 1)?;
    fdt.property_u32("#size-cells", 0)?;
    for affinity in (0..count).map(layout::affinity) {
        let cpu = fdt.begin_node(&format!("cpu@{affinity:x}"))?;
        fdt.property_string("device_type", "cpu")?;
        fdt.property_string("compatible", "arm,armv8")?;
        fdt.property_string("enable-method", "psci")?;
        fdt.property_u32("reg", affinity)?;
        fdt.end_node(cpu)?;
    }
    fdt.end_node(node)
}

fn psci(fdt: &mut FdtWriter, el2: bool) -> Result<(), vm_fdt::Error> {
    let node = fdt.begin_node("psci")?;
    strings(fdt, "compatible", &["arm,psci-1.0", "arm,psci-0.2", "arm,psci"])?;
    // HVC is the guest's own where it has EL2.
    fdt.property_string("method", if el2 { "smc" } else { "hvc" })?;
    for (name, function) in PSCI_FUNCTIONS {
        fdt.property_u32(name, function)?;
    }
    fdt.end_node(node)
}

fn timer(fdt: &mut FdtWriter, el2: bool) -> Result<(), vm_fdt::Error> {
    let node = fdt.begin_node("timer")?;
    strings(fdt, "compatible", &["arm,armv8-timer", "arm,armv7-timer"])?;
    fdt.property_null("always-on")?;
    let more = el2.then_some(HYPERVISOR_VIRTUAL_TIMER);
    let interrupts: Vec<u32> =
        TIMERS.into_iter().chain(more).flat_map(|ppi| [PPI, ppi, LEVEL_HIGH]).collect();
    fdt.property_array_u32("interrupts", &interrupts)?;
    fdt.end_node(node)
}

fn pmu(fdt: &mut FdtWriter) -> Result<(), vm_fdt::Error> {
    let node = fdt.begin_node("pmu")?;
    fdt.property_string("compatible", "arm,armv8-pmuv3")?;
    fdt.property_array_u32("interrupts", &[PPI, PMU, LEVEL_HIGH])?;
    fdt.end_node(node)
}

fn gic(fdt: &mut FdtWriter, el2: bool) -> Result<(), vm_fdt::Error> {
    let node = fdt.begin_node(&format!("intc@{:x}", layout::GIC_DISTRIBUTOR.start))?;
    fdt.property_string("compatible", "arm,gic-v3")?;
    fdt.property_null("interrupt-controller")?;
    if el2 {
        fdt.property_array_u32("interrupts", &[PPI, MAINTENANCE, LEVEL_HIGH])?;
    }
    fdt.property_u32("#interrupt-cells", 3)?;
    fdt.property_u32("#redistributor-regions", 1)?;
    let frames = [layout::GIC_DISTRIBUTOR, layout::GIC_REDISTRIBUTORS];
    fdt.property_array_u64("reg", &frames.map(|frame| [frame.start, frame.end - frame.start]).concat())?;
    fdt.property_u32("#address-cells", 2)?;
    fdt.property_u32("#size-cells", 2)?;
    fdt.property_null("ranges")?;
    fdt.property_phandle(GIC)?;
    fdt.end_node(node)
}

/// The second UART, which Linux calls `ttyAMA1` as its node is behind the first's, and the poison register.
fn server(fdt: &mut FdtWriter) -> Result<(), vm_fdt::Error> {
    let (uart, spi) = (&layout::SECOND_UART, layout::SECOND_UART_SPI);
    primecell(fdt, "pl011@9040000", "arm,pl011", uart, spi, &["uartclk", "apb_pclk"])?;
    let node = fdt.begin_node("poison@b000000")?;
    fdt.property_string("compatible", "seawall,poison")?;
    fdt.property_array_u64("reg", &[layout::POISON.start, layout::POISON.end - layout::POISON.start])?;
    fdt.end_node(node)
}

fn clock(fdt: &mut FdtWriter) -> Result<(), vm_fdt::Error> {
    let node = fdt.begin_node("apb-pclk")?;
    fdt.property_string("compatible", "fixed-clock")?;
    fdt.property_u32("#clock-cells", 0)?;
    fdt.property_u32("clock-frequency", 24_000_000)?;
    fdt.property_string("clock-output-names", "clk24mhz")?;
    fdt.property_phandle(CLOCK)?;
    fdt.end_node(node)
}

fn primecell(
    fdt: &mut FdtWriter,
    name: &str,
    compatible: &str,
    registers: &Range<u64>,
    spi: u32,
    clocks: &[&str],
) -> Result<(), vm_fdt::Error> {
    let node = fdt.begin_node(name)?;
    strings(fdt, "compatible", &[compatible, "arm,primecell"])?;
    fdt.property_array_u64("reg", &[registers.start, registers.end - registers.start])?;
    fdt.property_array_u32("interrupts", &[SPI, spi, LEVEL_HIGH])?;
    fdt.property_array_u32("clocks", &vec![CLOCK; clocks.len()])?;
    strings(fdt, "clock-names", clocks)?;
    fdt.end_node(node)
}

fn virtio(fdt: &mut FdtWriter, number: u32) -> Result<(), vm_fdt::Error> {
    let registers = layout::virtio(number);
    let node = fdt.begin_node(&format!("virtio_mmio@{:x}", registers.start))?;
    fdt.property_string("compatible", "virtio,mmio")?;
    fdt.property_array_u64("reg", &[registers.start, registers.end - registers.start])?;
    fdt.property_array_u32("interrupts", &[SPI, layout::VIRTIO_SPI + number, LEVEL_HIGH])?;
    fdt.property_null("dma-coherent")?;
    fdt.end_node(node)
}

fn strings(fdt: &mut FdtWriter, name: &str, values: &[&str]) -> Result<(), vm_fdt::Error> {
    fdt.property_string_list(name, values.iter().map(ToString::to_string).collect())
}

#[cfg(test)]
mod tests;
