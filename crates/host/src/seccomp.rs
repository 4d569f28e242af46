//! The system calls that containment makes, as data for a VMM's filters.
//!
//! A VMM that filters the system calls of its threads adds these to its own: the [`Step`]s that it takes, on
//! the threads that take them. A thread that makes a call outside of its filter is killed, with the guest, at
//! the first memory error, which may be months after the VMM was built.
//!
//! With the feature `seccompiler`, [`allow`] merges rules into a filter of the crate of that name:
//!
//! ```
//! # #[cfg(all(feature = "seccompiler", any(target_arch = "aarch64", target_arch = "x86_64")))]
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use seawall_host::seccomp::{Thread, allow, rules};
//! use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
//!
//! let mut filter = std::collections::BTreeMap::new();
//! filter.insert(libc::SYS_read, vec![]); // and what else the VMM's vCPU threads do
//! allow(&mut filter, rules(Thread::Vcpu))?;
//! let (otherwise, then) = (SeccompAction::KillProcess, SeccompAction::Allow);
//! let filter = SeccompFilter::new(filter, otherwise, then, std::env::consts::ARCH.try_into()?)?;
//! let program: BpfProgram = filter.try_into()?;
//! // On the thread: `seccompiler::apply_filter(&program)?`.
//! # assert!(program.len() > 40);
//! # Ok(())
//! # }
//! # #[cfg(not(all(feature = "seccompiler", any(target_arch = "aarch64", target_arch = "x86_64"))))]
//! # fn main() {}
//! ```
//!
//! A [`Rule`] is a system call with conditions on its arguments; a VMM with another kind of filter reads the
//! fields.
//!
//! Source: seccomp(2); numbers of Linux uapi `linux/kvm.h`, `linux/userfaultfd.h`. Tests run each step under
//! its rules and [`RUNTIME`] alone, and check that it is killed with any one of them left out.

use std::fmt;

use libc::{c_int, c_long};

/// An allowed system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// Its number on this architecture.
    pub call: c_long,
    /// Its name in manuals: `madvise`.
    pub name: &'static str,
    /// The single purpose for which it is allowed, if there is one: `MADV_HWPOISON`.
    pub purpose: Option<&'static str>,
    /// Conditions on the arguments, all of which must hold. Other arguments may have any value.
    pub arguments: &'static [Argument],
}

/// A condition on an argument of a system call: it must equal `value` in the bits of `mask`. The kernel reads
/// 32 bits of an `int`, so the upper half is not compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Argument {
    /// The index of the argument, from 0.
    pub index: u8,
    /// The compared bits.
    pub mask: u32,
    /// Their required value.
    pub value: u32,
}

/// A thread of a VMM, by its role in containment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Thread {
    /// It runs a vCPU and contains that one's errors.
    Vcpu,
    /// It writes the ledger's file (`seawall::ledger::Writer`).
    LedgerWriter,
    /// It sets up, resets and migrates the guest, or reads guest memory for a device or a snapshot.
    Other,
}

/// A part of containment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Step {
    /// The name of the step.
    pub name: &'static str,
    /// The threads that take it.
    pub threads: &'static [Thread],
    /// The rules that it needs in addition to [`RUNTIME`].
    pub rules: &'static [Rule],
}

const fn call(call: c_long, name: &'static str) -> Rule {
    Rule { call, name, purpose: None, arguments: &[] }
}

const fn only(
    call: c_long,
    name: &'static str,
    purpose: &'static str,
    arguments: &'static [Argument],
) -> Rule {
    Rule { call, name, purpose: Some(purpose), arguments }
}

/// Compares the whole argument.
const fn is(index: u8, value: u32) -> Argument {
    Argument { index, mask: u32::MAX, value }
}

/// Requires that no bit of the mask is set.
const fn has_no(index: u8, mask: c_int) -> Argument {
    Argument { index, mask: mask as u32, value: 0 }
}

/// Requires that these bits are set.
const fn has(index: u8, bits: c_int) -> Argument {
    Argument { index, mask: bits as u32, value: bits as u32 }
}

macro_rules! ioctl {
    ($name:literal, $request:literal) => {
        only(libc::SYS_ioctl, "ioctl", $name, const { &[is(1, $request)] })
    };
}

