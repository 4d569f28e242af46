//! Translation, by stage 1 alone and by both stages, over any registers and any tables: it ends, it does not panic, and its result lies
//! within the CPU's physical addresses.

use seawall_machine::memory::{Memory, PA_BITS};
use seawall_machine::walk::{Access, AccessKind, Regime, Stage2, descriptor_level, probe, translate};

const RAM: u64 = 0x4000_0000;
const RAM_SIZE: usize = 0x1_0000;
const KINDS: [AccessKind; 7] = [
    AccessKind::Read,
    AccessKind::Write,
    AccessKind::Fetch,
    AccessKind::CacheClean,
    AccessKind::CacheInvalidate,
    AccessKind::AddressTranslationRead,
    AccessKind::AddressTranslationWrite,
];

/// See the module.
pub(super) fn body(data: &[u8]) {
    let Some((head, tables)) = data.split_first_chunk::<48>() else { return };
    let word = |n: usize| u64::from_le_bytes(std::array::from_fn(|byte| head[n * 8 + byte]));
    let options = head[47];
    let regime = Regime {
        sctlr: word(0) | 1,
        tcr: word(1),
        // Often an existing table.
        ttbr0: word(2) & 0xffff_0000_0000_f000 | RAM,
        ttbr1: word(2) & 0xffff_0000_0000_f000 | RAM,
        mair: word(3),
        pa_bits: 32 + u32::from(options & 15),
        stage2: (head[46] & 4 != 0).then(|| {
            let mut stage2 = Stage2::new(word(2) & 0xffff_0000_0000_f000 | RAM, word(5));
            stage2.default_cacheable = head[46] & 8 != 0;
            stage2.protected_walks = head[46] & 16 != 0;
            stage2
        }),
    };
    let va = word(4);
    let kind = KINDS[usize::from(options >> 4 & 7) % KINDS.len()];
    let access = Access { kind, privileged: options & 0x80 != 0, pan: head[46] & 1 != 0 };

    let mut memory = Memory::new(RAM, RAM_SIZE as u64).expect("64 KiB");
    if !tables.is_empty() {
        let mut image = tables.repeat(RAM_SIZE / tables.len() + 1);
        image.truncate(RAM_SIZE);
        memory.store(RAM, &image).expect("fits");
    }
    if head[46] & 2 != 0 {
        let line = RAM + u64::from(head[45]) * 256;
        memory.poison(line..line + 1).expect("in RAM");
    }

    let probed = probe(&memory, &regime, va, access);
    let translated = translate(&mut memory, &regime, va, access);
    assert_eq!(probed.is_ok(), translated.is_ok());
    if let Ok(translation) = translated {
        let bits = if regime.stage2.is_some() { PA_BITS } else { regime.pa_bits };
        assert!(translation.pa >> bits == 0);
        assert_eq!(translate(&mut memory, &regime, va, access), Ok(translation));
    }
    let _ = descriptor_level(&memory, &regime, va, word(5));
}
