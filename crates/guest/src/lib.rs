#![forbid(unsafe_code)]
// What `dynasm!` expands to.
#![allow(
    clippy::useless_conversion,
    clippy::used_underscore_binding,
    clippy::unnecessary_semicolon,
    clippy::no_effect_underscore_binding
)]
//! Bare-metal arm64 guests, assembled on the host: the demo's small operating system, and loops to measure by.
//!
//! Each guest is one flat image that is loaded at [`LOAD_ADDRESS`] and entered at its first byte: EL1, MMU off,
//! x0 = address of the FDT (unused). It wants RAM there, a PL011 at [`UART`] and PSCI over HVC, so the same bytes
//! run on Seawall's machine and on QEMU:
//!
//! ```text
//! cargo run -p seawall-guest --example write-image -- demo.bin
//! qemu-system-aarch64 -M virt -cpu max -nic none -nographic -kernel demo.bin
//! ```
//!
//! # The demo guest
//!
//! A kernel at EL1 (mapped by TTBR1) and four tasks at EL0, `web`, `db`, `batch` and `log`, each in an address space
//! and an ASID of its own: two pages of text, two of data, a stack. They take turns by SVC. In each round a task
//! executes its text, reads every line of its data, and hands the kernel a checksum that must come out equal to a
//! known value. The run is deterministic, and ends in PSCI SYSTEM_OFF.
//!
//! The kernel keeps a clean copy of each text, as a page cache does, and a pool of spare frames. Its abort handler
//! decides by ESR_EL1 and FAR_EL1 and by nothing else, as the module `sea` says in a table: a poisoned line of text
//! costs nothing, one of a task's data costs that task, and one of the kernel's own data, or an SError, everything.
//! An exception that nothing here should cause is a panic, so that a wrong exception class or a lost syndrome bit
//! shows. [`Layout`] tells a host where to put the poison, and [`Report::parse`] what became of the guest.
//!
//! ```
//! let image = seawall_guest::demo();
//! let web = image.layout.task("web").expect("one of the four");
//! println!("poison {:#x}, and web's fetch of {:#x} aborts", web.work_line.pa, web.work_line.va);
//! ```
//!
//! # Console
//!
//! Lines end in LF. For people, and in this fixed form for programs (`N` decimal, `X` hex without leading `0x`):
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
//! | `[task N] NAME killed` | after each of the lines that say so |
//! | `[task N] NAME: wrong checksum 0xX` | a round's result is not the known value |
//! | `[panic] REASON: vector=0xX esr=0xX elr=0xX far=0xX spsr=0xX` | the kernel gives up |
//! | `report: task=N name=NAME state=alive\|killed\|lost rounds=N checksum=ok\|bad\|none` | at the end, each task |
//! | `report: kernel=ok\|panic retired=N recovered=N killed=N seas=N serrors=N` | last |
//!
//! If the memory that a panic needs is bad as well, a second `[panic] again while panicking: …` follows, the last line
//! is `report: kernel=panic` without counters, and lines of tasks may be missing.
//!
//! # Other images
//!
//! [`asm`] is for guests of your own.
//!
//! [`interrupts`] is a guest that says what it sees of GICv3, timers and a second CPU.
//!
//! [`migrant`] is typed to, and tells whether it is still the same: for migrations.
//!
//! [`bench`](mod@bench) has loops of known length: arithmetic, loads and stores with the MMU on, and synchronous external aborts.

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

/// A flat image and what a host must know of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image<L = Layout> {
    /// The image, to be copied to `load_address`.
    pub bytes: Vec<u8>,
    /// Physical address of the first byte.
    pub load_address: u64,
    /// Physical address of the first instruction.
    pub entry: u64,
    /// Where things are.
    pub layout: L,
}