macro_rules! madvise {
    ($advice:ident) => {
        only(libc::SYS_madvise, "madvise", stringify!($advice), const { &[is(2, libc::$advice as u32)] })
    };
}

const GET_ONE_REG: Rule = ioctl!("KVM_GET_ONE_REG", 0x4010_aeab);
const SET_ONE_REG: Rule = ioctl!("KVM_SET_ONE_REG", 0x4010_aeac);
const GET_VCPU_EVENTS: Rule = ioctl!("KVM_GET_VCPU_EVENTS", 0x8040_ae9f);
const SET_VCPU_EVENTS: Rule = ioctl!("KVM_SET_VCPU_EVENTS", 0x4040_aea0);

const RT_SIGRETURN: Rule = call(libc::SYS_rt_sigreturn, "rt_sigreturn");
const RT_SIGPROCMASK: Rule = call(libc::SYS_rt_sigprocmask, "rt_sigprocmask");
const CLOSE: Rule = call(libc::SYS_close, "close");
/// Applies to the surrounding huge page.
const MSYNC: Rule =
    only(libc::SYS_msync, "msync", "MS_INVALIDATE", &[is(2, (libc::MS_ASYNC | libc::MS_INVALIDATE) as u32)]);
const MLOCK2: Rule = only(libc::SYS_mlock2, "mlock2", "MLOCK_ONFAULT", &[is(2, libc::MLOCK_ONFAULT)]);
const MUNLOCK: Rule = call(libc::SYS_munlock, "munlock");
const MINCORE: Rule = call(libc::SYS_mincore, "mincore");
const VMSPLICE: Rule = call(libc::SYS_vmsplice, "vmsplice");
const PIPE2: Rule = call(libc::SYS_pipe2, "pipe2");
const SET_PIPE_SIZE: Rule =
    only(libc::SYS_fcntl, "fcntl", "F_SETPIPE_SZ", &[is(1, libc::F_SETPIPE_SZ as u32)]);

/// The calls of Rust's and C's libraries on any thread that allocates, locks and ends. A VMM's filters
/// already have them.
pub const RUNTIME: &[Rule] = &[
    call(libc::SYS_futex, "futex"),
    only(
        libc::SYS_mmap,
        "mmap",
        "MAP_PRIVATE | MAP_ANONYMOUS, not PROT_EXEC",
        &[has_no(2, libc::PROT_EXEC), has(3, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS)],
    ),
    call(libc::SYS_munmap, "munmap"),
    call(libc::SYS_mremap, "mremap"),
    only(libc::SYS_mprotect, "mprotect", "not PROT_EXEC", &[has_no(2, libc::PROT_EXEC)]),
    call(libc::SYS_brk, "brk"),
    madvise!(MADV_DONTNEED),
    // For hosts on which reading the clock takes a system call.
    call(libc::SYS_clock_gettime, "clock_gettime"),
    // A Rust program with debug assertions, before it closes a file.
    only(libc::SYS_fcntl, "fcntl", "F_GETFD", &[is(1, libc::F_GETFD as u32)]),
    RT_SIGPROCMASK,
    call(libc::SYS_sigaltstack, "sigaltstack"),
    call(libc::SYS_exit, "exit"),
];

/// The setup before the guest runs: SIGBUS's handler, the exit, `Injector::probe`.
pub const INSTALL: Step = Step {
    name: "install",
    threads: &[Thread::Other],
    rules: &[
        only(libc::SYS_rt_sigaction, "rt_sigaction", "SIGBUS", &[is(0, libc::SIGBUS as u32)]),
        ioctl!("KVM_CHECK_EXTENSION", 0xae03),
        ioctl!("KVM_ENABLE_CAP", 0x4068_aea3),
        GET_ONE_REG,
        GET_VCPU_EVENTS,
        SET_VCPU_EVENTS,
    ],
};

/// A SEA exit, or an unanswered access: decide and inject.
pub const CONTAIN_SEA: Step = Step {
    name: "contain a SEA exit",
    threads: &[Thread::Vcpu],
    rules: &[GET_ONE_REG, SET_ONE_REG, GET_VCPU_EVENTS, SET_VCPU_EVENTS],
};

/// The same after SIGBUS, whose handler returns.
pub const CONTAIN_SIGBUS: Step = Step {
    name: "contain a SIGBUS",
    threads: &[Thread::Vcpu],
    rules: &[RT_SIGRETURN, GET_ONE_REG, SET_ONE_REG, GET_VCPU_EVENTS, SET_VCPU_EVENTS],
};

