//! Debian's kernel and user space on the software machine: `cargo xtask ci --only linux`, or
//!
//! ```text
//! cargo test --release -p seawall-linux --test linux -- --ignored
//! ```
//!
//! They are ignored by default, because they need Debian's packages (see `seawall guest fetch debian`) and a
//! boot takes a billion instructions. They know the guest only by its console.

mod flavours;
mod guest;

use std::cell::Cell;

use guest::{Answer, Boot, boot, boot_to, boot_translated, config, end_of, hash_at_end};
use seawall::StopReason;
use seawall_vmm::{Config, End, Snapshot, Translation};

/// The instruction budget, a multiple of the longest run.
const BUDGET: u64 = 12_000_000_000;

/// The kernel's own words about trouble; none of them may appear if nothing or only user memory went bad.
const TROUBLE: [&str; 8] =
    ["WARNING:", "BUG:", "Oops", "stall", "lockup", "Internal error", "Unable to handle", "panic - not"];

fn check_no_trouble(boot: &Boot) {
    for trouble in TROUBLE {
        assert!(!boot.console.contains(trouble), "{trouble}:\n{}", boot.console);
    }
    assert!(boot.has("kernel: no complaint"), "{}", boot.console);
    assert_eq!(boot.end, Some(End::PowerOff), "{}", boot.console);
}

/// Runs the workload and turns these pages bad as soon as all five processes have reported that they work.
fn workload(config: Config, bad: &'static [&'static str], append: &str) -> Boot {
    boot(config, &format!("seawall.rounds=40 {append}"), when_at_work(bad))
}

/// The same with the guest's code run in this way.
fn workload_translated(config: Config, translation: Translation, bad: &'static [&'static str]) -> Boot {
    boot_translated(config, translation, "seawall.rounds=40 ", when_at_work(bad))
}

fn when_at_work(bad: &'static [&'static str]) -> impl Fn(&str) -> Answer {
    let at_work = Cell::new(0);
    move |line| {
        let is_one_more = line.ends_with(": alive 10");
        at_work.set(at_work.get() + u32::from(is_one_more));
        if is_one_more && at_work.get() == 5 { Answer::Poison(bad) } else { Answer::None }
    }
}

/// Checks the workload's report of each of these ends.
fn check_ends(boot: &Boot, ends: [(&str, &str); 5], live: &str) {
    for (name, end) in ends {
        assert!(boot.has(&format!("workload: {name} ended: {end}")), "{name}\n{}", boot.console);
        let last = if end == "all rounds done" { 40 } else { 10 };
        assert!(boot.has(&format!("{name}: alive {last}")), "{name}\n{}", boot.console);
    }
    assert!(boot.has(live), "{}", boot.console);
}

const DONE: &str = "all rounds done";
const SIGBUS: &str = "SIGBUS";

#[test]
#[ignore = "boots Linux: cargo xtask ci --only linux"]
fn linux_boots_to_a_shell_that_answers_and_powers_off() {
    for cpus in [1, 4] {
        // The shell's echo of what is typed has no 42 in it.
        let boot = boot(config(cpus, "full"), "seawall.workload=shell", |line| match line {
            "The end: exit." => Answer::Type("echo answer=$((6 * 7)) cpus=$(nproc); exit\n"),
            _ => Answer::None,
        });
        assert!(boot.has(&format!("answer=42 cpus={cpus}")), "{}", boot.console);
        check_no_trouble(&boot);
    }
}

/// 0x20000000 is empty, 0x0a000000 the first of `virt`'s transports, which are empty.
#[test]
#[ignore = "boots Linux: cargo xtask ci --only linux"]
fn a_process_that_touches_an_address_where_nobody_is_gets_sigbus_and_linux_goes_on() {
    for cpus in [1, 4] {
        let boot = boot(config(cpus, "full"), "seawall.workload=shell", |line| match line {
            "The end: exit." => Answer::Type(
                "devmem 0x20000000 32; echo load=$?; devmem 0x20000000 32 1; echo store=$?; \
                 echo magic=$(devmem 0x0a000000 32) device=$(devmem 0x0a000008 32); echo alive=$((6 * 7)); exit\n",
            ),
            _ => Answer::None,
        });
        // 128 and SIGBUS.
        for line in ["load=135", "store=135", "magic=0x74726976 device=0x00000000", "alive=42"] {
            assert!(boot.has(line), "{line}\n{}", boot.console);
        }
        assert_eq!(boot.unanswered, [(0, 0x2000_0000); 2], "{}", boot.console);
        assert!(boot.errors.is_empty(), "{:x?}", boot.errors);
        check_no_trouble(&boot);
    }
}

