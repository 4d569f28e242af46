//! The content of the arrays, and what invalidation leaves of it.

use super::*;

fn fill(va: u64, page: u32, shift: u32, global: bool) -> Fill {
    Fill { va, page, strict: false, shift, global }
}

#[test]
fn an_empty_tlb_has_no_page_for_any_address() {
    let tlb = Tlb::new();
    for high in [0, 0x0055 << 48, 0xffff << 48, 0x0055_0000_0040_0000, u64::MAX << 22] {
        for set in 0..SETS as u64 {
            let va = high | set << PAGE_SHIFT;
            assert!(!tlb.read[0].entry(va).covers(va, 8), "{va:#x}");
            assert!(!tlb.fetch[0].entry(va).covers(va, 1), "{va:#x}");
        }
    }
}

fn holds(tlb: &Tlb, va: u64) -> bool {
    tlb.read[View::El1 as usize].entry(va).covers(va, 1)
}

#[test]
fn an_access_that_leaves_the_page_is_not_covered() {
    let mut tlb = Tlb::new();
    tlb.fill_read(View::El1, fill(0x1000, 7, 12, true));
    let entry = tlb.read[View::El1 as usize].entry(0x1ffc);
    assert!(entry.covers(0x1ffc, 4));
    assert!(!entry.covers(0x1ffd, 4));
    assert_eq!(entry.offset(0x1ffc), 0x7ffc);
}

#[test]
fn a_page_that_is_looked_at_covers_nothing_gives_aligned_accesses_its_place_and_is_dropped_by_its_address() {
    let mut tlb = Tlb::new();
    tlb.fill_looked_at(View::El1, fill(0x3000, 7, 12, false));
    let entry = |tlb: &Tlb, va| tlb.read[View::El1 as usize].entry(va);
    assert!(!entry(&tlb, 0x3008).covers(0x3008, 8) && !entry(&tlb, 0x2008).covers(0x2008, 8));
    assert_eq!(entry(&tlb, 0x3008).looked_at(0x3008, 8), Some(0x7008));
    assert_eq!(entry(&tlb, 0x3004).looked_at(0x3004, 8), None, "not aligned");
    assert_eq!(entry(&tlb, 0x10_3008).looked_at(0x10_3008, 8), None, "another page of that set");
    tlb.drop_address(0x2000);
    assert!(entry(&tlb, 0x3008).looked_at(0x3008, 8).is_some());
    tlb.drop_address(0x3000);
    assert_eq!(entry(&tlb, 0x3008).looked_at(0x3008, 8), None);
    tlb.fill_looked_at(View::El1, fill(0x3000, 7, 12, false));
    tlb.drop_addresses(&[0x3000]);
    assert_eq!(entry(&tlb, 0x3008).looked_at(0x3008, 8), None);
}

#[test]
fn invalidation_by_address_drops_every_piece_of_a_block() {
    let mut tlb = Tlb::new();
    tlb.fill_read(View::El1, fill(0x20_1000, 1, 21, true));
    tlb.fill_read(View::El1, fill(0x20_3000, 3, 21, true));
    tlb.fill_read(View::El1, fill(0x40_4000, 4, 12, true));
    tlb.drop_address(0x3f_f000);
    assert!(!holds(&tlb, 0x20_1000) && !holds(&tlb, 0x20_3000));
    assert!(holds(&tlb, 0x40_4000));
}

#[test]
fn invalidation_beside_the_blocks_drops_the_page_alone() {
    let mut tlb = Tlb::new();
    tlb.fill_read(View::El1, fill(0x20_1000, 1, 21, true));
    tlb.fill_read(View::El1, fill(0xa0_3000, 2, 21, true));
    // Between the two, below and above: pages.
    tlb.fill_read(View::El1, fill(0x40_4000, 4, 12, true));
    tlb.fill_read(View::El1, fill(0x1f_f000, 5, 12, true));
    tlb.fill_read(View::El1, fill(0xc0_2000, 6, 12, true));
    for page in [0x40_4000, 0x1f_f000, 0xc0_2000] {
        tlb.drop_address(page);
        assert!(!holds(&tlb, page));
    }
    assert!(holds(&tlb, 0x20_1000) && holds(&tlb, 0xa0_3000));
    tlb.drop_address(0xbf_f000);
    assert!(holds(&tlb, 0x20_1000) && !holds(&tlb, 0xa0_3000));
}

#[test]
fn a_tagged_address_is_dropped_with_its_page() {
    let mut tlb = Tlb::new();
    tlb.fill_read(View::El1, fill(0x5a00_0000_0000_1000, 1, 12, false));
    tlb.drop_address(0x1000);
    assert!(!holds(&tlb, 0x5a00_0000_0000_1000));
}

#[test]
fn a_new_address_space_keeps_only_global_kernel_pages() {
    let mut tlb = Tlb::new();
    tlb.fill_read(View::El1, fill(0xffff_8000_0000_1000, 1, 12, true));
    tlb.fill_read(View::El1, fill(0xffff_8000_0000_2000, 2, 12, false));
    tlb.fill_read(View::El1, fill(0x3000, 3, 12, true));
    tlb.drop_address_space();
    assert!(holds(&tlb, 0xffff_8000_0000_1000));
    assert!(!holds(&tlb, 0xffff_8000_0000_2000) && !holds(&tlb, 0x3000));
}
