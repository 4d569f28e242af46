//! Checks of a program: can a library be brought into it?

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use object::Endianness;
use object::elf::{EM_AARCH64, FileHeader64, PT_INTERP};
use object::read::elf::{FileHeader as _, ProgramHeader as _};

use crate::{Failure, exit};

/// As it stands in the environment.
pub(super) const LD_PRELOAD: &str = "LD_PRELOAD";
const LIBRARY: &str = "libseawall_preload.so";
/// Bytes of a file's beginning in which its program headers are.
const HEAD: u64 = 64 << 10;

/// The file that a command is, as a shell finds it, without symbolic links.
pub(super) fn find(command: &OsStr) -> Result<PathBuf, Failure> {
    let failed = |text: String| Failure::new(exit::FILE, format!("{}: {text}", command.to_string_lossy()));
    let named = Path::new(command);
    let path = if named.components().count() > 1 {
        named.to_owned()
    } else {
        let folders = env::var_os("PATH").unwrap_or_default();
        let is_program = |path: &PathBuf| {
            fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
        };
        let found = env::split_paths(&folders).map(|folder| folder.join(named)).find(is_program);
        found.ok_or_else(|| failed("no such program in PATH".to_owned()))?
    };
    fs::canonicalize(path).map_err(|error| failed(error.to_string()))
}

/// Refuses what the dynamic linker does not bring a library into.
pub(super) fn check(program: &Path) -> Result<(), Failure> {
    let name = program.display();
    let refuse = |code, text: String| Err(Failure::new(code, format!("{name}: {text}")));
    let failed = |error| Failure::new(exit::FILE, format!("{name}: {error}"));
    let mut head = Vec::new();
    File::open(program).map_err(failed)?.take(HEAD).read_to_end(&mut head).map_err(failed)?;
    if head.starts_with(b"#!") {
        let text =
            "it is a script; wrap the VMM that it starts, in the script: `exec seawall wrap -- VMM ...`";
        return refuse(exit::FOREIGN, text.to_owned());
    }
    let Some(kind) = Kind::of(&head) else {
        return refuse(exit::FOREIGN, "it is no ELF program of 64 bits".to_owned());
    };
    if kind.machine != EM_AARCH64 {
        let text = format!("expected a program for aarch64, got one of ELF machine {}", kind.machine);
        return refuse(exit::FOREIGN, text);
    }
    let Some(interpreter) = kind.interpreter else {
        let text = "it is statically linked: no library can be brought into it. Use a dynamically linked build of this VMM \
                    (Firecracker's and Cloud Hypervisor's releases are static; `cargo build --target \
                    aarch64-unknown-linux-gnu` makes a dynamic one), or build Seawall in: docs/embedding.md";
        return refuse(exit::STATIC, text.to_owned());
    };
    if !interpreter.contains("ld-linux") {
        let text =
            format!("its dynamic linker is {interpreter}; expected that of glibc, for which {LIBRARY} is");
        return refuse(exit::FOREIGN, text);
    }
    let mode = fs::metadata(program).map_err(failed)?.permissions().mode();
    let mut no_capabilities = [0_u8; 64];
    let has_capabilities = rustix::fs::getxattr(program, "security.capability", &mut no_capabilities).is_ok();
    if mode & 0o6000 != 0 || has_capabilities {
        let text = "it is setuid or setgid, or has file capabilities: the dynamic linker brings no library of the user's into \
                    it. Run it without these, by a service manager that gives it what it needs";
        return refuse(exit::SECURE, text.to_owned());
    }
    Ok(())
}

/// The relevant parts of an ELF file.
#[derive(Debug, PartialEq, Eq)]
struct Kind {
    machine: u16,
    interpreter: Option<String>,
}

impl Kind {
    fn of(head: &[u8]) -> Option<Self> {
        let header = FileHeader64::<Endianness>::parse(head).ok()?;
        let endian = header.endian().ok()?;
        let segments = header.program_headers(endian, head).ok()?;
        let interpreter = segments.iter().find(|segment| segment.p_type(endian) == PT_INTERP);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned();
        let interpreter = interpreter.map(|segment| segment.data(endian, head).map_or(String::new(), text));
        Some(Self { machine: header.e_machine(endian), interpreter })
    }
}

/// The library, where an installation has it.
pub(super) fn library(given: Option<&Path>) -> Result<PathBuf, Failure> {
    let failed = |text: String| Failure::new(exit::NOT_LOADED, text);
    if let Some(path) = given {
        return fs::canonicalize(path)
            .map_err(|error| failed(format!("--library {}: {error}", path.display())));
    }
    let this = env::current_exe().map_err(|error| failed(error.to_string()))?;
    let beside = this.parent().unwrap_or(Path::new("/"));
    let places = [beside.to_owned(), beside.join("../lib/seawall"), beside.join("../lib")];
    let found = places.iter().find_map(|place| fs::canonicalize(place.join(LIBRARY)).ok());
    found.ok_or_else(|| {
        let places = places.map(|place| place.display().to_string()).join(", ");
        failed(format!("{LIBRARY} is in none of {places}; install it there, or give it by --library"))
    })
}

/// `LD_PRELOAD` with the library before what was there.
pub(super) fn preload(library: &Path) -> OsString {
    let before = env::var_os(LD_PRELOAD).unwrap_or_default();
    let others = before.as_bytes().split(|byte| matches!(byte, b':' | b' '));
    let others = others.filter(|other| !other.is_empty() && *other != library.as_os_str().as_bytes());
    let mut all = library.as_os_str().as_bytes().to_vec();
    for other in others {
        all.push(b':');
        all.extend(other);
    }
    OsString::from_vec(all)
}

/// Has the dynamic linker bring the library in, and list what it brought, without running the program.
pub(super) fn check_loads(program: &Path, library: &Path) -> Result<(), Failure> {
    let mut command = Command::new(program);
    command.env("LD_TRACE_LOADED_OBJECTS", "1").env(LD_PRELOAD, preload(library));
    let failed = |text: &dyn std::fmt::Display| {
        let text = format!("{} cannot be brought into {}: {text}", library.display(), program.display());
        Failure::new(exit::NOT_LOADED, text)
    };
    let output = command.stdin(Stdio::null()).output().map_err(|error| failed(&error))?;
    let list = String::from_utf8_lossy(&output.stdout);
    if list.lines().any(|line| line.split_whitespace().any(|word| Path::new(word) == library)) {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.lines().find(|line| !line.is_empty()).unwrap_or("the dynamic linker left it out");
    Err(failed(&said))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// This test itself.
    #[test]
    fn a_program_is_known_by_its_headers() {
        let head = fs::read(env::current_exe().unwrap_or_default()).unwrap_or_default();
        let kind = Kind::of(&head).unwrap_or(Kind { machine: 0, interpreter: None });
        let machine = if cfg!(target_arch = "aarch64") { 183 } else { 62 };
        assert_eq!(kind.machine, machine);
        assert!(kind.interpreter.is_some_and(|path| path.contains("ld-linux")));
        assert_eq!(Kind::of(b"\x7fELF"), None);
    }

    #[test]
    fn the_library_comes_before_what_was_preloaded_before() {
        let all = preload(Path::new("/lib/ours.so"));
        assert!(all.as_bytes().starts_with(b"/lib/ours.so"), "{all:?}");
    }
}
