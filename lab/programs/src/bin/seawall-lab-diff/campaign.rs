//! A campaign of many sequences, with progress, and a report of the first that differs.

use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clap::Parser as _;
use seawall_events::{Abi, Layout};
use seawall_lab::diff::{Code, Cpu, Guest, Host, Only, Played, Sequence, play, sequence, shrink};
use seawall_lab::options::{AbiArg, Diff, GuestArg, OnlyArg};
use seawall_lab_machine::PoisonRegister;

/// The time limit of a sequence, after which it counts as hung.
const PATIENCE: Duration = Duration::from_secs(30);
/// The number of plays to find a smaller sequence.
const SHRINK_BUDGET: u32 = 3000;

pub(crate) fn main() -> ExitCode {
    let options = Diff::parse();
    match run(&options) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("seawall-lab-diff: {error}");
            ExitCode::from(2)
        }
    }
}

/// The results of all sequences.
#[derive(Default)]
struct Totals {
    sequences: u64,
    steps: u64,
    runs: u64,
    left_out: u64,
}

fn run(options: &Diff) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let guest = match options.guest {
        GuestArg::Aarch64 => Guest::Aarch64,
        GuestArg::Aarch32 => Guest::Aarch32,
        GuestArg::Nested | GuestArg::NestedE2h0 => Guest::Nested,
    };
    let abis = match options.abi {
        Some(AbiArg::Mainline) => vec![Abi::Mainline],
        Some(AbiArg::Extended) => vec![Abi::Extended(Layout::Posted)],
        None => vec![Abi::Mainline, Abi::Extended(Layout::Posted)],
    };
    let only = match options.only {
        None => Only::All,
        Some(OnlyArg::Events) => Only::Events,
        Some(OnlyArg::Aborts) => Only::Aborts,
        Some(OnlyArg::Serrors) => Only::SErrors,
    };
    let code = Arc::new(Code::new(guest));
    let host = Host::open(guest, matches!(options.guest, GuestArg::NestedE2h0), &code)?;
    let mut subjects = abis.iter().map(|abi| host.subject(*abi)).collect::<Result<Vec<_>, _>>()?;
    let first = subjects.first_mut().ok_or("no ABI")?;
    let cpu = Arc::new(Cpu::measure(guest, &code, host.has_poison(), first)?);
    print!("{cpu}");
    let numbers = options.from..options.from.saturating_add(options.sequences);
    println!("seed {}, sequences {} to {}", options.seed, numbers.start, numbers.end - 1);

    let watch = Watch::start();
    let (started, mut told) = (Instant::now(), Instant::now());
    let mut totals = Totals::default();
    for index in numbers {
        // The number selects the ABI, so that `--from` and `--abi` repeat a sequence.
        let n = (index % subjects.len() as u64) as usize;
        let sequence = sequence(&cpu, &code, abis[n], only, options.seed, index);
        if options.verbose {
            print!("{sequence}");
        }
        watch.playing(&sequence);
        let played = play(&cpu, &code, &sequence, &mut subjects[n], false)
            .map_err(|why| format!("sequence {index}: {why}\n{sequence}"))?;
        totals.sequences += 1;
        totals.steps += sequence.steps.len() as u64;
        totals.runs += u64::from(played.runs);
        totals.left_out += u64::from(played.left_out);
        if played.difference.is_some() {
            report(options, index, &sequence, &played, |sequence| {
                watch.playing(sequence);
                play(&cpu, &code, sequence, &mut subjects[n], true)
            });
            return Ok(ExitCode::FAILURE);
        }
        if told.elapsed() > Duration::from_secs(2) {
            told = Instant::now();
            let rate = u128::from(totals.sequences) * 1000 / started.elapsed().as_millis().max(1);
            eprintln!("{} of {} sequences, {rate} a second", totals.sequences, options.sequences);
        }
    }
    let Totals { sequences, steps, runs, left_out } = totals;
    println!(
        "{sequences} sequences, {steps} steps ({runs} runs of the guest, {left_out} left out) in {:.1} s: no difference",
        started.elapsed().as_secs_f64()
    );
    Ok(ExitCode::SUCCESS)
}

/// Ends the process when one sequence takes too long: a `KVM_RUN` that does not return.
struct Watch(Arc<Mutex<(Instant, Option<Sequence>)>>);

impl Watch {
    fn start() -> Self {
        let watch = Self(Arc::new(Mutex::new((Instant::now(), None))));
        let state = Arc::clone(&watch.0);
        std::thread::spawn(move || {
            loop {
                std::thread::sleep(Duration::from_secs(1));
                let Ok(state) = state.lock() else { return };
                if let (since, Some(sequence)) = &*state {
                    if since.elapsed() > PATIENCE {
                        println!("no end after {PATIENCE:?}: KVM_RUN does not come back\n{sequence}");
                        if let Ok(mut register) = PoisonRegister::open() {
                            register.heal_all();
                        }
                        std::process::exit(3);
                    }
                }
            }
        });
        watch
    }

    fn playing(&self, sequence: &Sequence) {
        if let Ok(mut state) = self.0.lock() {
            *state = (Instant::now(), Some(sequence.clone()));
        }
    }
}

fn report(
    options: &Diff,
    index: u64,
    sequence: &Sequence,
    played: &Played,
    mut again: impl FnMut(&Sequence) -> Result<Played, String>,
) {
    println!(
        "sequence {index} of seed {} differs; add --from {index} --sequences 1 to play it alone:",
        options.seed
    );
    for what in played.difference.iter().flat_map(|difference| &difference.what) {
        println!("  {what}");
    }
    let smallest = shrink(sequence, SHRINK_BUDGET, |candidate| {
        again(candidate).is_ok_and(|played| played.difference.is_some())
    });
    println!("smallest that differs, {} of {} steps:", smallest.steps.len(), sequence.steps.len());
    print!("{smallest}");
    match again(&smallest) {
        Ok(Played { difference: Some(difference), .. }) => {
            println!("after step {}:", difference.after);
            for what in difference.what {
                println!("  {what}");
            }
            print!("what happened, as the kernel has it:\n{}", difference.trace);
        }
        other => {
            println!("and when it is played again: {other:?}");
            println!("it depends on what was before, or on when the host had an interrupt");
        }
    }
}
