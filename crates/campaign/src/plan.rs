//! The plan: moments of a guest, the pages that something uses from each on, and the proof that the others do not matter.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use seawall::Rules;
use seawall_machine::memory::PAGE_SIZE;
use seawall_machine::{Grain, Trace};
use seawall_vmm::kernel::Kernel;
use seawall_vmm::{Guest, Snapshot, SoftwareMachine};

use crate::error::{Error, Result};
use crate::golden::{self, Walk};
use crate::manifest::{self, Campaign, Firmware, Golden, Kept, Manifest, Moment};
use crate::page_use::{PageUses, Symbols};
use crate::pages::{self, PlannedPage};
use crate::seen::{Seen, Watch};
use crate::touched::{choose, count, touched};

/// Instructions for a boot, for the beginning of an answer, for one about pages, and for one about symbols.
const MOST_BOOT: u64 = 40_000_000_000;
const MOST_SILENCE: u64 = 1_000_000_000;
const MOST_CENSUS: u64 = 6_000_000_000;
const MOST_SYMBOLS: u64 = 20_000_000_000;

/// The description of a campaign to be planned.
#[derive(Clone, Debug)]
pub struct Request {
    /// The program, as results depend on it.
    pub program: String,
    /// Linux.
    pub kernel: PathBuf,
    /// Its initramfs.
    pub initrd: Option<PathBuf>,
    /// Its disks, raw.
    pub disks: Vec<PathBuf>,
    /// Its command line.
    pub command_line: String,
    /// Bytes of RAM.
    pub memory: u64,
    /// vCPUs.
    pub cpus: u32,
    /// How the guest learns of errors; a boot for each.
    pub firmware: Vec<Firmware>,
    /// Text of the line after which memory may go bad.
    pub begin: String,
    /// Moments after that, for each firmware.
    pub moments: u32,
    /// From one to the next, nanoseconds of the guest's time.
    pub spacing: u64,
    /// From a moment to the judgement, nanoseconds of the guest's time.
    pub horizon: u64,
    /// Checkpoints of a golden run.
    pub checkpoints: u32,
    /// Draw so many of the touched pages of each moment; all, if there is no number.
    pub sample: Option<u64>,
    /// The seed of the drawing.
    pub seed: u64,
    /// Answers to compare.
    pub policies: Vec<String>,
}

/// The result of planning a moment, for progress.
#[derive(Clone, Debug)]
pub struct Planned {
    /// The moment.
    pub moment: String,
    /// Pages of RAM.
    pub pages: u64,
    /// Pages that something uses.
    pub touched: u64,
    /// Instructions of the golden run.
    pub steps: u64,
    /// The processor's time for the golden run, without the trace and with it, once its code is translated.
    pub took: (Duration, Duration),
    /// The services that experiments are judged by: those that lived between the moment and the horizon.
    pub services: Vec<String>,
    /// True if the guest said what its pages are used for.
    pub has_uses: bool,
}

/// Makes the plan in an empty or new directory.
///
/// # Errors
/// [`Error`].
pub fn plan(request: &Request, directory: &Path, tell: &mut dyn FnMut(&Planned)) -> Result<Campaign> {
    check(request)?;
    std::fs::create_dir_all(directory).map_err(|error| Error::file(directory, error))?;
    if directory.join("manifest.json").exists() {
        return Err(Error::content(directory, "a directory without a campaign", "one that has a plan"));
    }
    let mut manifest = manifest_of(request, directory)?;
    let mut all = Vec::new();
    for &firmware in &request.firmware {
        let (moments, answers) = moments(request, &manifest, directory, firmware)?;
        let mut symbols = None;
        for (number, (snapshot, hash)) in moments.into_iter().enumerate() {
            let place = Place { directory, manifest: &manifest, answers };
            if symbols.is_none() {
                symbols = Some(place.symbols(&snapshot)?.unwrap_or_default());
            }
            let names = symbols.as_ref();
            let moment = Moment {
                firmware,
                number: number as u32,
                time: snapshot.time(),
                snapshot: hash,
                golden: Golden::default(),
                pages: BTreeMap::new(),
                proven: 0,
            };
            let index = manifest.moments.len();
            let (moment, pages, planned) = place.moment(&snapshot, moment, index, request, names)?;
            tell(&planned);
            manifest.moments.push(moment);
            all.extend(pages);
        }
    }
    let path = directory.join("plan.parquet");
    pages::write(&path, &all)?;
    manifest.plan = manifest::hash_file(&path)?;
    Campaign::create(directory, &manifest)
}

