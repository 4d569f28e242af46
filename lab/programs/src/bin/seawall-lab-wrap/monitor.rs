//! QEMU's monitor, QMP.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::lines::PATIENCE;
use crate::ram::text;

pub(crate) struct Monitor {
    stream: UnixStream,
    answers: BufReader<UnixStream>,
    /// What was told without being asked.
    events: Vec<String>,
}

impl Monitor {
    pub(crate) fn connect(socket: &Path) -> Result<Self, String> {
        let stream = UnixStream::connect(socket).map_err(text)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(text)?;
        let answers = BufReader::new(stream.try_clone().map_err(text)?);
        let mut monitor = Self { stream, answers, events: Vec::new() };
        monitor.line()?;
        monitor.execute("qmp_capabilities", "{}")?;
        Ok(monitor)
    }

    fn line(&mut self) -> Result<String, String> {
        let mut line = String::new();
        match self.answers.read_line(&mut line).map_err(|error| format!("QEMU's monitor: {error}"))? {
            0 => Err("QEMU's monitor is gone".to_owned()),
            _ => Ok(line.replace(": ", ":").replace(", ", ",").trim().to_owned()),
        }
    }

    /// A command, and its answer.
    pub(crate) fn execute(&mut self, command: &str, arguments: &str) -> Result<String, String> {
        let line = format!(r#"{{"execute":"{command}","arguments":{arguments}}}"#);
        writeln!(self.stream, "{line}").map_err(text)?;
        loop {
            let answer = self.line()?;
            if answer.contains(r#""error""#) {
                return Err(format!("QEMU's monitor, {command}: {answer}"));
            }
            if answer.contains(r#""return""#) {
                return Ok(answer);
            }
            self.events.push(answer);
        }
    }

    /// This was told, or is told now.
    pub(crate) fn wait_for(&mut self, event: &str) -> Result<(), String> {
        let part = format!(r#""event":"{event}""#);
        while !self.events.iter().any(|seen| seen.contains(&part)) {
            let line = self.line()?;
            self.events.push(line);
        }
        Ok(())
    }

    /// A command that QEMU carries out as a job, to its end.
    pub(crate) fn job(&mut self, command: &str, arguments: &str) -> Result<(), String> {
        let id = r#""job-id":"job""#;
        self.execute(command, &format!("{{{id},{arguments}}}"))?;
        self.until("query-jobs", "{}", r#""status":"concluded""#)?;
        self.execute("job-dismiss", r#"{"id":"job"}"#).map(drop)
    }

    /// The command is answered with this, sooner or later.
    pub(crate) fn until(&mut self, command: &str, arguments: &str, part: &str) -> Result<(), String> {
        let start = Instant::now();
        loop {
            let answer = self.execute(command, arguments)?;
            if answer.contains(part) {
                return Ok(());
            }
            if start.elapsed() > PATIENCE {
                return Err(format!("QEMU's monitor, {command}: expected {part}, got {answer}"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