/// The record of an error is a store to guest memory.
pub const RECORD: Step = Step { name: "record", threads: &[Thread::Vcpu], rules: &[] };

/// Entry of a page in the ledger, which wakes the ledger's writer: a futex, which [`RUNTIME`] has.
pub const ENTER: Step =
    Step { name: "enter in the ledger", threads: &[Thread::Vcpu, Thread::Other], rules: &[] };

/// Replacement of the ledger's file, also on a full disk.
pub const WRITE_LEDGER: Step = Step {
    name: "write the ledger",
    threads: &[Thread::LedgerWriter],
    rules: &[
        call(libc::SYS_statx, "statx"),
        #[cfg(target_arch = "x86_64")]
        call(libc::SYS_readlink, "readlink"),
        #[cfg(not(target_arch = "x86_64"))]
        call(libc::SYS_readlinkat, "readlinkat"),
        call(libc::SYS_openat, "openat"),
        // For the case that the names of three new files in a row are taken.
        call(libc::SYS_getrandom, "getrandom"),
        call(libc::SYS_fchmod, "fchmod"),
        call(libc::SYS_write, "write"),
        call(libc::SYS_fsync, "fsync"),
        call(libc::SYS_renameat, "renameat"),
        #[cfg(target_arch = "x86_64")]
        call(libc::SYS_unlink, "unlink"),
        #[cfg(not(target_arch = "x86_64"))]
        call(libc::SYS_unlinkat, "unlinkat"),
        CLOSE,
    ],
};

/// [`tell`](crate::tell), with and without the privilege.
pub const TELL: Step = Step {
    name: "tell the host",
    threads: &[Thread::Vcpu, Thread::Other],
    rules: &[
        MINCORE,
        RT_SIGPROCMASK,
        RT_SIGRETURN,
        madvise!(MADV_HWPOISON),
        MSYNC,
        MLOCK2,
        MUNLOCK,
        madvise!(MADV_POPULATE_READ),
        VMSPLICE,
        PIPE2,
        SET_PIPE_SIZE,
        CLOSE,
    ],
};

/// [`heal`](crate::heal), which tells the host first.
pub const HEAL: Step = Step {
    name: "heal",
    threads: &[Thread::Other],
    rules: &[
        MINCORE,
        RT_SIGPROCMASK,
        RT_SIGRETURN,
        madvise!(MADV_HWPOISON),
        MSYNC,
        MLOCK2,
        MUNLOCK,
        madvise!(MADV_POPULATE_READ),
        VMSPLICE,
        PIPE2,
        SET_PIPE_SIZE,
        CLOSE,
        // For shared memory, locked memory and huge pages.
        madvise!(MADV_REMOVE),
        madvise!(MADV_DONTNEED_LOCKED),
        madvise!(MADV_POPULATE_WRITE),
        madvise!(MADV_DONTNEED),
    ],
};

/// [`make_holes`](crate::make_holes): pages that were bad at the source of a migration.
pub const MAKE_HOLES: Step = Step {
    name: "make holes",
    threads: &[Thread::Other],
    rules: &[
        call(libc::SYS_userfaultfd, "userfaultfd"),
        ioctl!("UFFDIO_API", 0xc018_aa3f),
        ioctl!("UFFDIO_REGISTER", 0xc020_aa00),
        ioctl!("UFFDIO_POISON", 0xc020_aa08),
        madvise!(MADV_DONTNEED),
        CLOSE,
    ],
};

/// [`read`](crate::read), for devices, snapshots and migrations: the handler of SIGBUS returns.
pub const READ: Step = Step { name: "read guest memory", threads: &[Thread::Other], rules: &[RT_SIGRETURN] };

/// All steps. A migration is [`READ`] on one side and [`MAKE_HOLES`] on the other, and the VMM's own stream.
pub const STEPS: &[Step] =
    &[INSTALL, CONTAIN_SEA, CONTAIN_SIGBUS, RECORD, ENTER, WRITE_LEDGER, TELL, HEAL, MAKE_HOLES, READ];

