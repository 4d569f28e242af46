//! A campaign's directory, and what it says of itself.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufReader, BufWriter};
use std::path::{Path, PathBuf};

use seawall::{Policy, Rules};
use seawall_machine::memory::PAGE_SIZE;
use seawall_vmm::devices::disk::{Disk, Writes};
use seawall_vmm::{Config, Snapshot};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::seen::Service;

/// Changed when a campaign's files mean something else.
const FORMAT: u32 = 2;
/// Of a manifest, bytes.
const LARGEST: u64 = 64 << 20;

/// How the guest learns of errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Firmware {
    /// A device tree: by the abort alone.
    Dt,
    /// ACPI: by the abort and a record of it.
    Acpi,
}

impl Firmware {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Dt, Self::Acpi];

    /// Its word in ids and on the command line.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Dt => "dt",
            Self::Acpi => "acpi",
        }
    }
}

/// The answers to a memory error that campaigns compare.
pub const POLICIES: [&str; 3] = ["serror", "mainline", "full"];

/// The run without an error, from a moment to its horizon.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Golden {
    /// Instructions.
    pub steps: u64,
    /// Nanoseconds of the guest's time.
    pub time: u64,
    /// Instructions from one checkpoint to the next.
    pub stride: u64,
    /// Time of each checkpoint since the moment, nanoseconds; the first is 0.
    pub checkpoints: Vec<u64>,
    /// BLAKE3 of the machine at the end.
    pub hash: String,
    pub(crate) services: BTreeMap<String, Service>,
}

/// Pages of one use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageCount {
    /// All.
    pub pages: u64,
    /// Those that something consumed before the horizon.
    pub touched: u64,
    /// Of these those that the plan has experiments for.
    pub chosen: u64,
}

/// A moment of the guest at which memory goes bad.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// How it learns of errors.
    pub firmware: Firmware,
    /// Its number among those with this firmware.
    pub number: u32,
    /// Of the guest's time, nanoseconds.
    pub time: u64,
    /// BLAKE3 of its snapshot's file.
    pub snapshot: String,
    /// The run without an error.
    pub golden: Golden,
    /// By use.
    pub pages: BTreeMap<String, PageCount>,
    /// Pages that nothing consumes, which were all bad at once in one run that ended as the golden one did.
    pub proven: u64,
}

impl Moment {
    /// As ids begin.
    pub fn name(&self) -> String {
        format!("{}-{}", self.firmware.word(), self.number)
    }

    /// Bytes of RAM, by its pages.
    fn memory(&self) -> Option<u64> {
        let pages = self.pages.values().try_fold(0_u64, |sum, count| sum.checked_add(count.pages));
        pages?.checked_mul(PAGE_SIZE)
    }
}

/// A file that the campaign keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Its name in the directory; of a kernel and an initramfs, which are not kept, the name that they had.
    pub name: String,
    /// Its hash.
    pub blake3: String,
}

/// The description of a campaign.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub(crate) format: u32,
    /// The program that planned: results depend on it.
    pub program: String,
    /// The guest's kernel.
    pub kernel: Kept,
    /// Its initramfs.
    pub initrd: Option<Kept>,
    /// Its disks.
    pub disks: Vec<Kept>,
    /// Its command line.
    pub command_line: String,
    /// Bytes of RAM.
    pub memory: u64,
    /// vCPUs.
    pub cpus: u32,
    /// The line that the first moment comes after.
    pub begin: String,
    /// How long after its moment a run is judged, nanoseconds of the guest's time.
    pub horizon: u64,
    /// Pages drawn of each moment; all if there is no number.
    pub sample: Option<u64>,
    /// The seed of the drawing.
    pub seed: u64,
    /// The answers that are compared.
    pub policies: Vec<String>,
    /// The moments.
    pub moments: Vec<Moment>,
    /// BLAKE3 of the plan's table.
    pub plan: String,
}

/// A campaign's directory.
#[derive(Debug)]
pub struct Campaign {
    pub(crate) directory: PathBuf,
    /// The actual value.
    pub manifest: Manifest,
    /// BLAKE3 of the manifest without its program: what results belong to. Another program that makes the same guest,
    /// snapshots and plan makes the same campaign.
    pub id: String,
}

