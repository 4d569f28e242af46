//! Memory that goes bad, is told, kept and healed, mapped as VMMs map it: anonymous, of a memfd, and of huge
//! pages.
//!
//! Bad memory needs the lab (`cargo xtask lab tests`), because `MADV_HWPOISON` takes it from the host for
//! good. Holes (UFFDIO_POISON) and memory that is only declared bad work anywhere.

#![cfg(all(target_os = "linux", any(target_arch = "aarch64", target_arch = "x86_64")))]
#![allow(unsafe_code)]

mod bad;
mod mapping;
mod seccomp;

use mapping::{Mapping, give_up_privilege};
use seawall_host::{BadMemory, Error, HostKnows, heal, make_holes, page_size, read, sigbus, tell};

#[test]
fn good_memory_is_read_whatever_its_size_and_place() {
    let from: Vec<u8> = (0..=255).collect();
    for (at, size) in [(0, 0), (3, 1), (1, 15), (0, 16), (5, 17), (7, 100), (0, 256)] {
        let mut to = vec![0xee; size];
        // SAFETY: the range is within `from`.
        assert_eq!(unsafe { read(from[at..].as_ptr(), &mut to) }, Ok(()));
        assert_eq!(to, from[at..at + size]);
    }
}

#[test]
fn a_read_that_runs_into_a_hole_fails_and_so_does_one_of_its_last_byte() {
    let Some(memory) = with_hole() else { return };
    sigbus::install().unwrap();
    let hole = memory.at(1);
    let mut bytes = [0; 64];
    for from in [hole.start - 32, hole.start, hole.end - 64] {
        // SAFETY: the range is memory that the test has mapped, and `read` itself survives a hole in it.
        assert_eq!(unsafe { read(from as *const u8, &mut bytes) }, Err(BadMemory), "{from:#x}");
    }
    // SAFETY: the range is memory that the test has mapped, and `read` itself survives a hole in it.
    assert_eq!(unsafe { read((hole.end - 1) as *const u8, &mut bytes[..1]) }, Err(BadMemory));
    // SAFETY: the range is memory that the test has mapped, and `read` itself survives a hole in it.
    assert_eq!(unsafe { read((hole.start - 64) as *const u8, &mut bytes) }, Ok(()));
    // SAFETY: the range is memory that the test has mapped, and `read` itself survives a hole in it.
    assert_eq!(unsafe { read(hole.end as *const u8, &mut bytes) }, Ok(()));
    // The signals do not belong to a run: there is nothing to take.
    assert_eq!(sigbus::take(), None);
}

/// A hole has no page behind it that another owner could get.
#[test]
fn the_host_need_not_be_told_of_a_hole_and_a_healed_hole_is_zeroes() {
    let Some(memory) = with_hole() else { return };
    sigbus::install().unwrap();
    give_up_privilege();
    assert_eq!(tell(memory.at(1)), HostKnows::Told);
    assert_eq!(memory.heal(memory.at(1)), Ok(HostKnows::Told));
    assert_eq!(memory.bytes(), [1, 0, 3]);
}

#[test]
fn holes_in_nothing_are_an_error_and_no_holes_are_none() {
    // SAFETY: an empty list of ranges names no memory.
    assert_eq!(unsafe { make_holes(&[]) }, Ok(()));
    let page = page_size();
    // SAFETY: nothing is mapped in the page after the first one.
    match unsafe { make_holes(std::slice::from_ref(&(page..2 * page))) } {
        Err(Error::Call { errno: libc::ENOMEM, .. } | Error::NoHoles) => {}
        Err(Error::Call { call: "userfaultfd", .. }) => println!("skipped: no userfaultfd here"),
        other => panic!("expected ENOMEM, got {other:?}"),
    }
}

/// Without the privilege the page is kept. It stays in place and in use until it is healed.
#[test]
fn memory_that_the_host_cannot_be_told_of_is_kept_and_healed_by_zeroes() {
    give_up_privilege();
    for memory in [Mapping::anonymous(3), Mapping::shared(3)] {
        let bad = memory.at(1).start + 0x40..memory.at(1).start + 0x80;
        assert_eq!(tell(bad.clone()), HostKnows::Kept);
        assert_eq!(tell(bad.clone()), HostKnows::Kept, "the second time");
        assert_eq!(memory.bytes(), [1, 2, 3]);
        assert_eq!(memory.heal(bad), Ok(HostKnows::Kept));
        assert_eq!(memory.bytes(), [1, 0, 3]);
        memory.set(1, 9);
        assert_eq!(memory.bytes(), [1, 9, 3]);
    }
}