/// The rules for a thread that takes all of its steps, including [`RUNTIME`]. Some occur more than once.
pub fn rules(thread: Thread) -> impl Iterator<Item = &'static Rule> + Clone {
    let steps = STEPS.iter().filter(move |step| step.threads.contains(&thread));
    RUNTIME.iter().chain(steps.flat_map(|step| step.rules))
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.purpose {
            Some(purpose) => write!(f, "{} ({purpose})", self.name),
            None => f.write_str(self.name),
        }
    }
}

/// Merges rules into those of a filter by the crate `seccompiler`, in the form that `SeccompFilter::new`
/// takes.
///
/// A call that the filter allows with any arguments stays so: rules for some arguments would forbid the
/// others.
///
/// # Errors
/// `seccompiler`'s. None is known for the rules of this module.
#[cfg(all(feature = "seccompiler", any(target_arch = "aarch64", target_arch = "x86_64")))]
pub fn allow<'a>(
    filter: &mut std::collections::BTreeMap<i64, Vec<seccompiler::SeccompRule>>,
    rules: impl IntoIterator<Item = &'a Rule>,
) -> Result<(), seccompiler::BackendError> {
    use std::collections::btree_map::Entry;
    for rule in rules {
        match filter.entry(rule.call) {
            Entry::Vacant(new) => {
                new.insert(rule.conditions()?.into_iter().collect());
            }
            Entry::Occupied(there) if there.get().is_empty() => {}
            Entry::Occupied(mut there) => match rule.conditions()? {
                Some(more) if there.get().contains(&more) => {}
                Some(more) => there.get_mut().push(more),
                None => there.get_mut().clear(),
            },
        }
    }
    Ok(())
}

#[cfg(all(feature = "seccompiler", any(target_arch = "aarch64", target_arch = "x86_64")))]
impl Rule {
    /// The conditions; `None` if any arguments are allowed.
    fn conditions(&self) -> Result<Option<seccompiler::SeccompRule>, seccompiler::BackendError> {
        use seccompiler::{SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule};
        let conditions: Result<Vec<_>, _> = self
            .arguments
            .iter()
            .map(|Argument { index, mask, value }| {
                let operator = SeccompCmpOp::MaskedEq(u64::from(*mask));
                SeccompCondition::new(*index, SeccompCmpArgLen::Dword, operator, u64::from(*value))
            })
            .collect();
        let conditions = conditions?;
        if conditions.is_empty() { Ok(None) } else { SeccompRule::new(conditions).map(Some) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_says_the_call_and_what_it_is_for() {
        assert_eq!(VMSPLICE.to_string(), "vmsplice");
        assert_eq!(GET_ONE_REG.to_string(), "ioctl (KVM_GET_ONE_REG)");
        assert_eq!(TELL.rules[3].to_string(), "madvise (MADV_HWPOISON)");
        assert_eq!(TELL.rules[3].arguments, [Argument { index: 2, mask: u32::MAX, value: 100 }]);
    }

    #[test]
    fn a_thread_has_the_rules_of_its_steps_and_of_the_runtime() {
        let has = |thread, name: &str| rules(thread).any(|rule| rule.to_string() == name);
        assert!(has(Thread::Vcpu, "ioctl (KVM_SET_VCPU_EVENTS)") && has(Thread::Vcpu, "futex"));
        assert!(!has(Thread::Vcpu, "openat") && has(Thread::LedgerWriter, "openat"));
        assert!(has(Thread::Other, "userfaultfd") && !has(Thread::Vcpu, "userfaultfd"));
    }

    #[cfg(all(feature = "seccompiler", any(target_arch = "aarch64", target_arch = "x86_64")))]
    #[test]
    fn a_call_that_a_filter_allows_whatever_its_arguments_stays_allowed_so() {
        let mut filter = std::collections::BTreeMap::from([(libc::SYS_madvise, vec![])]);
        allow(&mut filter, HEAL.rules).unwrap();
        assert!(filter[&libc::SYS_madvise].is_empty());
        assert!(filter[&libc::SYS_vmsplice].is_empty());
        assert_eq!(filter[&libc::SYS_fcntl].len(), 1);
        allow(&mut filter, HEAL.rules).unwrap();
        assert_eq!(filter[&libc::SYS_fcntl].len(), 1, "the second time");
        allow(&mut filter, &[call(libc::SYS_fcntl, "fcntl")]).unwrap();
        assert!(filter[&libc::SYS_fcntl].is_empty(), "allowed whatever its arguments");
    }
}
