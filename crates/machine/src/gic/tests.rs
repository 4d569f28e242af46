//! Each test names the rule of IHI 0069 that it shows.

use super::cpu_interface::*;
use super::*;

const GICD: u64 = 0x0800_0000;
/// SGI_base of CPU 0 and CPU 1.
const SGI_BASE: [u64; 2] = [0x080b_0000, 0x080d_0000];

/// A controller that both CPUs opened as Linux does: all interrupts in group 1, priority 0xa0, all
/// SGIs and PPIs enabled, no mask.
fn open() -> Gic {
    let mut gic = Gic::new(2);
    gic.store(GICD, 4, 0x3);
    for n in 1..9 {
        gic.store(GICD + 0x80 + 4 * n, 4, 0xffff_ffff);
    }
    for n in 8..72 {
        gic.store(GICD + 0x400 + 4 * n, 4, 0xa0a0_a0a0);
    }
    for (cpu, base) in SGI_BASE.into_iter().enumerate() {
        gic.store(base - 0x1_0000 + 0x14, 4, 0);
        gic.store(base + 0x80, 4, 0xffff_ffff);
        gic.store(base + 0x100, 4, 0xffff_ffff);
        for n in 0..8 {
            gic.store(base + 0x400 + 4 * n, 4, 0xa0a0_a0a0);
        }
        for (register, value) in [(ICC_PMR_EL1, 0xf0), (ICC_IGRPEN0_EL1, 1), (ICC_IGRPEN1_EL1, 1)] {
            gic.write_register(cpu, register, value).expect("a register");
        }
    }
    gic
}

#[track_caller]
fn read(gic: &mut Gic, cpu: usize, register: u16) -> u64 {
    gic.read_register(cpu, register).expect("a register that can be read")
}

#[track_caller]
fn write(gic: &mut Gic, cpu: usize, register: u16, value: u64) {
    gic.write_register(cpu, register, value).expect("a register that can be written");
}

/// An SGI of CPU 0 to itself.
fn pend(gic: &mut Gic, intid: u64) {
    write(gic, 0, ICC_SGI1R_EL1, intid << 24 | 1);
}

const NONE: Signals = Signals::NONE;
const IRQ: Signals = Signals::IRQ;
const FIQ: Signals = Signals::FIQ;

/// 12.9.38, 12.11.34: GICD_TYPER, GICR_TYPER, and the identification registers.
#[test]
fn the_registers_say_what_is_there() {
    let gic = Gic::new(2);
    for (pa, len, expected) in [
        (GICD, 4, 0x50),
        (GICD + 4, 4, 0x0378_0008),
        (GICD + 8, 4, 0x43b),
        (GICD + 0xffe8, 4, 0x3b),
        (0x080a_ffe8, 4, 0x3b),
        (0x080a_0004, 4, 0x43b),
        (0x080a_0008, 8, 0),
        (0x080c_0008, 8, 0x0000_0001_0000_0110),
        (0x080c_000c, 4, 1),
        (0x080a_0014, 4, 6),
        // Not there, or not of this size.
        (GICD + 0x10, 4, 0),
        (GICD + 4, 8, 0),
        (GICD + 4, 1, 0),
        (GICD + 4, 2, 0),
    ] {
        assert_eq!(gic.load(pa, len), expected, "{len} bytes at {pa:#x}");
    }
    assert!(gic.has(0x0800_0000) && gic.has(0x080d_ffff) && gic.has(0x0800_ffff));
    assert!(!gic.has(0x0801_0000) && !gic.has(0x080e_0000) && !gic.has(0x0900_0000));
}

/// 12.9.4: with one Security state only the group enables can be written.
#[test]
fn affinity_routing_and_the_single_security_state_cannot_be_turned_off() {
    let mut gic = Gic::new(1);
    gic.store(GICD, 4, 0xffff_ffff);
    assert_eq!(gic.load(GICD, 4), 0x53);
    gic.store(GICD, 4, 0);
    assert_eq!(gic.load(GICD, 4), 0x50);
}

