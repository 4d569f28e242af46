//! The guest's console as the host sees it: bytes for whoever watches, lines, and the kernel's last words.
//!
//! A Linux panic is known by its text, `Kernel panic - not syncing`, and by what follows: a reset (`panic=-1`), or
//! the line that ends the report, after which the kernel stands still. Debian's cloud kernel has no driver for QEMU's
//! pvpanic device.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use seawall::telemetry::{AccessReport, ErrorReport};
use seawall::{Outcome, UnansweredOutcome};

/// Longer lines are cut, bytes.
const MAX_LINE: usize = 4096;
/// How Linux's report of a panic begins (`kernel/panic.c`).
const PANIC: &str = "Kernel panic - not syncing";
/// How it ends, if the kernel then stands still.
const PANIC_END: &str = "---[ end Kernel panic";

/// Cuts a console's bytes into lines, where Linux's kernel and its processes write at the same time.
///
/// The kernel writes each message whole, but begins wherever a process's line has come to. Its time stamp tells where
/// that is: `[%5lu.%06lu]`, with `<%u>` before it for `console_msg_format=syslog` (Linux, kernel/printk/printk.c). Such a
/// message is a line of its own, and the process's line goes on behind it.
#[derive(Clone, Debug, Default)]
pub struct Lines {
    begun: Vec<u8>,
}

impl Lines {
    /// Takes bytes in pieces of any size. Tells each line that they complete, without its end.
    pub fn take(&mut self, bytes: &[u8], mut tell: impl FnMut(&str)) {
        for byte in bytes {
            match byte {
                b'\n' => {
                    // A text that quotes messages leaves more and more behind: then it is no line that goes on.
                    let at = message(&self.begun).filter(|&at| at < MAX_LINE / 2).unwrap_or(0);
                    let line = self.begun.split_off(at);
                    tell(&String::from_utf8_lossy(&line));
                }
                b'\r' | 0 => {}
                _ if self.begun.len() < MAX_LINE => self.begun.push(*byte),
                _ => {}
            }
        }
    }
}

/// Where a message of Linux's kernel begins in a line.
fn message(line: &[u8]) -> Option<usize> {
    let stamp = (0..line.len()).find(|&at| line.get(at..).is_some_and(begins_with_a_time))?;
    let before = line.get(..stamp)?.strip_suffix(b">").unwrap_or_default();
    let digits = before.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let level = before.get(..before.len() - digits).and_then(|before| before.strip_suffix(b"<"));
    Some(level.filter(|_| digits > 0).map_or(stamp, <[u8]>::len))
}

/// Seconds in at least five places, and six digits of microseconds, in brackets.
fn begins_with_a_time(text: &[u8]) -> bool {
    let Some(text) = text.strip_prefix(b"[") else { return false };
    let spaces = text.iter().take_while(|byte| **byte == b' ').count();
    let seconds = text.iter().skip(spaces).take_while(|byte| byte.is_ascii_digit()).count();
    let rest = text.get(spaces + seconds..).and_then(|rest| rest.strip_prefix(b"."));
    let micros = rest.map_or(0, |rest| rest.iter().take_while(|byte| byte.is_ascii_digit()).count());
    let is_closed = rest.and_then(|rest| rest.get(micros)) == Some(&b']');
    seconds > 0 && spaces + seconds >= 5 && micros == 6 && is_closed
}

/// Is told what a guest does. It is called on the thread of the vCPU that does it, which waits meanwhile, as do the
/// others if they write to the console: so it must not wait for the guest, nor type on its console (another thread may).
pub trait Observer: Send {
    /// The guest wrote this to its console.
    fn console(&mut self, _bytes: &[u8]) {}
    /// A line of the console is complete; without its end. [`Lines`] has cut it out.
    fn line(&mut self, _line: &str) {}
    /// The guest met bad memory, and this was done about it: as a report for logs and programs, and as it was.
    fn memory_error(&mut self, _report: &ErrorReport, _outcome: &Outcome) {}
    /// The guest made an access that nobody answers, and this was done about it: an external abort, or its end. A guest can
    /// make as many as it likes: at most 16 in 10 s are told of.
    fn unanswered_access(&mut self, _report: &AccessReport, _outcome: &UnansweredOutcome) {}
    /// A device met bad memory when it read what the guest had handed to it, at this guest physical address, and told
    /// its driver so. Only on the software machine: on KVM this program would not outlive it.
    fn device_error(&mut self, _address: u64) {}
    /// Asked after the above: whether [`SoftwareMachine::run`] is to come back to its caller, who can then do what an
    /// observer cannot, for instance turn memory bad.
    ///
    /// [`SoftwareMachine::run`]: crate::SoftwareMachine::run
    fn wants_pause(&mut self) -> bool {
        false
    }
}

/// Sees and does nothing.
impl Observer for () {}

/// What the guest's output goes through. Clones have the same observer, and lines of their own: each device
/// that the guest writes to has one.
#[derive(Clone)]
pub struct Console {
    lines: Lines,
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    observer: Box<dyn Observer>,
    panic: Option<String>,
    stands_still: bool,
}

impl Console {
    /// A console that this observer watches.
    pub fn new(observer: Box<dyn Observer>) -> Self {
        let inner = Inner { observer, panic: None, stands_still: false };
        Self { lines: Lines::default(), inner: Arc::new(Mutex::new(inner)) }
    }

    /// The line by which the guest's kernel said that it panicked.
    pub fn panic(&self) -> Option<String> {
        self.lock().panic.clone()
    }

    /// The guest's kernel panicked, and will do nothing more.
    pub fn stands_still(&self) -> bool {
        self.lock().stands_still
    }

