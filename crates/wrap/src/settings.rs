//! What the library is told to do, by the environment of the VMM.

use std::ffi::OsString;
use std::path::PathBuf;

use seawall::{ErrorKind, Rules};
use thiserror::Error;

/// True if the library does anything.
const MODE: &str = "SEAWALL";
const CONTAIN: &str = "contain";
const POLICY: &str = "SEAWALL_POLICY";
const DRY_RUN: &str = "SEAWALL_DRY_RUN";
const SIGBUS: &str = "SEAWALL_SIGBUS";
const EVENTS: &str = "SEAWALL_EVENTS";
const METRICS: &str = "SEAWALL_METRICS";
const LEDGER: &str = "SEAWALL_LEDGER";
const LOG: &str = "SEAWALL_LOG";
const QUIET: &str = "SEAWALL_QUIET";
const PROGRAM: &str = "SEAWALL_PROGRAM";

/// Who gets an error for which the VMM could have a handler of SIGBUS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Sigbus {
    /// Containment, whatever handler the VMM has.
    #[default]
    Contain,
    /// The VMM's own handler. An SEA exit becomes a SIGBUS: the host's kernel is told of the page, and the guest touches it
    /// again.
    Vmm,
}

impl Sigbus {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Contain, Self::Vmm];

    /// Its name on the command line and in the environment.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Contain => "contain",
            Self::Vmm => "vmm",
        }
    }
}

/// What is done in a VMM, and who is told of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// An answer for each kind of error.
    pub rules: Rules,
    /// Decide and report, and leave the guest to what happens without the library.
    pub dry_run: bool,
    /// The receiver of an error for which the VMM could have a handler.
    pub sigbus: Sigbus,
    /// Each error as a line of JSON goes to the end of this file.
    pub events: Option<PathBuf>,
    /// The numbers for Prometheus are kept in this file.
    pub metrics: Option<PathBuf>,
    /// The bad pages of this run are listed in this file.
    pub ledger: Option<PathBuf>,
    /// Log lines of these targets and levels go to stderr.
    pub log: Option<String>,
    /// Only what went wrong goes to stderr.
    pub quiet: bool,
    /// The only executable that is meant, as `/proc/self/exe` has it: not what the VMM starts.
    pub program: Option<PathBuf>,
}

/// A variable that says nothing known.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{variable}: {problem}")]
pub struct BadSetting {
    /// Which.
    pub variable: &'static str,
    /// What was expected, and what came.
    pub problem: String,
}

