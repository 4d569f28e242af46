//! The tree, read back by the format's rules.

use std::sync::LazyLock;

use super::*;

/// One line a node or property, path first, values as text with hex escapes (Devicetree specification, chapter 5).
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

static RAM: LazyLock<Ram> = LazyLock::new(|| Ram::new(0x4000_0000..0x5000_0000));

fn platform() -> Platform<'static> {
    Platform { memory: &RAM, cpus: 1, command_line: "", initrd: None, pmu: false, el2: false }
}

fn lines(platform: &Platform<'_>) -> Vec<String> {
    read_back(&flatten(platform).expect("a tree"))
}

fn assert_has(lines: &[String], expected: &[&str]) {
    for expected in expected {
        assert!(lines.iter().any(|line| line == expected), "{expected} in {lines:#?}");
    }
}

/// Cells by Linux's bindings (arm,gic-v3, arm,arch_timer, arm,pl011); addresses and numbers of QEMU's virt.
#[test]
fn the_tree_names_what_linux_needs_where_qemu_has_it() {
    assert_has(
        &lines(&platform()),
        &[
            r"/memory@40000000/reg = \x00\x00\x00\x00@\x00\x00\x00\x00\x00\x00\x00\x10\x00\x00\x00",
            r"/psci/compatible = arm,psci-1.0\x00arm,psci-0.2\x00arm,psci\x00",
            r"/psci/cpu_on = \xc4\x00\x00\x03",
            r"/psci/method = hvc\x00",
            r"/timer/compatible = arm,armv8-timer\x00arm,armv7-timer\x00",
            r"/timer/interrupts = \x00\x00\x00\x01\x00\x00\x00\r\x00\x00\x00\x04\x00\x00\x00\x01\x00\x00\x00\x0e\x00\x00\x00\x04\x00\x00\x00\x01\x00\x00\x00\x0b\x00\x00\x00\x04\x00\x00\x00\x01\x00\x00\x00\n\x00\x00\x00\x04",
            r"/intc@8000000/compatible = arm,gic-v3\x00",
            r"/intc@8000000/interrupt-controller = ",
            r"/intc@8000000/#interrupt-cells = \x00\x00\x00\x03",
            r"/intc@8000000/reg = \x00\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x08\n\x00\x00\x00\x00\x00\x00\x00\xf6\x00\x00",
            r"/intc@8000000/phandle = \x00\x00\x80\x01",
            r"/interrupt-parent = \x00\x00\x80\x01",
            r"/pl011@9000000/compatible = arm,pl011\x00arm,primecell\x00",
            r"/pl011@9000000/reg = \x00\x00\x00\x00\t\x00\x00\x00\x00\x00\x00\x00\x00\x00\x10\x00",
            r"/pl011@9000000/interrupts = \x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x04",
            r"/pl011@9000000/clock-names = uartclk\x00apb_pclk\x00",
            r"/pl031@9010000/compatible = arm,pl031\x00arm,primecell\x00",
            r"/pl031@9010000/interrupts = \x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x04",
            r"/chosen/stdout-path = /pl011@9000000\x00",
        ],
    );
}

#[test]
fn chosen_has_the_command_line_and_the_initramfs_and_no_randomness() {
    let lines = lines(&Platform {
        command_line: "console=ttyAMA0 quiet",
        initrd: Some(0x4800_0000..0x4800_1234),
        ..platform()
    });
    let chosen: Vec<_> = lines.iter().filter(|line| line.starts_with("/chosen")).collect();
    assert_eq!(
        chosen,
        [
            r"/chosen/stdout-path = /pl011@9000000\x00",
            r"/chosen/bootargs = console=ttyAMA0 quiet\x00",
            r"/chosen/linux,initrd-start = \x00\x00\x00\x00H\x00\x00\x00",
            r"/chosen/linux,initrd-end = \x00\x00\x00\x00H\x00\x124",
        ]
    );
}

