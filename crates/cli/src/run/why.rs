//! The receiver of an injection and the reason for it, for errors after which the guest does not go on.

use seawall::{ErrorKind, MemoryError, Rule, Rules, StopReason};
use seawall_arm::ExceptionLevel;

/// The policy and rules of the command line.
#[derive(Clone, Debug)]
pub(super) struct Decider {
    policy: String,
    rules: Vec<Rule>,
}

impl Decider {
    pub(super) fn new(policy: &str, rules: &[Rule]) -> Self {
        Self { policy: policy.to_owned(), rules: rules.to_vec() }
    }

    /// `vCPU 0 at EL1, the guest's kernel; an error of the kind kernel-data, by --rule kernel-data=stop`.
    pub(super) fn explain(&self, vcpu: u32, error: &MemoryError, stop: Option<&StopReason>) -> String {
        let (level, whose) = match error.level {
            ExceptionLevel::El0 => (0, "a process"),
            ExceptionLevel::El1 => (1, "the guest's kernel"),
            ExceptionLevel::El2 => (2, "the guest's hypervisor"),
            ExceptionLevel::El3 => (3, "the guest's firmware"),
        };
        let kind = ErrorKind::of(error);
        let why = match stop {
            Some(StopReason::Storm { .. }) => "by the storm guard".to_owned(),
            _ => self.why(kind),
        };
        format!("vCPU {vcpu} at EL{level}, {whose}; an error of the kind {kind}, {why}")
    }

    fn why(&self, kind: ErrorKind) -> String {
        if self.rules.is_empty() {
            let what = match self.policy.as_str() {
                "serror" => "an SError, whatever happened",
                "mainline" => "a data abort without an ESR, whatever happened",
                _ => "the abort as it happened",
            };
            return format!("by --policy {}: {what}", self.policy);
        }
        // The last rule given counts.
        if let Some(rule) = self.rules.iter().rfind(|rule| rule.kind == kind) {
            return format!("by --rule {kind}={}", rule.answer.name());
        }
        let answer = self.policy.parse().unwrap_or(Rules::DEFAULT).answer(kind).name();
        format!("by the rule {kind}={answer} of --policy {}", self.policy)
    }
}

#[cfg(test)]
mod tests {
    use seawall::Access;

    use super::*;

    fn error(level: ExceptionLevel, access: Access) -> MemoryError {
        MemoryError {
            gpa: Some(0x4020_0000),
            named: Some(0x4020_0000),
            size: 4096,
            gva: Some(0x4020_0000),
            access,
            walk_level: None,
            level,
            pc: 0x4008_0000,
            esr: None,
            nested: None,
        }
    }

    #[test]
    fn an_error_has_a_victim_a_kind_and_a_reason() {
        let rules = |rules: &[&str]| rules.iter().map(|rule| rule.parse().unwrap()).collect::<Vec<Rule>>();
        let check = |policy, of: &[&str], error: MemoryError, expected: &str| {
            assert_eq!(Decider::new(policy, &rules(of)).explain(1, &error, None), expected);
        };
        let process = error(ExceptionLevel::El0, Access::Load);
        let kernel = error(ExceptionLevel::El1, Access::Fetch);
        check(
            "full",
            &[],
            process,
            "vCPU 1 at EL0, a process; an error of the kind user-data, by --policy full: the abort as it happened",
        );
        check(
            "serror",
            &[],
            kernel,
            "vCPU 1 at EL1, the guest's kernel; an error of the kind kernel-fetch, by --policy serror: an SError, \
             whatever happened",
        );
        let rules = ["kernel-fetch=replay", "kernel-fetch=stop"];
        check(
            "full",
            &rules,
            kernel,
            "vCPU 1 at EL1, the guest's kernel; an error of the kind kernel-fetch, by --rule kernel-fetch=stop",
        );
        check(
            "full",
            &rules,
            process,
            "vCPU 1 at EL0, a process; an error of the kind user-data, by the rule user-data=replay of --policy full",
        );
    }

    #[test]
    fn a_storm_is_the_storm_guards_affair() {
        let storm = StopReason::Storm { pc: 0, gva: None, times: 17 };
        let explained =
            Decider::new("full", &[]).explain(0, &error(ExceptionLevel::El1, Access::Store), Some(&storm));
        assert_eq!(
            explained,
            "vCPU 0 at EL1, the guest's kernel; an error of the kind kernel-data, by the storm guard"
        );
    }
}