/// Other processes that map the file see the healed memory, too.
#[test]
fn healed_shared_memory_is_zeroes_in_its_file() {
    use std::os::unix::fs::FileExt as _;
    give_up_privilege();
    let memory = Mapping::shared(3);
    memory.heal(memory.at(1)).unwrap();
    let file = std::fs::File::from(memory.file.as_ref().unwrap().try_clone().unwrap());
    let mut byte = [0xff; 3];
    for (number, byte) in (0..).zip(byte.chunks_mut(1)) {
        file.read_exact_at(byte, number * memory.page).unwrap();
    }
    assert_eq!((byte, file.metadata().unwrap().len()), ([1, 0, 3], 3 * memory.page));
}

#[test]
fn huge_pages_are_kept_and_healed_as_a_whole() {
    give_up_privilege();
    for memory in [Mapping::anonymous_huge(2), Mapping::shared_huge(2)].into_iter().flatten() {
        let bad = memory.at(1).start + 0x1_0040..memory.at(1).start + 0x1_0080;
        assert_eq!(tell(bad.clone()), HostKnows::Kept);
        assert_eq!(memory.bytes(), [1, 2]);
        assert_eq!(memory.heal(bad), Ok(HostKnows::Kept));
        assert_eq!(memory.bytes(), [1, 0]);
    }
}

/// The kernel still has the shared page, and would give it back.
#[test]
fn memory_that_is_not_mapped_as_its_owner_says_is_not_taken_for_healed() {
    give_up_privilege();
    let memory = Mapping::shared(2);
    let (address, backing) = (memory.at(1).start, seawall_host::Backing::ANONYMOUS);
    // SAFETY: the mapping is the test's, and nothing else uses it. Its kind is wrong on purpose, which is
    // refused.
    let healed = unsafe { heal(memory.at(1), backing) };
    assert_eq!(healed, Err(Error::StillThere { address, backing }));
    assert_eq!(memory.bytes(), [1, 2]);
}

/// An inaccessible page cannot be reached: it can be neither told nor kept.
#[test]
fn memory_that_can_be_neither_told_of_nor_kept_is_left_where_it_is() {
    give_up_privilege();
    let memory = Mapping::anonymous(2);
    let page = memory.at(1);
    // SAFETY: the page is in the test's mapping, which nobody accesses while it is protected.
    let protect =
        |access| unsafe { libc::mprotect(page.start as *mut libc::c_void, memory.page as usize, access) };
    assert_eq!(protect(libc::PROT_NONE), 0);
    assert_eq!(tell(page.clone()), HostKnows::Unknown);
    assert_eq!(memory.heal(page.clone()), Err(Error::NotKept { address: page.start }));
    assert_eq!(protect(libc::PROT_READ | libc::PROT_WRITE), 0);
    assert_eq!(memory.bytes(), [1, 2]);
}

/// For a VMM that locks its memory (mlock): MADV_DONTNEED alone refuses it.
#[test]
fn locked_memory_is_healed() {
    give_up_privilege();
    let memory = Mapping::anonymous(2);
    // SAFETY: the range is the test's mapping; its content does not change.
    let locked = unsafe { libc::mlock(memory.start as *const libc::c_void, 2 * memory.page as usize) };
    if locked != 0 {
        println!("skipped: memory cannot be locked: {}", std::io::Error::last_os_error());
        return;
    }
    assert_eq!(memory.heal(memory.at(1)), Ok(HostKnows::Kept));
    assert_eq!(memory.bytes(), [1, 0]);
}

#[test]
fn memory_that_was_never_written_is_nobodys_and_nothing_of_it_is_kept() {
    give_up_privilege();
    let memory = Mapping::anonymous(1);
    memory.heal(memory.at(0)).unwrap();
    assert_eq!(tell(memory.at(0)), HostKnows::Told);
    assert_eq!(tell(0x1000..0x1000), HostKnows::Told, "no memory at all");
}

/// The process closes the files only at its end, so one file holds many pages.
#[test]
fn a_thousand_kept_pages_take_few_files() {
    give_up_privilege();
    let memory = Mapping::anonymous(1000);
    let files = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = files();
    assert_eq!(tell(memory.start..memory.at(999).end), HostKnows::Kept);
    // A file of 256 pages, or of 16 if the process may not have more.
    let more = files() - before;
    assert!(more <= 64, "{more}");
}

/// Three pages, the second a hole; `None` if the kernel cannot make one.
fn with_hole() -> Option<Mapping> {
    let memory = Mapping::anonymous(3);
    // SAFETY: the mapping is the test's, and nothing relies on its content.
    match unsafe { make_holes(&[memory.at(1)]) } {
        Ok(()) => Some(memory),
        Err(error @ (Error::NoHoles | Error::Call { call: "userfaultfd", .. })) => {
            println!("skipped: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}
