//! The helper's own filter of system calls, and which of them a filter of the VMM's must let pass.

use std::collections::BTreeMap;

use seawall_host::seccomp::{CONTAIN_SIGBUS, INSTALL, RUNTIME, Rule, TELL, WRITE_LEDGER, allow};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

/// A `set*id` of a process is one of each thread, by a signal of the C library's: setpriv(1), QEMU's `-run-with user`.
const IDENTITY: [(libc::c_long, &str); 7] = [
    (libc::SYS_setuid, "setuid"),
    (libc::SYS_setgid, "setgid"),
    (libc::SYS_setreuid, "setreuid"),
    (libc::SYS_setregid, "setregid"),
    (libc::SYS_setresuid, "setresuid"),
    (libc::SYS_setresgid, "setresgid"),
    (libc::SYS_setgroups, "setgroups"),
];

/// What the helper cannot do without, whatever it is told to do: containment, telling the host, and a line on stderr.
pub(crate) fn needed() -> impl Iterator<Item = Rule> {
    let steps = [INSTALL, CONTAIN_SIGBUS, TELL];
    // SIGBUS's handler is there before.
    let rules = steps.into_iter().flat_map(|step| step.rules).filter(|rule| rule.name != "rt_sigaction");
    let mut seen: Vec<Rule> = Vec::new();
    for rule in
        RUNTIME.iter().chain(rules).chain(WRITE_LEDGER.rules.iter().filter(|rule| rule.name == "write"))
    {
        // The exit of a thread that never ends, and what glibc does not call on it.
        let is_idle = matches!(rule.name, "exit" | "sigaltstack" | "brk");
        if !is_idle && !seen.contains(rule) {
            seen.push(*rule);
        }
    }
    seen.into_iter()
}

/// The helper's filter: a call that is not in it fails with EPERM, and the process lives on.
///
/// # Errors
/// The crate's, in words.
pub(crate) fn program() -> Result<BpfProgram, String> {
    let mut filter = BTreeMap::new();
    let steps = [INSTALL, CONTAIN_SIGBUS, TELL, WRITE_LEDGER];
    let identity = IDENTITY.map(|(call, name)| Rule { call, name, purpose: None, arguments: &[] });
    let rules = RUNTIME.iter().chain(steps.into_iter().flat_map(|step| step.rules)).chain(&identity);
    allow(&mut filter, rules).map_err(|error| error.to_string())?;
    let arch =
        std::env::consts::ARCH.try_into().map_err(|error: seccompiler::BackendError| error.to_string())?;
    let otherwise = SeccompAction::Errno(libc::EPERM as u32);
    let filter = SeccompFilter::new(filter, otherwise, SeccompAction::Allow, arch);
    filter.and_then(BpfProgram::try_from).map_err(|error| error.to_string())
}

/// The names of the calls by whose places bits are set.
pub(crate) fn names(missing: u64) -> String {
    let named = needed().enumerate().filter(|(place, _)| missing >> place & 1 == 1);
    named.map(|(_, rule)| rule.to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bpf::{Instruction, allows};

    #[test]
    fn what_is_needed_is_in_the_helpers_own_filter_and_fits_into_a_word_of_bits() {
        let program = program().unwrap();
        let program: Vec<_> =
            program.iter().map(|i| Instruction { code: i.code, jt: i.jt, jf: i.jf, k: i.k }).collect();
        let needed: Vec<_> = needed().collect();
        assert!(needed.len() <= 64 && needed.len() > 20, "{}", needed.len());
        for rule in &needed {
            assert!(allows(&program, rule), "{rule}");
        }
        let execve = Rule { call: libc::SYS_execve, name: "execve", purpose: None, arguments: &[] };
        assert!(!allows(&program, &execve));
    }

    #[test]
    fn the_page_for_operators_names_what_is_needed() {
        let page = include_str!("../../../docs/wrap.md");
        for rule in needed() {
            assert!(page.contains(&format!("`{}`", rule.name)), "{rule}");
            let named =
                rule.purpose.filter(|purpose| purpose.starts_with("KVM_") || purpose.starts_with("MADV_"));
            assert!(named.is_none_or(|purpose| page.contains(&format!("`{purpose}`"))), "{rule}");
        }
    }

    #[test]
    fn missing_calls_are_named() {
        let place = needed().position(|rule| rule.to_string() == "ioctl (KVM_SET_ONE_REG)").unwrap();
        assert_eq!(names(1 << place), "ioctl (KVM_SET_ONE_REG)");
        assert_eq!(names(0), "");
    }
}