    /// Tells the observer of a memory error.
    pub fn memory_error(&self, report: &ErrorReport, outcome: &Outcome) {
        self.lock().observer.memory_error(report, outcome);
    }

    /// Tells the observer of an access that nobody answers.
    pub fn unanswered_access(&self, report: &AccessReport, outcome: &UnansweredOutcome) {
        self.lock().observer.unanswered_access(report, outcome);
    }

    /// Tells the observer of bad memory that a device met.
    pub fn device_error(&self, address: u64) {
        self.lock().observer.device_error(address);
    }

    /// Whether the observer wants the run to pause.
    pub fn wants_pause(&self) -> bool {
        self.lock().observer.wants_pause()
    }

    /// The bytes of the line that is not complete.
    pub(crate) fn begun_line(&self) -> &[u8] {
        &self.lines.begun
    }

    /// Only this much of the line was written.
    pub(crate) fn set_begun_line(&mut self, line: &[u8]) {
        self.lines.begun = line.get(..MAX_LINE).unwrap_or(line).to_vec();
    }

    /// The kernel's last words, if so it was, and whether it stands still.
    pub(crate) fn set_panic(&self, panic: Option<String>, stands_still: bool) {
        let mut inner = self.lock();
        inner.panic = panic;
        inner.stands_still = stands_still;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }
}

/// An observer that panicked must not take the other vCPUs with it.
fn lock(inner: &Mutex<Inner>) -> MutexGuard<'_, Inner> {
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inner {
    fn line(&mut self, line: &str) {
        if self.panic.is_none() {
            self.panic = line.find(PANIC).and_then(|at| line.get(at..)).map(str::to_owned);
        }
        self.stands_still |= self.panic.is_some() && line.contains(PANIC_END);
        self.observer.line(line);
    }
}

impl io::Write for Console {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.lock().observer.console(bytes);
        let inner = &self.inner;
        self.lines.take(bytes, |line| lock(inner).line(line));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[derive(Clone, Default)]
    struct Seen(Arc<Mutex<Vec<String>>>);

    impl Observer for Seen {
        fn line(&mut self, line: &str) {
            self.0.lock().expect("no panic").push(line.to_owned());
        }
    }

    #[test]
    fn lines_come_whole_whatever_pieces_the_guest_writes_them_in() {
        let seen = Seen::default();
        let mut console = Console::new(Box::new(seen.clone()));
        for piece in ["he", "llo\r", "\nwor", "ld\n", "rest"] {
            console.write_all(piece.as_bytes()).expect("a console takes all");
        }
        assert_eq!(*seen.0.lock().expect("no panic"), ["hello", "world"]);
    }

    /// The lines of a text, taken in pieces of this size.
    fn lines(text: &str, size: usize) -> Vec<String> {
        let (mut lines, mut told) = (Lines::default(), Vec::new());
        for piece in text.as_bytes().chunks(size) {
            lines.take(piece, |line| told.push(line.to_owned()));
        }
        told
    }

    /// Linux 7.2: kernel/printk/printk.c, print_time and print_syslog; mm/memory-failure.c, action_result.
    #[test]
    fn a_kernel_message_in_the_middle_of_a_processs_line_is_a_line_of_its_own() {
        let message = "[    3.142592] Memory failure: 0x48abc: recovery action for dirty LRU page: Recovered";
        for size in [1, 3, 1000] {
            let text = format!("witness: al{message}\r\n[12345.678901] more\nive 20\r\nwitness: alive 30\n");
            assert_eq!(
                lines(&text, size),
                [message, "[12345.678901] more", "witness: alive 20", "witness: alive 30"],
                "pieces of {size}"
            );
        }
        assert_eq!(
            lines("half<4>[    1.000000][  T123] message\n a line\n", 7),
            ["<4>[    1.000000][  T123] message", "half a line"]
        );
    }

    #[test]
    fn what_is_no_time_stamp_does_not_cut_a_line() {
        for line in [
            "[  OK  ] Started",
            "a[1.5] b",
            "took [1.000000] s",
            "x [    1.00000] y",
            "[    1.000000",
            "<>[x",
        ] {
            assert_eq!(lines(&format!("{line}\nnext\n"), 1), [line, "next"]);
        }
    }

    #[test]
    fn a_text_that_quotes_kernel_messages_does_not_keep_them_back() {
        let quote = "host kernel: [    1.000000] message\n";
        let text = format!("{}end\n", quote.repeat(1000));
        let told = lines(&text, 1000);
        assert_eq!(told.iter().filter(|line| line.ends_with("[    1.000000] message")).count(), 1000);
        assert!(told.last().is_some_and(|line| line.ends_with("end")));
    }

    /// The texts of Linux 7.2, kernel/panic.c.
    #[test]
    fn a_panic_is_known_by_its_text_and_that_the_kernel_stands_still_by_the_reports_end() {
        let mut console = Console::new(Box::new(()));
        let mut say = |text: &str| {
            console.write_all(text.as_bytes()).expect("a console takes all");
            (console.panic(), console.stands_still())
        };
        assert_eq!(say("[    2.1] all is well\n"), (None, false));
        let text = "Kernel panic - not syncing: Asynchronous SError Interrupt";
        assert_eq!(say(&format!("[    2.2] {text}\n")), (Some(text.to_owned()), false));
        let end = "[    2.3] ---[ end Kernel panic - not syncing: Asynchronous SError Interrupt ]---\n";
        assert_eq!(say(end), (Some(text.to_owned()), true));
    }

    #[test]
    fn a_line_without_end_does_not_grow_for_ever() {
        let mut console = Console::new(Box::new(()));
        console.write_all(&vec![b'x'; 100_000]).expect("a console takes all");
        assert_eq!(console.begun_line().len(), MAX_LINE);
    }
}
