//! One run of the demo's guest, and its expected outcome.

use seawall::telemetry::ErrorReport;
use seawall::{Outcome, Rules};
use seawall_guest::{Checksum, KernelEnd, READY, Report, TaskState};
use seawall_vmm::kernel::Kernel;
use seawall_vmm::{Config, End, Guest, SoftwareMachine};

use super::screen;
use crate::watch::{Seen, Watch};

/// The limit of instructions for the guest.
const LIMIT: u64 = 200_000_000;

/// The task whose code goes bad.
pub(super) const CODE_VICTIM: &str = "web";
/// The task whose data goes bad.
pub(super) const DATA_VICTIM: &str = "db";

/// The outcome of one run.
pub(super) struct Run {
    pub(super) policy: &'static str,
    pub(super) report: Report,
    pub(super) errors: Vec<Outcome>,
    pub(super) error_reports: Vec<ErrorReport>,
    pub(super) console: String,
    pub(super) instructions: u64,
}

/// An abort or SError as the guest's own handler saw it.
pub(super) struct Saw {
    pub(super) esr: u64,
    pub(super) far: Option<u64>,
    pub(super) did: String,
}

impl Run {
    /// The number of tasks that the guest itself reports alive, with correct results.
    pub(super) fn survivors(&self) -> usize {
        let alive = |task: &&seawall_guest::TaskReport| {
            task.state == TaskState::Alive && task.checksum == Checksum::Ok
        };
        self.report.tasks.iter().filter(alive).count()
    }

    /// The reports of the guest's handlers, from its console.
    pub(super) fn saw(&self) -> Vec<Saw> {
        let aborts =
            self.report.seas.iter().map(|sea| Saw { esr: sea.esr, far: sea.far, did: sea.text.clone() });
        let panics = self.report.panics.iter().map(|panic| Saw {
            esr: panic.esr,
            // An SError does not set FAR_EL1.
            far: None,
            did: format!("kernel panic: {}", panic.reason),
        });
        aborts.chain(panics).collect()
    }
}

/// Runs the guest: to its ready line, then with one line of `web`'s code and one of `db`'s data bad.
pub(super) fn run(name: &'static str, trace: bool) -> Result<Run, Box<dyn std::error::Error>> {
    let image = seawall_guest::demo();
    let layout = &image.layout;
    let code = layout.task(CODE_VICTIM).ok_or("the guest has no task `web`")?.work_line;
    let data = layout.task(DATA_VICTIM).ok_or("the guest has no task `db`")?.data;

    let mut config = Config::new(16 << 20);
    config.policy = Box::new(name.parse::<Rules>()?);
    let guest = Guest {
        kernel: Kernel::Flat(image.bytes.clone()),
        address: Some(image.load_address),
        initrd: None,
        command_line: String::new(),
    };
    let watch = Watch::default();
    let mut machine = SoftwareMachine::new(config, &guest, Box::new(watch.clone()))?;

    let (mut console, mut poisoned) = (String::new(), false);
    let (mut errors, mut error_reports) = (Vec::new(), Vec::new());
    let end = loop {
        let left = LIMIT.saturating_sub(machine.instructions());
        let end = machine.run(Some(left))?;
        for seen in watch.take() {
            match seen {
                Seen::Console(bytes) => {
                    let new = String::from_utf8_lossy(&bytes);
                    if trace {
                        screen::trace_console(&new);
                    }
                    console.push_str(&new);
                }
                Seen::MemoryError { outcome, report } => {
                    if trace {
                        screen::trace_error(&outcome);
                    }
                    errors.push(outcome);
                    error_reports.push(*report);
                }
                Seen::Line(_) | Seen::Unanswered { .. } | Seen::DeviceError { .. } => {}
            }
        }
        if let Some(end) = end {
            break end;
        }
        if left == 0 {
            return Err(format!("the guest did not end in {LIMIT} instructions").into());
        }
        if !poisoned && console.contains(READY) {
            for place in [code.pa..code.pa + code.len, data.pa..data.pa + seawall_guest::LINE] {
                if trace {
                    screen::trace_poison(&place, machine.instructions());
                }
                machine.poison(place)?;
            }
            poisoned = true;
        }
    };
    if end != End::PowerOff {
        return Err(format!("the guest ended otherwise than by powering off: it {end}").into());
    }
    let report = Report::parse(&console)?;
    let instructions = machine.instructions();
    Ok(Run { policy: name, report, errors, error_reports, console, instructions })
}

/// The expected outcome of a run under a policy: kernel, tasks, and the ESRs that its handlers saw.
struct Expected {
    kernel: KernelEnd,
    tasks: [(&'static str, TaskState); 4],
    esrs: &'static [u64],
}

fn expected(policy: &str) -> Expected {
    use TaskState::{Alive, Killed, Lost};
    match policy {
        "serror" => Expected {
            kernel: KernelEnd::Panic,
            tasks: [("web", Lost), ("db", Lost), ("batch", Lost), ("log", Lost)],
            esrs: &[0xbf00_0000],
        },
        "mainline" => Expected {
            kernel: KernelEnd::Ok,
            tasks: [("web", Killed), ("db", Killed), ("batch", Alive), ("log", Alive)],
            esrs: &[0x9200_0010, 0x9200_0010],
        },
        _ => Expected {
            kernel: KernelEnd::Ok,
            tasks: [("web", Alive), ("db", Killed), ("batch", Alive), ("log", Alive)],
            esrs: &[0x8200_0210, 0x9200_0210],
        },
    }
}

/// The mismatches of a run; empty if everything is as expected.
pub(super) fn check(run: &Run) -> Vec<String> {
    let expected = expected(run.policy);
    let mut wrong = Vec::new();
    let mut expect = |what: String, right: String, found: String| {
        if right != found {
            wrong.push(format!("policy {}: {what}: expected {right}, found {found}", run.policy));
        }
    };
    expect("kernel".into(), format!("{:?}", expected.kernel), format!("{:?}", run.report.kernel));
    for (name, state) in expected.tasks {
        let task = run.report.task(name);
        expect(
            format!("task {name}"),
            format!("{:?}", Some(state)),
            format!("{:?}", task.map(|task| task.state)),
        );
        if state == TaskState::Alive {
            let checksum = task.map(|task| task.checksum);
            expect(format!("results of {name}"), "Some(Ok)".into(), format!("{checksum:?}"));
        }
    }
    let esrs: Vec<u64> = run.saw().iter().map(|saw| saw.esr).collect();
    expect("ESRs that the guest saw".into(), format!("{:x?}", expected.esrs), format!("{esrs:x?}"));
    expect("memory errors".into(), expected.esrs.len().to_string(), run.errors.len().to_string());
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_policy_comes_to_what_it_must() {
        for (policy, survivors) in [("serror", 0), ("mainline", 2), ("full", 3)] {
            let run = run(policy, false).unwrap();
            assert_eq!(check(&run), Vec::<String>::new());
            assert_eq!(run.survivors(), survivors, "{policy}");
        }
    }

    #[test]
    fn an_outcome_that_must_not_be_is_said() {
        let mut run = run("full", false).unwrap();
        run.policy = "serror";
        let wrong = check(&run);
        assert!(wrong.iter().any(|line| line.contains("kernel: expected Panic, found Ok")), "{wrong:?}");
        assert!(wrong.iter().any(|line| line.contains("task log")), "{wrong:?}");
    }

    #[test]
    fn a_run_is_the_same_to_the_instruction() {
        let (first, second) = (run("full", false).unwrap(), run("full", false).unwrap());
        assert_eq!((first.console, first.instructions), (second.console, second.instructions));
    }
}
