//! File operations whose error names the file.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// No kernel, no busybox and no module has more bytes, packed or not.
pub(crate) const LARGEST: u64 = 1 << 30;

/// A regular file of at most [`LARGEST`] bytes.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    seawall_files::read(path, LARGEST).map_err(|error| Error::file(path, error.into()))
}

pub(crate) fn write(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    fs::write(path, content).map_err(|error| Error::file(path, error))
}

/// Writes a file so that at any time either the old or the new one is there, whole.
pub(crate) fn replace(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    seawall_files::replace(path, content.as_ref()).map_err(|error| Error::file(path, error))
}

pub(crate) fn create_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(|error| Error::file(path, error))
}

/// Removes a folder and all that is in it, if it is there.
pub(crate) fn remove_folder(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::file(path, error)),
        _ => Ok(()),
    }
}

/// What is in a folder, sorted; nothing if it is not there.
pub(crate) fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|error| Error::file(folder, error))?,
    };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    Ok(paths)
}

/// All files below a folder, sorted. Symbolic links are not followed.
pub(crate) fn tree(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in list(folder)? {
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_dir() => found.extend(tree(&path)?),
            Ok(metadata) if metadata.is_file() => found.push(path),
            _ => {}
        }
    }
    Ok(found)
}
