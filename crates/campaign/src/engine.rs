//! Batch systems that run a campaign's shards on other hosts: they share its directory, and a shard is a task.
//!
//! A task is `seawall campaign run DIR --shard I/N`, which goes on from whatever results there are. So a batch system may
//! kill a task, start it again elsewhere, or run it twice, and nothing is lost or counted twice.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use crate::error::{Error, Result};
use crate::manifest::Campaign;

/// Experiments of a shard, unless told otherwise: some minutes.
const PER_SHARD: usize = 200;
/// Of an array of Slurm's, unless it is configured for more (`MaxArraySize`, 1001 by default).
const MOST_SHARDS: usize = 1000;
/// In the campaign's directory.
const FOLDER: &str = "jobs";

/// A batch system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// Slurm: a job array.
    Slurm,
    /// HyperQueue: a task array.
    Hq,
}

/// Shards as tasks of a batch system.
#[derive(Clone, Debug)]
pub struct Job<'a> {
    /// The batch system.
    pub engine: Engine,
    /// The program, as the hosts have it.
    pub program: &'a Path,
    /// How many tasks; some minutes each, if there is no number.
    pub shards: Option<usize>,
    /// Threads of a task.
    pub threads: usize,
    /// More options for `sbatch` or `hq submit`.
    pub options: &'a [String],
}

impl Job<'_> {
    /// How many tasks a campaign of so many experiments is cut into.
    pub fn shards(&self, experiments: usize) -> usize {
        self.shards
            .unwrap_or(experiments.div_ceil(PER_SHARD))
            .clamp(1, MOST_SHARDS.max(self.shards.unwrap_or(1)))
    }

    /// The script of a task, which the batch system starts with its number.
    pub fn script(&self, directory: &Path, id: &str, shards: usize) -> String {
        let (program, threads) = (quoted(self.program), self.threads);
        let mut script = String::from("#!/bin/sh\n");
        let number = match self.engine {
            Engine::Slurm => {
                let short = id.get(..8).unwrap_or(id);
                let logs = directory.join(FOLDER).join("%a.log");
                let _ = write!(
                    script,
                    "#SBATCH --job-name=seawall-{short}\n#SBATCH --array=1-{shards}\n#SBATCH --requeue\n\
                     #SBATCH --cpus-per-task={threads}\n#SBATCH --open-mode=append\n#SBATCH --output={}\n",
                    quoted(&logs)
                );
                "$SLURM_ARRAY_TASK_ID"
            }
            Engine::Hq => "$HQ_TASK_ID",
        };
        let directory = quoted(directory);
        let _ = writeln!(
            script,
            "exec {program} --quiet campaign run {directory} --shard \"{number}/{shards}\" --threads {threads}"
        );
        script
    }

    /// Submits the shards: the batch system's own words.
    ///
    /// # Errors
    /// [`Error::Content`] if it is not there or refuses.
    pub fn submit(&self, campaign: &Campaign, experiments: usize) -> Result<String> {
        let shards = self.shards(experiments);
        let directory = std::path::absolute(campaign.directory())
            .map_err(|error| Error::file(campaign.directory(), error))?;
        let folder = directory.join(FOLDER);
        std::fs::create_dir_all(&folder).map_err(|error| Error::file(&folder, error))?;
        let script = folder.join("task.sh");
        let text = self.script(&directory, &campaign.id, shards);
        seawall_files::replace(&script, text.as_bytes()).map_err(|error| Error::file(&script, error))?;
        let mut command = match self.engine {
            Engine::Slurm => {
                let mut command = Command::new("sbatch");
                command.arg("--parsable").args(self.options).arg(&script);
                command
            }
            Engine::Hq => {
                let mut command = Command::new("hq");
                command.args(["submit", &format!("--array=1-{shards}"), &format!("--cpus={}", self.threads)]);
                command.args(self.options).arg("sh").arg(&script).current_dir(&folder);
                command
            }
        };
        let said = said(&mut command)?;
        if self.engine == Engine::Slurm {
            let job = folder.join("slurm");
            seawall_files::replace(&job, said.as_bytes()).map_err(|error| Error::file(&job, error))?;
        }
        Ok(said)
    }
}

