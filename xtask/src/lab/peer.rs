//! Debian's own QEMU for arm64 hosts, to be a VMM in the lab: the peer of `seawall-lab-bench`.

use std::collections::{BTreeSet, VecDeque};
use std::path::{Path, PathBuf};

use object::elf::{DT_NEEDED, FileHeader64};
use object::read::elf::{Dyn as _, FileHeader as _};
use object::{Endianness, read};

use super::cache::Cached;
use super::error::{Error, Result};
use super::initramfs::Guest;
use super::progress::Step;
use super::{Folders, Lab, files};

/// What asks the bench for the peer, and what tells it why there is none.
const ASKED: &str = "--peer";
const MISSING: &str = "--no-peer";

const PACKAGE: &str = "qemu-system-arm";
const PROGRAM: &str = "usr/bin/qemu-system-aarch64";
/// Where Debian has shared libraries of arm64.
const LIBRARIES: [&str; 2] = ["usr/lib/aarch64-linux-gnu", "usr/lib"];
/// Changed when this file makes something else of the packages.
const KEY: &str = "1";

/// What the bench's command asks for: nothing, or QEMU and the libraries that it needs. Where they cannot be had the command
/// is told why instead.
pub(crate) fn bring_in(lab: &Lab, command: &mut Vec<String>) -> Result<Vec<Guest>> {
    if !command.iter().any(|word| word == ASKED) {
        return Ok(Vec::new());
    }
    match prepare(lab) {
        Err(error) if error.is_unavailable() => {
            eprintln!("lab: no QEMU to compare with: {error}");
            let reason = error.what().lines().next().unwrap_or_default().to_owned();
            command.retain(|word| word != ASKED);
            command.extend([MISSING.to_owned(), reason]);
            Ok(Vec::new())
        }
        other => other,
    }
}

/// Fetched once; of the newest version there was then.
pub(crate) fn prepare(lab: &Lab) -> Result<Vec<Guest>> {
    let Folders { target, .. } = &lab.folders;
    let cached = Cached::new(target.join("peer"), KEY);
    lab.folders.alone(|| {
        cached.make(|folder| {
            let step = Step::begin("Debian's QEMU for arm64");
            lab.apt.unpack_with_dependencies(&step, PACKAGE, &is_wanted, folder)?;
            step.done("");
            Ok(())
        })
    })?;
    let program = cached.folder.join(PROGRAM);
    let folders = LIBRARIES.map(|folder| cached.folder.join(folder));
    let mut guests = vec![Guest { host: program.clone(), lab: "bin/qemu-system-aarch64".into() }];
    for (name, path) in libraries(&program, &folders)? {
        guests.push(Guest { host: path, lab: format!("lib/{name}") });
    }
    Ok(guests)
}

/// Libraries, and the program; not what configures a whole system.
fn is_wanted(package: &str) -> bool {
    package == PACKAGE || package.starts_with("lib") || package.starts_with("zlib")
}

/// All libraries that a program needs to be loaded, by their names, and where they are.
fn libraries(program: &Path, folders: &[PathBuf]) -> Result<Vec<(String, PathBuf)>> {
    let mut known = BTreeSet::new();
    let mut found = Vec::new();
    let mut open = VecDeque::from([program.to_owned()]);
    while let Some(path) = open.pop_front() {
        let content = files::read(&path)?;
        let needed = needed(&content).map_err(|error| {
            Error::failed(format!("{}: expected a program for arm64: {error}", path.display()))
        })?;
        for name in needed {
            if !known.insert(name.clone()) {
                continue;
            }
            let library = folders.iter().map(|folder| folder.join(&name)).find(|path| path.exists());
            let library = library.ok_or_else(|| {
                Error::failed(format!("{} needs {name}, which is in no package", path.display()))
            })?;
            open.push_back(library.clone());
            found.push((name, library));
        }
    }
    Ok(found)
}

/// The names of the libraries that an ELF file names as needed.
fn needed(content: &[u8]) -> read::Result<Vec<String>> {
    let header = FileHeader64::<Endianness>::parse(content)?;
    let endian = header.endian()?;
    let sections = header.sections(endian, content)?;
    let Some((entries, strings)) = sections.dynamic(endian, content)? else { return Ok(Vec::new()) };
    let strings = sections.strings(endian, content, strings)?;
    let needed = entries.iter().filter(|entry| entry.d_tag(endian) == u64::from(DT_NEEDED));
    needed.map(|entry| Ok(String::from_utf8_lossy(entry.string(endian, strings)?).into_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_names_the_libraries_that_it_needs() {
        // This test itself: dynamically linked with the C library.
        let program = std::env::current_exe().unwrap_or_default();
        let content = files::read(&program).unwrap_or_default();
        let names = needed(&content).unwrap_or_default();
        assert!(names.iter().any(|name| name.starts_with("libc.")), "{names:?}");
        assert!(needed(b"#!/bin/sh\n").is_err());
    }

    #[test]
    fn a_library_that_no_package_has_is_told_by_its_name() {
        let program = std::env::current_exe().unwrap_or_default();
        let error = libraries(&program, &[]).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains(" needs lib") && error.ends_with("which is in no package"), "{error}");
    }

    #[test]
    fn of_a_closure_the_program_and_libraries_are_unpacked() {
        let names = ["qemu-system-arm", "libglib2.0-0t64", "zlib1g", "passwd", "qemu-system-data"];
        assert_eq!(names.map(is_wanted), [true, true, true, false, false]);
    }
}
