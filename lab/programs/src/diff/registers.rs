//! The registers of each guest that are written, compared, and configuration.

use seawall_arm::Reg;

pub use seawall_inject::GuestKind as Guest;

/// The general-purpose registers that guest programs and injections write; the others do not change.
const USED: [Reg; 5] = [Reg::X(0), Reg::X(1), Reg::X(2), Reg::X(3), Reg::X(20)];

const AARCH64: [Reg; 6] = [Reg::Pc, Reg::Pstate, Reg::ElrEl1, Reg::SpsrEl1, Reg::EsrEl1, Reg::FarEl1];
const AARCH32: [Reg; 6] = [Reg::Pc, Reg::Pstate, Reg::SpsrAbt, Reg::EsrEl1, Reg::FarEl1, Reg::Ifsr32];
const EL2: [Reg; 5] = [Reg::ElrEl2, Reg::SpsrEl2, Reg::EsrEl2, Reg::FarEl2, Reg::VsesrEl2];

/// The registers that are compared after each step.
pub fn compared(guest: Guest) -> impl Iterator<Item = Reg> + Clone {
    let (own, el2): (&[Reg], &[Reg]) = match guest {
        Guest::Aarch64 => (&AARCH64, &[]),
        Guest::Aarch32 => (&AARCH32, &[]),
        Guest::Nested => (&AARCH64, &EL2),
    };
    own.iter().chain(el2).chain(&USED).copied()
}

/// Registers that configure exceptions; KVM or its CPU may not keep all of their bits.
pub fn configuration(guest: Guest) -> &'static [Reg] {
    match guest {
        Guest::Aarch64 => &[Reg::SctlrEl1, Reg::Sctlr2El1, Reg::VbarEl1, Reg::TcrEl1],
        Guest::Aarch32 => &[Reg::SctlrEl1, Reg::VbarEl1, Reg::TcrEl1],
        Guest::Nested => &[
            Reg::HcrEl2,
            Reg::HcrxEl2,
            Reg::SctlrEl2,
            Reg::Sctlr2El2,
            Reg::VbarEl2,
            Reg::SctlrEl1,
            Reg::Sctlr2El1,
            Reg::VbarEl1,
            Reg::TcrEl1,
        ],
    }
}

/// The registers with which a sequence begins, in writing order: PSTATE is the last, because KVM narrows
/// registers once it names AArch32 state.
pub fn written(guest: Guest) -> impl Iterator<Item = Reg> + Clone {
    let pc_and_pstate = [Reg::Pc, Reg::Pstate];
    let first = (0..31).map(Reg::X).chain(configuration(guest).iter().copied());
    let rest = compared(guest).filter(|reg| !matches!(reg, Reg::X(_) | Reg::Pc | Reg::Pstate));
    first.chain(rest).chain(pc_and_pstate)
}
