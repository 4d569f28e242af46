//! A ledger that many threads write to and one thread stores in a file.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::SystemTime;
use std::{fmt, io};

use super::file::FileError;
use super::{Cause, Ledger};

/// A [`Ledger`] for the threads of a VMM, stored in a file if it has one.
///
/// A thread that enters a page does not wait for the disk: another thread writes the file, once for all
/// entries that came meanwhile. That thread is the keeper's own ([`Keeper::open`]), or the caller's
/// ([`Keeper::with_writer`]) in a program that filters the system calls of each thread. [`Keeper::flush`]
/// waits until the file is written, and so does dropping the keeper. If the file cannot be written (the disk
/// is full), it stays unchanged, the ledger is whole in memory, and the next change tries again.
///
/// ```
/// use std::time::SystemTime;
/// use seawall::ledger::{Cause, Keeper};
///
/// # let directory = tempfile::tempdir()?;
/// let path = directory.path().join("ledger");
/// let keeper = Keeper::open(&path)?;
/// keeper.insert(0x4021_0000..0x4021_1000, Cause::Consumed, SystemTime::now());
/// keeper.flush()?;
/// assert!(Keeper::open(&path)?.with(|ledger| ledger.contains(0x4021_0000)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Keeper {
    shared: Arc<Shared>,
    /// The keeper's own thread.
    writer: Option<JoinHandle<()>>,
}

/// The writer of a [`Keeper`]'s file, for a thread of the caller.
#[must_use = "nothing is written until it runs"]
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
}

struct Shared {
    path: Option<PathBuf>,
    state: Mutex<State>,
    /// Signals a change.
    changed: Condvar,
    /// Signals that the file is up to date, or could not be written.
    written: Condvar,
}

#[derive(Default)]
struct State {
    ledger: Ledger,
    /// The number of changes.
    version: u64,
    /// The last version that was written, or could not be.
    tried: u64,
    /// The reason for the last failure.
    failure: Option<Arc<FileError>>,
    /// True after the last change.
    is_closing: bool,
    /// True if nobody writes the file any more.
    has_no_writer: bool,
}

/// The file could not be written; see [`Keeper`].
#[derive(Clone, Debug, thiserror::Error)]
#[error(transparent)]
pub struct NotWritten(Arc<FileError>);

impl Keeper {
    /// A keeper without a file.
    pub fn in_memory(ledger: Ledger) -> Self {
        Self { shared: Shared::new(None, ledger), writer: None }
    }

