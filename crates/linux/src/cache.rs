//! A cache of fetched folders: each has its files' hashes, which are checked on each use.

use std::fmt::Write as _;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use sha2::{Digest as _, Sha256};

use crate::error::{Error, Result};
use crate::files;

/// The hash file, in the format of sha256sum(1): the hash in hexadecimal, two spaces, the path in the folder.
/// `sha256sum -c` reads it.
const HASHES: &str = "SHA256SUMS";

/// The state of a cached folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It is missing, or is not ours.
    Missing,
    /// Its files have changed since they were fetched.
    Damaged,
    /// Every file is as it was fetched.
    Good,
}

/// Makes a folder by `make`, in a new one beside it that takes its place once complete: an interruption
/// leaves nothing that could be taken for it.
pub(crate) fn make(folder: &Path, make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let new = folder.with_extension(format!("new-{}", std::process::id()));
    files::remove_folder(&new)?;
    files::create_folder(&new)?;
    let made = make(&new).and_then(|()| seal(&new)).and_then(|()| {
        files::remove_folder(folder)?;
        std::fs::rename(&new, folder).map_err(|error| Error::file(folder, error))
    });
    if made.is_err() {
        files::remove_folder(&new)?;
    }
    made
}

/// Compares the files of a folder with their hashes.
pub(crate) fn check(folder: &Path) -> Result<State> {
    let path = folder.join(HASHES);
    if !path.exists() {
        return Ok(State::Missing);
    }
    let good = files::read(&path)? == hashes(folder)?.into_bytes();
    Ok(if good { State::Good } else { State::Damaged })
}

/// Runs an action while no other process does so in this folder.
pub(crate) fn alone<T>(folder: &Path, note: &dyn Fn(&str), work: impl FnOnce() -> Result<T>) -> Result<T> {
    files::create_folder(folder)?;
    let path = folder.join("lock");
    let file = std::fs::File::create(&path).map_err(|error| Error::file(&path, error))?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        note("another process fetches: waiting for it");
        flock(&file, FlockOperation::LockExclusive).map_err(|error| Error::file(&path, error.into()))?;
    }
    work()
}

fn seal(folder: &Path) -> Result<()> {
    files::write(&folder.join(HASHES), hashes(folder)?)
}

/// The hashes of all other files.
fn hashes(folder: &Path) -> Result<String> {
    let mut lines = String::new();
    for path in files::tree(folder)? {
        let name = path.strip_prefix(folder).unwrap_or(&path).to_path_buf();
        if name != Path::new(HASHES) {
            for byte in Sha256::digest(files::read(&path)?) {
                let _ = write!(lines, "{byte:02x}");
            }
            let _ = writeln!(lines, "  {}", name.display());
        }
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn folder(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("seawall-{name}-{}", std::process::id()))
    }

    #[test]
    fn a_folder_is_good_until_a_file_changes_goes_or_comes() {
        let folder = folder("hashes");
        let write = |name: &str, content: &str| std::fs::write(folder.join(name), content).expect(name);
        assert_eq!(check(&folder).ok(), Some(State::Missing));
        make(&folder, |new| files::write(&new.join("abc"), "abc")).expect("made");
        assert_eq!(check(&folder).ok(), Some(State::Good));
        // FIPS 180-2, B.1.
        let sums = std::fs::read_to_string(folder.join("SHA256SUMS")).expect("it is there");
        assert_eq!(sums, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  abc\n");
        write("abc", "abd");
        assert_eq!(check(&folder).ok(), Some(State::Damaged));
        write("abc", "abc");
        write("more", "");
        assert_eq!(check(&folder).ok(), Some(State::Damaged));
        let _ = std::fs::remove_dir_all(&folder);
    }

    #[test]
    fn a_folder_that_could_not_be_made_is_not_there_and_the_old_one_stays() {
        let folder = folder("torn");
        let fails = |new: &Path| {
            files::write(&new.join("half"), "")?;
            Err(Error::unavailable("no network", "have one"))
        };
        assert!(make(&folder, fails).is_err());
        assert_eq!(check(&folder).ok(), Some(State::Missing));
        make(&folder, |new| files::write(&new.join("whole"), "")).expect("made");
        assert!(make(&folder, fails).is_err());
        assert_eq!(check(&folder).ok(), Some(State::Good));
        assert!(!folder.with_extension(format!("new-{}", std::process::id())).exists());
        let _ = std::fs::remove_dir_all(&folder);
    }
}
