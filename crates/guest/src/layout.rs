//! The layout of the demo guest: physical frames, virtual addresses, and the kernel's own records.
//!
//! It is one image of [`IMAGE_PAGES`] 4 KiB pages at [`LOAD_ADDRESS`], all inside one 2 MiB region so that a
//! single level 3 table maps the kernel's view of it. Only spare frames are allocated at run time.
//!
//! | pages | content |
//! |---|---|
//! | 0..8 | kernel text: boot at 0, vectors at page 1, then code and strings |
//! | 8 | kernel data: [`state`] and the task control blocks ([`tcb`]) |
//! | 9, 10 | kernel stack, panic stack |
//! | 11..16 | boot table (TTBR0, identity), kernel tables (TTBR1): L1, L2 for devices, L2 for RAM, L3 |
//! | 16..24 | clean copies of the tasks' text, two pages for each task |
//! | 24..56 | eight frames for each task: text ×2, data ×2, stack, L1, L2, L3 |
//! | 56..72 | spare frames |

/// Size of a page and of a frame, in bytes: the 4 KiB granule.
pub const PAGE: u64 = 0x1000;
/// Size of a line, in bytes: the granule of poison, and of the machine's caches.
pub const LINE: u64 = 64;
/// Physical address at which the image must be loaded and entered (QEMU's `-kernel` puts a flat image here).
pub const LOAD_ADDRESS: u64 = 0x4008_0000;
/// The offset from a physical address to the kernel's virtual address: the lower end of TTBR1's 39-bit range.
pub const KERNEL_OFFSET: u64 = 0xffff_ff80_0000_0000;
/// Physical address of the PL011 UART, as on QEMU's `virt`.
pub const UART: u64 = 0x0900_0000;
/// Number of tasks.
pub const TASKS: usize = 4;

/// Virtual address of a task's two pages of text. Every task has the same addresses, in its own address
/// space.
pub const TEXT_VA: u64 = 0x40_0000;
/// Virtual address of a task's two pages of data.
pub const DATA_VA: u64 = 0x41_0000;
/// Virtual address of a task's stack page; SP_EL0 starts at its end.
pub const STACK_VA: u64 = 0x42_0000;
/// Pages of text, and pages of data, of one task.
pub const REGION_PAGES: u64 = 2;

/// Offset in a task's text of the loop that calls the work and then the kernel in each round.
pub(crate) const MAIN_LOOP: u64 = 0x40;
/// Offset in a task's text of the function that does a round's work. It is in the second page, so that the
/// task can lose one page and keep the other.
pub(crate) const WORK: u64 = 0x1040;

/// Physical address of page `n` of the image.
pub(crate) const fn frame(n: u64) -> u64 {
    LOAD_ADDRESS + n * PAGE
}

pub(crate) const KERNEL_TEXT_PAGES: u64 = 8;
pub(crate) const VECTORS_PAGE: u64 = 1;
pub(crate) const KERNEL_DATA: u64 = frame(8);
pub(crate) const KERNEL_STACK: u64 = frame(9);
pub(crate) const PANIC_STACK: u64 = frame(10);
pub(crate) const BOOT_L1: u64 = frame(11);
pub(crate) const KERNEL_L1: u64 = frame(12);
pub(crate) const KERNEL_L2_DEVICES: u64 = frame(13);
pub(crate) const KERNEL_L2_RAM: u64 = frame(14);
pub(crate) const KERNEL_L3: u64 = frame(15);
const CLEAN_PAGE: u64 = 16;
const TASK_PAGE: u64 = 24;
const TASK_FRAMES: u64 = 8;
pub(crate) const SPARES: u64 = frame(56);
pub(crate) const SPARE_FRAMES: u64 = 16;
/// Pages in the image.
pub const IMAGE_PAGES: u64 = 72;

/// Physical address of the clean copy of task `n`'s text (`n` counts from 0).
pub(crate) const fn clean_text(n: u64) -> u64 {
    frame(CLEAN_PAGE + n * REGION_PAGES)
}

