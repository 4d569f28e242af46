//! The operator's policy: a table with an answer for each kind of error.

use std::fmt;
use std::str::FromStr;

use seawall_arm::ExceptionLevel;
use thiserror::Error;

use super::{Policy, Response, replay};
use crate::{Access, Injection, MemoryError, Nested, StopReason};

/// Kinds of memory errors, by their worst cost for the guest. An error has the first kind that fits it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The abort of a nested guest, which its hypervisor takes.
    Nested,
    /// The guest's own page tables are bad.
    Walk,
    /// The bad address is unknown: FnV was set.
    NoAddress,
    /// Code of the guest's kernel.
    KernelFetch,
    /// Data that the guest's kernel used.
    KernelData,
    /// Code of a process.
    UserFetch,
    /// Data that a process used.
    UserData,
}

impl ErrorKind {
    /// All kinds, in the order in which they are tried.
    pub const ALL: [Self; 7] = [
        Self::Nested,
        Self::Walk,
        Self::NoAddress,
        Self::KernelFetch,
        Self::KernelData,
        Self::UserFetch,
        Self::UserData,
    ];

    /// The kind of an error. SIGBUS does not tell a fetch from a load, so an error from it counts as data.
    pub fn of(error: &MemoryError) -> Self {
        let is_user = error.level == ExceptionLevel::El0;
        match (error.nested, error.walk_level, error.access) {
            (Some(Nested::Hypervisor), ..) => Self::Nested,
            (_, Some(_), _) => Self::Walk,
            _ if error.gva.is_none() && error.gpa.is_none() => Self::NoAddress,
            (.., Access::Fetch) if is_user => Self::UserFetch,
            (.., Access::Fetch) => Self::KernelFetch,
            _ if is_user => Self::UserData,
            _ => Self::KernelData,
        }
    }

    /// The name, as in `kernel-fetch=stop`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nested => "nested",
            Self::Walk => "walk",
            Self::NoAddress => "no-address",
            Self::KernelFetch => "kernel-fetch",
            Self::KernelData => "kernel-data",
            Self::UserFetch => "user-fetch",
            Self::UserData => "user-data",
        }
    }

    const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The answer to errors of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// The guest first: it gets the abort as it happened.
    Replay,
    /// The guest gets a data abort without an ISS, the only abort of a stock kernel.
    DataAbort,
    /// The guest gets an SError, on which Linux panics.
    SError,
    /// The guest is stopped, with the reason.
    Stop,
    /// The host first: see [`Response::HostFirst`]. If it cannot help, the abort as it happened.
    HostFirst,
}

impl Answer {
    /// All answers.
    pub const ALL: [Self; 5] = [Self::Replay, Self::DataAbort, Self::SError, Self::Stop, Self::HostFirst];

    /// The name, as in `kernel-fetch=stop`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Replay => "replay",
            Self::DataAbort => "data-abort",
            Self::SError => "serror",
            Self::Stop => "stop",
            Self::HostFirst => "host-first",
        }
    }
}

/// An [`Answer`] for each [`ErrorKind`]. The default suits most operators:
///
/// | kind | answer | reason |
/// |---|---|---|
/// | `user-data`, `user-fetch` | replay | the process dies, or its handler saves it; a page of a file is read again |
/// | `walk` | replay | Linux kills the process that owns the tables; bad tables of the kernel itself end in a panic, with a dump |
/// | `kernel-data`, `kernel-fetch` | replay | Linux recovers where it can (a copy for a process), otherwise it reports the place; the storm guard stops an endless repetition |
/// | `no-address` | replay | FnV is kept, so the guest does not trust the FAR; an SError would cost all of it |
/// | `nested` | stop | no stock kernel can deliver it soundly, and the host pays for an attempt |
///
/// ```
/// use seawall::{Answer, ErrorKind, Rule, Rules};
///
/// let rules = Rules::default().with(ErrorKind::KernelFetch, Answer::Stop);
/// assert_eq!(rules.answer(ErrorKind::UserFetch), Answer::Replay);
/// assert_eq!("kernel-fetch=stop".parse(), Ok(Rule { kind: ErrorKind::KernelFetch, answer: Answer::Stop }));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rules {
    /// The answers, indexed by the kind's place in [`ErrorKind::ALL`].
    answers: [Answer; ErrorKind::ALL.len()],
}

