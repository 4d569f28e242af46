use super::*;

const BASE: u64 = 0x4000_0000;

fn memory() -> Memory {
    Memory::new(BASE, 0x4000).expect("four pages")
}

fn one(range: Range<u64>) -> Vec<Range<u64>> {
    std::iter::once(range).collect()
}

#[test]
fn ram_is_whole_pages_below_48_bits() {
    for (base, size) in
        [(0, 0), (1, 4096), (0, 4097), (1 << 48, 4096), ((1 << 48) - 4096, 8192), (u64::MAX - 4095, 4096)]
    {
        assert_eq!(
            Memory::new(base, size).err(),
            Some(MemoryError::Shape { base, size }),
            "{base:#x} {size:#x}"
        );
    }
    assert!(Memory::new((1 << 48) - 4096, 4096).is_ok());
}

#[test]
fn more_ram_than_the_host_has_is_an_error_not_an_abort() {
    let size = 1 << 47;
    assert_eq!(Memory::new(0, size).err(), Some(MemoryError::HostMemory { size }));
}

#[test]
fn offsets_exist_only_inside_ram() {
    let memory = memory();
    assert_eq!(memory.offset(BASE), Some(0));
    assert_eq!(memory.offset(BASE + 0x3fff), Some(0x3fff));
    assert_eq!(memory.offset(BASE + 0x4000), None);
    assert_eq!(memory.offset(BASE - 1), None);
    assert_eq!(memory.offset_of(BASE + 0x3ff8, 8), Some(0x3ff8));
    assert_eq!(memory.offset_of(BASE + 0x3ff9, 8), None);
    assert_eq!(memory.offset_of(u64::MAX, 2), None);
}

#[test]
fn reads_and_writes_stop_at_the_end_of_ram() {
    let mut memory = memory();
    assert_eq!(memory.write(0x3ffc, 0x1234_5678_u32.to_le_bytes()), Some(()));
    assert_eq!(memory.read::<2>(0x3ffc), Some([0x78, 0x56]));
    assert_eq!(memory.read::<8>(0x3ffc), None);
    assert_eq!(memory.write(0x3ffd, [0; 4]), None);
    assert_eq!(memory.read::<1>(usize::MAX), None);
}

#[test]
fn host_access_outside_ram_says_what_was_expected_and_what_came() {
    let mut memory = memory();
    let error = memory.store(BASE + 0x3fff, &[1, 2]).expect_err("one byte too far");
    assert_eq!(
        error.to_string(),
        "expected a range inside RAM 0x40000000..0x40004000, got 0x40003fff..0x40004001"
    );
    assert_eq!(memory.read::<1>(0x3fff), Some([0]));
    let error = memory.poison(BASE - 1..BASE + 1).expect_err("one byte too low");
    assert_eq!(
        error.to_string(),
        "expected a range inside RAM 0x40000000..0x40004000, got 0x3fffffff..0x40000001"
    );
    assert_eq!(memory.poisoned_lines(), 0);
    let error = memory.heal(BASE..BASE).expect_err("nothing to heal");
    assert_eq!(error.to_string(), "expected a range of at least one byte, got 0x40000000..0x40000000");
}

#[test]
fn poison_rounds_out_to_lines_and_marks_pages() {
    let mut memory = memory();
    assert_eq!(memory.poison(BASE + 0xfff..BASE + 0x1001), Ok(2));
    assert_eq!(memory.poisoned_ranges(), one(BASE + 0xfc0..BASE + 0x1040));
    assert!(
        memory.page_has_poison(0xf00) && memory.page_has_poison(0x1000) && !memory.page_has_poison(0x2000)
    );
    assert!(memory.poisoned(BASE + 0xfb9, 8));
    assert!(!memory.poisoned(BASE + 0xfb8, 8));
    assert!(!memory.poisoned(BASE + 0x4000, 64));
    assert!(!memory.poisoned(0, 64));
}