/// On KVM each of these accesses is an external abort.
#[test]
#[ignore = "boots Linux: cargo xtask ci --only linux"]
fn a_process_reaches_a_device_that_it_mapped_by_pairs_exclusives_simd_and_with_writeback() {
    let boot = boot(config(1, "full"), "seawall.workload=device seawall.rounds=10", |_| Answer::None);
    for line in [
        // The PL031's PrimeCell IDs (DDI 0224), and its match register, which is 0 at reset.
        "device: pair 0xd 0xf0",
        "device: post-index 0xd 0x4",
        "device: exclusive 0x0 0x1234",
        "device: SIMD 0xd 0xf0 0x5 0xb1",
        "device: post-index store 0x5678",
        "device: SIMD store 0xd",
        "device: alive 10",
        "workload: device ended: all rounds done",
        "workload: witness ended: all rounds done",
    ] {
        assert!(boot.has(line), "{line}\n{}", boot.console);
    }
    assert!(boot.unanswered.is_empty() && boot.errors.is_empty(), "{}", boot.console);
    check_no_trouble(&boot);
}

#[test]
#[ignore = "boots Linux: cargo xtask ci --only linux"]
fn all_processes_live_where_no_memory_is_bad_and_one_run_is_like_the_other() {
    for cpus in [1, 4] {
        let run = || workload(config(cpus, "full"), &[], "");
        let first = run();
        let done = ["code", "anonymous", "shared-a", "shared-b", "witness"].map(|name| (name, DONE));
        check_ends(&first, done, "workload: 5 of 5 live");
        check_no_trouble(&first);
        assert!(first.errors.is_empty(), "{:x?}", first.errors);
        assert_eq!(run(), first, "{cpus} CPUs");
        for translation in [Translation::Off, Translation::AtFirstUse] {
            let other = workload_translated(config(cpus, "full"), translation, &[]);
            assert_eq!(other, first, "{cpus} CPUs, {translation:?}");
        }
    }
}

#[test]
#[ignore = "boots Linux: cargo xtask ci --only linux"]
fn linux_at_work_goes_on_the_same_from_a_snapshot_and_from_its_file() {
    for cpus in [1, 4] {
        let (mut machine, snapshot) = boot_to(config(cpus, "full"), "seawall.rounds=40", "witness: alive 20");
        let mut file = Vec::new();
        snapshot.save(&mut file).expect("memory has room");
        let first = end_of(&snapshot);
        assert_eq!(first.1, Some(End::PowerOff));
        let has = |line: &str| first.0.iter().any(|said| said == line);
        assert!(has("workload: 5 of 5 live"), "{:#?}", first.0);
        assert!(!has("witness: alive 20") && has("witness: alive 40"), "{:#?}", first.0);
        assert_eq!(end_of(&Snapshot::load(&*file).expect("whole")), first, "{cpus} CPUs");
        for _ in 0..2 {
            assert_eq!(hash_at_end(&mut machine), (first.1.clone(), first.2.clone()), "{cpus} CPUs");
            machine.restore(&snapshot).expect("the same machine");
        }
    }
}

#[test]
#[ignore = "boots Linux: cargo xtask ci --only linux"]
fn bad_code_and_bad_data_cost_their_processes_and_nothing_else() {
    for cpus in [1, 4] {
        let boot = workload(config(cpus, "full"), &["code", "anonymous"], "");
        let ends = [
            ("code", SIGBUS),
            ("anonymous", SIGBUS),
            ("shared-a", DONE),
            ("shared-b", DONE),
            ("witness", DONE),
        ];
        check_ends(&boot, ends, "workload: 3 of 5 live");
        check_no_trouble(&boot);
        let mut exits = boot.errors.clone();
        exits.sort_unstable();
        // A fetch and a load at EL0; neither repeats.
        assert_eq!(exits, [0x8200_0210, 0x9200_0210]);
        for translation in [Translation::Off, Translation::AtFirstUse] {
            let other = workload_translated(config(cpus, "full"), translation, &["code", "anonymous"]);
            assert_eq!(other, boot, "{cpus} CPUs, {translation:?}");
        }
    }
}

#[test]
#[ignore = "boots Linux: cargo xtask ci --only linux"]
fn bad_shared_memory_costs_both_processes_and_a_handler_is_told_the_address() {
    let boot = workload(config(1, "full"), &["shared"], "seawall.sigbus=handle");
    let handled = "SIGBUS, handled";
    let ends = [
        ("code", DONE),
        ("anonymous", DONE),
        ("shared-a", handled),
        ("shared-b", handled),
        ("witness", DONE),
    ];
    check_ends(&boot, ends, "workload: 3 of 5 live");
    check_no_trouble(&boot);
    assert_eq!(boot.errors, [0x9200_0210, 0x9200_0210]);
    // BUS_OBJERR, Linux's code for an error without a firmware record; each counter's own address.
    for (name, end) in [("shared-a", "000"), ("shared-b", "008")] {
        let start = format!("{name}: SIGBUS si_code=3 si_addr=0x");
        let line = boot.lines().find(|line| line.starts_with(&start)).unwrap_or_default();
        assert!(line.ends_with(end), "{name}: {line:?}\n{}", boot.console);
    }
}