/// KVM's MPIDR of vCPU 16 has Aff1 = 1, Aff0 = 0.
#[test]
fn vcpus_are_named_by_their_affinity() {
    let lines = lines(&Platform { cpus: 17, ..platform() });
    assert_has(
        &lines,
        &[
            r"/cpus/cpu@0/reg = \x00\x00\x00\x00",
            r"/cpus/cpu@f/reg = \x00\x00\x00\x0f",
            r"/cpus/cpu@100/reg = \x00\x00\x01\x00",
            r"/cpus/cpu@100/enable-method = psci\x00",
        ],
    );
}

#[test]
fn a_pmu_is_told_of_where_there_is_one() {
    assert_has(
        &lines(&Platform { pmu: true, ..platform() }),
        &[
            r"/pmu/compatible = arm,armv8-pmuv3\x00",
            r"/pmu/interrupts = \x00\x00\x00\x01\x00\x00\x00\x07\x00\x00\x00\x04",
        ],
    );
    assert!(!lines(&platform()).iter().any(|line| line.contains("pmu")));
}

/// As on `virt,virtualization=on`: PSCI by SMC, the timer of EL2 and the list registers' interrupt; the second UART and the
/// lab's register behind the first.
#[test]
fn a_server_is_told_of_what_el2_has() {
    let lines = lines(&Platform { el2: true, ..platform() });
    assert_has(
        &lines,
        &[
            r"/psci/method = smc\x00",
            r"/intc@8000000/interrupts = \x00\x00\x00\x01\x00\x00\x00\t\x00\x00\x00\x04",
            r"/pl011@9040000/interrupts = \x00\x00\x00\x00\x00\x00\x00\x08\x00\x00\x00\x04",
            r"/poison@b000000/compatible = seawall,poison\x00",
        ],
    );
    let timer = lines.iter().find(|line| line.starts_with("/timer/interrupts")).expect("a timer");
    assert!(timer.ends_with(r"\x00\x00\x00\x01\x00\x00\x00\x0c\x00\x00\x00\x04"), "{timer}");
    let at = |name: &str| lines.iter().position(|line| line.starts_with(name));
    assert!(at("/pl011@9000000") < at("/pl011@9040000"));
}

/// As on `virt`, whether there are devices behind them or not.
#[test]
fn each_of_the_32_virtio_transports_has_its_registers_and_its_interrupt() {
    let lines = lines(&platform());
    assert_has(
        &lines,
        &[
            r"/virtio_mmio@a000000/compatible = virtio,mmio\x00",
            r"/virtio_mmio@a000000/interrupts = \x00\x00\x00\x00\x00\x00\x00\x10\x00\x00\x00\x04",
            r"/virtio_mmio@a000200/reg = \x00\x00\x00\x00\n\x00\x02\x00\x00\x00\x00\x00\x00\x00\x02\x00",
            r"/virtio_mmio@a000200/interrupts = \x00\x00\x00\x00\x00\x00\x00\x11\x00\x00\x00\x04",
            r"/virtio_mmio@a003e00/interrupts = \x00\x00\x00\x00\x00\x00\x00/\x00\x00\x00\x04",
        ],
    );
    assert_eq!(lines.iter().filter(|line| line.contains("/compatible = virtio,mmio")).count(), 32);
}

#[test]
fn a_command_line_with_a_nul_is_an_error() {
    let error = flatten(&Platform { command_line: "a\0b", ..platform() }).expect_err("NUL");
    assert!(error.to_string().starts_with("the device tree cannot be written: "), "{error}");
}

/// Devicetree specification, 3.4: pairs of address and size.
#[test]
fn memory_that_could_not_be_healed_is_no_memory() {
    let ram = Ram::without(0x4000_0000..0x5000_0000, Some(0x4800_0000..0x4800_1000));
    let lines = lines(&Platform { memory: &ram, ..platform() });
    let reg = concat!(
        r"/memory@40000000/reg = \x00\x00\x00\x00@\x00\x00\x00\x00\x00\x00\x00\x08\x00\x00\x00",
        r"\x00\x00\x00\x00H\x00\x10\x00\x00\x00\x00\x00\x07\xff\xf0\x00"
    );
    assert_has(&lines, &[reg]);
}

