//! The lab's only file system: busybox, our programs, and what one run brings in.

use std::path::{Path, PathBuf};

use seawall_vmm::initramfs::Initramfs;

use super::binaries::Built;
use super::error::{Error, Result};
use super::files;

/// The first process, and small programs for the shell.
const SCRIPTS: [(&str, &str); 4] = [
    ("init", include_str!("../../../lab/init.sh")),
    ("bin/poison", include_str!("../../../lab/poison.sh")),
    ("bin/fake-einj", include_str!("../../../lab/fake-einj.sh")),
    ("bin/shadow-counts", include_str!("../../../lab/shadow-counts.sh")),
];
/// Folders that are mounted on, or expected.
const FOLDERS: [&str; 9] = ["bin", "dev", "lab", "lib", "proc", "root", "run", "sys", "tmp"];

/// A file of the host that goes into the lab, executable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Guest {
    pub(crate) host: PathBuf,
    /// From the root, without the slash.
    pub(crate) lab: String,
}

impl Guest {
    /// Reads `HOST[:LAB]`; without LAB, or if LAB ends in a slash, the name stays: by default it goes into /bin.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let (host, lab) = text.split_once(':').unwrap_or((text, "/bin/"));
        let name = Path::new(host).file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| Error::failed(format!("--file {text}: no file name in {host:?}")))?;
        let lab = lab.trim_start_matches('/');
        let lab = if lab.is_empty() || lab.ends_with('/') { format!("{lab}{name}") } else { lab.to_owned() };
        Ok(Self { host: host.into(), lab })
    }
}

/// The lab's task once it is up. `terminal` is the size (rows, columns) of the terminal that the output goes to, if it is
/// one.
pub(crate) enum Task<'a> {
    /// Runs a command between marks with this word.
    Command { arguments: &'a [String], word: &'a str, terminal: Option<(u16, u16)> },
    /// Gives a shell on the console.
    Shell { terminal: (u16, u16) },
    /// Asks for its task by the second serial port: [`Task::by_port`].
    FromPort,
}

impl Task<'_> {
    /// Adds the task's files.
    fn put(&self, archive: Initramfs) -> Initramfs {
        let (archive, terminal) = match self {
            Self::Command { arguments, word, terminal } => {
                let archive = archive.program("lab/command", command_line(arguments).as_bytes());
                (archive.file("lab/word", word.as_bytes()), *terminal)
            }
            Self::Shell { terminal } => (archive, Some(*terminal)),
            Self::FromPort => (archive.file("lab/from-port", &[]), None),
        };
        match terminal {
            Some((rows, columns)) => {
                archive.file("lab/terminal", format!("rows {rows} cols {columns}").as_bytes())
            }
            None => archive,
        }
    }

    /// The answer to a lab that asks for its task: a line with the length of an archive, and the archive.
    pub(crate) fn by_port(&self) -> Vec<u8> {
        let archive = self.put(Initramfs::default()).finish();
        [format!("{}\n", archive.len()).as_bytes(), &archive].concat()
    }
}

/// The archive.
pub(crate) fn build(
    busybox: &Path,
    programs: &[Built],
    guests: &[Guest],
    task: &Task<'_>,
) -> Result<Vec<u8>> {
    let mut archive = FOLDERS.iter().fold(Initramfs::default(), |archive, folder| archive.directory(folder));
    archive = archive
        .character_device("dev/console", 5, 1)
        .program("bin/busybox", &files::read(busybox)?)
        .link("bin/sh", "busybox");
    for (path, script) in SCRIPTS {
        archive = archive.program(path, script.as_bytes());
    }
    for program in programs {
        archive = archive.program(&format!("bin/{}", program.name), &files::read(&program.path)?);
    }
    for guest in guests {
        archive = archive.above(&guest.lab).program(&guest.lab, &files::read(&guest.host)?);
    }
    Ok(task.put(archive).finish())
}

/// A script that runs the arguments: one is a line for the shell, several are a program and its arguments, as they are.
fn command_line(arguments: &[String]) -> String {
    match arguments {
        [line] => format!("{line}\n"),
        words => words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ") + "\n",
    }
}

fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_that_comes_by_the_port_is_its_files_behind_their_length() {
        let arguments = words(&["true"]);
        let bytes = Task::Command { arguments: &arguments, word: "w", terminal: None }.by_port();
        let line = bytes.iter().position(|&byte| byte == b'\n').unwrap_or_default();
        let length: usize = String::from_utf8_lossy(&bytes[..line]).parse().unwrap_or_default();
        let archive = &bytes[line + 1..];
        assert_eq!((length, &archive[..6]), (archive.len(), &b"070701"[..]));
        let has = |name: &[u8]| archive.windows(name.len()).any(|window| window == name);
        assert!(has(b"lab/command\0") && has(b"lab/word\0") && !has(b"lab/terminal"));
    }

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn one_argument_is_a_line_for_the_shell_and_several_are_words() {
        assert_eq!(command_line(&words(&["ls | wc -l"])), "ls | wc -l\n");
        assert_eq!(command_line(&words(&["echo", "a b", "it's", "$x"])), "'echo' 'a b' 'it'\\''s' '$x'\n");
    }

    #[test]
    fn a_file_goes_to_bin_or_where_it_is_told() {
        let check =
            |text: &str| Guest::parse(text).map(|guest| (guest.host.display().to_string(), guest.lab));
        assert_eq!(check("/tmp/x/prog"), Ok(("/tmp/x/prog".into(), "bin/prog".into())));
        assert_eq!(check("a:/root/b"), Ok(("a".into(), "root/b".into())));
        assert_eq!(check("d/a:/root/"), Ok(("d/a".into(), "root/a".into())));
        assert_eq!(check("a:/"), Ok(("a".into(), "a".into())));
        assert!(check("/").is_err());
    }
}
