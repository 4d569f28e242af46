//! A software Arm machine with poisonable memory, in the shape of KVM.
//!
//! - [`Vm`]: RAM from 0x4000_0000 with poison at 64-byte lines, CPUs, and their GICv3; [`Config`] says how it behaves
//! - [`Vcpu`]: run, registers, events: it implements [`seawall_inject::Vcpu`], so what drives `/dev/kvm` drives it;
//!   [`Vm::run`] runs all of them in turn
//! - [`memory`], [`walk`]: RAM and poison; stage 1 translation
//!
//! What QEMU's `virt` has around the CPU, and loads, is in `seawall-vmm`.
//!
//! The CPU has EL0 and EL1 in AArch64 state: all of the base instruction set, FP and AdvSIMD to the bit (as of Armv8.0, without
//! half-precision arithmetic), AES, PMULL, SHA-1, SHA-256, LSE and LSE2, LRCPC2, CRC32, FlagM, BTI, PAN, UAO, DIT, SSBS,
//! hardware access flag and dirty state, two breakpoints, two watchpoints and software step, the PMU's cycle counter,
//! and RAS if the VM has it. Its ID registers say exactly that. With [`Config::el2`] it has EL2 with VHE as well, and is a
//! server: see [`Config`]. Without it there is no EL2 inside: the host is it. An access that the guest's own tables allow, but
//! that meets poison or a place without RAM, comes out of [`Vcpu::run`](seawall_inject::Vcpu::run) as KVM would
//! bring it: [`Sea`](seawall_inject::Exit::Sea), [`Mmio`](seawall_inject::Exit::Mmio); or the host injects by itself what KVM
//! injects by itself. An access of a device works whatever the instruction, as on hardware; [`NoSyndrome`] has KVM's way,
//! which is [`Nisv`](seawall_inject::Exit::Nisv).
//!
//! # How it works
//!
//! The guest's code is decoded once, by lines of 64 bytes as poison is, into 16-byte instructions that are kept
//! per physical page. The interpreter runs straight on in a page, with nothing to ask between two instructions but
//! whether the stretch is over; a branch begins another, in a page that it finds in the TLB if it must. It leaves when
//! an instruction traps or calls for attention. On x86-64 hosts with Linux what runs often is translated to the host's
//! instructions ([`Translation`]), which makes no difference but in time.
//! Loads and stores hit in a software TLB by one comparison. A page with poison is not in the TLB's arrays of
//! loads and a page with decoded code not in those of stores, so clean memory pays for neither.
//!
//! # Invariants
//!
//! No wall clock and no randomness: the same inputs make the same run, to the bit, however it is cut into budgets.
//! The counter counts the steps of all CPUs, and what is skipped while all of them wait. No guest can make the host
//! panic.
//!
//! # Several CPUs
//!
//! They take turns in one thread, so memory is sequentially consistent and instructions are coherent with it: what IC
//! IVAU and DSB ask for holds already. A store-exclusive fails if another CPU had a turn since the load-exclusive, and
//! with single CPUs run by hand ([`Vcpu`]) if the value is not there any more. TLB maintenance of the Inner Shareable
//! kind reaches all CPUs before the next instruction. An interrupt is taken between two instructions: of a timer at
//! the very step, from another CPU when its turn comes. A CPU run by hand that waits, for an interrupt or for what
//! another CPU does, ends its run with [`Exit::Idle`](seawall_inject::Exit::Idle), and goes on at the next.
//!
//! ```
//! use seawall_events::VcpuEvents;
//! use seawall_inject::{Exit, Inject as _, Vcpu as _};
//! use seawall_machine::{Config, RAM_BASE, Vm};
//! use seawall_arm::Reg;
//!
//! let mut vm = Vm::new(Config { memory_size: 1 << 20, ..Config::default() })?;
//! vm.memory_mut().store(RAM_BASE, &0xf940_0020_u32.to_le_bytes())?; // ldr x0, [x1]
//! vm.poison(RAM_BASE + 0x1000..RAM_BASE + 0x1040)?;
//!
//! let mut vcpu = vm.vcpu(0)?;
//! vcpu.set_reg(Reg::Pc, RAM_BASE)?;
//! vcpu.set_reg(Reg::VbarEl1, RAM_BASE + 0x8000)?;
//! vcpu.set_reg(Reg::X(1), RAM_BASE + 0x1008)?;
//! let Exit::Sea(sea) = vcpu.run()? else { panic!() };
//! assert_eq!((sea.esr.bits(), sea.gva), (0x9200_0210, RAM_BASE + 0x1008));
//!
//! // The guest is at its abort handler as soon as the abort is injected.
//! vcpu.inject(&VcpuEvents { ext_dabt_pending: true, ..VcpuEvents::default() })?;
//! assert_eq!(vcpu.reg(Reg::Pc)?, RAM_BASE + 0x8200);
//! assert_eq!(vcpu.reg(Reg::EsrEl1)?, 0x9600_0010);
//! # Ok::<(), seawall_machine::Error>(())
//! ```
#![deny(unsafe_code)]

mod broadcast;
mod bus;
mod cpu;
mod debug;
mod decode;
mod el2;
mod exec;
mod float;
pub mod gic;
mod icache;
mod idregs;
mod interrupt;
// What only a back end uses is dead where there is none.
#[cfg_attr(not(all(target_arch = "x86_64", target_os = "linux")), allow(dead_code))]
mod jit;
pub mod memory;
mod pages;
mod pmu;
mod poison;
mod psci;
mod ram;
mod run;
mod schedule;
mod snapshot;
mod sysreg;
mod timer;
mod tlb;
mod trace;
mod trap;
mod vcpu;
mod vm;
pub mod walk;

pub use decode::is_allocated;
pub use el2::exits::GuestExit;
pub use jit::Translation;
pub use snapshot::{FORMAT_VERSION, Limits as SnapshotLimits, Snapshot, SnapshotError, StateHash};
pub use trace::{Consumer, Fate, FirstUse, Grain, Trace};
pub use vcpu::{FpSimdState, Stopped, Vcpu};
pub use vm::{Config, Error, Kicker, NoSyndrome, RAM_BASE, StorePolicy, UndefinedLog, Vm};
