//! `libseawall_preload.so`, for an unmodified program that uses `/dev/kvm`. It has two modes:
//!
//! - `SEAWALL=contain`: the memory errors of a VMM's guests are contained, and the VMM sees none of them. `seawall wrap` sets
//!   that up; crate `seawall-wrap` is what is done, and docs/wrap.md is for operators
//! - without it: a program finds a `KVM_SET_VCPU_EVENTS` that injects instruction aborts and takes an ESR for either abort, on
//!   a stock kernel. The rest of this page is about that
//!
//! ```sh
//! LD_PRELOAD=/usr/lib/libseawall_preload.so my-vmm ...                            # the layout as posted
//! LD_PRELOAD=/usr/lib/libseawall_preload.so SEAWALL_LAYOUT=trailing my-vmm ...    # ext_abt_esr last
//! ```
//!
//! | offset in `struct kvm_vcpu_events` | field | `SEAWALL_LAYOUT` |
//! |---|---|---|
//! | 3 | `ext_iabt_pending` u8 | both |
//! | 4 | `ext_abt_has_esr` u8 | both |
//! | 16 | `ext_abt_esr` u64 | `posted`, also when it is not set |
//! | 56 | `ext_abt_esr` u64 | `trailing` |
//!
//! # What a program sees
//!
//! - The proposal's rules and errnos, in the kernel's order: no vCPU, not initialised (ENOEXEC), the pointer
//!   (EFAULT), the content (EINVAL). After an error the vCPU is as it was, but for EIO.
//! - EIO: the guest takes a sound abort, but the plain data abort of the kernel and not what was asked,
//!   because an ioctl failed in the midst of it; or of an abort and an SError in one call only the abort. The
//!   kernel itself gives EIO to a process that did not create the VM.
//! - EOPNOTSUPP: the vCPU's guest hypervisor takes the abort from its own guest (`HCR_EL2.TEA` and the like).
//!   Nothing was done: [`check_nested`](seawall_inject::Injector::check_nested) says why.
//! - With mainline's fields alone a legal call goes to the kernel and has the kernel's own result. Two calls
//!   that mainline lets pass are refused, as the proposal does: an ESR outside the ISS (or without RAS) for
//!   an SError that is not pending, and for one that is, before the data abort of the same call is delivered.
//! - The capability of the proposal has no number, so there is nothing to check for: a program asks by a call.
//! - All other requests go straight on to the next `ioctl`, which is libc's, at the price of a comparison or two;
//!   so does this one if the kernel speaks the extended ABI itself. The library's other functions (`mmap`, `close` and the
//!   like) are of the other mode, and go on to libc's.
//!
//! # How
//!
//! [Assisted injection](seawall_inject::Injector) over the program's own file descriptor. Nothing is remembered of
//! a vCPU: what it is (AArch64, AArch32 EL1, virtual EL2) is asked at each injection, so descriptors may be
//! duplicated, reused and inherited. Once for the process it is asked whether the host has RAS, and whether
//! the kernel needs any of this. The bytes behind the pointer are read only after the kernel read them
//! without a fault (`KVM_HAS_DEVICE_ATTR`, which does nothing else). An instruction abort into an AArch64 guest
//! takes eight ioctls; a call with mainline's fields alone three.
//!
//! It takes no lock, allocates nothing, and leaves errno alone on success: any number of vCPU threads may
//! call it, and signal handlers.
//!
//! # Limits
//!
//! - aarch64 Linux with glibc. On other hosts this library is empty.
//! - A static program, one on musl, and one that makes the system call by itself (`syscall(SYS_ioctl, ...)`)
//!   does not come by here. Neither does one that the dynamic linker runs in secure mode.
//! - A seccomp filter of the program must let pass, beside its own, `KVM_GET_VCPU_EVENTS`, `KVM_GET_ONE_REG`,
//!   `KVM_SET_ONE_REG` and `KVM_HAS_DEVICE_ATTR` on vCPUs.
//! - An AArch32 guest that never ran: Linux loses the abort and says nothing. The call returns 0 as it does
//!   for mainline's data abort.
//! - The injection is several ioctls: no other thread may run the vCPU or change its registers meanwhile.
//!   KVM's own mutex makes such a thread wait for one ioctl only.

#![deny(clippy::undocumented_unsafe_blocks)]

#[cfg(any(test, all(target_os = "linux", target_arch = "aarch64", target_env = "gnu")))]
mod events;

// A test of this crate shall not have its own ioctl replaced.
#[cfg(all(not(test), target_os = "linux", target_arch = "aarch64", target_env = "gnu"))]
#[allow(unsafe_code)]
mod hook;
#[cfg(all(not(test), target_os = "linux", target_arch = "aarch64", target_env = "gnu"))]
#[allow(unsafe_code)]
mod vcpu_events;
