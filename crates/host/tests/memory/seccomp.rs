//! Each step under a seccomp filter of its rules and the runtime's alone, and with any one of them left out.
//! A filter cannot be removed, and kills: each case runs in a process of its own.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitStatus, exit};
use std::{env, thread};

use seawall_host::seccomp::{HEAL, MAKE_HOLES, READ, RUNTIME, Rule, Step, TELL, allow};
use seawall_host::{HostKnows, make_holes, sigbus, tell};
use seawall_lab_machine::is_lab;
use seccompiler::{SeccompAction, SeccompFilter, apply_filter};

use crate::mapping::{Mapping, give_up_privilege};

/// The child's variable: the entry of [`ACTS`], and the rule of its step to leave out, if any.
const ACT: &str = "SEAWALL_TEST_ACT";
const LEFT_OUT: &str = "SEAWALL_TEST_LEFT_OUT";

/// An action to run under a filter. It is prepared before the filter is on.
type Prepared = Box<dyn FnOnce() -> bool + Send>;
type Prepare = fn() -> Option<Prepared>;

/// `None` if the action is not possible here.
const ACTS: [(&str, Step, Prepare); 6] = [
    ("tell, with privilege", TELL, tell_with_privilege),
    ("tell, without privilege", TELL, tell_without_privilege),
    ("heal, of any kind", HEAL, heal_all_kinds),
    ("heal, with privilege", HEAL, heal_with_privilege),
    ("make holes", MAKE_HOLES, holes),
    ("read", READ, read_a_hole),
];

fn tell_with_privilege() -> Option<Prepared> {
    let memory = is_lab().then(|| Mapping::anonymous(1))?;
    sigbus::install().unwrap();
    Some(Box::new(move || tell(memory.at(0)) == HostKnows::Told))
}

/// Takes more pages than one pipe has room for.
#[allow(clippy::unnecessary_wraps, reason = "a row of ACTS")]
fn tell_without_privilege() -> Option<Prepared> {
    let memory = Mapping::anonymous(300);
    sigbus::install().unwrap();
    give_up_privilege();
    Some(Box::new(move || tell(memory.start..memory.at(299).end) == HostKnows::Kept))
}

fn heal_with_privilege() -> Option<Prepared> {
    let memory = is_lab().then(|| Mapping::anonymous(1))?;
    sigbus::install().unwrap();
    Some(Box::new(move || memory.heal(memory.at(0)) == Ok(HostKnows::Told)))
}

#[allow(clippy::unnecessary_wraps, reason = "a row of ACTS")]
fn heal_all_kinds() -> Option<Prepared> {
    let locked = Mapping::anonymous(1);
    // SAFETY: it is mapped, and its content does not change.
    let is_locked = unsafe { libc::mlock(locked.start as *const libc::c_void, locked.page as usize) } == 0;
    let mut kinds = vec![Mapping::anonymous(300), Mapping::shared(1)];
    kinds.extend(is_locked.then_some(locked));
    kinds.extend(Mapping::anonymous_huge(1));
    sigbus::install().unwrap();
    give_up_privilege();
    Some(Box::new(move || {
        kinds.iter().all(|memory| memory.heal(memory.start..memory.end()) == Ok(HostKnows::Kept))
    }))
}

fn holes() -> Option<Prepared> {
    crate::with_hole()?;
    let memory = Mapping::anonymous(1);
    // SAFETY: it is mapped private and anonymous, and nobody has a reference to it.
    Some(Box::new(move || unsafe { make_holes(&[memory.at(0)]) }.is_ok()))
}

fn read_a_hole() -> Option<Prepared> {
    let memory = crate::with_hole()?;
    sigbus::install().unwrap();
    Some(Box::new(move || memory.is_good(0) && !memory.is_good(1)))
}

