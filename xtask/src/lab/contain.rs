//! `seawall-lab-contain` in the lab: what it finds there, and the scenarios that use up their host, each in a lab of its own.

use std::io::{Write, stdout};
use std::path::Path;
use std::time::{Duration, Instant};

use clap::Parser as _;
use seawall_lab::options::{Contain, Scenario};

use super::binaries::Built;
use super::error::Result;
use super::initramfs::Guest;
use super::kernel::Kernel;
use super::machine::Machine;
use super::session::Ended;
use super::{Lab, Options, code};

const PROGRAM: &str = "seawall-lab-contain";
/// Two vCPUs meet the same page at the same instant only if both run.
const CPUS: u32 = 2;
/// MiB of a lab that is used up: the less, the sooner.
const SMALL: u32 = 1024;
/// For a scenario with a lab of its own, which takes half a minute.
const BOUND: Duration = Duration::from_secs(300);
/// What a kernel says that met bad memory.
const WORDS: [&str; 2] = ["synchronous external abort", "Kernel panic"];
/// A shell's exit code of a process that a signal killed is so much more.
const SIGNALLED: i32 = 128;

/// Below /guest: Debian's kernel for the guests, and that kernel's modules for a disk.
fn files(kernel: &Kernel) -> Vec<Guest> {
    let named = |path: &Path, folder: &str| Guest {
        host: path.to_owned(),
        lab: format!("guest/{folder}{}", path.file_name().unwrap_or_default().to_string_lossy()),
    };
    let image = named(&kernel.image, "");
    std::iter::once(image).chain(kernel.storage.iter().map(|path| named(path, "storage/"))).collect()
}

/// Runs the scenarios that are asked for: the exit code, of the first run that failed.
pub(crate) fn run(
    lab: &Lab,
    options: &Options,
    arguments: &[String],
    programs: &[Built],
    mut guests: Vec<Guest>,
) -> Result<u8> {
    guests.extend(files(&lab.kernel));
    let machine = options.machine.or_cpus(CPUS);
    eprintln!("lab: Linux {} on {}", lab.booted.release, machine.name());
    // It was read before, when there was no lab yet.
    let contain = Contain::try_parse_from([PROGRAM.to_owned()].iter().chain(arguments));
    let (alone, together): (Vec<_>, Vec<_>) =
        contain.iter().flat_map(Contain::scenarios).partition(|scenario| scenario.has_own_host());
    let flags = || arguments.iter().filter(|argument| argument.starts_with('-')).cloned();
    let command = |scenarios: &[Scenario]| -> Vec<String> {
        let names = scenarios.iter().map(|scenario| scenario.name());
        std::iter::once(PROGRAM.to_owned()).chain(flags()).chain(names).collect()
    };
    let mut codes = Vec::new();
    if !together.is_empty() {
        let timeout = Duration::from_secs(options.timeout);
        let ended =
            lab.run(&machine, programs, &guests, &command(&together), timeout, &mut stdout().lock())?;
        codes.push(code(&ended, options.timeout));
    }
    let small = Machine { memory: SMALL, ..machine };
    for scenario in alone {
        let (start, mut output) = (Instant::now(), stdout().lock());
        let ended = lab.run(&small, programs, &guests, &command(&[scenario]), BOUND, &mut output)?;
        let (line, code) = judge(scenario, &ended, start.elapsed());
        if let Some(line) = line {
            // Nobody reads it any more, perhaps.
            let _ = writeln!(output, "{line}");
        }
        codes.push(code);
    }
    Ok(codes.into_iter().find(|code| *code != 0).unwrap_or(0))
}

/// What a scenario came to that had a lab of its own: a line, if it did not come to printing one, and the exit code.
fn judge(scenario: Scenario, ended: &Ended, time: Duration) -> (Option<String>, u8) {
    let line = |word: &str, what: &str| {
        Some(format!("{word}  {:<14} {:>5.1} s  {what}", scenario.name(), time.as_secs_f64()))
    };
    match ended {
        Ended::Exited(code) if *code > SIGNALLED && scenario.ends_its_host() => {
            let what = format!(
                "as expected, it goes wrong: the lab's program was killed by signal {}",
                code - SIGNALLED
            );
            (line("pass", &what), 0)
        }
        Ended::Lost { console } if scenario.ends_its_host() => match last_words(console) {
            Some(words) => {
                (line("pass", &format!("as expected, it goes wrong: the host went down: {words}")), 0)
            }
            None => (line("FAIL", "the host went down, and did not say that bad memory is why"), 1),
        },
        ended => {
            let code = code(ended, BOUND.as_secs());
            (if matches!(ended, Ended::Exited(_)) { None } else { line("FAIL", "see above") }, code)
        }
    }
}

/// The line by which the kernel says that it met bad memory.
fn last_words(console: &str) -> Option<&str> {
    WORDS.iter().find_map(|word| console.lines().find(|line| line.contains(word))).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guests_kernel_and_its_modules_keep_their_names() {
        let kernel = Kernel {
            image: "/c/vmlinuz".into(),
            initrd: "/c/initrd".into(),
            busybox: "/c/busybox".into(),
            storage: vec!["/c/storage/00-virtio_mmio.ko".into()],
            release: String::new(),
        };
        let places: Vec<String> = files(&kernel).into_iter().map(|file| file.lab).collect();
        assert_eq!(places, ["guest/vmlinuz", "guest/storage/00-virtio_mmio.ko"]);
    }

    fn lost(console: &str) -> Ended {
        Ended::Lost { console: console.into() }
    }

    #[test]
    fn the_baseline_passes_if_its_host_goes_down_by_bad_memory_and_not_else() {
        let judged = |ended: Ended| judge(Scenario::HostUntold, &ended, Duration::from_millis(12_345));
        let oops = "[   12.0] Internal error: synchronous external abort: 0000000096000410 [#1]  SMP\n\
                    [   12.1] Kernel panic - not syncing: Oops: Fatal exception\n";
        let (line, code) = judged(lost(oops));
        assert_eq!(
            (line.unwrap_or_default().as_str(), code),
            (
                "pass  host-untold     12.3 s  as expected, it goes wrong: the host went down: \
                 [   12.0] Internal error: synchronous external abort: 0000000096000410 [#1]  SMP",
                0
            )
        );
        assert_eq!(judged(lost("Killed\n")).1, 1);
        assert_eq!(judged(Ended::TimedOut { console: oops.into() }).1, 124);
        assert_eq!(judged(Ended::NotBooted { console: oops.into() }).1, 125);
    }

    #[test]
    fn the_baseline_passes_if_the_labs_own_program_is_killed_and_its_own_word_counts_else() {
        let judged = |code| judge(Scenario::HostUntold, &Ended::Exited(code), Duration::ZERO);
        let (line, code) = judged(135);
        assert!(line.unwrap_or_default().ends_with("the lab's program was killed by signal 7"));
        assert_eq!(code, 0);
        assert_eq!((judged(0), judged(1)), ((None, 0), (None, 1)));
    }

    #[test]
    fn a_host_that_was_told_must_not_go_down() {
        let (line, code) = judge(Scenario::HostTold, &lost("Kernel panic\n"), Duration::ZERO);
        assert_eq!((line.unwrap_or_default().split("  ").next(), code), (Some("FAIL"), 125));
        assert_eq!(judge(Scenario::HostKept, &Ended::Exited(135), Duration::ZERO), (None, 135));
    }
}
