//! Runs experiments: in parallel, from where an earlier run was stopped, with the same rows each time.

use std::num::NonZero;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use seawall::{MemoryError, Policy, Response, Rules};
use seawall_events::Reg;
use seawall_inject::Inject as _;
use seawall_machine::RAM_BASE;
use seawall_machine::memory::PAGE_SIZE;
use seawall_vmm::{Snapshot, SoftwareMachine};

use crate::error::{Error, Result};
use crate::experiment::{self, Experiment};
use crate::golden::Walk;
use crate::manifest::{self, Campaign, Firmware, Manifest, Moment};
use crate::pages::{self, PlannedPage};
use crate::results::{self, Journal, Row};
use crate::seen::Watch;

/// A part of a campaign: the experiments from `number` of `of` equal pieces of the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// From 0.
    pub number: usize,
    /// How many there are.
    pub of: usize,
}

impl Shard {
    /// All.
    pub const WHOLE: Self = Self { number: 0, of: 1 };

    /// The places in the plan of its experiments, of so many.
    pub fn range(self, all: usize) -> std::ops::Range<usize> {
        let part = |number: usize| (all as u128 * number as u128 / self.of.max(1) as u128) as usize;
        part(self.number)..part(self.number + 1)
    }

    pub(crate) fn file(self) -> String {
        format!("{:05}-of-{:05}.parquet", self.number, self.of)
    }
}

impl std::str::FromStr for Shard {
    type Err = String;

    /// `I/N`, I from 1 to N.
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let wrong = || format!("expected I/N with I from 1 to N, such as 3/16, got {text}");
        let (number, of) = text.split_once('/').ok_or_else(wrong)?;
        let (number, of): (usize, usize) =
            (number.parse().map_err(|_| wrong())?, of.parse().map_err(|_| wrong())?);
        if number == 0 || number > of {
            return Err(wrong());
        }
        Ok(Self { number: number - 1, of })
    }
}

/// Some of the experiments: those that each of these allows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Only {
    /// Of these moments, by name; of all if there is none.
    pub moments: Vec<String>,
    /// Under these policies; under all if there is none.
    pub policies: Vec<String>,
    /// With so many pages of each moment, those that were drawn first.
    pub pages: Option<u64>,
}

impl Only {
    fn allows(&self, experiment: &Experiment<'_>) -> bool {
        let among = |names: &[String], name: &str| names.is_empty() || names.iter().any(|own| own == name);
        among(&self.moments, &experiment.moment.name())
            && among(&self.policies, experiment.policy)
            && self.pages.is_none_or(|pages| experiment.page.draw < pages)
    }

    /// Refuses names that the campaign does not have.
    fn check(&self, manifest: &Manifest) -> Result<()> {
        let moments: Vec<String> = manifest.moments.iter().map(Moment::name).collect();
        for (asked, known) in [(&self.moments, &moments), (&self.policies, &manifest.policies)] {
            if let Some(foreign) = asked.iter().find(|name| !known.contains(name)) {
                let expected = format!("one of {}", known.join(", "));
                return Err(Error::Option { expected, got: foreign.clone() });
            }
        }
        Ok(())
    }
}

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Experiments that were asked for and have a result, from this run or an earlier one.
    pub done: usize,
    /// Of them those of this run.
    pub new: usize,
    /// Experiments that were asked for.
    pub all: usize,
}

/// Runs the experiments of a shard that have no result yet, or some of them, on so many threads. Gives the shard's table, if
/// the shard is complete.
///
/// # Errors
/// [`Error`]. Rows that are done stay: the next run goes on from there.
pub fn run(
    campaign: &Campaign,
    shard: Shard,
    only: &Only,
    threads: Option<NonZero<usize>>,
    tell: &(dyn Fn(Progress, &Row) + Sync),
) -> Result<Option<PathBuf>> {
    only.check(&campaign.manifest)?;
    let pages = pages::read(&campaign.plan_path(), campaign.manifest.moments.len())?;
    let experiments = experiment::all(&campaign.manifest, &pages);
    let ids = experiment::ids(&experiments);
    let table = campaign.results().join(shard.file());
    let range = shard.range(experiments.len());
    let mut found = campaign.found(&ids)?;
    let asked = |index: &usize| experiments.get(*index).is_some_and(|experiment| only.allows(experiment));
    let asked: Vec<usize> = range.clone().filter(asked).collect();
    let left: Vec<usize> = asked.iter().copied().filter(|index| !found.contains_key(index)).collect();
    let (all, before) = (asked.len(), asked.len() - left.len());
    let mut journal = None;
    if !left.is_empty() {
        campaign.check_disks()?;
        let writer = Mutex::new((Journal::new(&campaign.results(), &campaign.id)?, 0_usize));
        let work = Work::new(campaign, &experiments, &left);
        let note = |index: usize, row: Row| -> Result<(usize, Row)> {
            let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
            writer.0.write(&row)?;
            writer.1 += 1;
            tell(Progress { done: before + writer.1, new: writer.1, all }, &row);
            Ok((index, row))
        };
        let new = in_parallel(threads_for(threads, left.len()), || work.until_done(&note))?;
        let (done, _) = writer.into_inner().unwrap_or_else(PoisonError::into_inner);
        for (index, row) in new {
            found.entry(index).or_insert((row, table.clone()));
        }
        journal = Some(done);
    }
    if range.clone().any(|index| !found.contains_key(&index)) {
        return Ok(None);
    }
    let rows: Vec<Row> = range.filter_map(|index| found.remove(&index).map(|(row, _)| row)).collect();
    results::write(&table, &campaign.id, &rows)?;
    if let Some(journal) = journal {
        journal.remove();
    }
    Ok(Some(table))
}

