//! The demo guest on QEMU's software CPU, an independent implementation of the architecture.
//!
//! QEMU cannot poison memory, but a load from, fetch from or walk through an empty physical address is an
//! external abort there, taken directly to EL1.

mod host;

use seawall_guest::{
    Access, Checksum, Counters, DemoOptions, Hole, HoleUnder, KernelEnd, Report, TaskState, bench, demo_with,
    interrupts,
};
use seawall_machine::Config;
use seawall_vmm::kernel::Kernel;
use seawall_vmm::{Config as VmmConfig, End, Guest, Observer, SoftwareMachine};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

/// An empty address beyond the 128 MiB of RAM that QEMU's `virt` has by default.
const HOLE: u64 = 0x9000_0000;

/// Runs an image; returns its console, or `None` if QEMU is not installed.
fn qemu(name: &str, bytes: &[u8]) -> Option<String> {
    qemu_with(name, bytes, &["-M", "virt", "-cpu", "max"])
}

/// The same on another machine.
fn qemu_with(name: &str, bytes: &[u8], machine: &[&str]) -> Option<String> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    if Command::new("qemu-system-aarch64").arg("--version").stdout(Stdio::null()).status().is_err() {
        println!("skipped {name}: qemu-system-aarch64 is not installed");
        return None;
    }
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("seawall-guest-{}-{count}.bin", std::process::id()));
    std::fs::write(&path, bytes).expect("the temporary directory can be written");
    let output = Command::new("timeout")
        .args(["20", "qemu-system-aarch64"])
        .args(machine)
        .args(["-nic", "none", "-display", "none", "-monitor", "none", "-serial", "stdio", "-kernel"])
        .arg(&path)
        .stdin(Stdio::null())
        .output()
        .expect("QEMU can be started");
    std::fs::remove_file(&path).expect("the image was there");
    let console = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "SYSTEM_OFF must end QEMU with 0: {output:?}");
    Some(console)
}

/// Runs the demo guest with a hole under a piece of it.
fn demo_on_qemu(name: &str, under: Option<HoleUnder>) -> Option<Report> {
    let hole = under.map(|under| Hole { pa: HOLE, under });
    let console = qemu(name, &demo_with(&DemoOptions { rounds: 8, hole }).bytes)?;
    print!("{console}");
    Some(Report::parse(&console).expect("the guest reports"))
}

/// Checks that every task but `victim` ran all 8 rounds with correct results.
fn assert_all_well_but(report: &Report, victim: Option<&str>) {
    assert_eq!(report.kernel, KernelEnd::Ok);
    assert_eq!(
        report.tasks.iter().map(|task| task.name.as_str()).collect::<Vec<_>>(),
        ["web", "db", "batch", "log"]
    );
    for task in &report.tasks {
        if Some(task.name.as_str()) == victim {
            assert_eq!((task.state, task.rounds, task.checksum), (TaskState::Killed, 0, Checksum::None));
        } else {
            assert_eq!((task.state, task.rounds, task.checksum), (TaskState::Alive, 8, Checksum::Ok));
        }
    }
}

#[test]
fn demo_guest_runs_four_tasks_to_the_end() {
    let Some(report) = demo_on_qemu("demo_guest_runs_four_tasks_to_the_end", None) else { return };
    assert_all_well_but(&report, None);
    assert!(report.ready);
    assert_eq!(report.counters, Some(Counters { retired: 0, recovered: 0, killed: 0, seas: 0, serrors: 0 }));
}

#[test]
fn fetch_abort_in_text_loses_nothing() {
    let Some(report) = demo_on_qemu("fetch_abort_in_text_loses_nothing", Some(HoleUnder::Text(1))) else {
        return;
    };
    assert_all_well_but(&report, None);
    assert_eq!(report.counters, Some(Counters { retired: 1, recovered: 1, killed: 0, seas: 1, serrors: 0 }));
    let [sea] = report.seas.as_slice() else { panic!("one abort: {:?}", report.seas) };
    assert_eq!((sea.task, sea.access, sea.esr, sea.far), (1, Access::Fetch, 0x8200_0010, Some(0x40_1040)));
    assert_eq!((sea.retired, sea.clean), (Some(HOLE), Some(0x400b_8000)));
}

#[test]
fn load_from_a_hole_kills_only_that_task() {
    let Some(report) = demo_on_qemu("load_from_a_hole_kills_only_that_task", Some(HoleUnder::Data(2))) else {
        return;
    };
    assert_all_well_but(&report, Some("db"));
    assert_eq!(report.counters, Some(Counters { retired: 1, recovered: 0, killed: 1, seas: 1, serrors: 0 }));
    let [sea] = report.seas.as_slice() else { panic!("one abort: {:?}", report.seas) };
    assert_eq!((sea.task, sea.access, sea.esr, sea.far), (2, Access::Load, 0x9200_0010, Some(0x41_0000)));
    assert_eq!((sea.retired, sea.clean), (Some(HOLE), None));
}

#[test]
fn store_to_a_hole_kills_only_that_task_and_is_told_by_wnr() {
    let name = "store_to_a_hole_kills_only_that_task_and_is_told_by_wnr";
    let Some(report) = demo_on_qemu(name, Some(HoleUnder::Data(4))) else { return };
    assert_all_well_but(&report, Some("log"));
    let [sea] = report.seas.as_slice() else { panic!("one abort: {:?}", report.seas) };
    assert_eq!((sea.task, sea.access, sea.esr, sea.far), (4, Access::Store, 0x9200_0050, Some(0x41_0000)));
}