/// Slurm's states of the tasks of this campaign, by state; nothing if it has no job, or does not know it any more.
pub fn slurm_states(campaign: &Campaign) -> Option<String> {
    let job = std::fs::read_to_string(campaign.directory().join(FOLDER).join("slurm")).ok()?;
    let job = job.trim().split(';').next()?.to_owned();
    let mut command = Command::new("squeue");
    command.args(["--noheader", "--array", "--format=%T", "--jobs", &job]);
    let said = said(&mut command).ok()?;
    let mut states: std::collections::BTreeMap<&str, usize> = std::collections::BTreeMap::new();
    for state in said.lines().map(str::trim).filter(|state| !state.is_empty()) {
        *states.entry(state).or_default() += 1;
    }
    let states: Vec<String> = states.iter().map(|(state, count)| format!("{count} {state}")).collect();
    (!states.is_empty()).then(|| format!("slurm job {job}: {}", states.join(", ")))
}

fn said(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = match command.output() {
        Ok(output) => output,
        Err(error) => return Err(Error::Batch { program, got: error.to_string() }),
    };
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::Batch { program, got: format!("{}: {words}", output.status) })
}

/// A path as a shell, and Slurm's directives, take it: in quotes if it needs them.
pub fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+:=@%".contains(&byte);
    if !text.is_empty() && text.bytes().all(is_plain) {
        return text;
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(engine: Engine) -> Job<'static> {
        Job { engine, program: Path::new("/opt/sea wall"), shards: None, threads: 2, options: &[] }
    }

    /// sbatch(1): options stand before the first command; a task of an array has its number in SLURM_ARRAY_TASK_ID.
    #[test]
    fn a_task_of_slurms_is_a_shard_that_may_be_started_again() {
        let script = job(Engine::Slurm).script(Path::new("/maps/it's"), "0123456789", 3);
        assert_eq!(
            script,
            "#!/bin/sh\n#SBATCH --job-name=seawall-01234567\n#SBATCH --array=1-3\n#SBATCH --requeue\n\
             #SBATCH --cpus-per-task=2\n#SBATCH --open-mode=append\n#SBATCH --output='/maps/it'\\''s/jobs/%a.log'\n\
             exec '/opt/sea wall' --quiet campaign run '/maps/it'\\''s' --shard \"$SLURM_ARRAY_TASK_ID/3\" --threads 2\n"
        );
    }

    #[test]
    fn a_path_is_quoted_where_a_shell_would_take_it_apart() {
        assert_eq!(quoted(Path::new("/root/.cache/a-1/vmlinuz")), "/root/.cache/a-1/vmlinuz");
        assert_eq!(quoted(Path::new("/a b/it's")), r"'/a b/it'\''s'");
        assert_eq!(quoted(Path::new("")), "''");
    }

    #[test]
    fn a_task_of_hyperqueues_is_a_shard() {
        let script = job(Engine::Hq).script(Path::new("/maps"), "0123456789", 3);
        assert_eq!(
            script,
            "#!/bin/sh\nexec '/opt/sea wall' --quiet campaign run /maps --shard \"$HQ_TASK_ID/3\" --threads 2\n"
        );
    }

    #[test]
    fn shards_are_of_some_minutes_and_no_more_than_an_array_has() {
        let shards = |experiments| job(Engine::Slurm).shards(experiments);
        assert_eq!([shards(0), shards(1), shards(201), shards(10_000_000)], [1, 1, 2, 1000]);
        assert_eq!(Job { shards: Some(5000), ..job(Engine::Slurm) }.shards(1), 5000);
    }
}
