//! Files that are not snapshots, and files with valid checksums and any contents: each is refused, or is a
//! machine that runs. There is no panic, and no allocation that exceeds the file's own size.

use seawall_machine::{Config, Snapshot, Vm};

/// Offset of the first section, and the bytes of a section before its payload.
const SECTIONS: usize = 12;
const HEAD: usize = 41;

/// A snapshot of a machine with a page of code.
fn good() -> Vec<u8> {
    let mut vm = Vm::new(Config { memory_size: 0x1_0000, cpus: 2, ..Config::default() }).expect("64 KiB");
    // add x0, x0, #1; b . - 4
    vm.memory_mut().store(0x4000_0000, &[0x00, 0x04, 0x00, 0x91, 0xff, 0xff, 0xff, 0x17]).expect("in RAM");
    let mut file = Vec::new();
    vm.snapshot().expect("room").save(&mut file).expect("memory has room");
    file
}

/// The sections of a file: kind and payload.
fn sections(file: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut rest = &file[SECTIONS..];
    let mut sections = Vec::new();
    while let [kind, ..] = *rest {
        let word =
            |at: usize| u32::from_le_bytes([rest[at], rest[at + 1], rest[at + 2], rest[at + 3]]) as usize;
        let (len, packed) = (word(1), word(5));
        let payload = lz4_flex::block::decompress(&rest[HEAD..HEAD + packed], len).expect("packed");
        sections.push((kind, payload));
        rest = &rest[HEAD + packed..];
    }
    sections
}

/// The file of these sections, by the format's description.
fn file(sections: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut file = good()[..SECTIONS].to_vec();
    let mut checksum = blake3::hash(&file);
    for (kind, payload) in sections {
        let packed = lz4_flex::block::compress(payload);
        let mut head = vec![*kind];
        head.extend((payload.len() as u32).to_le_bytes());
        head.extend((packed.len() as u32).to_le_bytes());
        checksum = blake3::hash(&[checksum.as_bytes(), &head[..], &packed].concat());
        file.extend(head);
        file.extend(checksum.as_bytes());
        file.extend(packed);
    }
    file
}

/// See the module.
pub(super) fn body(data: &[u8]) {
    let _ = Snapshot::load(data);

    let mut parts = sections(&good());
    assert!(Snapshot::load(&*file(&parts)).is_ok(), "as it was");
    // Four bytes each: a section and a place in it, and the new bytes.
    for change in data.chunks_exact(4) {
        let [section, high, low, value] = *change else { return };
        let count = parts.len();
        let Some((_, payload)) = parts.get_mut(usize::from(section & 0x7f) % count) else { return };
        let at = usize::from(u16::from_be_bytes([high, low]));
        match payload.get_mut(at) {
            Some(byte) if section & 0x80 == 0 => *byte = value,
            _ => payload.truncate(at),
        }
    }
    let Ok(snapshot) = Snapshot::load(&*file(&parts)) else { return };
    // A loaded snapshot can run, be restored and be saved.
    let Ok(mut vm) = snapshot.machine() else { return };
    let before = vm.state_hash();
    vm.set_budget(Some(1000));
    let _ = vm.run();
    vm.restore(&snapshot).expect("of its own");
    assert_eq!(vm.state_hash(), before);
    let mut again = Vec::new();
    snapshot.save(&mut again).expect("memory has room");
    assert!(Snapshot::load(&*again).is_ok());
}