#[test]
fn abort_on_a_table_walk_kills_the_task_and_retires_nothing() {
    let name = "abort_on_a_table_walk_kills_the_task_and_retires_nothing";
    let Some(report) = demo_on_qemu(name, Some(HoleUnder::Tables(3))) else { return };
    assert_all_well_but(&report, Some("batch"));
    assert_eq!(report.counters, Some(Counters { retired: 0, recovered: 0, killed: 1, seas: 1, serrors: 0 }));
    let [sea] = report.seas.as_slice() else { panic!("one abort: {:?}", report.seas) };
    assert_eq!((sea.task, sea.access, sea.esr, sea.retired), (3, Access::Fetch, 0x8200_0017, None));
}

#[test]
fn abort_in_the_kernel_panics_and_ends_even_if_the_panic_aborts_too() {
    let name = "abort_in_the_kernel_panics_and_ends_even_if_the_panic_aborts_too";
    let Some(report) = demo_on_qemu(name, Some(HoleUnder::KernelData)) else { return };
    assert_eq!(report.kernel, KernelEnd::Panic);
    assert_eq!(report.counters, None);
    let [first, second] = report.panics.as_slice() else { panic!("two panics: {:?}", report.panics) };
    assert_eq!(
        (first.reason.as_str(), first.vector, first.esr),
        ("external abort in the kernel", 0x200, 0x9600_0010)
    );
    assert_eq!(
        (second.reason.as_str(), second.vector, second.esr),
        ("again while panicking", 0x200, 0x9600_0010)
    );
}

#[test]
fn bench_loops_run_to_their_end_with_the_result_that_qemu_has() {
    let name = "bench_loops_run_to_their_end_with_the_result_that_qemu_has";
    let Some(alu) = qemu(name, &bench::alu_loop(1000).bytes) else { return };
    assert_eq!(alu, "bench: alu_loop iterations=1000 result=0x19f429913fe9160a\n");
    let load_store = qemu(name, &bench::load_store_loop(1000).bytes);
    assert_eq!(
        load_store.as_deref(),
        Some("bench: load_store_loop iterations=1000 result=0x1652dfdf16bb02a9\n")
    );
    let sea = qemu(name, &bench::sea_loop(1000, HOLE).bytes);
    assert_eq!(sea.as_deref(), Some("bench: sea_loop iterations=1000 seas=1000 esr=0x96000010\n"));
}

#[test]
fn demo_guest_says_the_same_on_qemu_and_on_our_machine_to_the_byte() {
    let name = "demo_guest_says_the_same_on_qemu_and_on_our_machine_to_the_byte";
    let holes = [HoleUnder::Text(2), HoleUnder::Data(2), HoleUnder::Tables(4), HoleUnder::KernelData];
    for under in holes.into_iter().map(Some).chain([None]) {
        let hole = under.map(|under| Hole { pa: HOLE, under });
        let image = demo_with(&DemoOptions { rounds: 8, hole });
        let Some(qemu) = qemu(name, &image.bytes) else { return };
        let ours = host::run(&image, Config::default(), |_| {}, |_, _| panic!("no poison, no SEA"));
        assert_eq!(ours.console, qemu, "{under:?}");
        assert!(ours.exits.is_empty());
    }
}

#[test]
fn interrupts_timers_and_a_second_cpu_are_the_same_on_qemu_and_on_our_machine() {
    let name = "interrupts_timers_and_a_second_cpu_are_the_same_on_qemu_and_on_our_machine";
    let image = interrupts();
    let ours = interrupts_console();
    assert!(ours.ends_with("done\n"), "{ours}");
    // Five bits of priority, as this CPU has, not the eight of `max`.
    let machine = ["-M", "virt,gic-version=3", "-cpu", "neoverse-n1", "-smp", "2"];
    let Some(qemu) = qemu_with(name, &image.bytes, &machine) else { return };
    assert_eq!(ours, qemu);
}

#[test]
fn a_run_of_two_cpus_is_the_same_however_it_is_cut() {
    let whole = interrupts_run(None);
    for slice in [1, 7, 1000, 12_345] {
        assert_eq!(interrupts_run(Some(slice)), whole, "{slice} steps at a time");
    }
}

fn interrupts_console() -> String {
    interrupts_run(None).0
}

/// The console, and the steps and the machine's time of the run.
fn interrupts_run(slice: Option<u64>) -> (String, u64, u64) {
    let mut config = VmmConfig::new(128 << 20);
    config.cpus = 2;
    let kernel = Kernel::Flat(interrupts().bytes);
    let guest = Guest { kernel, address: None, initrd: None, command_line: String::new() };
    let console = Console::default();
    let mut machine = SoftwareMachine::new(config, &guest, Box::new(console.clone())).expect("fits");
    loop {
        match machine.run(Some(slice.unwrap_or(10_000_000))).expect("no host error") {
            None => assert!(slice.is_some() && machine.instructions() < 10_000_000),
            Some(End::PowerOff) => break,
            Some(end) => panic!("{end}"),
        }
    }
    let bytes = std::mem::take(&mut *console.0.lock().expect("no panic"));
    (String::from_utf8(bytes).expect("ASCII"), machine.instructions(), machine.time())
}

/// The guest's output.
#[derive(Clone, Default)]
struct Console(Arc<Mutex<Vec<u8>>>);

impl Observer for Console {
    fn console(&mut self, bytes: &[u8]) {
        self.0.lock().expect("no panic").extend(bytes);
    }
}
