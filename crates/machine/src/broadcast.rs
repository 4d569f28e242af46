//! What one CPU does to the TLBs of all: a log, which each CPU reads when it runs next.
//!
//! Only one CPU runs at a time, and none looks into another's TLB. So an entry costs the CPU that writes it the same
//! however many CPUs there are, and a CPU that was away drops at once all that it missed. Which entries a CPU finds in
//! its TLB is the same as if each had been dropped at the time.

use crate::cpu::{Cpu, Invalidation, Maintenance};
use crate::el2::Banked;
use crate::tlb::{Tlb, untagged};

/// Entries that are kept. When there are more, all CPUs read the log, and it begins again.
const MOST: usize = 4096;
/// Up to so many addresses are looked up one by one.
const FEW: usize = 16;

/// The log.
#[derive(Debug)]
pub(crate) struct Broadcasts {
    entries: Vec<Maintenance>,
    /// How many of them each CPU has done.
    done: Vec<usize>,
}

impl Broadcasts {
    /// An empty one, for so many CPUs.
    pub(crate) fn new(cpus: usize) -> Self {
        Self { entries: Vec::new(), done: vec![0; cpus] }
    }

    /// True if there is no room for another entry: first all CPUs must [`read`](Self::read) the log, then it is to be
    /// [cleared](Self::clear).
    pub(crate) fn is_full(&self) -> bool {
        self.entries.len() >= MOST
    }

    /// The CPU with this number did `maintenance`, and the others are to do it.
    pub(crate) fn push(&mut self, index: usize, maintenance: Maintenance) {
        // It runs, so it has read what was there before.
        self.entries.push(maintenance);
        if let Some(done) = self.done.get_mut(index) {
            *done = self.entries.len();
        }
    }

    /// The CPU with this number does what it has not yet done.
    pub(crate) fn read(&mut self, index: usize, cpu: &mut Cpu) {
        let Some(done) = self.done.get_mut(index) else {
            debug_assert!(false, "expected a CPU of this machine, got {index}");
            return;
        };
        debug_assert!(*done <= self.entries.len(), "CPU {index} has read more than there is");
        let missed = self.entries.get(*done..).unwrap_or_default();
        *done = self.entries.len();
        if !missed.is_empty() {
            invalidate(cpu, missed);
        }
    }

    /// All CPUs have read it.
    pub(crate) fn clear(&mut self) {
        self.entries.clear();
        self.done.fill(0);
    }
}

/// Does all of `missed`: their order does not matter, as nothing was filled between them.
#[cold]
fn invalidate(cpu: &mut Cpu, missed: &[Maintenance]) {
    let regimes: &[Banked] = if cpu.el2.is_some() { &[Banked::El10, Banked::El20] } else { &[Banked::El10] };
    for &regime in regimes {
        let is_its = |entry: &&Maintenance| {
            let of_pages = matches!(entry.what, Invalidation::Fetches | Invalidation::WritesTo(_));
            of_pages || entry.of == regime
        };
        let missed: Vec<Invalidation> = missed.iter().filter(is_its).map(|entry| entry.what).collect();
        invalidate_in(cpu.tlb_of(regime), &missed);
    }
}

fn invalidate_in(tlb: &mut Tlb, missed: &[Invalidation]) {
    if missed.contains(&Invalidation::All) {
        tlb.clear();
        return;
    }
    if missed.contains(&Invalidation::Fetches) {
        tlb.clear_fetch();
    }
    if missed.contains(&Invalidation::AddressSpace) {
        tlb.drop_address_space();
    }
    let addresses = sorted(missed, |entry| match entry {
        Invalidation::Address(va) => Some(untagged(*va)),
        _ => None,
    });
    if addresses.len() <= FEW {
        for va in addresses {
            tlb.drop_address(va);
        }
    } else {
        tlb.drop_addresses(&addresses);
    }
    let pages = sorted(missed, |entry| match entry {
        Invalidation::WritesTo(page) => Some(*page),
        _ => None,
    });
    if !pages.is_empty() {
        tlb.drop_writes_to(&pages);
    }
}

