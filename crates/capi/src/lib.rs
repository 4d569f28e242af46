//! Containment of memory errors for VMMs in languages other than Rust: `include/seawall.h` and
//! `libseawall_capi.a`.
//!
//! A VMM supplies its vCPU as four ioctls ([`Vcpu`](vcpu::Vcpu)) and its guest's memory as two functions
//! ([`Memory`](memory::Memory)). The library decides how the guest is told of an error, writes the record
//! that Linux looks for, injects aborts that stock kernels cannot express, and keeps the list of bad pages.
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
//! Install three files below a prefix of your choice. `seawall.pc` finds the other two relative to itself:
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
//! Without pkg-config, link with `-lseawall_capi -lpthread -ldl -lm`. `tests/stock_vcpu.c` is a complete
//! program. [`seawall_version`](version::seawall_version) returns the release of the linked library;
//! `SEAWALL_VERSION_MAJOR` and its like give the release of the header.
//!
//! # Rules of the interface
//!
//! - A function that can fail returns a [`Status`](status::Status), 0 for success. If it takes an
//!   [`Error`](status::Error) that is not NULL, it writes the message there.
//! - NULL in place of a required pointer is refused ([`Status::NullPointer`](status::Status::NullPointer)).
//!   The other requirements for pointers are listed at each function; the caller must keep them.
//! - No panic leaves the library: it would be a bug of ours, and becomes
//!   [`Status::Panic`](status::Status::Panic). A callback must not throw a C++ exception or `longjmp` through
//!   the library.
//! - Handles have internal locks: any thread may use them at any time, except an incident, which one thread
//!   uses at a time. A callback must not call the library with the handle for which it was called.
//! - Nothing here may be called from a signal handler.
//! - Text is UTF-8, ends with a zero, and is cut to the size of its buffer.
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