/// BLAKE3 of a file, in hexadecimal.
pub(crate) fn hash_file(path: &Path) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    let file = File::open(path).map_err(|error| Error::file(path, error))?;
    hasher.update_reader(file).map_err(|error| Error::file(path, error))?;
    Ok(hasher.finalize().to_hex().to_string())
}

impl Campaign {
    /// Writes the manifest, which makes the directory a campaign.
    pub(crate) fn create(directory: &Path, manifest: &Manifest) -> Result<Self> {
        let path = directory.join("manifest.json");
        let text = serde_json::to_string_pretty(manifest)
            .map_err(|error| Error::content(&path, "a manifest", error.to_string()))?;
        seawall_files::replace(&path, text.as_bytes()).map_err(|error| Error::file(&path, error))?;
        Self::open(directory)
    }

    /// Opens a campaign that was planned.
    ///
    /// # Errors
    /// [`Error::File`] without a plan, [`Error::Content`] if it is one of another version of this program.
    pub fn open(directory: &Path) -> Result<Self> {
        let path = directory.join("manifest.json");
        if !path.exists() {
            let expected =
                "a campaign, which `seawall campaign plan` makes, with a manifest.json as its last file";
            return Err(Error::content(directory, expected, "no manifest.json"));
        }
        let bytes = seawall_files::read(&path, LARGEST).map_err(|error| Error::file(&path, error))?;
        let manifest: Manifest = serde_json::from_slice(&bytes)
            .map_err(|error| Error::content(&path, "the manifest of a campaign", error.to_string()))?;
        if manifest.format != FORMAT {
            let got = format!(
                "format {}; plan again with this program, or use the one that planned",
                manifest.format
            );
            return Err(Error::content(&path, format!("format {FORMAT}"), got));
        }
        if let Some(moment) = manifest.moments.iter().find(|moment| moment.memory() != Some(manifest.memory))
        {
            let expected = format!("{} to have {} bytes of RAM", moment.name(), manifest.memory);
            return Err(Error::content(&path, expected, "another number of pages"));
        }
        let nameless = Manifest { program: String::new(), ..manifest.clone() };
        let text = serde_json::to_vec(&nameless)
            .map_err(|error| Error::content(&path, "the manifest of a campaign", error.to_string()))?;
        let id = blake3::hash(&text).to_hex().to_string();
        let campaign = Self { directory: directory.to_owned(), manifest, id };
        Self::check(&campaign.plan_path(), &campaign.manifest.plan, "the plan of this campaign")?;
        Ok(campaign)
    }

    /// Refuses to go on with another program than the one that planned: what a guest does after an error may be another
    /// thing in another program, and a table has rows of one. A replay may be by any program.
    ///
    /// # Errors
    /// [`Error::Content`].
    pub fn check_program(&self, program: &str) -> Result<()> {
        if self.manifest.program == program {
            return Ok(());
        }
        let path = self.directory.join("manifest.json");
        let planned = format!("the plan of this program, {program}");
        let got =
            format!("that of {}; run that program, or plan again in a new directory", self.manifest.program);
        Err(Error::content(&path, planned, got))
    }

    fn check(path: &Path, hash: &str, what: &str) -> Result<()> {
        let found = hash_file(path)?;
        if found == hash {
            return Ok(());
        }
        let got = format!("another file ({found}); copy it again from where the campaign was planned");
        Err(Error::content(path, format!("{what} (BLAKE3 {hash})"), got))
    }

    /// Where it is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub(crate) fn plan_path(&self) -> PathBuf {
        self.directory.join("plan.parquet")
    }

    pub(crate) fn results(&self) -> PathBuf {
        self.directory.join("results")
    }

    /// The configuration of the campaign's machines.
    pub(crate) fn config(&self, policy: Box<dyn Policy>) -> Result<Config> {
        config(&self.directory, &self.manifest, policy)
    }

    /// The snapshot of a moment, if it still is the one that was planned with.
    pub(crate) fn snapshot(&self, moment: &Moment) -> Result<Snapshot> {
        let path = snapshot_path(&self.directory, &moment.name());
        Self::check(&path, &moment.snapshot, "the snapshot that this campaign was planned with")?;
        read_snapshot(&path, self.manifest.memory)
    }

    /// Refuses a disk that was changed.
    pub(crate) fn check_disks(&self) -> Result<()> {
        self.manifest.disks.iter().try_for_each(|disk| {
            Self::check(&self.directory.join(&disk.name), &disk.blake3, "the disk of this campaign")
        })
    }
}