    /// The keeper of this file, with a thread that writes it. A missing file is created at the first change.
    ///
    /// # Errors
    /// [`FileError`]: the file is not a whole ledger, or the thread cannot be created.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let (mut keeper, writer) = Self::with_writer(path)?;
        let thread = thread::Builder::new().name("ledger".into()).spawn(move || writer.run());
        keeper.writer = Some(thread.map_err(|source| FileError::Write { path: path.to_owned(), source })?);
        Ok(keeper)
    }

    /// The same without a thread: the caller runs the [`Writer`] on one of its own. Until it runs, changes
    /// are in memory only.
    ///
    /// ```
    /// use std::thread;
    /// use seawall::ledger::Keeper;
    ///
    /// # let directory = tempfile::tempdir()?;
    /// let (keeper, writer) = Keeper::with_writer(&directory.path().join("ledger"))?;
    /// let thread = thread::spawn(move || {
    ///     // Install this thread's seccomp filter here.
    ///     writer.run();
    /// });
    /// // The guest runs.
    /// drop(keeper);
    /// thread.join().expect("the writer does not panic");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`FileError`]: the file is not a whole ledger.
    pub fn with_writer(path: &Path) -> Result<(Self, Writer), FileError> {
        let ledger = Ledger::load(path)?.unwrap_or_default();
        seawall_files::sweep(path);
        let shared = Shared::new(Some(path.to_owned()), ledger);
        Ok((Self { shared: shared.clone(), writer: None }, Writer { shared }))
    }

    /// As [`Ledger::insert`].
    pub fn insert(&self, range: Range<u64>, cause: Cause, time: SystemTime) -> u64 {
        self.change(|ledger| ledger.insert(range, cause, time), |new| *new > 0)
    }

    /// As [`Ledger::remove`].
    pub fn remove(&self, range: Range<u64>) -> u64 {
        self.change(|ledger| ledger.remove(range), |gone| *gone > 0)
    }

    /// Replaces this ledger by another, as a migration does.
    pub fn replace(&self, ledger: Ledger) {
        self.change(|old| *old = ledger, |()| true);
    }

    /// Calls `look` with the ledger. Other threads cannot enter anything meanwhile.
    pub fn with<T>(&self, look: impl FnOnce(&Ledger) -> T) -> T {
        look(&self.shared.lock().ledger)
    }

    /// Waits until the file holds all earlier entries. A [`Writer`] of the caller has to run, or have been
    /// dropped.
    ///
    /// # Errors
    /// [`NotWritten`], also if there is no writer any more; the ledger is whole in memory.
    pub fn flush(&self) -> Result<(), NotWritten> {
        if self.shared.path.is_none() {
            return Ok(());
        }
        let mut state = self.shared.lock();
        // A write that failed before is tried again.
        if state.failure.is_some() {
            state.version += 1;
            self.shared.changed.notify_all();
        }
        let wanted = state.version;
        while state.tried < wanted {
            if state.has_no_writer {
                return Err(NotWritten(self.shared.no_writer()));
            }
            state = self.shared.written.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.failure.clone().map_or(Ok(()), |failure| Err(NotWritten(failure)))
    }

    /// The reason why the file is out of date, if the last attempt to write it failed.
    pub fn failure(&self) -> Option<NotWritten> {
        self.shared.lock().failure.clone().map(NotWritten)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Ledger) -> T, is_change: impl FnOnce(&T) -> bool) -> T {
        let mut state = self.shared.lock();
        let result = change(&mut state.ledger);
        if is_change(&result) {
            state.version += 1;
            self.shared.changed.notify_all();
        }
        result
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.shared.lock().is_closing = true;
        self.shared.changed.notify_all();
        if let Some(writer) = self.writer.take() {
            // It cannot panic; if it did, the file is as it was last written.
            let _ = writer.join();
        }
    }
}

impl Shared {
    fn new(path: Option<PathBuf>, ledger: Ledger) -> Arc<Self> {
        let state = Mutex::new(State { ledger, ..State::default() });
        Arc::new(Self { path, state, changed: Condvar::new(), written: Condvar::new() })
    }

    /// Locks the ledger even if a thread panicked while it looked: the ledger survives that.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn no_writer(&self) -> Arc<FileError> {
        let source = io::Error::new(io::ErrorKind::BrokenPipe, "its writer has ended");
        Arc::new(FileError::Write { path: self.path.clone().unwrap_or_default(), source })
    }
}

impl Writer {
    /// Writes each change to the file, until the keeper is dropped and its last change is written. Join this
    /// thread before the process ends: the keeper does not wait for it.
    pub fn run(self) {
        let Some(path) = &self.shared.path else { return };
        let mut state = self.shared.lock();
        loop {
            if state.tried == state.version {
                if state.is_closing {
                    return;
                }
                state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let (version, bytes) = (state.version, state.ledger.to_bytes());
            drop(state);
            let written = super::file::replace(path, &bytes);
            state = self.shared.lock();
            state.tried = version;
            state.failure = written.err().map(Arc::new);
            self.shared.written.notify_all();
        }
    }
}

/// Releases threads that wait: a dropped writer writes nothing more.
impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.lock().has_no_writer = true;
        self.shared.written.notify_all();
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("path", &self.path).finish_non_exhaustive()
    }
}

impl NotWritten {
    /// The cause.
    pub fn io(&self) -> Option<&io::Error> {
        match &*self.0 {
            FileError::Read { source, .. } | FileError::Write { source, .. } => Some(source),
            FileError::Format { .. } => None,
        }
    }
}

impl Default for Keeper {
    fn default() -> Self {
        Self::in_memory(Ledger::default())
    }
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pages = self.with(Ledger::pages);
        f.debug_struct("Keeper")
            .field("path", &self.shared.path)
            .field("pages", &pages)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const THEN: SystemTime = SystemTime::UNIX_EPOCH;

