//! Events without a layout, and the layouts that carry them.

use zerocopy::transmute;

use crate::Refusal;
use crate::wire::{MainlineEvents, PostedEvents, TrailingEvents, VCPU_EVENTS_SIZE};

/// The place of the proposal's `ext_abt_esr` in the 64 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Layout {
    /// As posted on 2025-07-31: at 16, `reserved` moves to 24.
    #[default]
    Posted,
    /// The thread's other candidate: `reserved` stays at 16, and `ext_abt_esr` is the last word, at 56.
    Trailing,
}

/// The form of `struct kvm_vcpu_events` that a VM uses, and with it the rules that apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Abi {
    /// Today's Linux: data aborts only, without an ESR, and checks that come after effects.
    Mainline,
    /// The proposal: instruction aborts, an ESR for both kinds, and every check before any effect.
    Extended(Layout),
}

impl Abi {
    /// All ABIs.
    pub const ALL: [Self; 3] =
        [Self::Mainline, Self::Extended(Layout::Posted), Self::Extended(Layout::Trailing)];
}

/// The bytes of `struct kvm_vcpu_events` as they lie in memory, aligned.
pub type Words = [u64; VCPU_EVENTS_SIZE / 8];

/// The content of `struct kvm_vcpu_events`, whatever its layout.
///
/// As in the kernel, a flag is true if its byte is not zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct VcpuEvents {
    /// An SError: inject it (SET), or it is pending (GET).
    pub serror_pending: bool,
    /// `serror_esr` is valid; on GET, the host has RAS.
    pub serror_has_esr: bool,
    /// Inject an external data abort; always false on GET.
    pub ext_dabt_pending: bool,
    /// Inject an external instruction abort (extended ABI); always false on GET.
    pub ext_iabt_pending: bool,
    /// `ext_abt_esr` is valid (extended ABI); always false on GET.
    pub ext_abt_has_esr: bool,
    /// ISS of the SError, `[24:0]`.
    pub serror_esr: u64,
    /// ISS of the external abort, `[24:0]` (extended ABI).
    pub ext_abt_esr: u64,
}

impl VcpuEvents {
    /// Whether the events ask for an abort or an SError: without either, SET changes nothing.
    pub const fn injects(&self) -> bool {
        self.serror_pending || self.ext_dabt_pending || self.ext_iabt_pending
    }

    /// Reads the events from the bytes of a system call.
    ///
    /// # Errors
    /// EINVAL if a reserved word, or else a pad byte, is not zero. In [`Abi::Mainline`] the proposal's fields
    /// are reserved or pad.
    pub fn from_bytes(abi: Abi, bytes: &[u8; VCPU_EVENTS_SIZE]) -> Result<Self, Refusal> {
        Self::from_words(abi, &transmute!(*bytes))
    }

    /// The same from memory that is aligned as `struct kvm_vcpu_events` is, which a CPU without unaligned accesses reads faster.
    ///
    /// # Errors
    /// As [`VcpuEvents::from_bytes`].
    pub fn from_words(abi: Abi, words: &Words) -> Result<Self, Refusal> {
        match abi {
            Abi::Mainline => {
                let wire: MainlineEvents = transmute!(*words);
                wire.events()
            }
            Abi::Extended(Layout::Posted) => {
                let wire: PostedEvents = transmute!(*words);
                wire.events()
            }
            Abi::Extended(Layout::Trailing) => {
                let wire: TrailingEvents = transmute!(*words);
                wire.events()
            }
        }
    }

    /// Writes the events as the bytes of a system call.
    ///
    /// # Errors
    /// [`Refusal::NotInMainline`] if [`Abi::Mainline`] cannot express the events.
    #[inline]
    pub fn to_bytes(&self, abi: Abi) -> Result<[u8; VCPU_EVENTS_SIZE], Refusal> {
        self.to_words(abi).map(|words| transmute!(words))
    }

    /// The same for aligned memory.
    ///
    /// # Errors
    /// As [`VcpuEvents::to_bytes`].
    #[inline]
    pub fn to_words(&self, abi: Abi) -> Result<Words, Refusal> {
        Ok(match abi {
            Abi::Mainline => transmute!(MainlineEvents::new(self)?),
            Abi::Extended(Layout::Posted) => transmute!(PostedEvents::new(self)),
            Abi::Extended(Layout::Trailing) => transmute!(TrailingEvents::new(self)),
        })
    }
}
