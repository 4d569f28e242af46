//! What the lab's server runs on: a changed QEMU, or Seawall's own machine.

use std::path::PathBuf;
use std::process::Command;

use super::apt::Apt;
use super::error::Result;
use super::machine::Machine;
use super::{Folders, binaries, qemu};

/// A program that is an Arm server with EL2 and the poison register.
#[derive(Clone, Debug)]
pub(crate) enum Emulator {
    /// QEMU with the lab's changes.
    Qemu(PathBuf),
    /// `seawall run --el2`.
    Machine(PathBuf),
}

impl Emulator {
    /// The one that is asked for: QEMU is built once, our own each time, by cargo.
    pub(crate) fn prepare(machine: &Machine, folders: &Folders, apt: &Apt) -> Result<Self> {
        if machine.is_qemu() {
            return Ok(Self::Qemu(qemu::prepare(folders, apt)?));
        }
        Ok(Self::Machine(binaries::build_for_host(folders)?))
    }

    fn program(&self) -> &PathBuf {
        match self {
            Self::Qemu(program) | Self::Machine(program) => program,
        }
    }

    /// The program, for a run whose console is our stderr and whose command's port is our stdout. With setpriv it does not
    /// outlive us, however we end.
    pub(crate) fn command(&self, has_setpriv: bool) -> Command {
        let mut words: Vec<&std::ffi::OsStr> = Vec::new();
        if has_setpriv {
            words.extend(["setpriv", "--pdeathsig", "KILL", "--"].map(std::ffi::OsStr::new));
        }
        if let Self::Machine(_) = self {
            // Its console is its stdout; the port is another file.
            words.extend(["sh", "-c", "exec \"$0\" \"$@\" 3>&1 1>&2"].map(std::ffi::OsStr::new));
        }
        words.push(self.program().as_os_str());
        let mut command = Command::new(words.remove(0));
        command.args(words);
        command
    }

    /// The program, for a run on a terminal.
    pub(crate) fn on_terminal(&self) -> Command {
        Command::new(self.program())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(command: &Command) -> String {
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn both_give_the_port_on_stdout_and_the_console_on_stderr() {
        assert_eq!(words(&Emulator::Qemu("/q".into()).command(true)), "setpriv --pdeathsig KILL -- /q");
        assert_eq!(words(&Emulator::Qemu("/q".into()).command(false)), "/q");
        assert_eq!(
            words(&Emulator::Machine("/s".into()).command(false)),
            "sh -c exec \"$0\" \"$@\" 3>&1 1>&2 /s"
        );
    }
}
