//! The result of a run, for people or as JSON.

use std::collections::BTreeMap;

use serde_json::json;

use crate::case::Case;
use crate::disassembly::disassemble;
use crate::{Options, Pairs};

/// A run so far.
#[derive(Default)]
pub(super) struct Summary {
    /// QEMU's own words.
    pub(super) qemu: String,
    /// Sequences compared.
    pub(super) compared: usize,
    /// The number of these that ended in the same fault on both sides.
    pub(super) faults: usize,
    /// The number of compared sequences that contain each group of instructions.
    pub(super) groups: BTreeMap<&'static str, usize>,
    /// Wall time.
    pub(super) seconds: f64,
    /// The first sequence that ended differently.
    pub(super) mismatch: Option<Mismatch>,
    /// One side could not run.
    pub(super) error: Option<String>,
}

/// A sequence that ended differently.
pub(super) struct Mismatch {
    pub(super) batch: u64,
    pub(super) sequence: usize,
    pub(super) cpu: &'static str,
    pub(super) shrunk: bool,
    pub(super) units: Vec<&'static str>,
    pub(super) address: u64,
    pub(super) words: Vec<u32>,
    pub(super) registers: Vec<(String, u64)>,
    pub(super) vectors: Vec<(String, u128)>,
    pub(super) fpcr: u64,
    pub(super) fpsr: u64,
    pub(super) nzcv: u64,
    pub(super) sp: u64,
    pub(super) what: String,
    pub(super) machine: String,
    pub(super) qemu: String,
}

/// Reports that nothing was compared, and the reason.
pub(super) fn skipped(options: &Options) {
    const REASON: &str = "qemu-aarch64 (Debian package qemu-user) is not installed";
    if options.json {
        println!("{}", json!({ "skipped": REASON }));
    } else {
        println!("diff-isa: skipped: {REASON}");
    }
}

impl Summary {
    /// Counts a batch.
    pub(super) fn add(&mut self, cases: &[Case], pairs: &Pairs) {
        for (case, (machine, qemu)) in cases.iter().zip(pairs) {
            if machine.difference(qemu).is_none() {
                self.compared += 1;
                self.faults += usize::from(machine.fault.is_some());
                case.units.iter().for_each(|unit| *self.groups.entry(unit.name).or_default() += 1);
            }
        }
    }

    /// Returns true if everything that was run agrees.
    pub(super) fn agree(&self) -> bool {
        self.mismatch.is_none() && self.error.is_none()
    }

    fn rate(&self) -> f64 {
        let compared = f64::from(u32::try_from(self.compared).unwrap_or(u32::MAX));
        if self.seconds > 0.0 { compared / self.seconds } else { 0.0 }
    }

    /// Prints the end of a run.
    pub(super) fn print(&self, options: &Options) {
        if options.json {
            println!("{}", self.json(options));
            return;
        }
        let what = if options.undefined { "words" } else { "sequences" };
        if let Some(error) = &self.error {
            println!("diff-isa: seed {}: {error}", options.seed);
        }
        if let Some(mismatch) = &self.mismatch {
            mismatch.print(options);
        }
        println!(
            "diff-isa: seed {}: {} {what} agree with {} ({} of them end in the same fault), {:.1} s, {:.0}/s",
            options.seed,
            self.compared,
            self.qemu,
            self.faults,
            self.seconds,
            self.rate()
        );
        if let (false, Some((group, times))) =
            (options.undefined, self.groups.iter().min_by_key(|(_, n)| **n))
        {
            println!("  {} groups of instructions, the rarest `{group}`, {times} times", self.groups.len());
        }
    }

    fn json(&self, options: &Options) -> serde_json::Value {
        json!({
            "seed": options.seed,
            "length": options.length,
            "undefined": options.undefined,
            "agree": self.agree(),
            "compared": self.compared,
            "faults": self.faults,
            "groups": self.groups,
            "seconds": self.seconds,
            "per_second": self.rate(),
            "qemu": self.qemu,
            "error": self.error,
            "mismatch": self.mismatch.as_ref().map(Mismatch::json),
        })
    }
}

impl Mismatch {
    fn print(&self, options: &Options) {
        let mode = if options.undefined { " --undefined" } else { "" };
        println!(
            "diff-isa: MISMATCH at seed {}, batch {}, sequence {}",
            options.seed, self.batch, self.sequence
        );
        println!(
            "  again: cargo xtask diff-isa{mode} --seed {} --sequences {} --length {}",
            options.seed, options.sequences, options.length
        );
        println!("  qemu-aarch64 -cpu {}", self.cpu);
        if !self.shrunk {
            println!("  not shrunk: alone, the sequence does not differ");
        }
        println!("  instructions under test: {}", self.units.join(", "));
        for (register, value) in &self.registers {
            println!("  {register:>4} = {value:#018x}");
        }
        for (register, value) in &self.vectors {
            println!("  {register:>4} = {value:#034x}");
        }
        println!("  fpcr = {:#010x}, fpsr = {:#010x}", self.fpcr, self.fpsr);
        println!("    sp = {:#018x}, nzcv = {:#010x}", self.sp, self.nzcv);
        let text = disassemble(&self.words, self.address);
        for (i, word) in self.words.iter().enumerate() {
            let line = text.as_ref().and_then(|lines| lines.get(i)).map_or("", String::as_str);
            println!("  {:#010x}: {word:08x}  {line}", self.address + i as u64 * 4);
        }
        println!("  first difference: {}", self.what);
        println!("    machine: {}", self.machine);
        println!("    qemu:    {}", self.qemu);
    }

    fn json(&self) -> serde_json::Value {
        json!({
            "batch": self.batch,
            "sequence": self.sequence,
            "cpu": self.cpu,
            "shrunk": self.shrunk,
            "address": self.address,
            "words": self.words.iter().map(|w| format!("{w:08x}")).collect::<Vec<_>>(),
            "registers": self.registers.iter().cloned().collect::<BTreeMap<_, _>>(),
            "vectors": self.vectors.iter().map(|(name, v)| (name.clone(), format!("{v:#034x}"))).collect::<BTreeMap<_, _>>(),
            "fpcr": self.fpcr,
            "fpsr": self.fpsr,
            "sp": self.sp,
            "nzcv": self.nzcv,
            "what": self.what,
            "machine": self.machine,
            "qemu": self.qemu,
        })
    }
}