fn check(request: &Request) -> Result<()> {
    let wrong = |expected: &str, got: String| Err(Error::Option { expected: expected.to_owned(), got });
    for (n, policy) in request.policies.iter().enumerate() {
        if policy.parse::<Rules>().is_err() {
            return wrong("policies among serror, mainline, full, or rules", policy.clone());
        }
        if request.policies.iter().take(n).any(|other| other == policy) {
            return wrong("each policy once", format!("{policy} twice"));
        }
    }
    let counts = [
        ("moment", u64::from(request.moments)),
        ("checkpoint", u64::from(request.checkpoints)),
        ("firmware", request.firmware.len() as u64),
        ("policy", request.policies.len() as u64),
        ("page of a sample", request.sample.unwrap_or(1)),
        ("nanosecond to the horizon", request.horizon),
    ];
    if let Some((what, _)) = counts.iter().find(|(_, count)| *count == 0) {
        return wrong(&format!("at least one {what}"), "none".to_owned());
    }
    Ok(())
}

fn manifest_of(request: &Request, directory: &Path) -> Result<Manifest> {
    let disks = request.disks.iter().enumerate();
    let disks = disks.map(|(n, disk)| manifest::keep(directory, disk, &format!("disk-{n}")));
    Ok(Manifest {
        format: manifest::format(),
        program: request.program.clone(),
        kernel: manifest::name(&request.kernel)?,
        initrd: request.initrd.as_deref().map(manifest::name).transpose()?,
        disks: disks.collect::<Result<Vec<Kept>>>()?,
        command_line: request.command_line.clone(),
        memory: request.memory,
        cpus: request.cpus,
        begin: request.begin.clone(),
        horizon: request.horizon,
        sample: request.sample,
        seed: request.seed,
        policies: request.policies.clone(),
        moments: Vec::new(),
        plan: String::new(),
    })
}

/// Boots, and keeps the moments: each as it is read again from its file, with the file's hash. And whether the guest is a
/// Linux, which may answer questions about its pages.
fn moments(
    request: &Request,
    manifest: &Manifest,
    directory: &Path,
    firmware: Firmware,
) -> Result<(Vec<(Snapshot, String)>, bool)> {
    let watch = Watch::default();
    let mut config = manifest::config(directory, manifest, Box::new(Rules::FULL))?;
    config.acpi = firmware == Firmware::Acpi;
    let initrd = request.initrd.as_deref();
    let guest = Guest::read(&request.kernel, initrd, &request.command_line, request.memory)?;
    let mut machine = SoftwareMachine::new(config, &guest, Box::new(watch.clone()))?;
    watch.seen().awaited = Some(request.begin.clone());
    golden::advance_until(&mut machine, &watch, MOST_BOOT, |seen| seen.has_come || seen.panic.is_some())?;
    refuse_silent(&watch.seen(), &request.begin, firmware)?;
    refuse_ended(&watch.seen())?;
    watch.begin(false);
    let begin = machine.time();
    let mut moments = Vec::new();
    for number in 0..request.moments {
        if let Some(end) = golden::advance_to_time(
            &mut machine,
            begin.saturating_add(request.spacing.saturating_mul(u64::from(number))),
        )? {
            return Err(Error::Guest(format!("ended before moment {number}: {end}")));
        }
        let name = format!("{}-{number}", firmware.word());
        let hash = manifest::keep_snapshot(directory, &name, &machine.snapshot()?)?;
        let path = manifest::snapshot_path(directory, &name);
        moments.push((manifest::read_snapshot(&path, request.memory)?, hash));
    }
    Ok((moments, matches!(guest.kernel, Kernel::Linux(_))))
}