/// 12.11.36: ChildrenAsleep follows ProcessorSleep.
#[test]
fn a_redistributor_wakes_when_it_is_told() {
    let mut gic = Gic::new(1);
    gic.store(0x080a_0014, 4, 0);
    assert_eq!(gic.load(0x080a_0014, 4), 0);
    gic.store(0x080a_0014, 4, 2);
    assert_eq!(gic.load(0x080a_0014, 4), 6);
}

/// 4.1: inactive, pending, active, and back.
#[test]
fn an_sgi_is_signalled_acknowledged_and_ended() {
    let mut gic = open();
    assert_eq!(gic.signals(0), NONE);
    pend(&mut gic, 5);
    assert_eq!((gic.signals(0), gic.signals(1)), (IRQ, NONE));
    assert_eq!(read(&mut gic, 0, ICC_HPPIR1_EL1), 5);
    assert_eq!(read(&mut gic, 0, ICC_IAR1_EL1), 5);
    assert_eq!(gic.signals(0), NONE);
    assert_eq!(read(&mut gic, 0, ICC_RPR_EL1), 0xa0);
    assert_eq!((gic.load(SGI_BASE[0] + 0x200, 4), gic.load(SGI_BASE[0] + 0x300, 4)), (0, 1 << 5));
    pend(&mut gic, 5);
    assert_eq!(gic.load(SGI_BASE[0] + 0x200, 4), 1 << 5, "active and pending");
    write(&mut gic, 0, ICC_EOIR1_EL1, 5);
    assert_eq!((read(&mut gic, 0, ICC_RPR_EL1), gic.load(SGI_BASE[0] + 0x300, 4)), (0xff, 0));
    assert_eq!(gic.signals(0), IRQ);
}

/// 12.2.14: 1023 if there is none of the group, and nothing becomes active.
#[test]
fn nothing_to_acknowledge_is_a_spurious_interrupt() {
    let mut gic = open();
    assert_eq!(read(&mut gic, 0, ICC_IAR1_EL1), 1023);
    pend(&mut gic, 5);
    assert_eq!((read(&mut gic, 0, ICC_IAR0_EL1), read(&mut gic, 0, ICC_HPPIR0_EL1)), (1023, 1023));
    write(&mut gic, 0, ICC_PMR_EL1, 0xa0);
    assert_eq!((gic.signals(0), read(&mut gic, 0, ICC_IAR1_EL1)), (NONE, 1023));
    assert_eq!(read(&mut gic, 0, ICC_HPPIR1_EL1), 5, "the mask does not hide it");
    write(&mut gic, 0, ICC_EOIR1_EL1, 1023);
    write(&mut gic, 0, ICC_PMR_EL1, 0xa8);
    assert_eq!(read(&mut gic, 0, ICC_IAR1_EL1), 5);
}

/// 4.8: the lowest value first; of equals the lowest INTID.
#[test]
fn the_highest_priority_comes_first_and_preempts() {
    let mut gic = open();
    gic.store(SGI_BASE[0] + 0x407, 1, 0x40);
    for intid in [9, 3, 7] {
        pend(&mut gic, intid);
    }
    assert_eq!(read(&mut gic, 0, ICC_IAR1_EL1), 7);
    assert_eq!(gic.signals(0), NONE, "the others do not preempt it");
    write(&mut gic, 0, ICC_EOIR1_EL1, 7);
    assert_eq!(read(&mut gic, 0, ICC_IAR1_EL1), 3);
    pend(&mut gic, 7);
    assert_eq!(gic.signals(0), IRQ, "it preempts");
    assert_eq!(read(&mut gic, 0, ICC_IAR1_EL1), 7);
    assert_eq!((read(&mut gic, 0, ICC_RPR_EL1), read(&mut gic, 0, ICC_AP1R0_EL1)), (0x40, 1 << 8 | 1 << 20));
    write(&mut gic, 0, ICC_EOIR1_EL1, 7);
    assert_eq!(read(&mut gic, 0, ICC_RPR_EL1), 0xa0);
    write(&mut gic, 0, ICC_EOIR1_EL1, 3);
    assert_eq!(read(&mut gic, 0, ICC_IAR1_EL1), 9);
}

