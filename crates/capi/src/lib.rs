//! Containment of memory errors for VMMs that are not Rust: `include/seawall.h` and `libseawall_capi.a`.
//!
//! A VMM gives its vCPU as four ioctls ([`Vcpu`](vcpu::Vcpu)) and its guest's memory as two functions
//! ([`Memory`](memory::Memory)); the library decides what a guest gets for an error, writes the record that Linux looks
//! for, injects on stock kernels what they have no words for, and keeps the list of bad pages.
//!
//! ```c
//! /* Once. */
//! seawall_containment *containment;
//! seawall_containment_new("full", &containment, NULL);
//! /* Once for each vCPU's thread. */
//! seawall_incident *incident;
//! seawall_incident_new(&incident, NULL);
//! /* After KVM_RUN. */
//! if (run->exit_reason == SEAWALL_KVM_EXIT_ARM_SEA) {
//!     seawall_sea_exit exit;
//!     memcpy(&exit, &run->hw, sizeof exit);
//!     seawall_handle_sea(containment, &vcpu, NULL, &exit, now, time(NULL), incident, &error);
//! }
//! ```
//!
//! # Installing
//!
//! Three files go below a prefix of your choice. `seawall.pc` finds the other two by where it lies itself:
//!
//! ```sh
//! cargo build --release -p seawall-capi
//! install -Dm644 target/release/libseawall_capi.a "$PREFIX/lib/libseawall_capi.a"
//! install -Dm644 crates/capi/include/seawall.h    "$PREFIX/include/seawall.h"
//! install -Dm644 crates/capi/seawall.pc           "$PREFIX/lib/pkgconfig/seawall.pc"
//! export PKG_CONFIG_PATH="$PREFIX/lib/pkgconfig"
//! cc vmm.c $(pkg-config --cflags --libs seawall)
//! ```
//!
//! Without pkg-config, link with `-lseawall_capi -lpthread -ldl -lm`. `tests/stock_vcpu.c` is a program with all of it.
//! [`seawall_version`](version::seawall_version) says which release is linked, `SEAWALL_VERSION_MAJOR` and its like which
//! the header is of.
//!
//! # Rules of the interface
//!
//! - A function that can fail gives a [`Status`](status::Status), 0 if all is well. Where it takes an
//!   [`Error`](status::Error) it writes the words for it there, unless that is NULL.
//! - NULL where something must be is refused ([`Status::NullPointer`](status::Status::NullPointer)). What else a pointer
//!   must be stands with each function; it is for the caller to keep.
//! - No panic comes out: it would be a bug of ours, and is [`Status::Panic`](status::Status::Panic). A callback must not
//!   throw a C++ exception or `longjmp` through the library.
//! - Handles are locked inside: any thread may use them at any time, but an incident, which one thread uses at a time. A
//!   callback must not call the library with the handle that it was called for.
//! - Nothing here may be called from a signal handler.
//! - Text is UTF-8, ends with a zero, and is cut to what fits.
#![allow(unsafe_code)]
#![deny(unsafe_op_in_unsafe_fn, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]

pub mod address_map;
pub mod containment;
pub mod incident;
pub mod ledger;
pub mod memory;
mod pointer;
pub mod records;
pub mod status;
pub mod vcpu;
pub mod version;