/// Linux, arch/arm/uefi.rst; `dt_is_stub` takes a tree with another node than `/chosen` for the platform's.
#[test]
fn the_stub_has_nothing_but_chosen() {
    let efi = Handover {
        system_table: 0x5ffe_8000,
        mmap_start: 0x5ffe_8090,
        mmap_size: 160,
        mmap_desc_size: 40,
        mmap_desc_ver: 1,
    };
    let platform = Platform { command_line: "quiet", initrd: Some(0x4800_0000..0x4800_1000), ..platform() };
    assert_eq!(
        read_back(&flatten_stub(&platform, &efi).expect("a tree")),
        [
            r"/#address-cells = \x00\x00\x00\x02",
            r"/#size-cells = \x00\x00\x00\x02",
            r"/chosen/bootargs = quiet\x00",
            r"/chosen/linux,initrd-start = \x00\x00\x00\x00H\x00\x00\x00",
            r"/chosen/linux,initrd-end = \x00\x00\x00\x00H\x00\x10\x00",
            r"/chosen/linux,uefi-system-table = \x00\x00\x00\x00_\xfe\x80\x00",
            r"/chosen/linux,uefi-mmap-start = \x00\x00\x00\x00_\xfe\x80\x90",
            r"/chosen/linux,uefi-mmap-size = \x00\x00\x00\xa0",
            r"/chosen/linux,uefi-mmap-desc-size = \x00\x00\x00(",
            r"/chosen/linux,uefi-mmap-desc-ver = \x00\x00\x00\x01",
            r"/chosen/linux,uefi-secure-boot = \x00\x00\x00\x02",
        ]
    );
}

/// Names, addresses, interrupts and cells of every node of ours, as `qemu-system-aarch64` has them; what differs on
/// purpose is named here.
#[test]
fn our_nodes_are_those_of_qemus_virt() {
    let blob = std::env::temp_dir().join(format!("seawall-virt-{}.dtb", std::process::id()));
    let machine = format!("virt,gic-version=3,dumpdtb={}", blob.display());
    let arguments = ["-M", &machine, "-cpu", "cortex-a57", "-smp", "2", "-m", "256", "-nic", "none"];
    let done = std::process::Command::new("qemu-system-aarch64").args(arguments).output();
    let Ok(qemu) = done.and_then(|_| std::fs::read(&blob)) else {
        eprintln!("skipped: our_nodes_are_those_of_qemus_virt: no qemu-system-aarch64");
        return;
    };
    std::fs::remove_file(&blob).unwrap();
    let qemu = read_back(&qemu);
    let ours = lines(&Platform { cpus: 2, pmu: true, ..platform() });
    // QEMU's interrupt controller has another phandle, and its CPU a name. Our virtio devices hold their line until the
    // driver has seen to it, which is a level.
    let differs = |line: &str| {
        line.starts_with("/interrupt-parent = ")
            || line.starts_with("/intc@8000000/phandle = ")
            || line.starts_with("/virtio_mmio@") && line.contains("/interrupts = ")
            || line.starts_with("/cpus/") && line.contains("/compatible = ")
    };
    let missing: Vec<_> = ours.iter().filter(|line| !differs(line) && !qemu.contains(line)).collect();
    assert!(missing.is_empty(), "{missing:#?}");
    assert!(ours.len() > 50, "{}", ours.len());
    for node in [
        "/psci/",
        "/timer/",
        "/pmu/",
        "/apb-pclk/",
        "/pl011@9000000/",
        "/pl031@9010000/",
        "/memory@40000000/",
        "/virtio_mmio@a000000/",
        "/virtio_mmio@a003e00/",
    ] {
        let theirs = |lines: &[String]| lines.iter().filter(|line| line.starts_with(node)).count();
        assert_eq!(theirs(&ours), theirs(&qemu), "{node}");
    }
}
