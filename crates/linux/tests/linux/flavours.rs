//! Debian's kernels other than the one for clouds: for any machine, with `PREEMPT_RT`, with pages of 16 KiB.
//!
//! The tests run all of them, or the one in `SEAWALL_FLAVOUR`: `default`, `rt` or `16k`. CI runs one a day.

use std::cell::Cell;

use seawall_linux::Flavour;

use crate::guest::{Answer, Boot, boot_flavour, config};
use crate::{DONE, SIGBUS, check_ends, check_no_trouble};

/// The flavours to test.
fn flavours() -> Vec<Flavour> {
    const OTHERS: [Flavour; 3] = [Flavour::Generic, Flavour::Realtime, Flavour::Pages16K];
    let chosen = match std::env::var("SEAWALL_FLAVOUR") {
        Ok(word) => {
            let named = OTHERS.into_iter().find(|flavour| flavour.word() == word);
            vec![named.unwrap_or_else(|| panic!("SEAWALL_FLAVOUR: expected default, rt or 16k, got {word}"))]
        }
        Err(_) => OTHERS.to_vec(),
    };
    println!("flavours: {chosen:?}");
    chosen
}

/// Runs the workload and turns these pages bad while all processes work.
fn workload(flavour: Flavour, cpus: u32, acpi: bool, append: &str) -> Boot {
    let mut config = config(cpus, "full");
    config.acpi = acpi;
    boot_flavour(config, flavour, &format!("seawall.rounds=40 {append}"), |line| match line {
        "witness: alive 20" => Answer::Poison(&["code", "anonymous"]),
        _ => Answer::None,
    })
}

/// The pages that the guest named as `code` and `anonymous`, in rising order.
fn victims(boot: &Boot, page: u64) -> Vec<std::ops::Range<u64>> {
    let mut starts = ["code", "anonymous"].map(|name| boot.page(name).unwrap_or_default());
    starts.sort_unstable();
    assert_eq!(starts.map(|start| start % page), [0, 0], "{starts:x?}: whole pages");
    starts.map(|start| start..start + page).to_vec()
}

#[test]
#[ignore = "boots Linux: cargo xtask ci --only linux"]
fn each_flavour_loses_a_code_page_and_a_data_page_and_lives() {
    for flavour in flavours() {
        for cpus in [1, 4] {
            let boot = workload(flavour, cpus, false, "");
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
            assert_eq!(exits, [0x8200_0210, 0x9200_0210], "{flavour:?}, {cpus} CPUs");
            let page = if flavour == Flavour::Pages16K { 0x4000 } else { 0x1000 };
            assert_eq!(boot.bad, victims(&boot, page), "{flavour:?}, {cpus} CPUs");
        }
    }
}

/// Linux's own words for a record (`cper_print_mem`), and for the page (`action_result`), a frame of its own
/// size.
#[test]
#[ignore = "boots Linux: cargo xtask ci --only linux"]
fn each_flavour_takes_a_page_of_its_own_size_offline() {
    for flavour in flavours() {
        let (mask, shift) = if flavour == Flavour::Pages16K {
            ("0xffffffffffffc000", 14)
        } else {
            ("0xfffffffffffff000", 12)
        };
        for cpus in [1, 4] {
            let boot = workload(flavour, cpus, true, "loglevel=7 seawall.sigbus=handle");
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
            assert_eq!(boot.bad, victims(&boot, 1 << shift), "{flavour:?}, {cpus} CPUs");
            let has = |words: &str| boot.lines().any(|line| line.ends_with(words));
            let shown = |name: &str| {
                let address = boot.page(name).unwrap_or_default();
                let frame = format!("Memory failure: {:#x}: recovery action for", address >> shift);
                // A process that has ended by then leaves its page clean.
                let offline = ["dirty", "clean"].map(|state| format!("{frame} {state} LRU page: Recovered"));
                assert!(offline.iter().any(|words| has(words)), "{name}: {frame}\n{}", boot.console);
                has(&format!("physical_address: {address:#018x}"))
            };
            // Linux limits the rate of printed records, and PREEMPT_RT has several for a page.
            let shown = [shown("code"), shown("anonymous")].iter().filter(|shown| **shown).count();
            assert!(shown >= if flavour == Flavour::Realtime { 1 } else { 2 }, "{}", boot.console);
            assert!(has(&format!("physical_address_mask: {mask}")), "{mask}\n{}", boot.console);
        }
    }
}

/// `PREEMPT_RT` takes pages offline in a thread; a process that runs before the thread repeats its access,
/// and takes the same abort. That must not end the guest. Linux's queue has room for 16 records a CPU, and
/// drops further ones.
#[test]
#[ignore = "boots Linux: cargo xtask ci --only linux"]
fn each_flavour_loses_sixteen_pages_at_once_and_lives() {
    for flavour in flavours() {
        let mut config = config(4, "full");
        config.acpi = true;
        let at_work = Cell::new(0);
        let words = "seawall.workload=sixteen seawall.rounds=40 seawall.sigbus=handle loglevel=7";
        let boot = boot_flavour(config, flavour, words, |line| {
            at_work.set(at_work.get() + u32::from(line == "anonymous: alive 10"));
            match (line, at_work.get()) {
                ("anonymous: alive 10", 16) => Answer::Poison(&["anonymous"]),
                _ => Answer::None,
            }
        });
        check_no_trouble(&boot);
        let count = |part: &str| boot.lines().filter(|line| line.contains(part)).count();
        assert_eq!(count("workload: anonymous ended: SIGBUS, handled"), 16, "{}", boot.console);
        let kilobytes = if flavour == Flavour::Pages16K { 256 } else { 64 };
        let is_all = boot.has(&format!("HardwareCorrupted: {kilobytes:>5} kB"));
        let is_full = boot.console.contains("buffer overflow when queuing memory failure");
        assert!(is_all || flavour == Flavour::Realtime && is_full, "{}", boot.console);
    }
}

#[test]
#[ignore = "boots Linux: cargo xtask ci --only linux"]
fn on_each_flavour_tools_and_the_kernels_ciphers_compute_what_is_right() {
    for flavour in flavours() {
        let boot = boot_flavour(config(4, "full"), flavour, "seawall.workload=stress", |_| Answer::None);
        assert!(boot.has("stress: 11 of 11 right"), "{}", boot.console);
        assert!(boot.has("kernel: 46 of 46 ciphers passed their self-tests"), "{}", boot.console);
        check_no_trouble(&boot);
    }
}
