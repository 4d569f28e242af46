//! The flattened device tree that tells a guest what the machine has: the nodes of QEMU's `virt`
//! that this machine has too, with QEMU's names, addresses and properties.

use std::ops::Range;

use vm_fdt::{FdtReserveEntry, FdtWriter};

use crate::gic;
use crate::pmu;
use crate::timer;
use crate::uart;

/// What the tree says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Platform {
    /// Physical addresses of RAM.
    pub memory: Range<u64>,
    /// vCPUs, at least 1.
    pub cpus: u32,
    /// The kernel command line: /chosen/bootargs.
    pub bootargs: Option<String>,
    /// Physical addresses of an initial RAM disk: /chosen/linux,initrd-start and -end.
    pub initrd: Option<Range<u64>>,
}

/// The writer could not hold what the platform says.
#[derive(Debug, thiserror::Error)]
#[error("the device tree cannot be written: {0}")]
pub struct FdtError(#[from] vm_fdt::Error);

/// phandle of the fixed 24 MHz clock, as on QEMU's `virt`.
const CLOCK_PHANDLE: u32 = 0x8000;
/// phandle of the interrupt controller.
const GIC_PHANDLE: u32 = 0x8001;
/// First cell of an interrupt: SPI or PPI. The number that follows is the INTID less 32 or 16.
const SPI: u32 = 0;
const PPI: u32 = 1;
/// Third cell: level-sensitive, active high.
const LEVEL_HIGH: u32 = 4;
/// Name of the UART's node.
const UART_NODE: &str = "pl011@9000000";

/// The tree as a flattened blob (Devicetree specification 0.3, version 17), at most a few KiB.
///
/// # Errors
/// [`FdtError`] if a string holds a NUL.
pub fn flatten(platform: &Platform) -> Result<Vec<u8>, FdtError> {
    let no_reservations: [FdtReserveEntry; 0] = [];
    let mut fdt = FdtWriter::new_with_mem_reserv(&no_reservations)?;
    let root = fdt.begin_node("")?;
    fdt.property_string("compatible", "linux,dummy-virt")?;
    fdt.property_string("model", "linux,dummy-virt")?;
    fdt.property_u32("#address-cells", 2)?;
    fdt.property_u32("#size-cells", 2)?;
    fdt.property_u32("interrupt-parent", GIC_PHANDLE)?;
    memory(&mut fdt, &platform.memory)?;
    cpus(&mut fdt, platform.cpus)?;
    psci(&mut fdt)?;
    interrupt_controller(&mut fdt)?;
    timers(&mut fdt)?;
    pmu(&mut fdt)?;
    clock(&mut fdt)?;
    uart(&mut fdt)?;
    chosen(&mut fdt, platform)?;
    fdt.end_node(root)?;
    Ok(fdt.finish()?)
}

fn memory(fdt: &mut FdtWriter, range: &Range<u64>) -> Result<(), vm_fdt::Error> {
    let node = fdt.begin_node(&format!("memory@{:x}", range.start))?;
    fdt.property_string("device_type", "memory")?;
    fdt.property_array_u64("reg", &[range.start, range.end.saturating_sub(range.start)])?;
    fdt.end_node(node)
}

fn cpus(fdt: &mut FdtWriter, count: u32) -> Result<(), vm_fdt::Error> {
    let node = fdt.begin_node("cpus")?;
    fdt.property_u32("#address-cells", 1)?;
    fdt.property_u32("#size-cells", 0)?;
    for number in 0..count {
        let affinity = gic::affinity(number as usize);
        let cpu = fdt.begin_node(&format!("cpu@{affinity:x}"))?;
        fdt.property_string("device_type", "cpu")?;
        fdt.property_string("compatible", "arm,armv8")?;
        fdt.property_string("enable-method", "psci")?;
        fdt.property_u32("reg", affinity)?;
        fdt.end_node(cpu)?;
    }
    fdt.end_node(node)
}

fn psci(fdt: &mut FdtWriter) -> Result<(), vm_fdt::Error> {
    let node = fdt.begin_node("psci")?;
    strings(fdt, "compatible", &["arm,psci-1.0", "arm,psci-0.2", "arm,psci"])?;
    fdt.property_string("method", "hvc")?;
    fdt.property_u32("cpu_suspend", 0xc400_0001)?;
    fdt.property_u32("cpu_off", 0x8400_0002)?;
    fdt.property_u32("cpu_on", 0xc400_0003)?;
    fdt.property_u32("migrate", 0xc400_0005)?;
    fdt.end_node(node)
}

fn interrupt_controller(fdt: &mut FdtWriter) -> Result<(), vm_fdt::Error> {
    let node = fdt.begin_node(&format!("intc@{:x}", gic::DISTRIBUTOR.start))?;
    fdt.property_string("compatible", "arm,gic-v3")?;
    fdt.property_u32("#interrupt-cells", 3)?;
    fdt.property_null("interrupt-controller")?;
    let frames = [gic::DISTRIBUTOR, gic::REDISTRIBUTORS];
    fdt.property_array_u64("reg", &frames.map(|frame| [frame.start, frame.end - frame.start]).concat())?;
    fdt.property_u32("#redistributor-regions", 1)?;
    fdt.property_u32("#address-cells", 2)?;
    fdt.property_u32("#size-cells", 2)?;
    fdt.property_null("ranges")?;
    fdt.property_phandle(GIC_PHANDLE)?;
    fdt.end_node(node)
}

/// The four interrupts of the binding: secure and non-secure physical, virtual, hypervisor's. Of the
/// first and the last there is no timer: their place is taken, as on QEMU's `virt` without EL2 and EL3.
fn timers(fdt: &mut FdtWriter) -> Result<(), vm_fdt::Error> {
    const SECURE_PPI: u32 = 29;
    const HYPERVISOR_PPI: u32 = 26;
    let node = fdt.begin_node("timer")?;
    strings(fdt, "compatible", &["arm,armv8-timer", "arm,armv7-timer"])?;
    fdt.property_null("always-on")?;
    let intids = [SECURE_PPI, timer::PHYSICAL_PPI, timer::VIRTUAL_PPI, HYPERVISOR_PPI];
    fdt.property_array_u32("interrupts", &intids.map(|intid| [PPI, intid - 16, LEVEL_HIGH]).concat())?;
    fdt.end_node(node)
}

fn pmu(fdt: &mut FdtWriter) -> Result<(), vm_fdt::Error> {
    let node = fdt.begin_node("pmu")?;
    fdt.property_string("compatible", "arm,armv8-pmuv3")?;
    fdt.property_array_u32("interrupts", &[PPI, pmu::PPI - 16, LEVEL_HIGH])?;
    fdt.end_node(node)
}

fn clock(fdt: &mut FdtWriter) -> Result<(), vm_fdt::Error> {
    let node = fdt.begin_node("apb-pclk")?;
    fdt.property_string("compatible", "fixed-clock")?;
    fdt.property_u32("#clock-cells", 0)?;
    fdt.property_u32("clock-frequency", 24_000_000)?;
    fdt.property_string("clock-output-names", "clk24mhz")?;
    fdt.property_phandle(CLOCK_PHANDLE)?;
    fdt.end_node(node)
}

fn uart(fdt: &mut FdtWriter) -> Result<(), vm_fdt::Error> {
    let node = fdt.begin_node(UART_NODE)?;
    strings(fdt, "compatible", &["arm,pl011", "arm,primecell"])?;
    fdt.property_array_u64("reg", &[uart::BASE, uart::SIZE])?;
    fdt.property_array_u32("interrupts", &[SPI, uart::INTID - 32, LEVEL_HIGH])?;
    fdt.property_array_u32("clocks", &[CLOCK_PHANDLE, CLOCK_PHANDLE])?;
    strings(fdt, "clock-names", &["uartclk", "apb_pclk"])?;
    fdt.end_node(node)
}

fn chosen(fdt: &mut FdtWriter, platform: &Platform) -> Result<(), vm_fdt::Error> {
    let node = fdt.begin_node("chosen")?;
    fdt.property_string("stdout-path", &format!("/{UART_NODE}"))?;
    if let Some(bootargs) = &platform.bootargs {
        fdt.property_string("bootargs", bootargs)?;
    }
    if let Some(initrd) = &platform.initrd {
        fdt.property_u64("linux,initrd-start", initrd.start)?;
        fdt.property_u64("linux,initrd-end", initrd.end)?;
    }
    fdt.end_node(node)
}

fn strings(fdt: &mut FdtWriter, name: &str, values: &[&str]) -> Result<(), vm_fdt::Error> {
    fdt.property_string_list(name, values.iter().map(ToString::to_string).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tree as text, read back by the format's rules (Devicetree specification, chapter 5): one
    /// line a node or property, path first, values as hex bytes or text.
    fn read_back(blob: &[u8]) -> Vec<String> {
        let word = |at: usize| u32::from_be_bytes(blob[at..at + 4].try_into().expect("in the blob")) as usize;
        let text = |at: usize| {
            let end = at + blob[at..].iter().position(|byte| *byte == 0).expect("terminated");
            std::str::from_utf8(&blob[at..end]).expect("ASCII").to_owned()
        };
        assert_eq!((word(0), word(4)), (0xd00d_feed, blob.len()));
        let (mut at, strings, mut path, mut lines) = (word(8), word(12), Vec::new(), Vec::new());
        loop {
            let token = word(at);
            at += 4;
            match token {
                1 => {
                    path.push(text(at));
                    at = (at + path.last().expect("pushed").len() + 1).next_multiple_of(4);
                    lines.push(format!("{}/", path.join("/")));
                }
                2 => {
                    path.pop();
                }
                3 => {
                    let (length, name) = (word(at), text(strings + word(at + 4)));
                    let value = &blob[at + 8..at + 8 + length];
                    at = (at + 8 + length).next_multiple_of(4);
                    lines.push(format!("{}/{name} = {}", path.join("/"), value.escape_ascii()));
                }
                9 => return lines,
                other => panic!("token {other}"),
            }
        }
    }

    fn lines(platform: &Platform) -> Vec<String> {
        read_back(&flatten(platform).expect("a tree"))
    }

    fn platform() -> Platform {
        Platform { memory: 0x4000_0000..0x4800_0000, cpus: 1, bootargs: None, initrd: None }
    }

    #[test]
    fn the_tree_has_the_nodes_of_qemus_virt_that_the_machine_has() {
        let lines = lines(&platform());
        for expected in [
            "/",
            r"/compatible = linux,dummy-virt\x00",
            r"/#address-cells = \x00\x00\x00\x02",
            r"/memory@40000000/device_type = memory\x00",
            r"/memory@40000000/reg = \x00\x00\x00\x00@\x00\x00\x00\x00\x00\x00\x00\x08\x00\x00\x00",
            r"/cpus/#address-cells = \x00\x00\x00\x01",
            r"/cpus/#size-cells = \x00\x00\x00\x00",
            r"/cpus/cpu@0/device_type = cpu\x00",
            r"/cpus/cpu@0/enable-method = psci\x00",
            r"/cpus/cpu@0/reg = \x00\x00\x00\x00",
            r"/psci/compatible = arm,psci-1.0\x00arm,psci-0.2\x00arm,psci\x00",
            r"/psci/method = hvc\x00",
            r"/interrupt-parent = \x00\x00\x80\x01",
            r"/intc@8000000/compatible = arm,gic-v3\x00",
            r"/intc@8000000/#interrupt-cells = \x00\x00\x00\x03",
            r"/intc@8000000/interrupt-controller = ",
            r"/intc@8000000/reg = \x00\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x08\n\x00\x00\x00\x00\x00\x00\x00\xf6\x00\x00",
            r"/intc@8000000/phandle = \x00\x00\x80\x01",
            r"/timer/compatible = arm,armv8-timer\x00arm,armv7-timer\x00",
            r"/timer/interrupts = \x00\x00\x00\x01\x00\x00\x00\r\x00\x00\x00\x04\x00\x00\x00\x01\x00\x00\x00\x0e\x00\x00\x00\x04\x00\x00\x00\x01\x00\x00\x00\x0b\x00\x00\x00\x04\x00\x00\x00\x01\x00\x00\x00\n\x00\x00\x00\x04",
            r"/pl011@9000000/interrupts = \x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x04",
            r"/pmu/compatible = arm,armv8-pmuv3\x00",
            r"/pmu/interrupts = \x00\x00\x00\x01\x00\x00\x00\x07\x00\x00\x00\x04",
            r"/apb-pclk/clock-frequency = \x01n6\x00",
            r"/apb-pclk/phandle = \x00\x00\x80\x00",
            r"/pl011@9000000/compatible = arm,pl011\x00arm,primecell\x00",
            r"/pl011@9000000/reg = \x00\x00\x00\x00\t\x00\x00\x00\x00\x00\x00\x00\x00\x00\x10\x00",
            r"/pl011@9000000/clocks = \x00\x00\x80\x00\x00\x00\x80\x00",
            r"/pl011@9000000/clock-names = uartclk\x00apb_pclk\x00",
            r"/chosen/stdout-path = /pl011@9000000\x00",
        ] {
            assert!(lines.iter().any(|line| line == expected), "{expected} in {lines:#?}");
        }
        assert!(
            !lines
                .iter()
                .any(|line| line.contains("bootargs") || line.contains("initrd") || line.contains("cpu@1"))
        );
    }

    #[test]
    fn chosen_tells_the_command_line_and_the_initrd() {
        let lines = lines(&Platform {
            bootargs: Some("console=ttyAMA0".to_owned()),
            initrd: Some(0x4800_0000..0x4800_1234),
            cpus: 17,
            ..platform()
        });
        for expected in [
            r"/chosen/bootargs = console=ttyAMA0\x00",
            r"/chosen/linux,initrd-start = \x00\x00\x00\x00H\x00\x00\x00",
            r"/chosen/linux,initrd-end = \x00\x00\x00\x00H\x00\x124",
            r"/cpus/cpu@1/reg = \x00\x00\x00\x01",
            r"/cpus/cpu@100/reg = \x00\x00\x01\x00",
        ] {
            assert!(lines.iter().any(|line| line == expected), "{expected} in {lines:#?}");
        }
    }

    #[test]
    fn a_command_line_with_a_nul_is_an_error() {
        let error = flatten(&Platform { bootargs: Some("a\0b".to_owned()), ..platform() }).expect_err("NUL");
        assert!(error.to_string().starts_with("the device tree cannot be written: "), "{error}");
    }
}