/// Physical addresses of the frames that belong to one task.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frames {
    pub(crate) text: u64,
    pub(crate) data: u64,
    pub(crate) stack: u64,
    pub(crate) l1: u64,
    pub(crate) l2: u64,
    pub(crate) l3: u64,
}

impl Frames {
    /// The frames of task `n`, counted from 0.
    pub(crate) const fn of(n: u64) -> Self {
        let first = TASK_PAGE + n * TASK_FRAMES;
        Self {
            text: frame(first),
            data: frame(first + 2),
            stack: frame(first + 4),
            l1: frame(first + 5),
            l2: frame(first + 6),
            l3: frame(first + 7),
        }
    }
}

/// Offsets in the kernel's data page, in bytes. The counters fill the page's first line, which the kernel loads in
/// each system call.
pub(crate) mod state {
    pub(crate) const ROUNDS_TOTAL: u32 = 0x00;
    pub(crate) const READY: u32 = 0x08;
    pub(crate) const SEAS: u32 = 0x10;
    pub(crate) const SERRORS: u32 = 0x18;
    pub(crate) const KILLED: u32 = 0x20;
    pub(crate) const RECOVERED: u32 = 0x28;
    pub(crate) const RETIRED: u32 = 0x30;
    /// Physical address of the next spare frame.
    pub(crate) const NEXT_SPARE: u32 = 0x38;
    /// Physical addresses of the retired frames, [`RETIRED_MAX`] of them.
    pub(crate) const RETIRED_LIST: u32 = 0x40;
    pub(crate) const RETIRED_MAX: u32 = 32;
    /// The first task control block.
    pub(crate) const TASKS: u32 = 0x200;
}

/// A task control block. The saved context comes first, because SP_EL1 points here while the task runs.
/// Offsets in bytes.
pub(crate) mod tcb {
    /// x0 to x30.
    pub(crate) const X: u32 = 0x00;
    pub(crate) const SP: u32 = 0xf8;
    pub(crate) const PC: u32 = 0x100;
    /// 0 at first: EL0t, nothing masked. Stored and loaded together with PC.
    #[allow(dead_code, reason = "the pair (PC, PSTATE) is addressed by its first word")]
    pub(crate) const PSTATE: u32 = 0x108;
    /// TTBR0_EL1, the ASID in `[63:48]`.
    pub(crate) const TTBR0: u32 = 0x110;
    /// Physical address of the level 3 table.
    pub(crate) const L3: u32 = 0x118;
    /// Physical address of the clean copy of the text.
    pub(crate) const CLEAN: u32 = 0x120;
    /// The checksum of a good round.
    pub(crate) const EXPECTED: u32 = 0x128;
    /// Rounds to run.
    pub(crate) const TARGET: u32 = 0x130;
    // The values of a report line share one cache line, so the report line is either whole or not begun.
    /// Counted from 1, as the ASID.
    pub(crate) const NUMBER: u32 = 0x140;
    /// [`ALIVE`] or [`KILLED`].
    pub(crate) const STATE: u32 = 0x148;
    pub(crate) const ROUNDS: u32 = 0x150;
    /// Rounds whose checksum was not [`EXPECTED`].
    pub(crate) const BAD: u32 = 0x158;
    /// The name, NUL-terminated, 16 bytes.
    pub(crate) const NAME: u32 = 0x160;
    pub(crate) const SIZE: u32 = 0x200;

    pub(crate) const ALIVE: u64 = 0;
    pub(crate) const KILLED: u64 = 1;
}

/// A piece of memory with its physical and virtual address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Physical address of the first byte; in a VM, the IPA.
    pub pa: u64,
    /// Virtual address of the first byte, in the address space of its user.
    pub va: u64,
    /// Length in bytes.
    pub len: u64,
}

impl Place {
    const fn new(pa: u64, va: u64, len: u64) -> Self {
        Self { pa, va, len }
    }

    const fn kernel(pa: u64, len: u64) -> Self {
        Self::new(pa, KERNEL_OFFSET + pa, len)
    }

    /// The one line of 64 bytes at `offset` bytes from the start of this place.
    const fn line(self, offset: u64) -> Self {
        Self::new(self.pa + offset, self.va + offset, LINE)
    }

