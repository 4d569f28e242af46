//! One experiment: a page goes bad, and the guest goes on.

use std::collections::BTreeMap;

use seawall_machine::memory::LINE_SIZE;
use seawall_vmm::{End, Snapshot, SoftwareMachine};

use crate::error::Result;
use crate::manifest::{Golden, Manifest, Moment};
use crate::pages::{PlannedPage, consumer_word};
use crate::results::{Outcome, Row};
use crate::seen::{Seen, Watch};

/// Instructions between two looks at what the guest said.
const SLICE: u64 = 250_000;
/// What a run may take beyond a tenth more than the golden one, but no more than that one: instructions, and nanoseconds of
/// the guest's time. An oops takes a million instructions, a page that is read again less.
const SLACK_STEPS: u64 = 5_000_000;
const SLACK_TIME: u64 = 50_000_000;
/// The service that stands for the kernel and the first process alone.
const INIT: &str = "init";

/// An experiment of a campaign.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Experiment<'a> {
    pub(crate) moment: &'a Moment,
    pub(crate) page: &'a PlannedPage,
    pub(crate) policy: &'a str,
}

/// Pages of each moment that are tried before those that were drawn later: wherever a run is stopped, the pages that are
/// done are a draw of all.
pub(crate) const ROUND: u64 = 240;

/// All experiments: by round, and in a round in the order in which one machine gets to them, by moment, checkpoint, page
/// and policy.
pub(crate) fn all<'a>(manifest: &'a Manifest, pages: &'a [PlannedPage]) -> Vec<Experiment<'a>> {
    let mut chosen: Vec<&PlannedPage> = pages.iter().filter(|page| page.chosen).collect();
    chosen.sort_by_key(|page| (page.draw / ROUND, page.place()));
    let experiments = chosen.into_iter().flat_map(|page| {
        let moment = manifest.moments.get(page.moment);
        let policies = manifest.policies.iter();
        policies.filter_map(move |policy| Some(Experiment { moment: moment?, page, policy }))
    });
    experiments.collect()
}

