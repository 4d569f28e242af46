//! Snapshots as files: what was saved comes back, and nothing else is taken for a snapshot.

mod support;

use proptest::prelude::*;
use seawall_machine::{Config, Snapshot, SnapshotError, Vm};
use support::{DATA, Guest};

/// A snapshot with two pages that are not zero.
fn small() -> Vec<u8> {
    let mut vm = Vm::new(Config { memory_size: 0x10000, ..Config::default() }).expect("64 KiB");
    vm.memory_mut().store(0x4000_1ffe, &[1, 2, 3, 4]).expect("in RAM");
    vm.poison(0x4000_3000..0x4000_3001).expect("in RAM");
    saved(&vm.snapshot().expect("room"))
}

fn saved(snapshot: &Snapshot) -> Vec<u8> {
    let mut file = Vec::new();
    snapshot.save(&mut file).expect("memory has room");
    file
}

fn refusal(file: &[u8]) -> String {
    Snapshot::load(file).expect_err("no snapshot").to_string()
}

#[test]
fn a_snapshot_cut_off_anywhere_is_refused() {
    let file = small();
    for len in 0..file.len() {
        let error = Snapshot::load(&file[..len]).err();
        let refused = if len == 0 {
            matches!(error, Some(SnapshotError::Foreign(_)))
        } else {
            matches!(error, Some(SnapshotError::Truncated { .. }))
        };
        assert!(refused, "{len}: {error:?}");
    }
    let (len, tail) = (file.len(), 42);
    assert_eq!(
        refusal(&file[..len - 1]),
        format!("expected 1 more bytes of the snapshot at byte {}, got 0: it is cut off", len - 1)
    );
    assert_eq!(
        refusal(&file[..len - tail]),
        format!("expected 1 more bytes of the snapshot at byte {}, got 0: it is cut off", len - tail)
    );
}

#[test]
fn a_snapshot_with_any_byte_changed_is_refused() {
    let file = small();
    for at in 0..file.len() {
        for flip in [1, 0x80, 0xff] {
            let mut damaged = file.clone();
            damaged[at] ^= flip;
            let error = Snapshot::load(&*damaged).err();
            let refused = match at {
                0..8 => matches!(error, Some(SnapshotError::Foreign(_))),
                8..12 => matches!(error, Some(SnapshotError::Version(_))),
                // A length may be damaged so that the file seems to be too short, or to hold too much.
                _ => matches!(
                    error,
                    Some(
                        SnapshotError::Damaged { .. }
                            | SnapshotError::Truncated { .. }
                            | SnapshotError::TooBig { .. }
                    )
                ),
            };
            assert!(refused, "{at} {flip:#x}: {error:?}");
        }
    }
}

#[test]
fn a_foreign_file_and_one_of_another_format_are_told_apart() {
    assert_eq!(
        refusal(b"\x7fELF and so on"),
        "expected a snapshot, which begins with [89, 53, 57, 53, 4e, 0d, 0a, 1a], got a file that begins with \
         [7f, 45, 4c, 46, 20, 61, 6e, 64]"
    );
    let mut newer = small();
    newer[8] = 6;
    assert_eq!(refusal(&newer), "expected a snapshot of format 5, got one of format 6");
    let mut longer = small();
    longer.push(0);
    let end = longer.len() - 1;
    assert_eq!(refusal(&longer), format!("expected the snapshot to end at byte {end}, got more bytes"));
    let mut damaged = small();
    damaged[60] ^= 1;
    assert_eq!(refusal(&damaged), "the snapshot's section at byte 12 is damaged: its checksum is wrong");
}

#[test]
fn a_file_holds_only_the_pages_that_are_not_zero() {
    let mut guest = Guest::new(&[0x9100_0400, 0x17ff_ffff]);
    let empty = saved(&guest.vm.snapshot().expect("room")).len();
    assert!(empty < 4000, "{empty} bytes of 32 MiB of RAM");
    guest.vm.memory_mut().store(DATA, &vec![0; 1 << 20]).expect("in RAM");
    assert_eq!(saved(&guest.vm.snapshot().expect("room")).len(), empty);
}

#[test]
fn a_loaded_snapshot_saves_as_the_same_bytes() {
    let file = small();
    assert_eq!(saved(&Snapshot::load(&*file).expect("whole")), file);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_bytes_behind_a_right_beginning_make_the_host_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        kept in any::<prop::sample::Index>(),
    ) {
        let mut file = small();
        file.truncate(12 + kept.index(file.len() - 12));
        file.extend(bytes);
        prop_assert!(Snapshot::load(&*file).is_err());
    }
}