fn sorted<T: Ord>(missed: &[Invalidation], of: impl Fn(&Invalidation) -> Option<T>) -> Vec<T> {
    let mut found: Vec<T> = missed.iter().filter_map(of).collect();
    found.sort_unstable();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::psci;
    use crate::tlb::{Fill, Tlb, View, work};
    use crate::vm::{Config, Vm};

    fn cpu() -> Cpu {
        Cpu::new(psci::mpidr(0), &Config { el2: true, ..Config::default() })
    }

    /// What a TLB translates of the pages that these tests use.
    fn held(tlb: &Tlb) -> Vec<bool> {
        let pages = (0..64_u64).flat_map(|page| [page << 12, 0xffff << 48 | page << 12]);
        pages
            .flat_map(|va| {
                [&tlb.read[View::El1 as usize], &tlb.write[View::El0 as usize], &tlb.fetch[1]]
                    .map(|array| array.entry(va).covers(va, 1))
            })
            .collect()
    }

    fn fill(tlb: &mut Tlb, (page, is_high, shift, global, kind): (u64, bool, u32, bool, u8)) {
        let va = page << 12 | if is_high { 0xffff << 48 } else { 0 };
        let fill = Fill { va, page: page as u32, strict: false, shift, global };
        match kind {
            0 => tlb.fill_read(View::El1, fill),
            1 => tlb.fill_write(View::El0, fill),
            _ => tlb.fill_fetch(1, fill),
        }
    }

    fn invalidations() -> impl Strategy<Value = Maintenance> {
        let what = prop_oneof![
            1 => Just(Invalidation::All),
            2 => Just(Invalidation::AddressSpace),
            2 => Just(Invalidation::Fetches),
            20 => (0_u64..64, any::<bool>(), any::<u8>()).prop_map(|(page, is_high, tag)| {
                let high = if is_high { 0xff << 48 } else { 0 };
                Invalidation::Address(page << 12 | high | u64::from(tag) << 56)
            }),
            5 => (0_u32..64).prop_map(Invalidation::WritesTo),
        ];
        (what, any::<bool>()).prop_map(|(what, of_el2)| Maintenance {
            of: if of_el2 { Banked::El20 } else { Banked::El10 },
            what,
        })
    }

    proptest! {
        /// A CPU cannot tell when it dropped its entries, as it did not run meanwhile.
        #[test]
        fn a_cpu_that_reads_the_log_holds_what_it_would_hold_if_it_had_dropped_each_at_its_time(
            fills in prop::collection::vec(
                (
                    (0_u64..64, any::<bool>(), prop::sample::select(vec![12_u32, 14, 16, 21]), any::<bool>(), 0_u8..3),
                    any::<bool>(),
                ),
                0..80,
            ),
            entries in prop::collection::vec(invalidations(), 0..40),
        ) {
            let (mut at_once, mut later) = (cpu(), cpu());
            for (what, of_el2) in fills {
                let of = if of_el2 { Banked::El20 } else { Banked::El10 };
                fill(at_once.tlb_of(of), what);
                fill(later.tlb_of(of), what);
            }
            let mut log = Broadcasts::new(2);
            for entry in entries {
                at_once.invalidate(entry);
                log.push(1, entry);
            }
            log.read(0, &mut later);
            for of in [Banked::El10, Banked::El20] {
                prop_assert_eq!(held(at_once.tlb_of(of)), held(later.tlb_of(of)));
            }
            prop_assert_eq!(log.done[0], log.done[1]);
        }
    }

    /// Words of code that all 123 CPUs of a machine run, MMU off.
    fn barrage(code: &[u32], steps: u64) -> u64 {
        const CODE: u64 = 0x4000_0000;
        let config = Config { cpus: 123, memory_size: 16 << 20, ..Config::default() };
        let mut vm = Vm::new(config).unwrap();
        for index in 0..123 {
            let bytes: Vec<u8> = code.iter().flat_map(|word| word.to_le_bytes()).collect();
            let at = CODE + 0x1000 * index as u64;
            vm.memory_mut().store(at, &bytes).unwrap();
            let cpu = &mut vm.cpus[index];
            cpu.wait = crate::cpu::Wait::No;
            cpu.pc = at;
            cpu.set_slot(1, CODE + 0x10_0000 + 0x1000 * index as u64);
        }
        vm.set_budget(Some(steps));
        work::take();
        vm.run().unwrap();
        assert_eq!(vm.instructions(), steps);
        work::take()
    }

    /// Found by a hostile test: a second of these took 42 s, most of it in entries of the 122 other CPUs.
    #[test]
    fn maintenance_that_is_broadcast_to_122_cpus_looks_at_no_more_entries_than_there_are_pages_in_use() {
        const STEPS: u64 = 1_230_000;
        let loops: [&[u32]; 4] = [
            // ldr x0, [x1]; tlbi vmalle1is; b . - 8
            &[0xf940_0020, 0xd508_831f, 0x17ff_fffe],
            // ldr x0, [x1]; tlbi vaae1is, x2; add x2, x2, #1; b . - 12
            &[0xf940_0020, 0xd508_8362, 0x9100_0442, 0x17ff_fffd],
            // tlbi aside1is, x2; ic ialluis; b . - 8
            &[0xd508_8342, 0xd508_711f, 0x17ff_fffe],
            // A store to its own line of code, which is decoded again: str w3, [x4]; b . - 4, x4 = PC.
            &[0x1000_0004, 0xb900_0083, 0xb900_0084, 0x17ff_fffd],
        ];
        for code in loops {
            let looked_at = barrage(code, STEPS);
            // Three pages at most are in use by a CPU, and each is in few arrays.
            assert!(looked_at < 8 * STEPS, "{looked_at} entries in {STEPS} steps of {code:x?}");
        }
    }
}