pub(crate) fn snapshot_path(directory: &Path, moment: &str) -> PathBuf {
    directory.join(format!("moment-{moment}.snapshot"))
}

/// The snapshot in a file, of a machine with so many bytes of RAM.
pub(crate) fn read_snapshot(path: &Path, memory: u64) -> Result<Snapshot> {
    let file = File::open(path).map_err(|error| Error::file(path, error))?;
    Snapshot::load_within(BufReader::new(file), &Snapshot::limits(memory, true))
        .map_err(|error| Error::snapshot(path, "that this program reads", &error))
}

/// Writes a snapshot: its hash.
pub(crate) fn keep_snapshot(directory: &Path, moment: &str, snapshot: &Snapshot) -> Result<String> {
    let path = snapshot_path(directory, moment);
    let file = File::create(&path).map_err(|error| Error::file(&path, error))?;
    let saved = snapshot.save(BufWriter::new(file));
    saved.map_err(|error| Error::snapshot(&path, "that can be written", &error))?;
    hash_file(&path)
}

/// Keeps a copy of a file in the directory.
pub(crate) fn keep(directory: &Path, file: &Path, name: &str) -> Result<Kept> {
    let to = directory.join(name);
    fs::copy(file, &to).map_err(|error| {
        let is_full = error.kind() == std::io::ErrorKind::StorageFull;
        Error::file(if is_full { &to } else { file }, error)
    })?;
    Ok(Kept { name: name.to_owned(), blake3: hash_file(&to)? })
}

/// The hash of a file that is not kept.
pub(crate) fn name(file: &Path) -> Result<Kept> {
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Kept { name, blake3: hash_file(file)? })
}

/// The rules of a policy.
pub(crate) fn rules(policy: &str) -> Result<Rules> {
    policy.parse().map_err(|_| Error::Option {
        expected: format!("a policy: {}", POLICIES.join(", ")),
        got: policy.to_owned(),
    })
}

pub(crate) fn config(directory: &Path, manifest: &Manifest, policy: Box<dyn Policy>) -> Result<Config> {
    let mut config = Config::new(manifest.memory);
    config.cpus = manifest.cpus;
    config.virtio_console = true;
    config.policy = policy;
    for disk in &manifest.disks {
        let path = directory.join(&disk.name);
        let opened = Disk::open(&path, Writes::InMemory);
        config.disks.push(opened.map_err(|error| Error::content(&path, "a disk", error.to_string()))?);
    }
    Ok(config)
}

pub(crate) const fn format() -> u32 {
    FORMAT
}

#[cfg(test)]
mod tests {
    use seawall_vmm::{Guest, SoftwareMachine};

    use super::*;

    #[test]
    fn a_moment_of_a_guest_that_wrote_17_mib_to_its_disk_is_kept_and_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let (kernel, image) = (folder.path().join("kernel"), folder.path().join("disk"));
        fs::write(&kernel, seawall_guest::services()).unwrap();
        File::create(&image).unwrap().set_len(32 << 20).unwrap();
        let mut disk = Disk::open(&image, Writes::InMemory).unwrap();
        disk.write(0, &vec![1; 17 << 20]).unwrap();
        let mut config = Config::new(2 << 20);
        config.disks.push(disk);
        let guest = Guest::read(&kernel, None, "", 2 << 20).unwrap();
        let snapshot = SoftwareMachine::new(config, &guest, Box::new(())).unwrap().snapshot().unwrap();
        keep_snapshot(folder.path(), "dt-0", &snapshot).unwrap();
        read_snapshot(&snapshot_path(folder.path(), "dt-0"), 2 << 20).unwrap();
    }
}
