//! Guests with pages of 16 and 64 KiB: what the CPU says that it has, and an abort in such a page.

mod support;

use seawall_arm::Reg;
use seawall_events::SeaExit;
use seawall_inject::Exit;
use support::sysreg::{Name, mrs};
use support::{AF, CODE, DATA, Guest, NORMAL, PAGE, SCTLR_ON};

const ID_AA64MMFR0: Name = (3, 0, 0, 7, 0);
/// `ldr x0, [x1]`
const LDR: u32 = 0xf940_0020;
/// Where the 64 KiB at [`DATA`] lie.
const FRAME: u64 = 0x4030_0000;
/// The first table; each is aligned to 64 KiB.
const ROOT: u64 = 0x4100_0000;
const TABLE: u64 = 0x1_0000;
/// TCR_EL1: 39 bits for TTBR0, none for TTBR1, 40-bit addresses.
const TCR: u64 = 0x19 | 1 << 23 | 2 << 32;
const LEAF: u64 = NORMAL | AF | PAGE;

/// The MMU on: RAM to itself, but for the 64 KiB at DATA, which are at [`FRAME`]. Gives the tables' descriptors for DATA + 0xd040 as
/// well, from the first level to the last.
///
/// DDI 0487, "Translation table lookup": of 39 bits, 16 KiB resolve `[38:36]`, `[35:25]`, `[24:14]` at levels 1, 2, 3; 64 KiB
/// `[38:29]`, `[28:16]` at levels 2, 3.
fn mapped(shift: u32) -> (Guest, Vec<u64>) {
    let mut guest = Guest::new(&[mrs(ID_AA64MMFR0, 5), LDR]);
    let (tg0, descriptors) = match shift {
        // 0x4000_0000 is 32 times 32 MiB; DATA + 0xc000 is page 0x83 of these.
        14 => (0b10, vec![ROOT, ROOT + TABLE + 8 * 32, ROOT + 2 * TABLE + 8 * 0x83]),
        // 0x4000_0000 is twice 512 MiB; DATA is page 0x20 of these.
        _ => (0b01, vec![ROOT + 8 * 2, ROOT + TABLE + 8 * 0x20]),
    };
    let last = descriptors.len() as u64 - 1;
    for (table, descriptor) in (1..=last).zip(&descriptors) {
        guest.write(*descriptor, (ROOT + table * TABLE) | 3);
    }
    for page in 0..(32 << 20) >> shift {
        let va = 0x4000_0000 + (page << shift);
        let pa = if va & !0xffff == DATA { va - DATA + FRAME } else { va };
        guest.write(ROOT + last * TABLE + 8 * page, pa | LEAF);
    }
    guest.set(Reg::MairEl1, 0x00ff);
    guest.set(Reg::TcrEl1, TCR | tg0 << 14);
    guest.set(Reg::Ttbr0El1, ROOT);
    guest.set(Reg::SctlrEl1, SCTLR_ON);
    guest.set(Reg::X(1), DATA + 0xd040);
    (guest, descriptors)
}

fn sea(guest: &mut Guest) -> SeaExit {
    match guest.run(100) {
        Exit::Sea(sea) => sea,
        exit => panic!("expected a SEA exit, got {exit:?}"),
    }
}

/// DDI 0487, `ID_AA64MMFR0_EL1`: TGran4 `[31:28]` 0, TGran64 `[27:24]` 0, TGran16 `[23:20]` 1 are "supported".
#[test]
fn the_cpu_says_that_it_has_all_three_granules() {
    let mut guest = Guest::new(&[mrs(ID_AA64MMFR0, 5)]);
    guest.steps(1);
    assert_eq!(guest.x(5) >> 20 & 0xfff, 0x001);
}

/// The exit names 4 KiB, as `PAR_EL1.PA` does (bits `[47:12]`), whatever the page.
#[test]
fn a_load_in_a_page_of_16_or_64_kib_loads_and_aborts_where_the_line_is_bad() {
    for shift in [14, 16] {
        let (mut guest, _) = mapped(shift);
        guest.write(FRAME + 0xd040, 0x1122_3344);
        guest.poison(FRAME + 0xd000);
        guest.steps(2);
        assert_eq!(guest.x(0), 0x1122_3344, "the line before it is bad");
        guest.set(Reg::Pc, CODE);
        guest.poison(FRAME + 0xd040);
        let exit = sea(&mut guest);
        let got = (exit.esr.bits(), exit.gva, exit.flags, exit.gpa);
        assert_eq!(got, (0x9200_0210, DATA + 0xd040, 1, 0x4030_d000), "{shift}");
    }
}

/// A fetch meets the tables above the last level first; the last level's descriptors of code and data are in two lines.
#[test]
fn poison_in_a_table_is_told_by_its_level() {
    for (shift, esrs) in
        [(14, &[0x8200_0215, 0x8200_0216, 0x9200_0217][..]), (16, &[0x8200_0216, 0x9200_0217])]
    {
        for (number, esr) in esrs.iter().enumerate() {
            let (mut guest, descriptors) = mapped(shift);
            guest.poison(descriptors[number]);
            let exit = sea(&mut guest);
            assert_eq!((exit.esr.bits(), exit.flags, exit.gpa), (*esr, 0, 0), "{shift}, table {number}");
        }
    }
}
