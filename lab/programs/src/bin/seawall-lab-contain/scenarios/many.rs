//! A bare-metal guest meets 10,000 errors in a row, each on a page of its own, and counts those that it handled.

use std::fs;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use seawall::telemetry::ErrorReport;
use seawall::{Action, Delivery, Outcome};
use seawall_kvm::{Bytes as _, GuestAddress, GuestMemoryMmap};
use seawall_lab::Transcript;
use seawall_lab_machine::PoisonRegister;
use seawall_vmm::kernel::Kernel;
use seawall_vmm::{Config, End, Guest, KvmMachine, Observer};

use crate::linux::text;
use crate::report::{Verdict, expect};
use crate::watch::poison;

pub(super) const ERRORS: u64 = 10_000;
pub(super) const PAGE: u64 = 4096;
/// The first of the pages; RAM is from 0x4000_0000 to 0x4800_0000.
pub(super) const PAGES: u64 = 0x4400_0000;
pub(super) const MEMORY: u64 = 128 << 20;
pub(super) const LIMIT: Duration = Duration::from_secs(120);
/// Memory is measured after this many errors, when all kept state has its size, and at the end.
const WARM: u64 = 1000;
/// The allowed growth of this process meanwhile, KiB: the allocator's reserve, which 9,000 errors exceed if
/// each keeps a word.
const GROWTH: u64 = 64;

/// The offsets of the guest's parts in its image, and its instructions.
const IMAGE: [(usize, &[u32]); 3] = [
    // adr x1, vectors; msr vbar_el1, x1; mov x19, #0; mov x20, #10000; mov x21, #0x4400_0000
    // 1: ldr x3, [x21]; add x21, x21, #4096; subs x20, x20, #1; b.ne 1b
    // x19, in eight hexadecimal digits and a line's end, goes to the UART at x2:
    // mov x2, #0x0900_0000; mov x4, #32
    // 2: sub x4, x4, #4; lsr x5, x19, x4; and x5, x5, #15; cmp x5, #10
    //    add x6, x5, #'0'; add x5, x5, #'a' - 10; csel x5, x6, x5, lo; str w5, [x2]; cbnz x4, 2b
    // mov w5, #'\n'; str w5, [x2]; PSCI SYSTEM_OFF: mov w0, #0x8400_0008; hvc #0; b .
    (
        0,
        &[
            0x10004001, 0xd518c001, 0xd2800013, 0xd284e214, 0xd2a88015, 0xf94002a3, 0x914006b5, 0xf1000694,
            0x54ffffa1, 0xd2a12002, 0xd2800404, 0xd1001084, 0x9ac42665, 0x92400ca5, 0xf10028bf, 0x9100c0a6,
            0x91015ca5, 0x9a8530c5, 0xb9000045, 0xb5ffff04, 0x52800145, 0xb9000045, 0x52800100, 0x72b08000,
            0xd4000002, 0x14000000,
        ],
    ),
    // vectors + 0x200, a synchronous exception at EL1: ESR must be the abort's, FAR the page's
    // mrs x9, esr_el1; mov w10, #0x9600_0210; cmp x9, x10; b.ne 9f; mrs x9, far_el1; cmp x9, x21; b.ne 9f
    // mrs x9, elr_el1; add x9, x9, #4; msr elr_el1, x9; add x19, x19, #1; eret
    (
        0xa00,
        &[
            0xd5385209, 0x5280420a, 0x72b2c00a, 0xeb0a013f, 0x54000121, 0xd5386009, 0xeb15013f, 0x540000c1,
            0xd5384029, 0x91001129, 0xd5184029, 0x91000673, 0xd69f03e0,
        ],
    ),
    // 9: PSCI SYSTEM_RESET: mov w0, #0x8400_0009; hvc #0; b .
    (0xa34, &[0x52800120, 0x72b08000, 0xd4000002, 0x14000000]),
];

/// The findings so far.
#[derive(Debug, Default)]
struct Tally {
    errors: u64,
    /// The first wrong result.
    wrong: Option<String>,
    lines: Vec<String>,
    /// The sizes after [`WARM`] errors, and after all.
    sizes: Vec<Size>,
}

/// The size of this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Size {
    files: usize,
    kib: u64,
}

