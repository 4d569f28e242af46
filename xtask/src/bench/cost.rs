//! What something costs: CPU time, which a busy host does not change much, and wall time.

use std::io::{BufRead as _, BufReader, Read as _};
use std::ops::{Add, Sub};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use wait4::{ResUse, Wait4 as _};

/// Between two looks at how much memory a process has taken.
const LOOK: Duration = Duration::from_millis(20);

/// CPU time (user and system, of all threads) and wall time, in seconds; or a figure computed from each.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Cost {
    pub(crate) cpu: f64,
    pub(crate) wall: f64,
}

impl Cost {
    /// The figure that each of the two times gives.
    pub(crate) fn map(self, figure: impl Fn(f64) -> f64) -> Self {
        Self { cpu: figure(self.cpu), wall: figure(self.wall) }
    }
}

impl Add for Cost {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { cpu: self.cpu + other.cpu, wall: self.wall + other.wall }
    }
}

impl Sub for Cost {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self { cpu: self.cpu - other.cpu, wall: self.wall - other.wall }
    }
}

/// The cost of what this process does from now on.
pub(crate) struct Stopwatch {
    cpu: Duration,
    wall: Instant,
}

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self { wall: Instant::now(), cpu: cpu_time() }
    }

    pub(crate) fn stop(&self) -> Cost {
        let cpu = cpu_time().saturating_sub(self.cpu);
        Cost { cpu: cpu.as_secs_f64(), wall: self.wall.elapsed().as_secs_f64() }
    }
}

/// CPU time of this process.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// A program that ended: its status, its stdout, and its cost.
pub(crate) struct Process {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) cost: Cost,
}

/// Runs a program to its end. Its stderr is not shown.
pub(crate) fn to_end(command: &mut Command) -> Result<Process, String> {
    let start = Instant::now();
    let mut child = spawn(command)?;
    let mut stdout = Vec::new();
    if let Some(mut pipe) = child.stdout.take() {
        pipe.read_to_end(&mut stdout).map_err(|error| error.to_string())?;
    }
    let used = wait(&mut child)?;
    Ok(Process {
        status: used.status,
        stdout: String::from_utf8_lossy(&stdout).into_owned(),
        cost: Cost { cpu: seconds(&used), wall: start.elapsed().as_secs_f64() },
    })
}

/// What a program costs until it says this on a line of its stdout; it is killed then.
pub(crate) fn to_line(command: &mut Command, line: &str) -> Result<Cost, String> {
    let start = Instant::now();
    let mut child = spawn(command)?;
    let lines = BufReader::new(child.stdout.take().ok_or("no stdout")?).lines();
    let is_it = |said: &std::io::Result<String>| said.as_ref().is_ok_and(|said| said.contains(line));
    let is_said = { lines }.any(|said| is_it(&said));
    let wall = start.elapsed().as_secs_f64();
    // It may have ended by itself.
    let _ = child.kill();
    let cpu = seconds(&wait(&mut child)?);
    if is_said { Ok(Cost { cpu, wall }) } else { Err(format!("it did not say {line:?}")) }
}

/// A count of a process's memory, as a file of its folder in `/proc` has it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Count {
    file: &'static str,
    field: &'static str,
}

/// The most that was resident up to now. A page counts as often as it is mapped.
///
/// This is not what wait4 says: there a program begins with the memory of the one that starts it.
pub(crate) const RESIDENT: Count = Count { file: "status", field: "VmHWM:" };
/// All that is resident. A page that is mapped more than once counts once.
pub(crate) const PROPORTIONAL: Count = Count { file: "smaps_rollup", field: "Pss:" };

/// How much memory a program took at most, bytes, and its stdout; it must end well.
pub(crate) fn peak_memory(command: &mut Command, count: Count) -> Result<(u64, String), String> {
    let mut child = spawn(command)?;
    let path = format!("/proc/{}/{}", child.id(), count.file);
    let mut peak = 0;
    let ended = loop {
        match child.try_wait().map_err(|error| error.to_string())? {
            Some(ended) => break ended,
            None => std::thread::sleep(LOOK),
        }
        let now = std::fs::read_to_string(&path).ok().and_then(|text| count.of(&text));
        peak = peak.max(now.unwrap_or(0));
    };
    let mut said = String::new();
    let mut stdout = child.stdout.take().ok_or("no stdout")?;
    stdout.read_to_string(&mut said).map_err(|error| error.to_string())?;
    if ended.success() { Ok((peak, said)) } else { Err(format!("it ended with {ended}")) }
}

impl Count {
    /// Bytes, by the file's text. A process that has ended has none.
    fn of(self, text: &str) -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(self.field))?;
        let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
        Some(kibibytes * 1024)
    }
}

fn spawn(command: &mut Command) -> Result<Child, String> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let name = command.get_program().to_string_lossy().into_owned();
    command.spawn().map_err(|error| format!("cannot start {name}: {error}"))
}

fn wait(child: &mut Child) -> Result<ResUse, String> {
    child.wait4().map_err(|error| format!("wait4: {error}"))
}

fn seconds(used: &ResUse) -> f64 {
    (used.rusage.utime + used.rusage.stime).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_of_a_process_is_read_from_its_status() {
        let status = "Name:\tseawall\nVmPeak:\t  900000 kB\nVmHWM:\t  149716 kB\nVmRSS:\t   1000 kB\n";
        assert_eq!(RESIDENT.of(status), Some(149_716 * 1024));
        assert_eq!(RESIDENT.of("Name:\tseawall\nState:\tZ (zombie)\n"), None);
        assert_eq!(PROPORTIONAL.of("Rss:    2000 kB\nPss:     150 kB\n"), Some(150 * 1024));
    }

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_process_that_sleeps_takes_wall_time_alone() {
        let process = to_end(&mut sh("echo hi; sleep 0.2")).unwrap();
        assert!(process.status.success());
        assert_eq!(process.stdout, "hi\n");
        assert!(process.cost.wall >= 0.2, "{:?}", process.cost);
        assert!(process.cost.cpu < process.cost.wall, "{:?}", process.cost);
    }

    #[test]
    fn a_process_is_killed_at_its_line_or_told_not_to_have_said_it() {
        assert!(to_line(&mut sh("echo one; echo two; sleep 600"), "two").is_ok());
        assert_eq!(to_line(&mut sh("echo one"), "two"), Err("it did not say \"two\"".to_owned()));
    }
}
