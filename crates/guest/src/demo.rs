//! Builds the demo guest: kernel code, tables, control blocks and tasks in one flat image.

use crate::asm::Asm;
use crate::layout::{
    BOOT_L1, DATA_VA, Frames, IMAGE_PAGES, KERNEL_DATA, KERNEL_L1, KERNEL_L2_DEVICES, KERNEL_L2_RAM,
    KERNEL_L3, KERNEL_OFFSET, KERNEL_TEXT_PAGES, LOAD_ADDRESS, Layout, PAGE, REGION_PAGES, SPARES, STACK_VA,
    TEXT_VA, UART, clean_text, state, tcb,
};
use crate::tables::{
    BOOT_BLOCK, DEVICE_BLOCK, KERNEL_RW, KERNEL_TEXT, Memory, NEXT_TABLE, USER_DATA, USER_TEXT,
};
use crate::tasks::{NAMES, Program, programs};
use crate::{Image, console, kernel, panic, sea, vectors};

/// The build options of the demo guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DemoOptions {
    /// Rounds that each task runs. One round of all four takes about 15 thousand instructions.
    pub rounds: u64,
    /// Puts a hole of the physical address space under a piece of the guest. An external abort then happens
    /// without help from the host, on a machine that cannot poison memory, such as QEMU.
    pub hole: Option<Hole>,
}

impl Default for DemoOptions {
    /// 64 rounds, no hole.
    fn default() -> Self {
        Self { rounds: 64, hole: None }
    }
}

/// An empty page-aligned physical address, and the piece of the guest to put there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hole {
    /// The physical address; rounded down to a page.
    pub pa: u64,
    /// The piece that is mapped to it.
    pub under: HoleUnder,
}

/// The piece over a [`Hole`]. Tasks count from 1; a number without a task means task 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoleUnder {
    /// The second page of the task's text: its first fetch aborts, and the clean copy saves the task.
    Text(u32),
    /// The first page of the task's data: its first load aborts and kills the task (`log`: its first store).
    Data(u32),
    /// The task's level 3 table: its first fetch aborts on the walk and kills the task.
    Tables(u32),
    /// The kernel's data page: its first load panics the kernel, and the panic itself aborts again.
    KernelData,
}

/// The demo guest with the default options.
pub fn demo() -> Image {
    demo_with(&DemoOptions::default())
}

/// The demo guest.
pub fn demo_with(options: &DemoOptions) -> Image {
    let mut memory = Memory::new(LOAD_ADDRESS, IMAGE_PAGES);
    memory.write(LOAD_ADDRESS, &kernel_code());
    memory.write_u64(KERNEL_DATA + u64::from(state::NEXT_SPARE), SPARES);
    map_kernel(&mut memory);
    for (n, program) in programs().iter().enumerate() {
        load_task(&mut memory, n as u64, program, options.rounds);
    }
    if let Some(hole) = options.hole {
        dig(&mut memory, hole);
    }
    Image {
        bytes: memory.into_bytes(),
        load_address: LOAD_ADDRESS,
        entry: LOAD_ADDRESS,
        layout: Layout::new(NAMES),
    }
}

/// The kernel's text and strings.
fn kernel_code() -> Vec<u8> {
    let mut asm = Asm::new();
    kernel::boot(&mut asm, "[boot] EL1, MMU on, 4 tasks: web db batch log\n");
    vectors::emit(&mut asm);
    kernel::emit(&mut asm);
    sea::emit(&mut asm);
    panic::emit(&mut asm);
    console::emit(&mut asm, KERNEL_OFFSET + UART);
    asm.finish(KERNEL_TEXT_PAGES * PAGE)
}

/// The boot table (the first GiB of RAM, identity), and the kernel's map: UART, its text, and every frame.
fn map_kernel(memory: &mut Memory) {
    let kernel = KERNEL_OFFSET + LOAD_ADDRESS;
    let uart = KERNEL_OFFSET + UART;
    memory.descriptor(BOOT_L1, 1, LOAD_ADDRESS, 0x4000_0000 | BOOT_BLOCK);
    memory.descriptor(KERNEL_L1, 1, uart, KERNEL_L2_DEVICES | NEXT_TABLE);
    memory.descriptor(KERNEL_L1, 1, kernel, KERNEL_L2_RAM | NEXT_TABLE);
    memory.descriptor(KERNEL_L2_DEVICES, 2, uart, UART | DEVICE_BLOCK);
    memory.descriptor(KERNEL_L2_RAM, 2, kernel, KERNEL_L3 | NEXT_TABLE);
    memory.map_pages(KERNEL_L3, kernel, LOAD_ADDRESS, IMAGE_PAGES, KERNEL_RW);
    memory.map_pages(KERNEL_L3, kernel, LOAD_ADDRESS, KERNEL_TEXT_PAGES, KERNEL_TEXT);
}

/// Task `n` (from 0): its text and the clean copy, data, tables and control block.
fn load_task(memory: &mut Memory, n: u64, program: &Program, rounds: u64) {
    let frames = Frames::of(n);
    let number = n + 1;
    memory.write(frames.text, &program.text);
    memory.write(clean_text(n), &program.text);
    memory.write(frames.data, &program.data);

    memory.descriptor(frames.l1, 1, TEXT_VA, frames.l2 | NEXT_TABLE);
    memory.descriptor(frames.l2, 2, TEXT_VA, frames.l3 | NEXT_TABLE);
    memory.map_pages(frames.l3, TEXT_VA, frames.text, REGION_PAGES, USER_TEXT);
    memory.map_pages(frames.l3, DATA_VA, frames.data, REGION_PAGES, USER_DATA);
    memory.map_pages(frames.l3, STACK_VA, frames.stack, 1, USER_DATA);

    let block = KERNEL_DATA + u64::from(state::TASKS + n as u32 * tcb::SIZE);
    for (field, value) in [
        (tcb::SP, STACK_VA + PAGE),
        (tcb::PC, TEXT_VA),
        (tcb::TTBR0, number << 48 | frames.l1),
        (tcb::L3, frames.l3),
        (tcb::CLEAN, clean_text(n)),
        (tcb::EXPECTED, program.expected),
        (tcb::TARGET, rounds),
        (tcb::NUMBER, number),
        (tcb::STATE, tcb::ALIVE),
    ] {
        memory.write_u64(block + u64::from(field), value);
    }
    memory.write(block + u64::from(tcb::NAME), NAMES[n as usize].as_bytes());
}

/// Maps a piece of the guest to a hole.
fn dig(memory: &mut Memory, hole: Hole) {
    let pa = hole.pa & !(PAGE - 1);
    let frames = |number: u32| Frames::of(NAMES.len().min(number.max(1) as usize) as u64 - 1);
    match hole.under {
        HoleUnder::Text(task) => memory.descriptor(frames(task).l3, 3, TEXT_VA + PAGE, pa | USER_TEXT),
        HoleUnder::Data(task) => memory.descriptor(frames(task).l3, 3, DATA_VA, pa | USER_DATA),
        HoleUnder::Tables(task) => memory.descriptor(frames(task).l2, 2, TEXT_VA, pa | NEXT_TABLE),
        HoleUnder::KernelData => memory.descriptor(KERNEL_L3, 3, KERNEL_OFFSET + KERNEL_DATA, pa | KERNEL_RW),
    }
}
