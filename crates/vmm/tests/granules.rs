//! A bare-metal guest with pages of 4, 16 and 64 KiB: what one bad line costs it.

use seawall::ledger::{Cause, Ledger};
use seawall_events::Reg;
use seawall_inject::Inject as _;

use seawall_vmm::kernel::Kernel;
use seawall_vmm::{Config, End, Guest, Observer, SoftwareMachine};

/// What the guest loads from, and where that is.
const DATA: u64 = 0x4020_d040;
const BAD: u64 = 0x4030_d040;
/// The first table; each is aligned to 64 KiB.
const ROOT: u64 = 0x4100_0000;
const TABLE: u64 = 0x1_0000;
/// SCTLR_EL1: reset value, M, C, I.
const MMU_ON: u64 = 0x30d5_0998 | 0x1005;
/// TCR_EL1: 39 bits for TTBR0, none for TTBR1, 40-bit addresses.
const TCR: u64 = 0x19 | 1 << 23 | 2 << 32;
/// Access flag, inner shareable, page.
const LEAF: u64 = 0x703;

struct Nobody;

impl Observer for Nobody {}

/// Loads from [`DATA`] and powers off; asks for a reset if that aborts.
fn guest() -> Guest {
    const NOP: u32 = 0xd503_201f;
    let mut words = vec![
        0x1000_4000, // adr x0, . + 0x800
        0xd518_c000, // msr vbar_el1, x0
        0xf940_0022, // ldr x2, [x1]
        0x5280_0100, // mov w0, #8
        0x72b0_8000, // movk w0, #0x8400, lsl #16: SYSTEM_OFF
        0xd400_0002, // hvc #0
    ];
    words.resize(0x800 / 4 + 0x200 / 4, NOP);
    words.extend([0x5280_0120, 0x72b0_8000, 0xd400_0002]); // SYSTEM_RESET
    let code = words.iter().flat_map(|word: &u32| word.to_le_bytes()).collect();
    Guest { kernel: Kernel::Flat(code), address: None, initrd: None, command_line: String::new() }
}

/// Turns the MMU on, with 32 MiB mapped to themselves but for the 64 KiB at [`DATA`].
fn map(machine: &mut SoftwareMachine, shift: u32) {
    // DDI 0487, TCR_EL1.TG0; of 39 bits, what the tables above the last resolve of 0x4000_0000.
    let (tg0, above): (u64, &[u64]) = match shift {
        // [38:30] at level 1, [29:21] at level 2, which has a last table for each 2 MiB.
        12 => (0b00, &[1]),
        // [38:36] at level 1, [35:25] at level 2.
        14 => (0b10, &[0, 32]),
        // [38:29] at level 2.
        _ => (0b01, &[2]),
    };
    assert!(machine.placement().fdt.start < 0x4100_0000 || 0x4140_0000 <= machine.placement().fdt.start);
    let vm = machine.vm_mut();
    let mut write = |pa: u64, value: u64| vm.memory_mut().store(pa, &value.to_le_bytes()).unwrap();
    for (level, index) in (0..).zip(above) {
        write(ROOT + level * TABLE + 8 * index, (ROOT + (level + 1) * TABLE) | 3);
    }
    let mut last = ROOT + above.len() as u64 * TABLE;
    if shift == 12 {
        let level2 = last;
        last += TABLE;
        for n in 0..16 {
            write(level2 + 8 * n, (last + (n << 12)) | 3);
        }
    }
    for page in 0..(32 << 20) >> shift {
        let va = 0x4000_0000 + (page << shift);
        let pa = if va & !0xffff == DATA & !0xffff { va + (BAD - DATA) } else { va };
        write(last + 8 * page, pa | LEAF);
    }
    let mut vcpu = vm.vcpu(0).unwrap();
    for (reg, value) in [
        (Reg::MairEl1, 0xff),
        (Reg::TcrEl1, TCR | tg0 << 14),
        (Reg::Ttbr0El1, ROOT),
        (Reg::SctlrEl1, MMU_ON),
        (Reg::X(1), DATA),
    ] {
        vcpu.set_reg(reg, value).unwrap();
    }
}

#[test]
fn a_bad_line_costs_the_guest_one_of_its_own_pages_and_a_reset_heals_it() {
    for (shift, bad) in
        [(12, 0x4030_d000..0x4030_e000), (14, 0x4030_c000..0x4031_0000), (16, 0x4030_0000..0x4031_0000)]
    {
        let mut machine = SoftwareMachine::new(Config::new(64 << 20), &guest(), Box::new(Nobody)).unwrap();
        map(&mut machine, shift);
        machine.poison(BAD..BAD + 1).unwrap();
        assert_eq!(machine.run(Some(10_000)).unwrap(), Some(End::Reset), "{shift}");
        let ledger: Vec<_> =
            machine.ledger().with(|ledger| ledger.ranges().map(|bad| (bad.range, bad.cause)).collect());
        assert_eq!(ledger, [(bad, Cause::Consumed)], "{shift}");
        machine.reset(&guest()).unwrap();
        map(&mut machine, shift);
        assert_eq!(machine.run(Some(10_000)).unwrap(), Some(End::PowerOff), "{shift}");
        assert_eq!(machine.ledger().with(Ledger::pages), 0, "{shift}");
    }
}
