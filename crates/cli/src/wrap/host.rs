//! Checks of a host: can it contain errors in an unmodified VMM?

use std::fs;

use seawall_kvm::probe::{CAPABILITIES, Device, probe};

use crate::{Failure, exit};

/// Refuses a host without what containment takes. Gives what an operator should know beside.
pub(super) fn check() -> Result<Vec<String>, Failure> {
    if cfg!(not(all(target_os = "linux", target_arch = "aarch64"))) {
        let text =
            "`seawall wrap` is for KVM on aarch64 Linux; `seawall run` has a software machine for any host";
        return Err(Failure::new(exit::UNAVAILABLE, text));
    }
    let capabilities = match probe().device {
        Device::Arm64 { capabilities, .. } => capabilities,
        device => {
            let text = format!("no KVM for Arm here ({device:?}); `seawall probe` says why");
            return Err(Failure::new(exit::UNAVAILABLE, text));
        }
    };
    let has = |name| {
        CAPABILITIES.iter().zip(capabilities).any(|((_, known, _), value)| *known == name && value > 0)
    };
    if !has("KVM_CAP_ARM_SEA_TO_USER") {
        let text = "this kernel has no KVM_CAP_ARM_SEA_TO_USER (expected Linux 6.19 or newer): it turns each memory error of a \
                    guest into an SError before any VMM sees it";
        return Err(Failure::new(exit::NO_SEA, text));
    }
    if !has("KVM_CAP_ARM_INJECT_SERROR_ESR") {
        let text = "these CPUs have no RAS extension (KVM_CAP_ARM_INJECT_SERROR_ESR): no memory error of a guest reaches KVM";
        return Err(Failure::new(exit::NO_RAS, text));
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    seccomp(&status)
}

/// What `Seccomp:` of `/proc/self/status` means for the program.
fn seccomp(status: &str) -> Result<Vec<String>, Failure> {
    let mode = status.lines().find_map(|line| line.strip_prefix("Seccomp:")).map_or("0", str::trim);
    match mode {
        "1" => {
            let text = "this process is in seccomp's strict mode, in which no VMM runs";
            Err(Failure::new(exit::FILTERED, text))
        }
        "2" => Ok(vec![
            "a seccomp filter is on this process already (a container's?); containment needs of it what docs/wrap.md lists, and \
             leaves an error to the VMM where that is forbidden"
                .to_owned(),
        ]),
        _ => Ok(Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_told_of_and_the_strict_mode_is_refused() {
        assert_eq!(seccomp("Name:\tx\nSeccomp:\t0\nSeccomp_filters:\t0\n"), Ok(Vec::new()));
        assert_eq!(seccomp("Seccomp:\t2\n").map(|notes| notes.len()), Ok(1));
        assert_eq!(seccomp("Seccomp:\t1\n").map_err(|failure| failure.code), Err(20));
    }
}
