//! [`seawall_guest::Layout`] agrees with the image's own tables and code.

use seawall_guest::{Image, LINE, PAGE, Place, TaskLayout, demo};
use std::ops::Range;

/// The 64-bit word at a physical address.
fn word(image: &Image, pa: u64) -> u64 {
    let start = (pa - image.load_address) as usize;
    u64::from_le_bytes(image.bytes[start..start + 8].try_into().unwrap())
}

/// A walk of three levels of 4 KiB tables from `table` (DDI 0487 D8.2): the physical address of `va`.
fn walk(image: &Image, table: u64, va: u64) -> Option<u64> {
    let mut table = table;
    for level in 1..=3 {
        let index = va >> (39 - 9 * level) & 0x1ff;
        let descriptor = word(image, table + 8 * index);
        let low = descriptor & 0x0000_ffff_ffff_f000;
        match (descriptor & 3, level) {
            (3, 3) => return Some(low | va & 0xfff),
            (3, _) => table = low,
            (1, 2) => return Some(low | va & 0x1f_ffff),
            _ => return None,
        }
    }
    None
}

/// The physical addresses of a place.
fn range(place: Place) -> Range<u64> {
    place.pa..place.pa + place.len
}

fn assert_mapped(image: &Image, table: u64, place: Place) {
    for offset in [0, place.len - 8] {
        assert_eq!(walk(image, table, place.va + offset), Some(place.pa + offset), "{place:x?}");
    }
}

#[test]
fn each_task_s_tables_lead_to_the_frames_that_the_layout_names() {
    let image = demo();
    for task in &image.layout.tasks {
        let [l1, _, l3] = task.tables;
        for place in [task.text, task.main_line, task.work_line, task.data, task.stack, task.stack_line] {
            assert_mapped(&image, l1, place);
        }
        assert_eq!(task.text_descriptors.pa, l3);
        assert_eq!(word(&image, l3) & 0x0000_ffff_ffff_f000, task.text.pa);
    }
}

#[test]
fn kernel_tables_lead_to_everything_the_kernel_owns_and_to_the_uart() {
    let image = demo();
    let layout = &image.layout;
    let l1 = layout.kernel_tables[0];
    for place in [
        layout.kernel_text,
        layout.vectors,
        layout.vector_line,
        layout.kernel_data,
        layout.kernel_data_line,
        layout.kernel_stack,
        layout.spares,
    ] {
        assert_mapped(&image, l1, place);
    }
    for task in &layout.tasks {
        assert_mapped(&image, l1, task.clean_text);
        assert_mapped(&image, l1, task.text_descriptors);
    }
    assert_eq!(walk(&image, l1, 0xffff_ff80_0900_0000), Some(0x0900_0000));
}

#[test]
fn text_is_its_clean_copy_and_the_named_lines_are_code() {
    let image = demo();
    let bytes = |place: Place| {
        let start = (place.pa - image.load_address) as usize;
        &image.bytes[start..start + place.len as usize]
    };
    for task in &image.layout.tasks {
        assert_eq!(bytes(task.text), bytes(task.clean_text), "{}", task.name);
        // stp x29, x30, [sp, #-16]!; mov x29, sp (checked with llvm-mc).
        assert_eq!(bytes(task.work_line)[..8], [0xfd, 0x7b, 0xbf, 0xa9, 0xfd, 0x03, 0x00, 0x91]);
        // bl .+0x1000; svc #1; b .-8.
        assert_eq!(
            bytes(task.main_line)[..12],
            [0x00, 0x04, 0x00, 0x94, 0x21, 0x00, 0x00, 0xd4, 0xfe, 0xff, 0xff, 0x17]
        );
    }
    assert_eq!(image.layout.task("web").map(|task| task.work_line.va), Some(0x40_1040));
    assert_eq!(image.layout.task("nobody"), None);
}

#[test]
fn no_two_things_share_a_frame() {
    let image = demo();
    let layout = &image.layout;
    let page = |pa: u64| pa..pa + PAGE;
    let of_task = |task: &TaskLayout| {
        let mut all = [task.text, task.data, task.stack, task.clean_text].map(range).to_vec();
        all.extend(task.tables.map(page));
        all
    };
    let mut all: Vec<Range<u64>> = layout.tasks.iter().flat_map(of_task).collect();
    all.extend([layout.kernel_text, layout.kernel_data, layout.kernel_stack, layout.spares].map(range));
    all.extend(layout.kernel_tables.map(page));
    all.sort_by_key(|range| range.start);
    assert_eq!(all.len(), 4 * 7 + 8);
    for pair in all.windows(2) {
        assert!(pair[0].end <= pair[1].start, "{pair:x?}");
    }
    let end = image.load_address + image.bytes.len() as u64;
    assert!(
        all.iter()
            .all(|range| range.start % LINE == 0 && range.start >= image.load_address && range.end <= end)
    );
}
