//! Snapshots of the booted lab on Seawall's machine: a run begins where the lab waits for its command.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::error::{Error, Result};
use super::files;

/// As many are kept: one for each set of programs and machine that is in use.
const KEPT: usize = 6;
const EXTENSION: &str = "snapshot";

/// The snapshot of a lab that is made of these files and words: it is there, or is to be written there. The name is a hash of
/// all that the lab is made of, so it is never stale. The ones that were not used for longest are removed.
pub(crate) fn place(folder: &Path, made_of: &[&Path], words: &[String]) -> Result<PathBuf> {
    files::create_folder(folder)?;
    let mut hasher = blake3::Hasher::new();
    for path in made_of {
        let bytes = files::read(path)?;
        hasher.update(&(bytes.len() as u64).to_le_bytes()).update(&bytes);
    }
    for word in words {
        hasher.update(&(word.len() as u64).to_le_bytes()).update(word.as_bytes());
    }
    let name = hasher.finalize().to_hex();
    let path = folder.join(format!("{}.{EXTENSION}", &name[..32]));
    note_use(&path);
    sweep(folder, &path)?;
    Ok(path)
}

/// Its time of change is that of its last use.
fn note_use(path: &Path) {
    if let Ok(file) = std::fs::File::options().append(true).open(path) {
        let _ = file.set_modified(SystemTime::now());
    }
}

/// Leaves room for the one that is about to be used.
fn sweep(folder: &Path, used: &Path) -> Result<()> {
    let used_at = |path: &PathBuf| path.metadata().and_then(|metadata| metadata.modified()).ok();
    let mut others = files::with_extension(folder, EXTENSION)?;
    others.retain(|path| path != used);
    others.sort_by_key(used_at);
    for path in others.iter().rev().skip(KEPT - 1) {
        std::fs::remove_file(path).map_err(|error| Error::file(path, &error))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_snapshot_is_found_by_all_that_its_lab_is_made_of() {
        let folder = std::env::temp_dir().join(format!("seawall-booted-{}", std::process::id()));
        files::create_folder(&folder).expect("a folder");
        let (a, b) = (folder.join("a"), folder.join("b"));
        files::write(&a, b"1").expect("a file");
        files::write(&b, b"2").expect("a file");
        let of = |made_of: &[&Path], words: &[&str]| {
            let words: Vec<String> = words.iter().map(ToString::to_string).collect();
            place(&folder, made_of, &words).expect("a place")
        };
        let first = of(&[&a, &b], &["x"]);
        assert_eq!(first, of(&[&a, &b], &["x"]));
        for other in [of(&[&b, &a], &["x"]), of(&[&a, &b], &["y"]), of(&[&a, &b], &["x", ""])] {
            assert_ne!(first, other);
        }
        files::write(&a, b"3").expect("a file");
        assert_ne!(first, of(&[&a, &b], &["x"]));
        let _ = std::fs::remove_dir_all(&folder);
    }

    #[test]
    fn those_that_were_used_last_are_kept() {
        let folder = std::env::temp_dir().join(format!("seawall-booted-kept-{}", std::process::id()));
        files::create_folder(&folder).expect("a folder");
        let name = |n: u64| folder.join(format!("{n}.snapshot"));
        for n in 0..8 {
            files::write(&name(n), "").expect("a file");
            let file = std::fs::File::options().append(true).open(name(n)).expect("it");
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(100 - n)).expect("its time");
        }
        sweep(&folder, &name(7)).expect("swept");
        let left: Vec<u64> = (0..8).filter(|&n| name(n).exists()).collect();
        assert_eq!(left, [0, 1, 2, 3, 4, 7]);
        let _ = std::fs::remove_dir_all(&folder);
    }
}