/// Runs the action in a thread under these rules alone, to its end.
fn under(rules: &[Rule], act: Prepared) -> bool {
    let mut filter = BTreeMap::new();
    allow(&mut filter, rules).unwrap();
    let arch = env::consts::ARCH.try_into().unwrap();
    let filter = SeccompFilter::new(filter, SeccompAction::KillProcess, SeccompAction::Allow, arch).unwrap();
    let program: seccompiler::BpfProgram = filter.try_into().unwrap();
    let thread = thread::spawn(move || {
        apply_filter(&program).unwrap();
        act()
    });
    thread.join().unwrap()
}

/// The rules of the step without one.
fn rules(step: &Step, left_out: Option<usize>) -> Vec<Rule> {
    let left_out = left_out.map(|number| step.rules[number]);
    RUNTIME.iter().chain(step.rules).filter(|rule| Some(**rule) != left_out).copied().collect()
}

/// Not a test, but the process that the others start.
#[test]
fn child() {
    let Ok(name) = env::var(ACT) else { return };
    let (_, step, prepare) = ACTS.into_iter().find(|(act, ..)| *act == name).unwrap();
    let left_out = env::var(LEFT_OUT).ok().map(|number| number.parse().unwrap());
    // None: the parent found before that it is not possible here.
    let is_done = prepare().is_some_and(|act| under(&rules(&step, left_out), act));
    exit(if is_done { 0 } else { 3 });
}

fn run(act: &str, left_out: Option<usize>) -> ExitStatus {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["seccomp::child", "--exact", "--test-threads", "1"]).env(ACT, act);
    if let Some(number) = left_out {
        command.env(LEFT_OUT, number.to_string());
    }
    command.output().unwrap().status
}

/// The rules that no possible action needs.
fn unneeded(step: &Step) -> Vec<String> {
    let acts: Vec<_> = ACTS.iter().filter(|(_, of, _)| of == step).map(|(act, ..)| *act).collect();
    let possible: Vec<_> = acts.into_iter().filter(|act| is_possible(act)).collect();
    for act in &possible {
        assert!(run(act, None).success(), "{act}, under all rules");
    }
    let is_needed = |number: usize| {
        possible.iter().any(|act| match run(act, Some(number)) {
            status if status.signal() == Some(libc::SIGSYS) => true,
            status if status.success() => false,
            status => panic!("{act} without {}: {status}", step.rules[number]),
        })
    };
    let unneeded = (0..step.rules.len()).filter(|number| !is_needed(*number));
    unneeded.map(|number| step.rules[number].to_string()).collect()
}

fn is_possible(act: &str) -> bool {
    match act {
        "tell, with privilege" | "heal, with privilege" => is_lab(),
        "make holes" | "read" => crate::with_hole().is_some(),
        _ => true,
    }
}

/// The rules that only the privilege leads to: a signal of `MADV_HWPOISON`, and the surrounding huge page.
/// They need the lab.
fn of_privilege() -> &'static [&'static str] {
    if is_lab() {
        &[]
    } else {
        &["rt_sigreturn", "msync (MS_INVALIDATE)", "mlock2 (MLOCK_ONFAULT)", "munlock"]
    }
}

#[test]
fn the_host_is_told_under_its_rules_and_killed_with_one_fewer() {
    assert_eq!(unneeded(&TELL), of_privilege());
}

#[test]
fn memory_is_healed_under_its_rules_and_killed_with_one_fewer() {
    let mut unneeded = unneeded(&HEAL);
    // Huge pages are not available everywhere.
    unneeded.retain(|rule| rule != "madvise (MADV_POPULATE_WRITE)" || is_lab());
    assert_eq!(unneeded, of_privilege());
}

#[test]
fn holes_are_made_and_read_under_their_rules_and_killed_with_one_fewer() {
    if crate::with_hole().is_none() {
        return;
    }
    assert_eq!(unneeded(&MAKE_HOLES), [""; 0]);
    assert_eq!(unneeded(&READ), [""; 0]);
}