    /// Returns true if the physical address `pa` is inside.
    pub const fn contains(&self, pa: u64) -> bool {
        pa >= self.pa && pa - self.pa < self.len
    }
}

/// The memory of one task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskLayout {
    /// Its name, as in the report.
    pub name: &'static str,
    /// Its number, counted from 1; also its ASID.
    pub number: u32,
    /// Its text: two pages. The first has the main loop, the second the work.
    pub text: Place,
    /// The line of the main loop: fetched once in each round.
    pub main_line: Place,
    /// The first line of the work: fetched in each round.
    pub work_line: Place,
    /// Its data: two pages, each line of which is loaded in each round.
    pub data: Place,
    /// Its stack: one page.
    pub stack: Place,
    /// The line of the stack that each round stores to and loads from.
    pub stack_line: Place,
    /// Physical addresses of its translation tables: level 1, 2, 3.
    pub tables: [u64; 3],
    /// The line with the level 3 descriptors of the text pages (physical; the VA is the kernel's).
    pub text_descriptors: Place,
    /// The kernel's clean copy of its text (the kernel's VA).
    pub clean_text: Place,
}

/// The addresses a host needs to place poison exactly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// The tasks in the order of their numbers.
    pub tasks: [TaskLayout; TASKS],
    /// The kernel's code and strings.
    pub kernel_text: Place,
    /// The vector table: 2 KiB.
    pub vectors: Place,
    /// The line of the synchronous vector for exceptions from EL0, fetched on each system call.
    pub vector_line: Place,
    /// The kernel's data page.
    pub kernel_data: Place,
    /// The line of the kernel's data that each system call loads.
    pub kernel_data_line: Place,
    /// The kernel's stack.
    pub kernel_stack: Place,
    /// The kernel's own translation tables: one page each, [L1, L2 of the devices, L2 of RAM, L3].
    pub kernel_tables: [u64; 4],
    /// The pool of spare frames, given out from its start.
    pub spares: Place,
}

impl Layout {
    /// The layout of the demo guest; it is the same for every [`crate::DemoOptions`].
    pub(crate) fn new(names: [&'static str; TASKS]) -> Self {
        let vectors = Place::kernel(frame(VECTORS_PAGE), 0x800);
        let kernel_data = Place::kernel(KERNEL_DATA, PAGE);
        let mut number = 0;
        let tasks = names.map(|name| {
            let task = task_layout(name, number);
            number += 1;
            task
        });
        Self {
            tasks,
            kernel_text: Place::kernel(LOAD_ADDRESS, KERNEL_TEXT_PAGES * PAGE),
            vectors,
            vector_line: vectors.line(0x400),
            kernel_data,
            kernel_data_line: kernel_data.line(0),
            kernel_stack: Place::kernel(KERNEL_STACK, PAGE),
            kernel_tables: [KERNEL_L1, KERNEL_L2_DEVICES, KERNEL_L2_RAM, KERNEL_L3],
            spares: Place::kernel(SPARES, SPARE_FRAMES * PAGE),
        }
    }

    /// The task with this name.
    pub fn task(&self, name: &str) -> Option<&TaskLayout> {
        self.tasks.iter().find(|task| task.name == name)
    }
}

fn task_layout(name: &'static str, n: u64) -> TaskLayout {
    let frames = Frames::of(n);
    let text = Place::new(frames.text, TEXT_VA, REGION_PAGES * PAGE);
    let stack = Place::new(frames.stack, STACK_VA, PAGE);
    TaskLayout {
        name,
        number: n as u32 + 1,
        text,
        main_line: text.line(MAIN_LOOP),
        work_line: text.line(WORK),
        data: Place::new(frames.data, DATA_VA, REGION_PAGES * PAGE),
        stack,
        stack_line: stack.line(PAGE - LINE),
        tables: [frames.l1, frames.l2, frames.l3],
        text_descriptors: Place::kernel(frames.l3, LINE),
        clean_text: Place::kernel(clean_text(n), REGION_PAGES * PAGE),
    }
}
