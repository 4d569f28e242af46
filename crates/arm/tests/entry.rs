//! Exception entry, beyond what KVM's injector does (crates/events/tests has the rest).

use std::collections::HashMap;

use seawall_arm::{
    Abort32, EntryContext, Esr, Exception, Pstate, Reg, Registers, Target, Vector, synchronous_abort_vector,
    take_abort32, take_exception,
};

#[derive(Default)]
struct Cpu(HashMap<Reg, u64>);

impl Registers for Cpu {
    fn reg(&self, reg: Reg) -> u64 {
        self.0.get(&reg).copied().unwrap_or(0)
    }
    fn set_reg(&mut self, reg: Reg, value: u64) {
        self.0.insert(reg, value);
    }
}

fn cpu(pstate: u64) -> Cpu {
    let mut cpu = Cpu::default();
    for (reg, value) in [
        (Reg::Pc, 0x8_0004),
        (Reg::Pstate, pstate),
        (Reg::VbarEl1, 0xffff_8000_0000_0800),
        (Reg::VbarEl2, 0x2000),
        (Reg::SctlrEl1, 1 << 23),
        (Reg::SctlrEl2, 1 << 23),
    ] {
        cpu.set_reg(reg, value);
    }
    cpu
}

fn sync(target: Target) -> Exception {
    Exception {
        target,
        vector: Vector::Synchronous,
        esr: Some(Esr::from_bits(0x9600_0010)),
        far: Some(0x1234),
    }
}

#[test]
fn all_sixteen_vectors_of_el1() {
    for (pstate, base) in [(4, 0x000), (5, 0x200), (0, 0x400), (0x10, 0x600)] {
        for (vector, offset) in
            [(Vector::Synchronous, 0), (Vector::Irq, 0x80), (Vector::Fiq, 0x100), (Vector::SError, 0x180)]
        {
            let mut cpu = cpu(pstate);
            let exception = Exception { target: Target::El1, vector, esr: None, far: None };
            take_exception(&mut cpu, &exception, EntryContext::default());
            assert_eq!(cpu.reg(Reg::Pc), 0xffff_8000_0000_0800 + base + offset);
        }
    }
}

#[test]
fn interrupts_leave_esr_and_far_alone() {
    let mut cpu = cpu(5);
    cpu.set_reg(Reg::EsrEl1, 0x55);
    cpu.set_reg(Reg::FarEl1, 0x66);
    let irq = Exception { target: Target::El1, vector: Vector::Irq, esr: None, far: None };
    take_exception(&mut cpu, &irq, EntryContext::default());
    assert_eq!((cpu.reg(Reg::EsrEl1), cpu.reg(Reg::FarEl1)), (0x55, 0x66));
    assert_eq!((cpu.reg(Reg::ElrEl1), cpu.reg(Reg::SpsrEl1)), (0x8_0004, 5));
}

#[test]
fn a_cpu_with_nmi_sets_allint_unless_spintmask() {
    for (nmi, sctlr, allint) in [(true, 0, true), (true, 1 << 62, false), (false, 0, false)] {
        let mut cpu = cpu(5);
        cpu.set_reg(Reg::SctlrEl1, 1 << 23 | sctlr);
        let context = EntryContext { nmi, ..EntryContext::default() };
        take_exception(&mut cpu, &sync(Target::El1), context);
        assert_eq!(cpu.reg(Reg::Pstate), if allint { 0x23c5 } else { 0x3c5 });
    }
}

#[test]
fn span_of_el2_counts_only_where_el2_hosts_el0() {
    for (span_at_el2, pstate) in [(true, 0x0040_03c9), (false, 0x3c9)] {
        let mut cpu = cpu(0);
        cpu.set_reg(Reg::SctlrEl2, 0);
        let context = EntryContext { span_at_el2, ..EntryContext::default() };
        take_exception(&mut cpu, &sync(Target::El2), context);
        assert_eq!(cpu.reg(Reg::Pstate), pstate);
    }
}

#[test]
fn el2_takes_the_vector_of_the_level_below_it() {
    for (pstate, el1_is_aarch64, pc) in [
        (9, true, 0x2200),
        (8, true, 0x2000),
        (5, true, 0x2400),
        (0, true, 0x2400),
        (0x10, true, 0x2400),  // AArch32 EL0 below an AArch64 EL1
        (0x10, false, 0x2600), // AArch32 EL0 below an AArch32 EL1, or below EL2 itself
        (0x13, false, 0x2600),
    ] {
        let mut cpu = cpu(pstate);
        let context = EntryContext { el1_is_aarch64, ..EntryContext::default() };
        take_exception(&mut cpu, &sync(Target::El2), context);
        assert_eq!(cpu.reg(Reg::Pc), pc, "{pstate:#x}");
        let banked =
            (cpu.reg(Reg::EsrEl2), cpu.reg(Reg::FarEl2), cpu.reg(Reg::ElrEl2), cpu.reg(Reg::SpsrEl2));
        assert_eq!(banked, (0x9600_0010, 0x1234, 0x8_0004, pstate));
        assert_eq!(cpu.reg(Reg::EsrEl1), 0);
    }
}

#[test]
fn btype_is_kept_in_spsr_and_cleared_in_pstate() {
    // Golden: an external instruction abort after a BR has SPSR 0x7c5.
    let mut cpu = cpu(0x7c5);
    take_exception(&mut cpu, &sync(Target::El1), EntryContext::default());
    assert_eq!((cpu.reg(Reg::SpsrEl1), cpu.reg(Reg::Pstate)), (0x7c5, 0x3c5));
}

#[test]
fn low_bits_of_vbar_are_res0() {
    let mut cpu = cpu(5);
    cpu.set_reg(Reg::VbarEl1, 0x17ff);
    take_exception(&mut cpu, &sync(Target::El1), EntryContext::default());
    assert_eq!(cpu.reg(Reg::Pc), 0x1200);
}

#[test]
fn ease_chooses_the_serror_vector() {
    assert_eq!(synchronous_abort_vector(0), Vector::Synchronous);
    assert_eq!(synchronous_abort_vector(1 << 2), Vector::Synchronous);
    assert_eq!(synchronous_abort_vector(1 << 5), Vector::SError);
}

#[test]
fn an_asynchronous_abort32_leaves_dfar_alone() {
    let mut cpu = cpu(0x1f);
    cpu.set_reg(Reg::FarEl1, 0x1111_2222_3333_4444);
    take_abort32(&mut cpu, Abort32::Data { dfsr: 0x406, dfar: None });
    assert_eq!(cpu.reg(Reg::FarEl1), 0x1111_2222_3333_4444);
    assert_eq!((cpu.reg(Reg::EsrEl1), cpu.reg(Reg::X(20))), (0x406, 0x8_000c));
}

#[test]
fn pstate_reads_like_a_kernel_prints_it() {
    for (bits, text) in [
        (0x3c5, "nzcv DAIF EL1h"),
        (0x6040_1c05, "nZCv daif PAN SSBS BTYPE=11 EL1h"),
        (0x03b0_2000, "nzcv daif TCO DIT UAO SS IL ALLINT EL0t"),
        (0x8000_01d3, "Nzcvq AIF A32 LE IT=0x00 GE=0x0 Supervisor"),
        (0x0600_fe30, "nzcvq aif T32 BE IT=0xff GE=0x0 User"),
        (0x1f_0000_03c5, "nzcv DAIF UINJ PACM EXLOCK PPEND PM EL1h"),
        (0x02, "nzcv daif reserved mode 0x02"),
    ] {
        assert_eq!(Pstate::from_bits(bits).to_string(), text);
    }
}
