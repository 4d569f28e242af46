//! Linux on the board. `SEAWALL_LINUX` names an arm64 `Image`, Debian's `vmlinuz` for example; without it nothing is
//! done here. Run it with `--release`: a boot is 0.8 billion instructions.

mod initramfs;

use seawall_events::{Exit, SystemEvent};
use seawall_machine::Config;
use seawall_machine::board::{Board, Guest};

/// Instructions, about three times what a boot takes.
const BUDGET: u64 = 3_000_000_000;

/// What came of a boot.
#[derive(Debug, PartialEq, Eq)]
struct Boot {
    console: String,
    /// Steps that each CPU did.
    steps: Vec<u64>,
    /// The machine's time.
    time: u64,
}

/// Boots the kernel, to its power-off; `None` without one.
fn boot(test: &str, cpus: usize) -> Option<Boot> {
    let Some(path) = std::env::var_os("SEAWALL_LINUX") else {
        eprintln!("skipped: {test}: SEAWALL_LINUX names no kernel");
        return None;
    };
    let image = std::fs::read(&path).expect("SEAWALL_LINUX names a file");
    let config = Config { cpus, memory_size: 512 << 20, ..Config::default() };
    let mut board = Board::new(config).expect("512 MiB");
    let initrd = initramfs::archive();
    let bootargs = Some("console=ttyAMA0 panic=-1");
    board.start(&Guest { image: &image, address: None, bootargs, initrd: Some(&initrd) }).expect("fits");
    board.set_budget(Some(BUDGET));
    let end = board.run();
    let console = String::from_utf8_lossy(&board.take_console()).into_owned();
    print!("{console}");
    assert_eq!(end, Ok(Exit::SystemEvent(SystemEvent::Shutdown)), "{cpus} CPUs");
    let undefined: Vec<u32> = board.vm().undefined().last().collect();
    assert_eq!(undefined, [], "UNDEFINED words, in hex {undefined:x?}");
    let vm = board.vm_mut();
    let steps = (0..cpus).map(|cpu| vm.vcpu(cpu).expect("a CPU").instructions()).collect();
    Some(Boot { console, steps, time: vm.time() })
}

/// The lines of `/init`: which CPUs its four processes ended on, in order, and its report.
fn check_init(console: &str, cpus: usize) {
    assert!(console.contains("Run /init as init process"));
    let mut places: Vec<usize> = console
        .lines()
        .filter_map(|line| line.trim_end().strip_suffix(": a process is done"))
        .map(|cpu| cpu.parse().expect("a number"))
        .collect();
    places.sort_unstable();
    let expected: Vec<usize> = (0..4).map(|process| process % cpus).collect();
    assert_eq!(places.len(), 4, "{places:?}");
    assert!(cpus == 1 || places != [places[0]; 4], "all on one CPU");
    assert!(cpus > 1 || places == expected, "{places:?}");
    assert!(console.contains("4 of 4 processes are right"));
    assert!(console.contains("reboot: Power down"));
    for trouble in ["WARNING:", "BUG:", "Oops", "stall", "lockup", "Internal error", "unexpected"] {
        assert!(!console.contains(trouble), "{trouble}");
    }
}

#[test]
fn linux_boots_on_one_cpu_runs_its_processes_and_powers_off() {
    let name = "linux_boots_on_one_cpu_runs_its_processes_and_powers_off";
    let Some(boot) = boot(name, 1) else { return };
    check_init(&boot.console, 1);
}

#[test]
fn linux_boots_on_four_cpus_and_twice_the_same_to_the_step() {
    let name = "linux_boots_on_four_cpus_and_twice_the_same_to_the_step";
    let Some(first) = boot(name, 4) else { return };
    check_init(&first.console, 4);
    assert!(first.console.contains("smp: Brought up 1 node, 4 CPUs"));
    assert_eq!(boot(name, 4), Some(first));
}
