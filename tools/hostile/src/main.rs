//! Tries hostile inputs on each target, each in a process of its own under a limit of memory, for a given
//! time, from a seed.
#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use clap::Parser;
use rustix::process::{Resource, Rlimit, setrlimit};
use seawall_hostile::input;
use seawall_hostile::targets::{ALL, Target};

/// Try hostile inputs on all code that reads data from outside. The same seed tries the same inputs.
#[derive(Parser)]
struct Args {
    /// Time to try each target.
    #[arg(long, default_value_t = 10, value_name = "SECONDS")]
    seconds: u64,
    /// Seed of the inputs.
    #[arg(long, default_value_t = 1, value_name = "NUMBER")]
    seed: u64,
    /// Target to try; may be given again. Without one, all targets.
    #[arg(long, value_name = "NAME")]
    target: Vec<String>,
    /// Number of the single input to try, to reproduce a finding.
    #[arg(long, value_name = "NUMBER")]
    case: Option<u64>,
    /// Limit of a target process's address space in MiB.
    #[arg(long, default_value_t = 768, value_name = "MIB")]
    memory: u64,
    /// Time limit of one input in seconds.
    #[arg(long, default_value_t = 10, value_name = "SECONDS")]
    patience: u64,
    /// File for the number of the current case, written by the process of a target.
    #[arg(long, hide = true)]
    progress: Option<PathBuf>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let known = |name: &String| ALL.iter().any(|target| target.name == *name);
    if let Some(name) = args.target.iter().find(|name| !known(name)) {
        let names: Vec<_> = ALL.iter().map(|target| target.name).collect();
        eprintln!("expected one of {}, got {name}", names.join(", "));
        return ExitCode::from(2);
    }
    let wanted =
        |target: &&Target| args.target.is_empty() || args.target.iter().any(|name| name == target.name);
    let mut targets = ALL.iter().filter(wanted);
    let result = match &args.progress {
        Some(progress) => targets.try_for_each(|target| tries(target, &args, progress)),
        None => targets.map(|target| watch(target, &args)).fold(Ok(()), Result::and),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a target in a process of its own, and reports its end.
fn watch(target: &Target, args: &Args) -> Result<(), String> {
    let progress =
        std::env::temp_dir().join(format!("seawall-hostile-{}-{}", std::process::id(), target.name));
    let result = watch_with(target, args, &progress);
    let _ = fs::remove_file(&progress);
    result
}

fn watch_with(target: &Target, args: &Args, progress: &Path) -> Result<(), String> {
    let text = |error: std::io::Error| format!("{}: {error}", target.name);
    fs::write(progress, u64::MAX.to_le_bytes()).map_err(text)?;
    let mut command = Command::new(std::env::current_exe().map_err(text)?);
    command.args(["--target", target.name, "--seed", &args.seed.to_string()]);
    command.args(["--seconds", &args.seconds.to_string(), "--memory", &args.memory.to_string()]);
    command.arg("--progress").arg(progress);
    if let Some(case) = args.case {
        command.args(["--case", &case.to_string()]);
    }
    let mut child = command.spawn().map_err(text)?;
    let at = || {
        let bytes = fs::read(progress).ok()?;
        bytes.first_chunk().copied().map(u64::from_le_bytes)
    };
    let again = |what: &str| {
        let case = at().map_or("its first case".to_owned(), |case| format!("--case {case}"));
        let (name, seed) = (target.name, args.seed);
        format!("{name}: {what}; again: seawall-hostile --target {name} --seed {seed} {case}")
    };
    let (mut last, mut since) = (at(), Instant::now());
    loop {
        if let Some(status) = child.try_wait().map_err(text)? {
            return match status.signal() {
                None if status.success() => Ok(()),
                None => Err(again(&format!("ended with {status}"))),
                Some(signal) => Err(again(&format!("ended by signal {signal}, out of memory perhaps"))),
            };
        }
        if at() != last {
            (last, since) = (at(), Instant::now());
        } else if since.elapsed() > Duration::from_secs(args.patience) {
            child.kill().map_err(text)?;
            child.wait().map_err(text)?;
            return Err(again(&format!("no end after {} s", args.patience)));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Tries inputs in this process until the time is over.
fn tries(target: &Target, args: &Args, progress: &Path) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| format!("{}: {error}", target.name);
    let limit = Some(args.memory << 20);
    setrlimit(Resource::As, Rlimit { current: limit, maximum: limit }).map_err(|error| text(&error))?;
    let progress = fs::OpenOptions::new().write(true).open(progress).map_err(|error| text(&error))?;
    let (started, mut count) = (Instant::now(), 0);
    let cases = args.case.map_or(0..u64::MAX, |case| case..case + 1);
    for case in cases {
        progress.write_all_at(&case.to_le_bytes(), 0).map_err(|error| text(&error))?;
        (target.body)(&input(target, args.seed, case));
        count += 1;
        if started.elapsed() > Duration::from_secs(args.seconds) {
            break;
        }
    }
    println!("{}: {count} inputs, at most {} KiB of memory", target.name, peak());
    Ok(())
}

/// The peak of this process's memory, KiB.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_ascii_whitespace().next()?.parse().ok()).unwrap_or(0)
}