#[test]
fn the_host_sees_through_poison_and_does_not_heal_it() {
    let mut memory = memory();
    memory.poison(BASE..BASE + 64).expect("in RAM");
    memory.store(BASE, &[7; 64]).expect("in RAM");
    let mut byte = [0];
    memory.load(BASE + 63, &mut byte).expect("in RAM");
    assert_eq!(byte, [7]);
    assert!(memory.poisoned(BASE, 1));
}

#[test]
fn overwriting_a_whole_line_heals_it_and_no_other() {
    let mut memory = memory();
    memory.poison(BASE..BASE + 128).expect("in RAM");
    memory.store(BASE, &[7; 128]).expect("in RAM");
    assert_eq!(memory.clean_line(BASE + 70), Some(()));
    assert_eq!(memory.read::<2>(63), Some([7, 0]));
    assert_eq!(memory.poisoned_ranges(), one(BASE..BASE + 64));
    assert_eq!(memory.clean_line(BASE + 0x4000), None);
}

#[test]
fn a_page_is_marked_until_its_last_line_is_healed() {
    let mut memory = memory();
    memory.poison(BASE..BASE + 65).expect("in RAM");
    memory.heal(BASE..BASE + 1).expect("in RAM");
    assert!(memory.page_has_poison(0));
    assert_eq!(memory.heal(BASE..BASE + 0x4000), Ok(1));
    assert!(!memory.page_has_poison(0));
}

#[test]
fn only_pages_that_were_written_to_are_touched_before_and_after_a_snapshot() {
    let mut memory = memory();
    assert_eq!(memory.touched(), 0);
    memory.store(BASE + 0xfff, &[1, 2]).expect("in RAM");
    assert_eq!(memory.touched(), 0x2000);
    memory.capture().expect("room");
    memory.store(BASE, &[3]).expect("in RAM");
    memory.store(BASE + 0x3000, &[3]).expect("in RAM");
    assert_eq!(memory.touched(), 0x3000);
}

#[test]
fn a_host_store_over_decoded_code_reports_the_page_once() {
    let mut memory = memory();
    memory.set_has_code(0x1004);
    memory.store(BASE + 0xfff, &[1, 2]).expect("in RAM");
    memory.store(BASE + 0x1000, &[1, 2]).expect("in RAM");
    assert!(memory.has_stale_code());
    assert_eq!(memory.take_stale_code(), [1]);
    assert_eq!(memory.flags(0x1000), page_flags::DIRTY);
    assert!(!memory.has_stale_code());
}

#[test]
fn what_a_device_writes_over_decoded_code_is_stale_and_it_sees_which_lines_are_bad() {
    let mut memory = memory();
    memory.set_has_code(0x1000);
    memory.poison(BASE + 0x2040..BASE + 0x2041).expect("in RAM");
    let (ram, lines) = memory.dma();
    ram[0x1000] = 7;
    assert_eq!(
        [(0x2000, 64), (0x2000, 65), (0x207f, 8), (0x2080, 8)].map(|(at, len)| lines.touch(BASE + at, len)),
        [false, true, true, false]
    );
    memory.host_wrote(0..BASE + 0x1001);
    assert_eq!(memory.take_stale_code(), [1]);
    assert_eq!(memory.read::<1>(0x1000), Some([7]));
    memory.host_wrote(u64::MAX - 1..u64::MAX);
    assert!(!memory.has_stale_code());
}

#[test]
fn zeroing_over_decoded_code_reports_the_page_and_its_neighbours_stay() {
    let mut memory = memory();
    for page in 0..4 {
        memory.set_has_code(page << 12);
    }
    memory.zero(BASE + 0xff8, 8).expect("in RAM");
    assert_eq!(memory.take_stale_code(), [0]);
    memory.clean_line(BASE + 0x1fff).expect("in RAM");
    assert_eq!(memory.take_stale_code(), [1]);
    memory.store(BASE + 0x3000, &[]).expect("nothing to do");
    memory.zero(BASE + 0x3000, 0).expect("nothing to do");
    assert!(!memory.has_stale_code());
}