#[test]
#[ignore = "boots Linux: cargo xtask ci --only linux"]
fn with_a_record_of_the_firmware_linux_takes_the_bad_pages_offline() {
    let mut config = config(1, "full");
    config.acpi = true;
    let boot = workload(config, &["code", "anonymous"], "loglevel=7 seawall.sigbus=handle");
    let handled = "SIGBUS, handled";
    let ends = [
        ("code", handled),
        ("anonymous", handled),
        ("shared-a", DONE),
        ("shared-b", DONE),
        ("witness", DONE),
    ];
    check_ends(&boot, ends, "workload: 3 of 5 live");
    check_no_trouble(&boot);
    for name in ["code", "anonymous"] {
        // BUS_MCEERR_AR: the record describes the error.
        let start = format!("{name}: SIGBUS si_code=4 si_addr=0x");
        assert!(boot.lines().any(|line| line.starts_with(&start)), "{name}\n{}", boot.console);
        let frame = boot.page(name).unwrap_or_default() >> 12;
        let offline = format!("Memory failure: {frame:#x}: recovery action for dirty LRU page: Recovered");
        assert!(boot.lines().any(|line| line.ends_with(&offline)), "{offline}\n{}", boot.console);
    }
}

#[test]
#[ignore = "boots Linux: cargo xtask ci --only linux"]
fn sixteen_processes_that_lose_a_page_each_at_once_get_sixteen_records() {
    for cpus in [1, 4] {
        let mut config = config(cpus, "full");
        config.acpi = true;
        let at_work = Cell::new(0);
        let words = "seawall.workload=sixteen seawall.rounds=40 seawall.sigbus=handle loglevel=7";
        let boot = boot(config, words, |line| {
            at_work.set(at_work.get() + u32::from(line == "anonymous: alive 10"));
            match (line, at_work.get()) {
                ("anonymous: alive 10", 16) => Answer::Poison(&["anonymous"]),
                _ => Answer::None,
            }
        });
        check_no_trouble(&boot);
        // A load at EL0, each once.
        assert_eq!(boot.errors, [0x9200_0210; 16], "{}", boot.console);
        let count = |part: &str| boot.lines().filter(|line| line.contains(part)).count();
        assert_eq!(count("anonymous: SIGBUS si_code="), 16, "{}", boot.console);
        assert_eq!(count("workload: anonymous ended: SIGBUS, handled"), 16, "{}", boot.console);
        assert_eq!(count(" LRU page: Recovered"), 16, "{}", boot.console);
        // With several CPUs one may read another's record, as no vCPU of the software machine waits until it is read:
        // the other's process gets SIGBUS without an address, and its page goes offline all the same.
        if cpus == 1 {
            assert_eq!(count("anonymous: SIGBUS si_code=4 si_addr=0x"), 16, "{}", boot.console);
            assert_eq!(count("recovery action for dirty LRU page: Recovered"), 16, "{}", boot.console);
        }
        assert!(boot.has("HardwareCorrupted:    64 kB"), "{}", boot.console);
    }
}

#[test]
#[ignore = "boots Linux: cargo xtask ci --only linux"]
fn a_kernel_whose_exception_vectors_are_bad_is_stopped_with_the_reason() {
    let boot = boot(config(1, "full"), "seawall.workload=vectors", |line| match line {
        "seawall: vectors" => Answer::Poison(&["of-exceptions", "of-interrupts"]),
        _ => Answer::None,
    });
    let Some(End::Stopped(StopReason::Storm { pc, times, .. })) = boot.end else {
        panic!("{:?}\n{}", boot.end, boot.console)
    };
    assert_eq!((pc & 0x7ff, times), (0x200, 17));
}

#[test]
#[ignore = "boots Linux: cargo xtask ci --only linux"]
fn with_an_serror_the_kernel_panics() {
    let boot = workload(config(1, "serror"), &["anonymous"], "");
    let message = match &boot.end {
        Some(End::Panic { message }) => message.as_str(),
        _ => "",
    };
    assert!(
        message.ends_with("Kernel panic - not syncing: Asynchronous SError Interrupt"),
        "{:?}\n{}",
        boot.end,
        boot.console
    );
    assert!(!boot.lines().any(|line| line.ends_with(" live")), "{}", boot.console);
    assert_eq!(boot.errors, [0x9200_0210]);
}

#[test]
#[ignore = "boots Linux: cargo xtask ci --only linux"]
fn tools_and_the_kernels_ciphers_compute_what_is_right() {
    let boot = boot(config(4, "full"), "seawall.workload=stress", |_| Answer::None);
    assert!(boot.has("stress: 11 of 11 right"), "{}", boot.console);
    let ciphers = boot.lines().find_map(|line| {
        let (passed, all) = line
            .strip_prefix("kernel: ")?
            .strip_suffix(" ciphers passed their self-tests")?
            .split_once(" of ")?;
        Some((passed.parse::<u32>().ok()?, all.parse::<u32>().ok()?))
    });
    // Debian 13's kernels have 46 and more of them.
    assert!(ciphers.is_some_and(|(passed, all)| passed == all && all >= 40), "{}", boot.console);
    check_no_trouble(&boot);
}
