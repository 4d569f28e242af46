//! Linux on the board. `SEAWALL_LINUX` names an arm64 `Image`, Debian's `vmlinuz` for example; without it nothing is
//! done here. Run it with `--release`: a boot is 0.8 billion instructions.

mod initramfs;

use seawall_events::{Exit, SeaExit, SystemEvent, Vcpu as _, VcpuEvents};
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

/// A board with the kernel loaded; `None` without one.
fn board(test: &str, cpus: usize) -> Option<Board> {
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
    Some(board)
}

/// Boots the kernel, to its power-off; `None` without one.
fn boot(test: &str, cpus: usize) -> Option<Boot> {
    let mut board = board(test, cpus)?;
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

/// Boots on four CPUs and poisons the line of process 2's stack that it loads from. Each SEA exit is answered with what
/// `events` makes of it. Gives how it ended, the console, and the SEA exits.
fn boot_with_poison(
    test: &str,
    events: impl Fn(&SeaExit) -> VcpuEvents,
) -> Option<(Exit, String, Vec<SeaExit>)> {
    let mut board = board(test, 4)?;
    let (mut console, mut seas, mut poisoned) = (String::new(), Vec::new(), false);
    loop {
        assert!(board.instructions() < BUDGET, "{console}");
        board.set_budget(Some(500_000));
        let exit = board.run().expect("no host error");
        console.push_str(&String::from_utf8_lossy(&board.take_console()));
        match exit {
            Exit::Intr if !poisoned && console.contains("Run /init") => {
                if let Some(pa) = find(&board, initramfs::MARK | 2) {
                    board.vm_mut().poison(pa..pa + 8).expect("in RAM");
                    poisoned = true;
                }
            }
            Exit::Intr => {}
            Exit::Sea(sea) => {
                seas.push(sea);
                assert!(seas.len() < 10, "a storm: {seas:x?}");
                board.vcpu().expect("the CPU").set_events(&events(&sea)).expect("accepted");
            }
            end => {
                print!("{console}");
                return Some((end, console, seas));
            }
        }
    }
}

/// Physical address of a doubleword in RAM.
fn find(board: &Board, value: u64) -> Option<u64> {
    let memory = board.vm().memory();
    let at = memory.ram().chunks_exact(8).position(|bytes| bytes == value.to_le_bytes())?;
    Some(memory.base() + 8 * at as u64)
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

#[test]
fn a_process_whose_stack_goes_bad_is_killed_and_nothing_else_is_lost() {
    let name = "a_process_whose_stack_goes_bad_is_killed_and_nothing_else_is_lost";
    // As it happened: the ISS is replayed.
    let replay = |sea: &SeaExit| VcpuEvents {
        ext_dabt_pending: true,
        ext_abt_has_esr: true,
        ext_abt_esr: sea.esr.bits() & 0x1ff_ffff,
        ..VcpuEvents::default()
    };
    let Some((end, console, seas)) = boot_with_poison(name, replay) else { return };
    let [sea] = seas.as_slice() else { panic!("one SEA: {seas:x?}") };
    assert_eq!(sea.esr.bits(), 0x9200_0210, "a load");
    assert_eq!(end, Exit::SystemEvent(SystemEvent::Shutdown));
    assert!(console.contains("3 of 4 processes are right"));
    assert_eq!(console.matches(": a process is done").count(), 3);
    for trouble in ["WARNING:", "BUG:", "Oops", "panic", "Internal error"] {
        assert!(!console.replace("panic=-1", "").contains(trouble), "{trouble}");
    }
}

#[test]
fn with_an_serror_the_whole_guest_panics() {
    let name = "with_an_serror_the_whole_guest_panics";
    let serror = |_: &SeaExit| VcpuEvents { serror_pending: true, ..VcpuEvents::default() };
    let Some((end, console, _)) = boot_with_poison(name, serror) else { return };
    assert_eq!(end, Exit::SystemEvent(SystemEvent::Reset));
    assert!(console.contains("Kernel panic - not syncing: Asynchronous SError Interrupt"));
    assert!(!console.contains("processes are right"));
}
