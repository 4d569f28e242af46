//! `cargo xtask diff-isa`: the machine's CPU against an implementation that is not ours.
//!
//! Random instruction sequences run at EL0 in the software Arm machine and as a Linux process under `qemu-aarch64`
//! (QEMU's user mode). Registers, SP, flags, a memory buffer, and a fault's kind, PC and address are compared. A
//! sequence that ends differently is shrunk and printed with the seed that makes it again.
//!
//! `--undefined` runs single random words instead, most of them not allocated: it compares what is undefined.
//!
//! Batches take turns between two CPU models of QEMU: `max`, which has everything that the machine has and more, and
//! `neoverse-n1`, whose DC ZVA block has the machine's size.

use std::process::ExitCode;
use std::time::Instant;

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

use case::{Case, Outcome};
use generate::Cpu;
use random::Random;

/// What to run.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// The seed: the same seed makes the same sequences
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// How many sequences (with --undefined: words) to run
    #[arg(long, default_value_t = 30_000)]
    pub(crate) sequences: usize,
    /// Instructions under test in a sequence; setting up their addresses takes more
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u16).range(1..=4000))]
    pub(crate) length: u16,
    /// Single random words, to compare what is undefined
    #[arg(long)]
    pub(crate) undefined: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

impl Options {
    /// Sequences in one image: as many as surely fit. A unit takes at most 12 words, a sequence's frame fewer than 32.
    fn batch(&self) -> usize {
        const MOST: usize = 250;
        let room = (layout::DATA - layout::CODE) as usize / 4 - 1024;
        (room / (12 * (usize::from(self.length) + 1) + 32)).clamp(1, MOST)
    }
}

/// A batch in numbers of the run.
struct Plan {
    index: u64,
    cpu: Cpu,
    cases: Vec<Case>,
}

impl Plan {
    fn new(options: &Options, index: u64, size: usize) -> Self {
        let mut random = Random::new(options.seed, index);
        let cpu = if index % 4 == 3 && !options.undefined { Cpu::NeoverseN1 } else { Cpu::Max };
        let cases = (0..size).map(|_| {
            if options.undefined {
                undefined::case(&mut random)
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
    /// Runs the cases in one image on both sides at the same time.
    fn run(&self, cases: &[Case], cpu: Cpu) -> Result<Pairs, String> {
        let image = image::build(cases, cpu).map_err(|e| format!("cannot assemble: {e}"))?;
        let (machine, qemu) = std::thread::scope(|scope| {
            let qemu = scope.spawn(|| self.qemu.run(&image, cpu));
            let machine = machine::run(&image);
            (machine, qemu.join().unwrap_or_else(|_| Err("the thread that runs QEMU failed".into())))
        });
        Ok(machine?.into_iter().zip(qemu?).collect())
    }
}

/// Runs it, and prints what came out. Exit code 1 on a mismatch, 0 if all agree or QEMU is missing.
pub(crate) fn run(options: &Options) -> ExitCode {
    let Some(qemu) = qemu::Qemu::find() else {
        report::skipped(options);
        return ExitCode::SUCCESS;
    };
    let start = Instant::now();
    let mut summary = report::Summary { qemu: qemu.version(), ..report::Summary::default() };
    let sides = Sides { qemu };
    let mut left = options.sequences;
    let mut index = 0;
    while left > 0 {
        let plan = Plan::new(options, index, left.min(options.batch()));
        left -= plan.cases.len();
        index += 1;
        match sides.run(&plan.cases, plan.cpu) {
            Ok(pairs) => {
                summary.add(&pairs);
                let differing = pairs.iter().position(|(machine, qemu)| machine.difference(qemu).is_some());
                if let Some(at) = differing {
                    summary.mismatch = Some(shrink::mismatch(&sides, &plan, at, &pairs[at]));
                    break;
                }
            }
            Err(error) => {
                summary.error = Some(shrink::locate_error(&sides, &plan, &error));
                break;
            }
        }
    }
    summary.seconds = start.elapsed().as_secs_f64();
    summary.print(options);
    if summary.agree() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