/// The place of each in the plan.
pub(crate) fn ids(experiments: &[Experiment<'_>]) -> BTreeMap<String, usize> {
    experiments.iter().enumerate().map(|(index, experiment)| (experiment.id(), index)).collect()
}

impl Experiment<'_> {
    pub(crate) fn id(&self) -> String {
        format!("{}-{:#x}-{}", self.moment.name(), self.page.page, self.policy)
    }

    /// Runs it on a machine that has its policy, from its checkpoint.
    pub(crate) fn run(
        &self,
        machine: &mut SoftwareMachine,
        watch: &Watch,
        checkpoint: &Snapshot,
        keeps_lines: bool,
    ) -> Result<Row> {
        machine.restore(checkpoint)?;
        watch.begin(keeps_lines);
        for line in (0..64).filter(|line| self.page.lines >> line & 1 != 0) {
            let start = self.page.page + line * LINE_SIZE;
            machine.poison(start..start + LINE_SIZE)?;
        }
        let golden = &self.moment.golden;
        let from = machine.instructions();
        let done = golden.stride.saturating_mul(self.page.checkpoint as u64);
        let most_steps = and_a_tenth(golden.steps, SLACK_STEPS).saturating_sub(done);
        let most_time = self.moment.time.saturating_add(and_a_tenth(golden.time, SLACK_TIME));
        let mut end = None;
        while end.is_none() && machine.instructions() - from < most_steps && machine.time() < most_time {
            end = machine.run(Some(SLICE))?;
            let seen = watch.seen();
            if seen.panic.is_some() || seen.wrong.is_some() || is_decided(&seen, golden) {
                break;
            }
        }
        let steps = machine.instructions() - from;
        Ok(self.judge(&watch.seen(), end.as_ref(), steps))
    }

    fn judge(&self, seen: &Seen, end: Option<&End>, steps: u64) -> Row {
        let golden = &self.moment.golden;
        let lost: Vec<(&str, String)> = golden
            .services
            .keys()
            .filter_map(|name| Some((name.as_str(), loss(seen, golden, name)?)))
            .collect();
        let lives = |name: &str| lost.iter().all(|(other, _)| *other != name);
        let services = golden.services.keys().filter(|name| *name != INIT);
        let others_live = services.clone().filter(|name| lives(name)).count();
        let is_silent = lost.iter().any(|(name, why)| *name != INIT && why == SILENT);
        let other_text = golden.services.iter().find_map(|(name, service)| {
            let said = &seen.services.get(name)?.said;
            said.iter().find(|(number, text)| service.said.get(number).is_some_and(|right| right != *text))
        });
        let outcome = match () {
            () if seen.wrong.is_some() || other_text.is_some() => Outcome::WrongResult,
            () if seen.panic.is_some() || matches!(end, Some(End::Panic { .. } | End::Reset)) => {
                Outcome::Panic
            }
            () if lost.is_empty() && seen.complaint.is_some() => Outcome::AliveAfterOops,
            () if lost.is_empty() => Outcome::AllAlive,
            () if others_live > 0 => Outcome::SomeLost,
            () if is_silent && !lives(INIT) || end.is_some() => Outcome::Hang,
            () => Outcome::WorkloadLost,
        };
        let ends_all = matches!(outcome, Outcome::Panic | Outcome::Hang | Outcome::WorkloadLost);
        let page = self.page;
        let words = seen.panic.as_ref().or(seen.wrong.as_ref()).or(seen.complaint.as_ref()).cloned();
        let words = words.or_else(|| end.map(End::to_string)).unwrap_or_default();
        let first = seen.first_error.map(|error| (error.time.saturating_sub(self.moment.time), error.pc));
        let is_device = page.consumer == seawall_machine::Consumer::Device;
        Row {
            id: self.id(),
            firmware: self.moment.firmware.word().to_owned(),
            moment: self.moment.number,
            page: page.page,
            page_use: page.page_use.clone(),
            policy: self.policy.to_owned(),
            outcome,
            lost: if ends_all { services.count() } else { lost.len() } as u32,
            lost_services: lost
                .iter()
                .map(|(name, why)| format!("{name} ({why})"))
                .collect::<Vec<_>>()
                .join(", "),
            words: without_time(&words).to_owned(),
            errors: seen.errors,
            device_errors: seen.device_errors,
            as_planned: first == Some((page.time, page.pc)) || is_device && seen.device_errors > 0,
            time: page.time,
            pc: format!("{:#x}", page.pc),
            symbol: page.symbol.clone(),
            el: page.el,
            consumer: consumer_word(page.consumer).to_owned(),
            steps,
        }
    }
}

/// So much and a tenth more, and the slack, which is no more than that.
fn and_a_tenth(much: u64, slack: u64) -> u64 {
    much.saturating_add(much / 10).saturating_add(slack.min(much))
}

/// Of a service that says nothing any more.
const SILENT: &str = "silent";

/// Why a service is lost, if it is: it ended, or it does not come to where the golden run's came.
fn loss(seen: &Seen, golden: &Golden, name: &str) -> Option<String> {
    let service = seen.services.get(name);
    if let Some(why) = service.and_then(|service| service.ended.clone()) {
        return Some(why);
    }
    let wanted = golden.services.get(name)?.last;
    (service.map_or(0, |service| service.last) < wanted).then(|| SILENT.to_owned())
}

/// True if no more can come: each service has ended, or come to where the golden run's came.
fn is_decided(seen: &Seen, golden: &Golden) -> bool {
    golden.services.keys().all(|name| loss(seen, golden, name).is_none_or(|why| why != SILENT))
}

/// A kernel's message without its time stamp.
fn without_time(line: &str) -> &str {
    match line.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
        Some((stamp, rest))
            if stamp.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.' || byte == b' ') =>
        {
            rest
        }
        _ => line,
    }
}
