//! Finds every place, then writes every file.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Component, Path, PathBuf};

use seawall_files::Replacement;

use crate::place::{self, Change};
use crate::{Changes, Error, Problem};

/// A tree with every place found: [`Plan::apply`] changes it.
#[derive(Debug)]
#[must_use = "a plan changes nothing until it is applied"]
pub struct Plan {
    edited: Vec<Edited>,
    added: Vec<Added>,
}

/// A file of the tree, before and after.
#[derive(Debug)]
struct Edited {
    name: String,
    path: PathBuf,
    before: String,
    after: String,
}

/// A file of ours.
#[derive(Debug)]
struct Added {
    path: PathBuf,
    text: String,
}

impl Changes<'_> {
    /// Finds every place in a tree without changing it.
    ///
    /// # Errors
    /// [`Error::ChangedBefore`]; [`Error::Places`] with every place that does not match its edit.
    pub fn plan(&self, tree: &Path) -> Result<Plan, Error> {
        let (mut problems, mut marked, mut edited) = (Vec::new(), Vec::new(), Vec::new());
        for name in self.files() {
            match read(tree, name) {
                Ok((_, before)) if before.contains(self.mark) => {
                    marked.push(format!("{name} has {:?}", self.mark));
                }
                Ok((path, before)) => match self.edited(name, &before) {
                    Ok(after) => edited.push(Edited { name: name.into(), path, before, after }),
                    Err(of_file) => problems.extend(of_file),
                },
                Err(problem) => problems.push(problem),
            }
        }
        let mut added = Vec::new();
        for addition in self.additions {
            match below(tree, addition.file) {
                Ok(path) if path.exists() => marked.push(format!("{} is there", addition.file)),
                Ok(path) => added.push(Added { path, text: addition.text.into() }),
                Err(problem) => problems.push(problem),
            }
        }
        if !marked.is_empty() {
            return Err(Error::ChangedBefore { tree: tree.into(), found: marked });
        }
        if !problems.is_empty() {
            return Err(Error::Places { tree: tree.into(), problems });
        }
        Ok(Plan { edited, added })
    }

    /// The edited files, each once, in order.
    fn files(&self) -> Vec<&str> {
        let mut files: Vec<&str> = Vec::new();
        for edit in self.edits {
            if !files.contains(&edit.file) {
                files.push(edit.file);
            }
        }
        files
    }

    /// The text of one file after all of its edits.
    fn edited(&self, name: &str, before: &str) -> Result<String, Vec<Problem>> {
        let (mut changes, mut problems) = (Vec::new(), Vec::new());
        for edit in self.edits.iter().filter(|edit| edit.file == name) {
            match place::find(edit, before) {
                Ok(change) => changes.push((edit, change)),
                Err(problem) => problems.push(problem),
            }
        }
        // A stable sort: texts for one place stay in order.
        changes.sort_by_key(|(_, change)| (change.range.start, change.range.end));
        let (mut after, mut done) = (String::with_capacity(before.len()), 0);
        for (edit, Change { range, text }) in &changes {
            let Some(between) = before.get(done..range.start) else {
                problems.push(Problem::Overlap { file: name.into(), anchor: edit.anchor.into() });
                continue;
            };
            after.push_str(between);
            after.push_str(text);
            done = range.end;
        }
        after.push_str(&before[done..]);
        if problems.is_empty() && !after.contains(self.mark) {
            problems.push(Problem::NoMark { file: name.into(), mark: self.mark.into() });
        }
        if problems.is_empty() { Ok(after) } else { Err(problems) }
    }
}

/// A file of the tree, with its path.
fn read(tree: &Path, name: &str) -> Result<(PathBuf, String), Problem> {
    let path = below(tree, name)?;
    match fs::read_to_string(&path) {
        Ok(text) => Ok((path, text)),
        Err(error) => Err(Problem::NoFile { file: name.into(), reason: error.to_string() }),
    }
}

/// A path below the tree.
fn below(tree: &Path, file: &str) -> Result<PathBuf, Problem> {
    let inside = Path::new(file).components().all(|part| matches!(part, Component::Normal(_)));
    if inside && !file.is_empty() { Ok(tree.join(file)) } else { Err(Problem::Outside { file: file.into() }) }
}

impl Plan {
    /// Changes the tree: all of it, or nothing.
    ///
    /// # Errors
    /// [`Error::File`]: a file cannot be written, and the tree is unchanged. [`Error::HalfWay`]: the tree is
    /// partly changed.
    pub fn apply(self) -> Result<(), Error> {
        // All new contents are on the disk before the first file changes.
        let mut ready = Vec::new();
        for file in &self.edited {
            ready.push((file, staged(file).map_err(|error| Error::file(&file.path, error))?));
        }
        for (n, file) in self.added.iter().enumerate() {
            if let Err(error) = create(file) {
                return Err(undone(&self.added[..n], &[], &file.path, error));
            }
        }
        for (n, (file, replacement)) in ready.into_iter().enumerate() {
            if let Err(error) = replacement.finish() {
                return Err(undone(&self.added, &self.edited[..n], &file.path, error));
            }
        }
        Ok(())
    }

    /// The changed files and then the added ones.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let edited = self.edited.iter().map(|file| file.path.as_path());
        edited.chain(self.added.iter().map(|file| file.path.as_path()))
    }
}

fn staged(file: &Edited) -> io::Result<Replacement> {
    let mut new = Replacement::new(&file.path)?;
    new.write_all(file.after.as_bytes())?;
    Ok(new)
}

fn create(file: &Added) -> io::Result<()> {
    if let Some(folder) = file.path.parent() {
        fs::create_dir_all(folder)?;
    }
    let written = File::create_new(&file.path)?.write_all(file.text.as_bytes());
    if written.is_err() {
        // Do not leave half of it behind.
        let _ = fs::remove_file(&file.path);
    }
    written
}

/// The error, after the changes so far were undone.
fn undone(added: &[Added], edited: &[Edited], path: &Path, error: io::Error) -> Error {
    let mut changed = Vec::new();
    for file in edited {
        if seawall_files::replace(&file.path, file.before.as_bytes()).is_err() {
            changed.push(file.name.clone());
        }
    }
    for file in added {
        if fs::remove_file(&file.path).is_err() {
            changed.push(file.path.display().to_string());
        }
    }
    if changed.is_empty() {
        Error::file(path, error)
    } else {
        Error::HalfWay { path: path.into(), error, changed }
    }
}