/// 4.8.6: the binary point of group 1 decides what preempts.
#[test]
fn subpriorities_do_not_preempt() {
    for (point, running, expected) in [(6, 0x80, NONE), (5, 0xa0, IRQ)] {
        let mut gic = open();
        gic.store(SGI_BASE[0] + 0x407, 1, 0x80);
        write(&mut gic, 0, ICC_BPR1_EL1, point);
        pend(&mut gic, 3);
        assert_eq!(read(&mut gic, 0, ICC_IAR1_EL1), 3);
        assert_eq!(read(&mut gic, 0, ICC_RPR_EL1), running);
        pend(&mut gic, 7);
        assert_eq!(gic.signals(0), expected, "0x80 over 0xa0, binary point {point}");
    }
}

/// 12.2.5, 12.2.9: EOImode 1.
#[test]
fn with_split_ends_eoir_drops_the_priority_and_dir_deactivates() {
    let mut gic = open();
    write(&mut gic, 0, ICC_DIR_EL1, 5);
    write(&mut gic, 0, ICC_CTLR_EL1, 2);
    assert_eq!(read(&mut gic, 0, ICC_CTLR_EL1), 0x8402);
    pend(&mut gic, 5);
    assert_eq!(read(&mut gic, 0, ICC_IAR1_EL1), 5);
    pend(&mut gic, 5);
    write(&mut gic, 0, ICC_EOIR1_EL1, 5);
    assert_eq!(read(&mut gic, 0, ICC_RPR_EL1), 0xff);
    assert_eq!((gic.load(SGI_BASE[0] + 0x300, 4), gic.signals(0)), (1 << 5, NONE), "it is active still");
    write(&mut gic, 0, ICC_DIR_EL1, 5);
    assert_eq!((gic.load(SGI_BASE[0] + 0x300, 4), gic.signals(0)), (0, IRQ));
}

/// 12.2.5: in EOI mode 0 a write to DIR does nothing.
#[test]
fn without_split_ends_dir_is_ignored() {
    let mut gic = open();
    pend(&mut gic, 5);
    assert_eq!(read(&mut gic, 0, ICC_IAR1_EL1), 5);
    write(&mut gic, 0, ICC_DIR_EL1, 5);
    assert_eq!(gic.load(SGI_BASE[0] + 0x300, 4), 1 << 5);
}

/// 4.6, table 4-2: group 0 is FIQ; each group has its own enables in distributor and interface.
#[test]
fn group_0_is_an_fiq_and_each_group_can_be_disabled() {
    let mut gic = open();
    gic.store(SGI_BASE[0] + 0x80, 4, 0xffff_ffdf);
    pend(&mut gic, 5);
    assert_eq!(gic.signals(0), NONE, "SGI1R is for group 1 alone");
    write(&mut gic, 0, ICC_SGI0R_EL1, 5 << 24 | 1);
    assert_eq!(gic.signals(0), FIQ);
    assert_eq!(read(&mut gic, 0, ICC_IAR1_EL1), 1023);
    gic.store(GICD, 4, 2);
    assert_eq!(gic.signals(0), NONE);
    gic.store(GICD, 4, 3);
    write(&mut gic, 0, ICC_IGRPEN0_EL1, 0);
    assert_eq!(gic.signals(0), NONE);
    pend(&mut gic, 6);
    assert_eq!(gic.signals(0), IRQ);
    write(&mut gic, 0, ICC_IGRPEN0_EL1, 1);
    assert_eq!(read(&mut gic, 0, ICC_IAR0_EL1), 5, "of the same priority, and lower");
    write(&mut gic, 0, ICC_EOIR1_EL1, 5);
    assert_eq!(read(&mut gic, 0, ICC_RPR_EL1), 0xa0, "an end of the other group does nothing");
    write(&mut gic, 0, ICC_EOIR0_EL1, 5);
    assert_eq!(read(&mut gic, 0, ICC_RPR_EL1), 0xff);
}

