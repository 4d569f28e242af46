//! Translated code rests on it: what a TLB has for loads and stores is a whole page of RAM, whatever a guest's tables say.

use proptest::prelude::*;
use seawall_arm::Reg;
use seawall_arm::Registers as _;

use super::access::{load, store};
use super::system::{DC_ZVA, system_instruction};
use crate::cpu::Cpu;
use crate::memory::{Memory, PAGE_SIZE};
use crate::sysreg::id;
use crate::tlb::View;
use crate::vm::{Config, RAM_BASE, Vm};

/// No power of two, so that no mask makes up for a comparison.
const PAGES: u64 = 17;
const END: u64 = RAM_BASE + PAGES * PAGE_SIZE;

/// Tables and leaves: in RAM, at its end, just outside, at devices, and anywhere.
fn descriptor() -> impl Strategy<Value = u64> {
    let place = prop_oneof![
        6 => (0..PAGES).prop_map(|page| RAM_BASE + page * PAGE_SIZE),
        2 => Just(END - PAGE_SIZE),
        2 => Just(END),
        1 => Just(RAM_BASE - PAGE_SIZE),
        1 => Just(0x0900_0000),
        1 => any::<u64>().prop_map(|pa| pa & 0x0000_ffff_ffff_f000),
    ];
    // Access flag, all rights; of the rest anything.
    (place, any::<u64>(), prop_oneof![5 => Just(3_u64), 2 => Just(1), 1 => Just(0)])
        .prop_map(|(pa, bits, kind)| pa | bits & 0x0008_0000_0000_0b1c | 1 << 10 | kind)
}

fn address() -> impl Strategy<Value = u64> {
    let inside = prop_oneof![Just(0_u64), 0..PAGE_SIZE, PAGE_SIZE - 16..PAGE_SIZE];
    let page = prop_oneof![
        3 => 0..64_u64,
        2 => (RAM_BASE >> 12) - 1..(END >> 12) + 2,
        1 => any::<u64>().prop_map(|va| va >> 12),
    ];
    let sign = prop::sample::select(vec![0, 0, 0xffff << 48, 0x5a << 56]);
    (page, inside, sign).prop_map(|(page, inside, sign)| page << 12 | inside | sign)
}

/// The content of RAM: a few descriptors over and over, with a stride that spreads them over every index.
fn fill_ram(memory: &mut Memory, descriptors: &[u64]) {
    for (n, pa) in (RAM_BASE..END).step_by(8).enumerate() {
        let descriptor = descriptors[(n * 7 + n / 512) % descriptors.len()];
        memory.store(pa, &descriptor.to_le_bytes()).expect("in RAM");
    }
}

fn access(cpu: &mut Cpu, memory: &mut Memory, kind: u8, va: u64) {
    let _ = match kind {
        0 => load::<1>(cpu, memory, va).map(drop),
        1 => load::<8>(cpu, memory, va).map(drop),
        2 => load::<16>(cpu, memory, va).map(drop),
        3 => store(cpu, memory, va, [0x5a; 4], 4),
        4 => store(cpu, memory, va, [0x5a; 16], 8),
        _ => {
            cpu.set_reg(Reg::X(0), va);
            system_instruction(cpu, memory, DC_ZVA, 0)
        }
    };
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_map_puts_a_page_that_is_not_a_whole_page_of_ram_into_a_tlb(
        descriptors in prop::collection::vec(descriptor(), 64),
        (has_el2, at_el2, stage2, mmu) in (any::<bool>(), any::<bool>(), any::<bool>(), prop::bool::weighted(0.8)),
        (tcr, vtcr) in (any::<u64>(), any::<u64>()),
        (table, table2) in (0..PAGES, 0..PAGES),
        accesses in prop::collection::vec((0..6_u8, address(), 0..3_u8), 1..80),
        poison in prop::collection::vec(RAM_BASE..END, 0..6),
    ) {
        let config = Config { memory_size: PAGES * PAGE_SIZE, el2: has_el2, ..Config::default() };
        let mut vm = Vm::new(config).expect("17 pages");
        fill_ram(vm.memory_mut(), &descriptors);
        for pa in poison {
            vm.poison(pa..pa + 1).expect("in RAM");
        }
        let Vm { cpus, memory, .. } = &mut vm;
        let cpu = &mut cpus[0];
        if has_el2 {
            // HCR_EL2: RW, and VM; VTCR_EL2: 4 KiB, from T0SZ 24 to 39; VTTBR_EL2.
            cpu.write_el2_register(id(3, 4, 1, 1, 0), 1 << 31 | u64::from(stage2)).expect("HCR_EL2");
            let vtcr = vtcr & 0x0060_0000 | (24 + vtcr % 16) | 1 << 6 | 5 << 16;
            cpu.write_el2_register(id(3, 4, 2, 1, 2), vtcr).expect("VTCR_EL2");
            cpu.write_el2_register(id(3, 4, 2, 1, 0), RAM_BASE + table2 * PAGE_SIZE).expect("VTTBR_EL2");
            cpu.set_pstate(if at_el2 { 0x3c9 } else { 0x3c5 });
        }
        // Of TCR_EL1 the sizes, so that walks begin at level 0, 1 or 2, and TBI, HA and HD.
        let size = 16 + tcr % 20;
        cpu.sys.tcr = tcr & 0x1e0_0000_0000 | size | size << 16 | 2 << 30;
        (cpu.sys.ttbr0, cpu.sys.ttbr1) = (RAM_BASE + table * PAGE_SIZE, RAM_BASE + table2 * PAGE_SIZE);
        (cpu.sys.sctlr, cpu.sys.mair) = (u64::from(mmu), 0xff44_0804_00ff_bb00);
        cpu.context_changed();
        for (kind, va, view) in accesses {
            cpu.view = [View::El0, View::El1, View::El1Pan][usize::from(view)];
            access(cpu, memory, kind, va);
            for tlb in cpu.tlbs() {
                for offset in tlb.data_pages() {
                    prop_assert!(offset % PAGE_SIZE == 0 && offset < PAGES * PAGE_SIZE, "{offset:#x} by {va:#x}");
                }
            }
        }
    }
}