/// As many threads as were asked for, or one for each core; no more than there are experiments.
pub(crate) fn threads_for(asked: Option<NonZero<usize>>, experiments: usize) -> usize {
    let threads = asked.or_else(|| std::thread::available_parallelism().ok());
    threads.map_or(1, NonZero::get).min(experiments)
}

/// The same on several threads: what all of them gave, or the first failure.
pub(crate) fn in_parallel<T: Send>(
    threads: usize,
    work: impl Fn() -> Result<Vec<T>> + Sync,
) -> Result<Vec<T>> {
    let parts: Vec<Result<Vec<T>>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(&work)).collect();
        let dead =
            || Err(Error::Guest("could not be run: a thread panicked, a bug of this program".to_owned()));
        workers.into_iter().map(|worker| worker.join().unwrap_or_else(|_| dead())).collect()
    });
    Ok(parts.into_iter().collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
}

/// Experiments to be done in their order, and the golden machine that walks beside them.
pub(crate) struct Work<'a> {
    campaign: &'a Campaign,
    experiments: &'a [Experiment<'a>],
    queue: Mutex<Queue<'a>>,
}

struct Queue<'a> {
    left: std::slice::Iter<'a, usize>,
    golden: Option<At>,
    failed: bool,
}

/// Where the golden machine is: moment and checkpoint.
struct At {
    place: (usize, usize),
    walk: Walk,
    snapshot: Snapshot,
}

/// Takes a row, and gives it on with its place in the plan.
pub(crate) type Note<'a> = dyn Fn(usize, Row) -> Result<(usize, Row)> + Sync + 'a;

impl<'a> Work<'a> {
    pub(crate) fn new(campaign: &'a Campaign, experiments: &'a [Experiment<'a>], left: &'a [usize]) -> Self {
        let queue = Queue { left: left.iter(), golden: None, failed: false };
        Self { campaign, experiments, queue: Mutex::new(queue) }
    }

    pub(crate) fn until_done(&self, note: &Note<'_>) -> Result<Vec<(usize, Row)>> {
        let mut worker = Worker::new(self.campaign);
        let mut rows = Vec::new();
        while let Some((index, experiment, checkpoint)) = self.next()? {
            let done = worker.run(&experiment, &checkpoint, false).and_then(|row| note(index, row));
            match done {
                Ok(done) => rows.push(done),
                Err(error) => {
                    self.queue.lock().unwrap_or_else(PoisonError::into_inner).failed = true;
                    return Err(error);
                }
            }
        }
        Ok(rows)
    }

    /// The next experiment, with its checkpoint.
    fn next(&self) -> Result<Option<(usize, Experiment<'a>, Snapshot)>> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.failed {
            return Ok(None);
        }
        let Some(&index) = queue.left.next() else { return Ok(None) };
        let Some(&experiment) = self.experiments.get(index) else { return Ok(None) };
        let place = (experiment.page.moment, experiment.page.checkpoint);
        let golden = match queue.golden.take() {
            Some(at) if at.place.0 == place.0 && at.place.1 <= place.1 => at,
            // Whoever holds the last snapshot of another moment keeps it as long as it is needed.
            _ => at_moment(self.campaign, &experiment)?,
        };
        let golden = golden.advance(place)?;
        let snapshot = golden.snapshot.clone();
        queue.golden = Some(golden);
        Ok(Some((index, experiment, snapshot)))
    }
}

fn at_moment(campaign: &Campaign, experiment: &Experiment<'_>) -> Result<At> {
    let moment = experiment.moment;
    let snapshot = campaign.snapshot(moment)?;
    let mut config = campaign.config(Box::new(Rules::FULL))?;
    config.acpi = snapshot.config().acpi;
    let machine = SoftwareMachine::resume(&snapshot, config, Box::new(()))?;
    let mut walk = Walk::new(machine, moment.golden.stride);
    let snapshot = walk.next()?;
    Ok(At { place: (experiment.page.moment, 0), walk, snapshot })
}

impl At {
    fn advance(mut self, to: (usize, usize)) -> Result<Self> {
        while self.place.1 < to.1 {
            self.snapshot = self.walk.next()?;
            self.place.1 += 1;
        }
        Ok(self)
    }
}