/// 12.2.20: target list by affinity, range, and IRM.
#[test]
fn sgis_go_to_the_list_or_to_all_others() {
    let mut gic = Gic::new(20);
    for cpu in 0..20 {
        gic.store(0x080b_0080 + 0x2_0000 * cpu, 4, 0xffff_ffff);
    }
    let mut sent = |value: u64| {
        write(&mut gic, 2, ICC_SGI1R_EL1, value | 4 << 24);
        let pending: Vec<u64> =
            (0..20).filter(|cpu| gic.load(0x080b_0200 + 0x2_0000 * cpu, 4) == 1 << 4).collect();
        (0..20).for_each(|cpu| gic.store(0x080b_0280 + 0x2_0000 * cpu, 4, 0xffff));
        pending
    };
    assert_eq!(sent(0b1001), [0, 3]);
    assert_eq!(sent(1 << 16 | 0b0110), [17, 18], "Aff1 = 1");
    assert!(sent(2 << 16 | 1).is_empty(), "no such cluster");
    assert!(sent(1 << 44 | 1).is_empty(), "CPUs 16 and up of a cluster");
    let all_but_2: Vec<u64> = (0..20).filter(|cpu| *cpu != 2).collect();
    assert_eq!(sent(1 << 40), all_but_2);
}

/// 12.9.22: GICD_IROUTER; 1 of N is not there.
#[test]
fn an_spi_goes_where_its_route_says() {
    let mut gic = open();
    gic.store(GICD + 0x104, 4, 1 << 8);
    gic.set_line(40, true).expect("an SPI");
    assert_eq!((gic.signals(0), gic.signals(1)), (IRQ, NONE));
    gic.store(GICD + 0x6000 + 8 * 40, 8, 0x8000_0001);
    assert_eq!(gic.load(GICD + 0x6000 + 8 * 40, 8), 1);
    assert_eq!((gic.signals(0), gic.signals(1)), (NONE, IRQ));
    gic.store(GICD + 0x6000 + 8 * 40, 4, 7);
    assert_eq!((gic.signals(0), gic.signals(1)), (NONE, NONE), "no such CPU");
    assert_eq!((gic.set_line(31, true), gic.set_line(288, true)), (None, None));
}

/// 4.3: a level-sensitive interrupt is pending again if its line is still high at the end.
#[test]
fn a_level_interrupt_comes_again_until_its_line_falls() {
    let mut gic = open();
    assert!(gic.set_private_line(0, 27, true));
    assert!(!gic.set_private_line(0, 27, true), "no change");
    assert_eq!(read(&mut gic, 0, ICC_IAR1_EL1), 27);
    assert_eq!(gic.signals(0), NONE);
    write(&mut gic, 0, ICC_EOIR1_EL1, 27);
    assert_eq!(gic.signals(0), IRQ);
    assert!(gic.set_private_line(0, 27, false));
    assert_eq!(gic.signals(0), NONE);
}

/// 12.2: what cannot be read or written is UNDEFINED.
#[test]
fn write_only_and_read_only_registers_and_those_that_are_not_there() {
    let mut gic = open();
    for register in [ICC_EOIR1_EL1, ICC_DIR_EL1, ICC_SGI1R_EL1, ICC_AP0R0_EL1 + 1, ICC_AP1R0_EL1 + 1] {
        assert_eq!(gic.read_register(0, register), None, "{register:#x}");
    }
    for register in [ICC_IAR1_EL1, ICC_HPPIR1_EL1, ICC_RPR_EL1, ICC_AP1R0_EL1 + 3] {
        assert_eq!(gic.write_register(0, register, 0), None, "{register:#x}");
    }
    assert_eq!(read(&mut gic, 0, ICC_SRE_EL1), 7);
}