impl Size {
    fn now() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kib = resident.and_then(|text| text.split_whitespace().next()?.parse().ok()).unwrap_or(0);
        Self { files: fs::read_dir("/proc/self/fd").map_or(0, Iterator::count), kib }
    }
}

#[derive(Clone, Default)]
struct Counter(Arc<Mutex<Tally>>);

impl Observer for Counter {
    fn line(&mut self, line: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).lines.push(line.to_owned());
    }

    fn memory_error(&mut self, _: &ErrorReport, outcome: &Outcome) {
        let mut tally = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let expected = PAGES + tally.errors * PAGE;
        let is_injected = matches!(
            outcome.action,
            Action::Injected { guest: Delivery::AtVector { esr, far, .. }, .. }
                if esr.bits() == 0x9600_0210 && far == expected
        );
        if tally.wrong.is_none() && (!is_injected || outcome.error.gpa != Some(expected)) {
            tally.wrong = Some(format!("error {}, at {expected:#x}: {outcome}", tally.errors + 1));
        }
        tally.errors += 1;
        if tally.errors == WARM || tally.errors == ERRORS {
            tally.sizes.push(Size::now());
        }
    }
}

fn image() -> Vec<u8> {
    let mut image = vec![0; 0x1000];
    for (offset, words) in IMAGE {
        let words = words.iter().flat_map(|word| word.to_le_bytes());
        image.iter_mut().skip(offset).zip(words).for_each(|(byte, of_word)| *byte = of_word);
    }
    image
}

pub(super) fn turn_bad(memory: &GuestMemoryMmap) -> Result<(), String> {
    let mut register = PoisonRegister::open().map_err(text)?;
    for page in (PAGES..).step_by(PAGE as usize).take(ERRORS as usize) {
        memory.write_slice(&[1; 8], GuestAddress(page)).map_err(text)?;
        poison(&mut register, memory, page, 64)?;
    }
    Ok(())
}

pub(super) fn guest() -> Guest {
    Guest { kernel: Kernel::Flat(image()), address: None, initrd: None, command_line: String::new() }
}

pub(super) fn run(transcript: &Transcript) -> Verdict {
    let before = Size::now();
    let counter = Counter::default();
    let done = run_watched(&counter);
    let bad = PoisonRegister::open().map_err(text).map(|mut register| {
        let bad = register.count();
        register.heal_all();
        bad
    });
    let tally = std::mem::take(&mut *counter.0.lock().unwrap_or_else(PoisonError::into_inner));
    tally.lines.iter().for_each(|line| transcript.add(line));
    let (end, after, time) = done?;
    if let Some(wrong) = tally.wrong {
        return Err(wrong);
    }
    expect("the guest's end", &end, &End::PowerOff)?;
    expect("lines that are bad at the end", &bad?, &ERRORS)?;
    expect("errors met", &tally.errors, &ERRORS)?;
    expect("errors handled, by the guest's count", &tally.lines, &vec!["00002710".to_owned()])?;
    let [warm, last] = tally.sizes[..] else { return Err("nothing was measured".to_owned()) };
    expect("open files, behind 1,000 and 10,000 errors", &last.files, &warm.files)?;
    expect("open files, before and after", &after.files, &before.files)?;
    let growth = last.kib.saturating_sub(warm.kib);
    if warm.kib == 0 || growth > GROWTH {
        return Err(format!("expected growth of at most {GROWTH} KiB, got {warm:?} and {last:?}"));
    }
    Ok(format!(
        "10,000 met, contained and counted by the guest, {} µs each; in the last 9,000: {growth} KiB more, no file more",
        time.as_micros() / u128::from(ERRORS)
    ))
}

/// The guest's end, the size of this process then, and the guest's running time.
fn run_watched(counter: &Counter) -> Result<(End, Size, Duration), String> {
    let mut machine =
        KvmMachine::new(Config::new(MEMORY), &guest(), Box::new(counter.clone())).map_err(text)?;
    turn_bad(machine.memory())?;
    let start = Instant::now();
    let end = machine.run(Some(LIMIT)).map_err(text)?;
    let time = start.elapsed();
    drop(machine);
    Ok((end, Size::now(), time))
}