/// A guest that never comes to where memory may go bad.
fn refuse_silent(seen: &Seen, begin: &str, firmware: Firmware) -> Result<()> {
    if seen.has_come {
        return Ok(());
    }
    let last = seen.panic.as_ref().unwrap_or(&seen.last);
    let last = if last.is_empty() { "it said nothing" } else { &format!("its last words: {last:?}") };
    let firmware = firmware.word();
    Err(Error::Guest(format!(
        "did not come to say {begin:?} (--begin) when it was booted with {firmware}; {last}"
    )))
}

/// A guest cannot be judged by services that do not speak.
fn refuse_without_services(seen: &Seen) -> Result<()> {
    if !seen.services.is_empty() {
        return Ok(());
    }
    let text = "has no service to judge it by: from the moment to the horizon no line `NAME: alive N` came, with a NAME of \
                ASCII letters, digits, `-`, `_` and `.`; let the services say it more often, or give a longer --horizon";
    Err(Error::Guest(text.to_owned()))
}

/// A guest whose services end without an error cannot be judged by them.
fn refuse_ended(seen: &Seen) -> Result<()> {
    let ended = seen.services.iter().find_map(|(name, service)| Some((name, service.ended.as_ref()?)));
    ended.map_or(Ok(()), |(name, why)| {
        Err(Error::Guest(format!(
            "lost its service {name} without a memory error: {why}; or give it more rounds"
        )))
    })
}

/// Where moments are planned.
struct Place<'a> {
    directory: &'a Path,
    manifest: &'a Manifest,
    /// The guest may answer what it is asked about its pages.
    answers: bool,
}

/// This thread's.
fn processor_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

/// A golden run, as it came out.
struct Run {
    golden: Golden,
    trace: Option<Trace>,
    took: Duration,
}