impl Settings {
    /// Reads the variables; `None` without `SEAWALL`.
    ///
    /// # Errors
    /// [`BadSetting`]: a value that is not known.
    pub fn from_environment(get: impl Fn(&str) -> Option<OsString>) -> Result<Option<Self>, BadSetting> {
        let text = |variable| {
            let text = |value: OsString| value.to_string_lossy().into_owned();
            get(variable).map(text).filter(|text| !text.is_empty())
        };
        let path = |variable| get(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
        let bad = |variable, expected: &dyn std::fmt::Display, got: &str| BadSetting {
            variable,
            problem: format!("expected {expected}, got `{got}`"),
        };
        let is_set = |variable| match text(variable).as_deref() {
            None | Some("0") => Ok(false),
            Some("1") => Ok(true),
            Some(other) => Err(bad(variable, &"1 or 0", other)),
        };
        match text(MODE).as_deref() {
            None => return Ok(None),
            Some(CONTAIN) => {}
            Some(other) => return Err(bad(MODE, &CONTAIN, other)),
        }
        let rules = text(POLICY).map(|text| text.parse()).transpose();
        let rules = rules.map_err(|error: seawall::BadRules| BadSetting {
            variable: POLICY,
            problem: error.to_string(),
        })?;
        let sigbus = match text(SIGBUS) {
            None => Sigbus::default(),
            Some(name) => Sigbus::ALL
                .into_iter()
                .find(|known| known.name() == name)
                .ok_or_else(|| bad(SIGBUS, &"contain or vmm", &name))?,
        };
        Ok(Some(Self {
            rules: rules.unwrap_or_default(),
            dry_run: is_set(DRY_RUN)?,
            sigbus,
            events: path(EVENTS),
            metrics: path(METRICS),
            ledger: path(LEDGER),
            log: text(LOG),
            quiet: is_set(QUIET)?,
            program: path(PROGRAM),
        }))
    }

    /// The variables that say all of this. Those that are not among them must not be set.
    pub fn variables(&self) -> Vec<(&'static str, OsString)> {
        let mut variables = vec![(MODE, CONTAIN.into()), (POLICY, written(self.rules).into())];
        let flags = [(DRY_RUN, self.dry_run), (QUIET, self.quiet)];
        variables.extend(flags.into_iter().filter(|(_, is_set)| *is_set).map(|(name, _)| (name, "1".into())));
        variables.push((SIGBUS, self.sigbus.name().into()));
        let paths = [
            (EVENTS, &self.events),
            (METRICS, &self.metrics),
            (LEDGER, &self.ledger),
            (PROGRAM, &self.program),
        ];
        variables.extend(paths.into_iter().filter_map(|(name, path)| Some((name, path.clone()?.into()))));
        variables.extend(self.log.iter().map(|log| (LOG, log.into())));
        variables
    }

    /// Each variable that there is.
    pub const VARIABLES: [&str; 10] =
        [MODE, POLICY, DRY_RUN, SIGBUS, EVENTS, METRICS, LEDGER, LOG, QUIET, PROGRAM];
}

/// The name of a table that has one, else each answer.
fn written(rules: Rules) -> String {
    if let Some((name, _)) = Rules::NAMED.iter().find(|(_, named)| *named == rules) {
        return (*name).to_owned();
    }
    let each = ErrorKind::ALL.map(|kind| format!("{kind}={}", rules.answer(kind).name()));
    each.join(",")
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use seawall::Answer;

    use super::*;

    fn read<const N: usize>(variables: [(&str, &str); N]) -> Result<Option<Settings>, String> {
        let map: HashMap<&str, &str> = variables.into();
        Settings::from_environment(|name| map.get(name).map(Into::into)).map_err(|error| error.to_string())
    }

    #[test]
    fn without_the_mode_nothing_is_done_and_with_it_all_is_as_by_default() {
        assert_eq!(read([("SEAWALL_POLICY", "nonsense")]), Ok(None));
        assert_eq!(read([("SEAWALL", "contain")]), Ok(Some(Settings::default())));
    }

    #[test]
    fn a_value_that_is_not_known_is_told_with_what_was_expected() {
        for (variable, value, told) in [
            ("SEAWALL", "contian", "SEAWALL: expected contain, got `contian`"),
            ("SEAWALL_SIGBUS", "qemu", "SEAWALL_SIGBUS: expected contain or vmm, got `qemu`"),
            ("SEAWALL_DRY_RUN", "yes", "SEAWALL_DRY_RUN: expected 1 or 0, got `yes`"),
        ] {
            assert_eq!(read([("SEAWALL", "contain"), (variable, value)]), Err(told.to_owned()));
        }
        let policy = read([("SEAWALL", "contain"), ("SEAWALL_POLICY", "all")]).unwrap_err();
        assert!(policy.starts_with("SEAWALL_POLICY: expected a policy"), "{policy}");
    }

    #[test]
    fn what_is_written_to_the_environment_is_read_back() {
        let all = Settings {
            rules: Rules::FULL.with(ErrorKind::KernelFetch, Answer::Stop),
            dry_run: true,
            sigbus: Sigbus::Vmm,
            events: Some("/e".into()),
            metrics: Some("/m".into()),
            ledger: Some("/l".into()),
            log: Some("warn".into()),
            quiet: true,
            program: Some("/usr/bin/qemu-system-aarch64".into()),
        };
        for settings in [all, Settings::default(), Settings { rules: Rules::SERROR, ..Settings::default() }] {
            let map: HashMap<&str, OsString> = settings.variables().into_iter().collect();
            assert!(map.keys().all(|name| Settings::VARIABLES.contains(name)));
            assert_eq!(Settings::from_environment(|name| map.get(name).cloned()), Ok(Some(settings)));
        }
    }

    #[test]
    fn a_table_with_a_name_is_written_by_it() {
        let policy = |rules| Settings { rules, ..Settings::default() }.variables()[1].1.clone();
        assert_eq!(policy(Rules::MAINLINE), "mainline");
        assert_eq!(
            policy(Rules::default().with(ErrorKind::UserFetch, Answer::DataAbort)),
            "nested=stop,walk=replay,no-address=replay,kernel-fetch=replay,kernel-data=replay,\
             user-fetch=data-abort,user-data=replay"
        );
    }
}