impl Rules {
    /// The default, `rules`.
    pub const DEFAULT: Self = {
        let mut answers = [Answer::Replay; ErrorKind::ALL.len()];
        answers[ErrorKind::Nested.index()] = Answer::Stop;
        Self { answers }
    };
    /// `serror`: KVM's own reaction to an unhandled error, an SError without an ESR. Linux panics on it.
    pub const SERROR: Self = Self::all(Answer::SError);
    /// `mainline`: the request that stock kernels accept from user space, a data abort without an ESR for
    /// every error.
    pub const MAINLINE: Self = Self::all(Answer::DataAbort);
    /// `full`: the abort as it happened, for every error. The hardware would do the same to a system without
    /// a hypervisor.
    pub const FULL: Self = Self::all(Answer::Replay);
    /// The named tables.
    pub const NAMED: [(&'static str, Self); 4] = [
        ("rules", Self::DEFAULT),
        ("serror", Self::SERROR),
        ("mainline", Self::MAINLINE),
        ("full", Self::FULL),
    ];

    const fn all(answer: Answer) -> Self {
        Self { answers: [answer; ErrorKind::ALL.len()] }
    }

    /// The same table with another answer for this kind.
    #[must_use]
    pub fn with(mut self, kind: ErrorKind, answer: Answer) -> Self {
        if let Some(place) = self.answers.get_mut(kind.index()) {
            *place = answer;
        }
        self
    }

    /// The answer for this kind.
    pub fn answer(&self, kind: ErrorKind) -> Answer {
        self.answers.get(kind.index()).copied().unwrap_or(Answer::Replay)
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl Policy for Rules {
    /// The name in [`Rules::NAMED`]; `rules` for any other table.
    fn name(&self) -> &'static str {
        Self::NAMED.iter().find(|(_, named)| named == self).map_or("rules", |(name, _)| name)
    }

    fn decide(&self, error: &MemoryError) -> Response {
        let kind = ErrorKind::of(error);
        match self.answer(kind) {
            Answer::Replay => replay(error).into(),
            Answer::DataAbort => Injection::data_abort().into(),
            Answer::SError => Injection::serror().into(),
            Answer::HostFirst => Response::HostFirst(replay(error)),
            Answer::Stop if kind == ErrorKind::Nested => Response::Stop(StopReason::Nested),
            Answer::Stop => Response::Stop(StopReason::Policy(kind)),
        }
    }
}

/// Text that is not a rule.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "expected KIND=ANSWER, KIND one of {kinds}, ANSWER one of {answers}, got `{got}`",
    kinds = names(ErrorKind::ALL.map(ErrorKind::name)), answers = names(Answer::ALL.map(Answer::name))
)]
pub struct BadRule {
    /// The text found.
    pub got: String,
}

fn names<const N: usize>(names: [&str; N]) -> String {
    names.join(", ")
}

/// One line of the table in text form: `kernel-fetch=stop`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// The kind of errors.
    pub kind: ErrorKind,
    /// The answer to them.
    pub answer: Answer,
}

impl FromStr for Rule {
    type Err = BadRule;

    fn from_str(text: &str) -> Result<Self, BadRule> {
        let named = text.split_once('=').and_then(|(kind, answer)| {
            Some(Self {
                kind: ErrorKind::ALL.into_iter().find(|known| known.name() == kind)?,
                answer: Answer::ALL.into_iter().find(|known| known.name() == answer)?,
            })
        });
        named.ok_or_else(|| BadRule { got: text.to_owned() })
    }
}

/// Text that is not a set of rules.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadRules {
    /// The first word is neither a name nor a rule.
    #[error(
        "expected a policy (`{known}`) or rules such as `kernel-fetch=stop`, got `{got}`",
        known = Rules::NAMED.map(|(name, _)| name).join("`, `")
    )]
    Name {
        /// The word found.
        got: String,
    },
    /// One of the rules is not valid.
    #[error(transparent)]
    Rule(#[from] BadRule),
}

/// `full`; `user-data=host-first,kernel-fetch=stop`, for rules that differ from the default; `mainline,nested=stop`, for rules
/// that differ from a named table.
impl FromStr for Rules {
    type Err = BadRules;

    fn from_str(text: &str) -> Result<Self, BadRules> {
        let mut words = text.split(',').peekable();
        let first = words.peek().copied().unwrap_or_default();
        let named = Self::NAMED.iter().find(|(name, _)| *name == first);
        let mut rules = match named {
            Some((_, rules)) => {
                words.next();
                *rules
            }
            None if first.contains('=') => Self::DEFAULT,
            None => return Err(BadRules::Name { got: first.to_owned() }),
        };
        for word in words {
            let Rule { kind, answer } = word.parse()?;
            rules = rules.with(kind, answer);
        }
        Ok(rules)
    }
}
