//! `seawall run` at a terminal: keys go to the guest as they are typed.
#![cfg(target_os = "linux")]

mod seawall;

use std::fs::{File as Device, OpenOptions};
use std::io::{Read as _, Write as _};
use std::process::{Child, Command};

use ::seawall::ledger::Ledger;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};
use seawall::{BRANCH_SELF, File, HELLO, loader};
use seawall_guest::ECHO;
use serde_json::Value;

/// The command at its own terminal.
struct Terminal {
    /// The user's end.
    person: Device,
    /// The command's end, kept open to inspect it after the command has ended.
    command: Device,
    child: Child,
    screen: String,
}

impl Terminal {
    fn new(args: &[&str]) -> Self {
        let person = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&person).unwrap();
        unlockpt(&person).unwrap();
        let name = ptsname(&person, Vec::new()).unwrap();
        let command = OpenOptions::new().read(true).write(true).open(name.to_str().unwrap()).unwrap();
        let end = || command.try_clone().unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_seawall"))
            .args(args)
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .unwrap();
        Self { person: person.into(), command, child, screen: String::new() }
    }

    /// Reads the screen until it shows this; the command prints something within a minute.
    fn until(&mut self, text: &str) {
        let mut buffer = [0; 256];
        while !self.screen.contains(text) {
            let read = self.person.read(&mut buffer).unwrap();
            self.screen.push_str(&String::from_utf8_lossy(&buffer[..read]));
            let has_failed = ["error:", "did not end"].iter().any(|words| self.screen.contains(words));
            assert!(!has_failed, "{}", self.screen);
        }
    }

    fn echoes(&self) -> bool {
        tcgetattr(&self.command).unwrap().local_modes.contains(LocalModes::ECHO)
    }
}

#[test]
fn keys_go_to_the_guest_as_they_are_typed_and_ctrl_a_x_leaves() {
    let guest = File::code("terminal", &ECHO);
    let mut terminal = Terminal::new(&["run", "--timeout", "60", "--kernel", guest.path()]);
    // Before the command took the terminal, the terminal itself would echo input.
    while terminal.echoes() {
        assert_eq!(terminal.child.try_wait().unwrap(), None);
        std::thread::yield_now();
    }
    // Without a line end; ctrl-c, too, is for the guest.
    terminal.person.write_all(b"ab\x03c").unwrap();
    // A slow host shows its spinner first.
    terminal.until("ab\x03c");
    terminal.person.write_all(b"\x01x").unwrap();
    terminal.until("ended from the keyboard");
    assert_eq!(terminal.child.wait().unwrap().code(), Some(0));
    assert!(terminal.echoes(), "the terminal is as it was");
}

/// The record of consumed memory survives.
#[test]
fn ctrl_a_x_writes_the_ledger_the_end_event_and_the_json_object() {
    let guest = File::code("terminal-leave", &loader(BRANCH_SELF));
    let (ledger, events) = (File::new("terminal-ledger", b""), File::new("terminal-events", b""));
    std::fs::remove_file(ledger.path()).unwrap();
    let args = [
        "run",
        "--quiet",
        "--timeout",
        "60",
        "--kernel",
        guest.path(),
        "--poison",
        "0x40200000",
        "--json",
        "--stdin",
    ];
    let files = ["--ledger", ledger.path(), "--events", events.path()];
    let mut terminal = Terminal::new(&[&args[..], &files].concat());
    while terminal.echoes() || !std::fs::read_to_string(events.path()).unwrap().contains("memory-error") {
        assert_eq!(terminal.child.try_wait().unwrap(), None);
        std::thread::yield_now();
    }
    terminal.person.write_all(b"\x01x").unwrap();
    assert_eq!(terminal.child.wait().unwrap().code(), Some(0));
    terminal.until("\n");
    let report: Value = serde_json::from_str(&terminal.screen).unwrap();
    assert_eq!(
        (&report["outcome"], &report["bad_pages"], &report["errors_count"]),
        (&"keyboard".into(), &1.into(), &1.into())
    );
    let events = std::fs::read_to_string(events.path()).unwrap();
    let end: Value = serde_json::from_str(events.lines().last().unwrap()).unwrap();
    assert_eq!((&end["event"], &end["outcome"]), (&"end".into(), &"keyboard".into()));
    let bytes = std::fs::read(ledger.path()).unwrap();
    assert_eq!(Ledger::from_bytes(&bytes).unwrap().pages(), 1);
}

#[test]
fn the_first_line_at_a_terminal_says_how_to_leave_unless_it_is_to_be_quiet() {
    let guest = File::code("terminal-first", &HELLO);
    let mut terminal = Terminal::new(&["run", "--timeout", "60", "--kernel", guest.path()]);
    terminal.until("powered off");
    let first = "seawall: Ctrl-A X leaves the guest; every other key goes to it";
    assert!(terminal.screen.lines().next().unwrap().contains(first), "{}", terminal.screen);
    assert_eq!(terminal.child.wait().unwrap().code(), Some(0));
    let mut terminal = Terminal::new(&["run", "--quiet", "--timeout", "60", "--kernel", guest.path()]);
    terminal.until("hi");
    assert_eq!(terminal.child.wait().unwrap().code(), Some(0));
    assert_eq!(terminal.screen, "hi");
}

#[test]
fn a_silent_guest_is_seen_to_run_until_its_first_byte() {
    let guest = File::code("terminal-silent", &ECHO);
    let mut terminal = Terminal::new(&["run", "--timeout", "60", "--kernel", guest.path()]);
    terminal.until(" million instructions");
    terminal.person.write_all(b"abc").unwrap();
    terminal.until("abc");
    // The spinner's line is empty again, and the spinner does not come back.
    let (before, after) = terminal.screen.rsplit_once("abc").unwrap();
    assert!(before.ends_with("\r\x1b[2K"), "{before:?}");
    assert_eq!(after, "");
    terminal.person.write_all(b"q").unwrap();
    terminal.until("powered off after ");
    let (_, after) = terminal.screen.rsplit_once("abc").unwrap();
    assert!(!after.contains("million"), "{after:?}");
    assert_eq!(terminal.child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_guest_at_a_terminal_ends_by_itself() {
    let guest = File::code("terminal-off", &ECHO);
    let mut terminal = Terminal::new(&["run", "--timeout", "60", "--kernel", guest.path()]);
    while terminal.echoes() {
        assert_eq!(terminal.child.try_wait().unwrap(), None);
        std::thread::yield_now();
    }
    terminal.person.write_all(b"q").unwrap();
    terminal.until("powered off after ");
    assert_eq!(terminal.child.wait().unwrap().code(), Some(0));
    assert!(terminal.echoes());
}