    #[test]
    fn what_many_threads_enter_is_in_the_file_when_the_keeper_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger");
        let keeper = Keeper::open(&path).unwrap();
        assert!(!path.exists(), "nothing is bad yet");
        thread::scope(|scope| {
            for thread in 0..8 {
                let keeper = &keeper;
                scope.spawn(move || {
                    for page in 0..50 {
                        let start = (page * 8 + thread) * 0x2000;
                        assert_eq!(keeper.insert(start..start + 1, Cause::Consumed, THEN), 1);
                    }
                });
            }
        });
        drop(keeper);
        assert_eq!(Ledger::load(&path).unwrap().unwrap().pages(), 400);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left lying about");
    }

    #[test]
    fn a_writer_on_the_callers_thread_writes_all_and_ends_with_the_keeper() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger");
        let (keeper, writer) = Keeper::with_writer(&path).unwrap();
        keeper.insert(0..1, Cause::Consumed, THEN);
        assert!(!path.exists(), "the writer does not run yet");
        let thread = thread::spawn(move || writer.run());
        keeper.flush().unwrap();
        assert_eq!(Ledger::load(&path).unwrap().unwrap().pages(), 1);
        keeper.insert(0x5000..0x5001, Cause::Consumed, THEN);
        drop(keeper);
        thread.join().unwrap();
        assert_eq!(Ledger::load(&path).unwrap().unwrap().pages(), 2);
    }

    #[test]
    fn nobody_waits_for_a_writer_that_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let (keeper, writer) = Keeper::with_writer(&directory.path().join("ledger")).unwrap();
        drop(writer);
        keeper.flush().unwrap();
        keeper.insert(0..1, Cause::Consumed, THEN);
        let error = keeper.flush().unwrap_err();
        assert_eq!(error.io().unwrap().kind(), io::ErrorKind::BrokenPipe);
        assert!(keeper.with(|ledger| ledger.contains(0)));
    }

    #[test]
    fn a_file_that_cannot_be_written_is_tried_again_and_the_ledger_stays_whole() {
        let directory = tempfile::tempdir().unwrap();
        let folder = directory.path().join("folder");
        fs::create_dir(&folder).unwrap();
        let path = folder.join("ledger");
        let keeper = Keeper::open(&path).unwrap();
        fs::remove_dir(&folder).unwrap();
        keeper.insert(0..1, Cause::Consumed, THEN);
        let error = keeper.flush().unwrap_err();
        assert_eq!(error.io().unwrap().kind(), io::ErrorKind::NotFound);
        assert!(error.to_string().starts_with("cannot write the ledger"), "{error}");
        assert!(keeper.failure().is_some());
        assert!(keeper.with(|ledger| ledger.contains(0)));
        fs::create_dir(&folder).unwrap();
        keeper.insert(0x5000..0x5001, Cause::Found, THEN);
        keeper.flush().unwrap();
        assert!(keeper.failure().is_none());
        assert_eq!(Ledger::load(&path).unwrap().unwrap().pages(), 2);
    }

    #[test]
    fn what_healed_is_struck_out_of_the_file_too() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger");
        let keeper = Keeper::open(&path).unwrap();
        keeper.insert(0..0x3000, Cause::Consumed, THEN);
        assert_eq!(keeper.remove(0x1000..0x2000), 1);
        keeper.flush().unwrap();
        let ledger = Ledger::load(&path).unwrap().unwrap();
        assert_eq!(ledger.ranges().map(|bad| bad.range).collect::<Vec<_>>(), [0..0x1000, 0x2000..0x3000]);
    }

    #[test]
    fn a_damaged_file_is_refused_and_stays_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger");
        fs::write(&path, b"SEAWALL\0 but not whole").unwrap();
        assert!(matches!(Keeper::open(&path), Err(FileError::Format { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"SEAWALL\0 but not whole");
    }

    #[test]
    fn what_a_killed_writer_left_is_swept_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger");
        for name in [".ledger.new-Ab12Cd", ".other.new-Ab12Cd", "ledger.new"] {
            fs::write(directory.path().join(name), b"half").unwrap();
        }
        drop(Keeper::open(&path).unwrap());
        let mut left: Vec<_> =
            fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, [".other.new-Ab12Cd", "ledger.new"]);
    }
}
