#![forbid(unsafe_code)]
// For the code that `dynasm!` expands to.
#![allow(
    clippy::useless_conversion,
    clippy::used_underscore_binding,
    clippy::unnecessary_semicolon,
    clippy::no_effect_underscore_binding
)]
//! Bare-metal arm64 guests, assembled on the host: the demo's small operating system, and loops for
//! measuring.
//!
//! Each guest is one flat image, loaded at [`LOAD_ADDRESS`] and entered at its first byte: EL1, MMU off, x0 =
//! address of the FDT (unused). It needs RAM there, a PL011 at [`UART`] and PSCI over HVC, so the same bytes
//! run on Seawall's machine and on QEMU:
//!
//! ```text
//! cargo run -p seawall-guest --example write-image -- demo.bin
//! qemu-system-aarch64 -M virt -cpu max -nic none -nographic -kernel demo.bin
//! ```
//!
//! # The demo guest
//!
//! A kernel at EL1 (mapped by TTBR1) and four tasks at EL0, `web`, `db`, `batch` and `log`, each in its own
//! address space and ASID: two pages of text, two of data, a stack. They take turns by SVC. In each round a
//! task executes its text, reads every line of its data, and hands the kernel a checksum that must equal a
//! known value. The run is deterministic, and ends in PSCI SYSTEM_OFF.
//!
//! The kernel keeps a clean copy of each text, as a page cache does, and a pool of spare frames. Its abort
//! handler decides by ESR_EL1 and FAR_EL1 alone; the module `sea` has the table. A poisoned line of text
//! costs nothing, one of a task's data costs that task, and one of the kernel's own data, or an SError, costs
//! everything. An unexpected exception is a panic, so that a wrong exception class or a lost syndrome bit
//! shows. [`Layout`] tells a host where to put the poison, and [`Report::parse`] reads the outcome.
//!
//! ```
//! let image = seawall_guest::demo();
//! let web = image.layout.task("web").expect("one of the four");
//! println!("poison {:#x}, and web's fetch of {:#x} aborts", web.work_line.pa, web.work_line.va);
//! ```
//!
//! # Console
//!
//! Lines end in LF. They are for people, and in this fixed form for programs (`N` decimal, `X` hex without
//! leading `0x`):
//!
//! | line | when |
//! |---|---|
//! | `[boot] EL1, MMU on, 4 tasks: web db batch log` | the kernel runs with its MMU on |
//! | `[ready] every task has run a round` | once; each task finished a round, or is dead |
//! | `[sea] task=N esr=0xX far=0xX fetch: frame=0xX retired, clean=0xX, nothing lost` | text lost and brought back |
//! | `[sea] task=N esr=0xX far=0xX load: frame=0xX retired, task killed` | data lost (`store:` if WnR = 1) |
//! | `[sea] task=N esr=0xX far=unknown load: no address, no frame retired, task killed` | FnV = 1 |
//! | `[sea] task=N esr=0xX far=0xX fetch: translation table lost, no frame retired, task killed` | on a walk |
//! | `[sea] task=N esr=0xX far=0xX fetch: no text there, no frame retired, task killed` | FAR outside the text |
//! | `[sea] task=N esr=0xX far=0xX fetch: frame=0xX retired, no spare frame, task killed` | the pool is empty |
//! | `[sea] task=N esr=0xX far=0xX load: not the task's, no frame retired, task killed` | FAR not mapped |
//! | `[task N] NAME killed` | after each `[sea]` line with `task killed` |
//! | `[task N] NAME: wrong checksum 0xX` | a round's result is not the known value |
//! | `[panic] REASON: vector=0xX esr=0xX elr=0xX far=0xX spsr=0xX` | the kernel gives up |
//! | `report: task=N name=NAME state=alive\|killed\|lost rounds=N checksum=ok\|bad\|none` | at the end, each task |
//! | `report: kernel=ok\|panic retired=N recovered=N killed=N seas=N serrors=N` | last |
//!
//! If the memory that a panic needs is bad as well, a second `[panic] again while panicking: …` follows, the
//! last line is `report: kernel=panic` without counters, and lines of tasks may be missing.
//!
//! # Other images
//!
//! [`asm`] assembles your own guests.
//!
//! [`interrupts`] is a guest that prints its observations of GICv3, timers and a second CPU.
//!
//! [`migrant`] takes input, and reports if its state is unchanged: for migrations.
//!
//! [`bench`](mod@bench) has loops of known length: arithmetic, loads and stores with the MMU on, and
//! synchronous external aborts.

pub mod asm;
pub mod bench;
mod console;
mod demo;
mod echo;
mod interrupts;
mod kernel;
mod layout;
pub mod linux;
mod migrant;
mod panic;
mod report;
mod restless;
mod sea;
mod services;
mod tables;
mod tasks;
mod vectors;

pub use demo::{DemoOptions, Hole, HoleUnder, demo, demo_with};
pub use echo::ECHO;
pub use interrupts::interrupts;
pub use layout::{
    DATA_VA, IMAGE_PAGES, KERNEL_OFFSET, LINE, LOAD_ADDRESS, Layout, PAGE, Place, REGION_PAGES, STACK_VA,
    TASKS, TEXT_VA, TaskLayout, UART,
};
pub use migrant::{migrant, migrant_page};
pub use report::{
    Access, Checksum, Counters, KernelEnd, Panic, READY, Report, ReportError, Sea, TaskReport, TaskState,
};
pub use restless::{RESTLESS_PAGES, restless};
pub use services::{SERVICE_PAGES, services};

/// A flat image with the facts that a host needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image<L = Layout> {
    /// The image, to be copied to `load_address`.
    pub bytes: Vec<u8>,
    /// Physical address of the first byte.
    pub load_address: u64,
    /// Physical address of the first instruction.
    pub entry: u64,
    /// The layout of the image.
    pub layout: L,
}