impl Place<'_> {
    fn machine(&self, snapshot: &Snapshot, watch: &Watch) -> Result<SoftwareMachine> {
        let mut config = manifest::config(self.directory, self.manifest, Box::new(Rules::FULL))?;
        config.acpi = snapshot.config().acpi;
        Ok(SoftwareMachine::resume(snapshot, config, Box::new(watch.clone()))?)
    }

    /// In forks of the moment, of which nothing remains: what pages are used for.
    fn uses(&self, snapshot: &Snapshot) -> Result<Option<PageUses>> {
        let printed = self.ask(snapshot, b"seawall: census\n", MOST_CENSUS)?;
        Ok(printed.and_then(|watch| PageUses::of(&watch.seen().printed)))
    }

    /// Where functions are.
    fn symbols(&self, snapshot: &Snapshot) -> Result<Option<Symbols>> {
        let printed = self.ask(snapshot, b"seawall: symbols\n", MOST_SYMBOLS)?;
        Ok(printed.and_then(|watch| Symbols::of(&watch.seen().printed)))
    }

    fn ask(&self, snapshot: &Snapshot, question: &[u8], most: u64) -> Result<Option<Watch>> {
        if !self.answers {
            return Ok(None);
        }
        let watch = Watch::default();
        let mut machine = self.machine(snapshot, &watch)?;
        machine.type_in(question);
        if !golden::advance_until(&mut machine, &watch, MOST_SILENCE, |seen| seen.printed.has_begun())? {
            return Ok(None);
        }
        let is_whole = golden::advance_until(&mut machine, &watch, most, |seen| seen.printed.is_whole())?;
        Ok(is_whole.then_some(watch))
    }

    fn moment(
        &self,
        snapshot: &Snapshot,
        mut moment: Moment,
        index: usize,
        request: &Request,
        symbols: Option<&Symbols>,
    ) -> Result<(Moment, Vec<PlannedPage>, Planned)> {
        let stride = self.stride(snapshot, request)?;
        let plain = self.run(snapshot, stride, request.checkpoints, false)?;
        let traced = self.run(snapshot, stride, request.checkpoints, true)?;
        if plain.golden != traced.golden {
            return Err(Error::Guest(
                "ran another way while it was traced: a bug of this program".to_owned(),
            ));
        }
        let trace = traced.trace.ok_or_else(|| Error::Guest("was not traced".to_owned()))?;
        let uses = self.uses(snapshot)?;
        let has_uses = uses.is_some();
        let uses = uses.unwrap_or_default();
        let mut pages = touched(&trace, snapshot.time(), index, &plain.golden, &uses, symbols);
        choose(&mut pages, request, &moment.name());
        let ram = snapshot.machine().config().memory_size;
        moment.proven = self.prove(snapshot, &plain.golden, request.checkpoints, &pages, ram)?;
        moment.pages = count(&pages, &uses, ram);
        moment.golden = plain.golden;
        let planned = Planned {
            moment: moment.name(),
            pages: ram / PAGE_SIZE,
            touched: pages.len() as u64,
            steps: moment.golden.steps,
            took: (plain.took, traced.took),
            services: moment.golden.services.keys().cloned().collect(),
            has_uses,
        };
        Ok((moment, pages, planned))
    }

    /// Instructions from one checkpoint to the next.
    fn stride(&self, snapshot: &Snapshot, request: &Request) -> Result<u64> {
        let mut machine = self.machine(snapshot, &Watch::default())?;
        let from = machine.instructions();
        if let Some(end) =
            golden::advance_to_time(&mut machine, snapshot.time().saturating_add(request.horizon))?
        {
            return Err(Error::Guest(format!("ended before the horizon: {end}; give it more rounds")));
        }
        Ok((machine.instructions() - from).div_ceil(u64::from(request.checkpoints)).max(1))
    }

    fn run(&self, snapshot: &Snapshot, stride: u64, checkpoints: u32, traced: bool) -> Result<Run> {
        let watch = Watch::default();
        let mut walk = Walk::new(self.machine(snapshot, &watch)?, stride);
        if traced {
            walk.machine().vm_mut().begin_trace(Grain::Page);
        }
        let began = processor_time();
        let (begin, from) = (snapshot.time(), walk.machine().instructions());
        let mut times = Vec::new();
        for _ in 0..checkpoints {
            times.push(walk.next()?.time() - begin);
        }
        walk.run_on()?;
        let took = processor_time().saturating_sub(began);
        let machine = walk.machine();
        let trace = machine.vm_mut().end_trace();
        let seen = watch.seen();
        if let Some(wrong) = seen.wrong.as_ref().or(seen.panic.as_ref()) {
            return Err(Error::Guest(format!("fails without an error, too: {wrong}")));
        }
        refuse_ended(&seen)?;
        refuse_without_services(&seen)?;
        let golden = Golden {
            steps: machine.instructions() - from,
            time: machine.time() - begin,
            stride,
            checkpoints: times,
            hash: machine.state_hash().to_string(),
            services: seen.services.clone(),
        };
        Ok(Run { golden, trace, took })
    }

    /// All pages that nothing consumes bad at once: the run must be the golden one. How many they are.
    fn prove(
        &self,
        snapshot: &Snapshot,
        golden: &Golden,
        checkpoints: u32,
        touched: &[PlannedPage],
        ram: u64,
    ) -> Result<u64> {
        let watch = Watch::default();
        let mut machine = self.machine(snapshot, &watch)?;
        let base = machine.vm().memory().base();
        let mut proven = 0;
        for page in (base..base + ram).step_by(PAGE_SIZE as usize) {
            if touched.binary_search_by_key(&page, |touched| touched.page).is_err() {
                machine.poison(page..page + PAGE_SIZE)?;
                proven += 1;
            }
        }
        let mut walk = Walk::new(machine, golden.stride);
        for _ in 0..checkpoints {
            walk.next()?;
        }
        walk.run_on()?;
        let machine = walk.machine();
        machine.heal(base..base + ram)?;
        let is_undisturbed = {
            let seen = watch.seen();
            seen.errors == 0 && seen.device_errors == 0
        };
        if is_undisturbed && machine.state_hash().to_string() == golden.hash {
            return Ok(proven);
        }
        let text = "did not run as without an error when all pages were bad that nothing consumes: a bug of this program";
        Err(Error::Guest(text.to_owned()))
    }
}
