//! `cargo xtask diff-isa`, or `cargo run -p seawall-diff-isa`: the machine's CPU against an independent
//! implementation.
//!
//! Random instruction sequences run at EL0 in the software Arm machine and as a Linux process under
//! `qemu-aarch64` (QEMU's user mode). Registers, SP, flags, a memory buffer, and a fault's kind, PC and
//! address are compared. A sequence that ends differently is shrunk and printed with the seed that makes it
//! again.
//!
//! `--ci` is a fixed choice of seeds. If `qemu-aarch64` is missing, nothing is compared; the program reports
//! that, and does not fail.
//!
//! `--undefined` runs single random words instead, most of them not allocated: it compares undefined
//! instructions.
//!
//! Batches take turns between two CPU models of QEMU: `max`, which has all features of the machine and more,
//! and `neoverse-n1`, whose DC ZVA block has the machine's size. With `--undefined` every second batch
//! consists of words of FP and AdvSIMD, under `cortex-a57`, which has exactly the machine's features of
//! these.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;

mod case;
mod disassembly;
mod generate;
mod image;
mod layout;
mod machine;
mod qemu;
mod random;
mod report;
mod shrink;
mod template;
mod undefined;
mod vector;

use case::{Case, Outcome};
use generate::Cpu;
use random::Random;

/// Random instruction sequences on the machine's CPU and on qemu-aarch64: registers, flags, memory and faults compared
#[derive(Parser)]
#[command(name = "diff-isa")]
pub(crate) struct Options {
    /// The seed: the same seed makes the same sequences
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Number of sequences (with --undefined: words) to run
    #[arg(long, default_value_t = 30_000)]
    pub(crate) sequences: usize,
    /// Instructions under test in a sequence; setting up their addresses takes more
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u16).range(1..=4000))]
    pub(crate) length: u16,
    /// Run single random words, to compare undefined instructions
    #[arg(long)]
    pub(crate) undefined: bool,
    /// Run the choice of continuous integration: fixed seeds in both modes, under a minute; other options but
    /// --json do not count
    #[arg(long)]
    pub(crate) ci: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

impl Options {
    /// Two seeds of sequences and one of words.
    fn presets(&self) -> [Self; 3] {
        let preset = |seed, sequences, undefined| Self {
            seed,
            sequences,
            length: 24,
            undefined,
            ci: false,
            json: self.json,
        };
        [preset(1, 30_000, false), preset(2, 30_000, false), preset(1, 100_000, true)]
    }

    /// The number of sequences in one image that surely fit. A unit takes at most 12 words, a sequence's
    /// frame fewer than 32.
    fn batch(&self) -> usize {
        const MOST: usize = 250;
        let room = (layout::DATA - layout::CODE) as usize / 4 - 1024;
        (room / (12 * (usize::from(self.length) + 1) + 32)).clamp(1, MOST)
    }
}

/// The place of a batch in the run, in numbers.
struct Plan {
    index: u64,
    cpu: Cpu,
    cases: Vec<Case>,
}

impl Plan {
    fn new(options: &Options, index: u64, size: usize) -> Self {
        let mut random = Random::new(options.seed, index);
        let cpu = match (options.undefined, index % 4) {
            (false, 3) => Cpu::NeoverseN1,
            (true, 1 | 3) => Cpu::CortexA57,
            _ => Cpu::Max,
        };
        let cases = (0..size).map(|_| {
            if options.undefined {
                undefined::case(&mut random, cpu)
            } else {
                generate::case(&mut random, cpu, options.length.into())
            }
        });
        Self { index, cpu, cases: cases.collect() }
    }
}

/// Both implementations.
struct Sides {
    qemu: qemu::Qemu,
}

/// The machine's outcome and QEMU's, per case.
type Pairs = Vec<(Outcome, Outcome)>;

impl Sides {
    /// Runs the cases in one image on both sides at the same time; the first of them at address `first`, if
    /// given.
    fn run(&self, cases: &[Case], cpu: Cpu, first: Option<u64>) -> Result<Pairs, String> {
        let image = image::build(cases, cpu, first).map_err(|e| format!("cannot assemble: {e}"))?;
        let (machine, qemu) = std::thread::scope(|scope| {
            let qemu = scope.spawn(|| self.qemu.run(&image, cpu));
            let machine = machine::run(&image);
            (machine, qemu.join().unwrap_or_else(|_| Err("the thread that runs QEMU failed".into())))
        });
        Ok(machine?.into_iter().zip(qemu?).collect())
    }
}

/// Runs the program, and prints the result. Exit code 1 on a mismatch, 0 if all agree or QEMU is missing.
fn main() -> ExitCode {
    let options = Options::parse();
    let Some(qemu) = qemu::Qemu::find() else {
        report::skipped(&options);
        return ExitCode::SUCCESS;
    };
    let sides = Sides { qemu };
    let agree = if options.ci {
        options.presets().iter().all(|options| run_one(options, &sides))
    } else {
        run_one(&options, &sides)
    };
    if agree { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs one seed. Returns true if all agree.
fn run_one(options: &Options, sides: &Sides) -> bool {
    let start = Instant::now();
    let mut summary = report::Summary { qemu: sides.qemu.version(), ..report::Summary::default() };
    let mut left = options.sequences;
    let mut index = 0;
    while left > 0 && summary.agree() {
        let plan = Plan::new(options, index, left.min(options.batch()));
        left -= plan.cases.len();
        index += 1;
        match sides.run(&plan.cases, plan.cpu, None) {
            Ok(pairs) => {
                summary.add(&plan.cases, &pairs);
                let differing = pairs.iter().position(|(machine, qemu)| machine.difference(qemu).is_some());
                summary.mismatch = differing.map(|at| shrink::mismatch(sides, &plan, at, &pairs[at]));
            }
            Err(error) => summary.error = Some(shrink::locate_error(sides, &plan, &error)),
        }
    }
    summary.seconds = start.elapsed().as_secs_f64();
    summary.print(options);
    summary.agree()
}