/// A policy that is another one for each experiment, so that a worker needs one machine.
#[derive(Clone)]
struct Current(Arc<Mutex<Rules>>);

impl Policy for Current {
    fn name(&self) -> &'static str {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).name()
    }

    fn decide(&self, error: &MemoryError) -> Response {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).decide(error)
    }
}

/// A worker's machine, which is of one firmware.
struct Worker<'a> {
    campaign: &'a Campaign,
    policy: Current,
    watch: Watch,
    machine: Option<(Firmware, SoftwareMachine)>,
}

impl<'a> Worker<'a> {
    fn new(campaign: &'a Campaign) -> Self {
        let policy = Current(Arc::new(Mutex::new(Rules::FULL)));
        Self { campaign, policy, watch: Watch::default(), machine: None }
    }

    fn run(&mut self, experiment: &Experiment<'_>, checkpoint: &Snapshot, keeps: bool) -> Result<Row> {
        let rules = manifest::rules(experiment.policy)?;
        *self.policy.0.lock().unwrap_or_else(PoisonError::into_inner) = rules;
        let firmware = experiment.moment.firmware;
        let machine = match self.machine.take() {
            Some((own, machine)) if own == firmware => machine,
            _ => {
                let mut config = self.campaign.config(Box::new(self.policy.clone()))?;
                config.acpi = checkpoint.config().acpi;
                SoftwareMachine::resume(checkpoint, config, Box::new(self.watch.clone()))?
            }
        };
        let (_, machine) = self.machine.insert((firmware, machine));
        experiment.run(machine, &self.watch, checkpoint, keeps)
    }

    /// Of each CPU PC and PSTATE.
    fn cpus(&mut self) -> Result<Vec<(u64, u64)>> {
        let Some((_, machine)) = &mut self.machine else { return Ok(Vec::new()) };
        let vm = machine.vm_mut();
        let count = vm.cpu_count();
        let place = |index| {
            let vcpu = vm.vcpu(index).map_err(seawall_vmm::Error::from)?;
            let reg = |reg| vcpu.reg(reg).map_err(seawall_vmm::Error::from);
            Ok((reg(Reg::Pc)?, reg(Reg::Pstate)?))
        };
        (0..count).map(place).collect()
    }
}

/// One experiment again, with all that its guest said.
#[derive(Clone, Debug)]
pub struct Replay {
    /// Its result.
    pub row: Row,
    /// The console's lines, with the memory errors in between.
    pub lines: Vec<String>,
    /// Of each CPU PC and PSTATE at the end.
    pub cpus: Vec<(u64, u64)>,
    /// True if the page is in the plan: something uses it.
    pub planned: bool,
    /// The result of an earlier run, if there was one.
    pub before: Option<Row>,
}

/// Runs one experiment by its id, of any page of RAM: one that nothing uses survives.
///
/// # Errors
/// [`Error::NoExperiment`], and [`Error`].
pub fn replay(campaign: &Campaign, id: &str) -> Result<Replay> {
    let no_such = || Error::NoExperiment(id.to_owned());
    let pages = pages::read(&campaign.plan_path(), campaign.manifest.moments.len())?;
    let asked = Asked::parse(campaign, id).ok_or_else(no_such)?;
    let planned = pages.iter().find(|page| (page.moment, page.page) == (asked.moment, asked.page));
    let unused = PlannedPage::unused(asked.moment, asked.page);
    let moment = campaign.manifest.moments.get(asked.moment).ok_or_else(no_such)?;
    let experiment = Experiment { moment, page: planned.unwrap_or(&unused), policy: &asked.policy };
    campaign.check_disks()?;
    let at = at_moment(campaign, &experiment)?.advance((asked.moment, experiment.page.checkpoint))?;
    let mut worker = Worker::new(campaign);
    let row = worker.run(&experiment, &at.snapshot, true)?;
    let lines = std::mem::take(&mut worker.watch.seen().lines);
    let before = campaign.rows()?.0.into_iter().find(|before| before.id == row.id);
    Ok(Replay { row, lines, cpus: worker.cpus()?, planned: planned.is_some(), before })
}

/// The parts of an id.
struct Asked {
    moment: usize,
    page: u64,
    policy: String,
}

impl Asked {
    fn parse(campaign: &Campaign, id: &str) -> Option<Self> {
        let mut moments = campaign.manifest.moments.iter().enumerate();
        let (moment, rest) = moments
            .find_map(|(index, moment)| Some((index, id.strip_prefix(&format!("{}-0x", moment.name()))?)))?;
        let (page, policy) = rest.split_once('-')?;
        let page = u64::from_str_radix(page, 16).ok()?;
        let ram = RAM_BASE..RAM_BASE + campaign.manifest.memory;
        let is_page = page % PAGE_SIZE == 0 && ram.contains(&page) && policy.parse::<Rules>().is_ok();
        is_page.then(|| Self { moment, page, policy: policy.to_owned() })
    }
}
