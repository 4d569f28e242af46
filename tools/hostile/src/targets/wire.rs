//! Any 64 bytes as events, in each layout, given to any guest: nothing panics, a refusal of the extended ABI
//! leaves no trace, and accepted events leave a state that the guest can take.

use arbitrary::{Result, Unstructured};
use seawall_arm::{Esr, ExceptionLevel, Mode, Pstate};
use seawall_events::kernel::{
    Applied, LastFault, SErrorDelivery, SeaPolicy, VcpuConfig, VirtualSError, get_events, handle_guest_sea,
    is_sea, prepare_run, set_events, set_events_bytes,
};
use seawall_events::wire::{ArmNisv, ArmSea, Mmio};
use seawall_events::{Abi, Errno, MmioExit, NisvExit, Reg, Registers, SeaExit, VcpuEvents};
use zerocopy::{FromBytes, IntoBytes};

#[path = "../../../../crates/events/examples/own_vcpu/vcpu.rs"]
mod vcpu;
use vcpu::Vcpu;

/// See the module.
pub(super) fn body(data: &[u8]) {
    // Missing bytes read as zeros, so this never fails, and a short input is a plain guest.
    let _ = one(&mut Unstructured::new(data));
}

fn one(input: &mut Unstructured<'_>) -> Result<()> {
    let mut bytes = [0; 64];
    input.fill_buffer(&mut bytes)?;
    // Most inputs would end at a reserved word: clear them for three in four.
    if input.ratio(3_u8, 4_u8)? {
        bytes[5..8].fill(0);
        bytes[24..56].fill(0);
    }
    let vcpu = any_guest(input)?;
    for abi in Abi::ALL {
        layouts(abi, &bytes);
        events(abi, &bytes, &vcpu);
    }
    exits(&bytes, vcpu);
    Ok(())
}

/// Any registers, in a mode that the guest has.
fn any_guest(input: &mut Unstructured<'_>) -> Result<Vcpu> {
    let el1_aarch32 = input.ratio(1_u8, 4_u8)?;
    let config = VcpuConfig {
        ras: input.arbitrary()?,
        mte: input.arbitrary()?,
        sctlr2: input.arbitrary()?,
        el2: !el1_aarch32 && input.arbitrary()?,
        el1_aarch32,
    };
    let esr = Esr::from_bits(input.arbitrary()?);
    let last_fault = LastFault { esr, far: input.arbitrary()?, ipa: input.arbitrary()? };
    let serror = VirtualSError {
        pending: input.arbitrary()?,
        vsesr: input.int_in_range(0..=Esr::ISS_MASK)?,
        held_for_el2: config.el2 && input.ratio(1_u8, 8_u8)?,
    };
    let walk_level = if input.arbitrary()? { Some(input.int_in_range(-1..=3)?) } else { None };
    let modes: &[Mode] = match (config.el1_aarch32, config.el2) {
        (true, _) => &[Mode::User, Mode::Supervisor, Mode::Abort, Mode::Irq, Mode::System],
        (false, true) => &[Mode::El0t, Mode::El1t, Mode::El1h, Mode::El2t, Mode::El2h],
        (false, false) => &[Mode::El0t, Mode::El1t, Mode::El1h, Mode::User],
    };
    let mode = *input.choose(modes)?;
    let mut vcpu =
        Vcpu { regs: [0; 52], config, last_fault, serror, mmio_waits: input.arbitrary()?, walk_level };
    for reg in &mut vcpu.regs {
        *reg = input.arbitrary()?;
    }
    vcpu.set_reg(Reg::Pstate, vcpu.reg(Reg::Pstate) & 0xffff_ffe0 | u64::from(mode.bits()));
    Ok(vcpu)
}

/// Readable events can be written, and are read back equal.
fn layouts(abi: Abi, bytes: &[u8; 64]) {
    let Ok(events) = VcpuEvents::from_bytes(abi, bytes) else { return };
    let written = events.to_bytes(abi).expect("it came from these bytes");
    assert_eq!(VcpuEvents::from_bytes(abi, &written), Ok(events));
    // The ESRs and the zeros are equal; a flag may be any byte that is not zero.
    assert_eq!(written[5..], bytes[5..]);
}

fn events(abi: Abi, bytes: &[u8; 64], before: &Vcpu) {
    let mut after = before.clone();
    match set_events_bytes(&mut after, abi, || Some(*bytes)) {
        Ok(applied) => accepted(abi, before, &after, applied),
        Err(refused) => {
            assert_eq!(refused.refusal.errno(), Errno::Einval);
            assert!(!refused.to_string().is_empty());
            if abi != Abi::Mainline || !refused.abort_delivered {
                assert!(abi == Abi::Mainline || !refused.abort_delivered);
                assert_eq!(after, *before, "{abi:?} {refused}");
            }
        }
    }
    let pending = get_events(&after).expect("it is initialised");
    assert!(pending.serror_esr <= Esr::ISS_MASK);
    assert!(!pending.ext_dabt_pending && !pending.ext_iabt_pending && !pending.ext_abt_has_esr);
    let _ = prepare_run(&mut after);
    assert!(Pstate::from_bits(after.reg(Reg::Pstate)).to_string().len() > 4);
}

fn accepted(abi: Abi, before: &Vcpu, after: &Vcpu, applied: Applied) {
    let pstate = Pstate::from_bits(after.reg(Reg::Pstate));
    let moved = after.reg(Reg::Pc) != before.reg(Reg::Pc) || pstate.bits() != before.reg(Reg::Pstate);
    let lost = applied.serror == Some(SErrorDelivery::Lost) && applied.abort.is_none();
    if moved && !lost {
        let handler = match (before.config.el1_aarch32, before.config.el2) {
            (true, _) => pstate.mode() == Mode::Abort,
            (false, true) => matches!(pstate.mode(), Mode::El1h | Mode::El2h),
            (false, false) => pstate.mode() == Mode::El1h,
        };
        assert!(handler, "{pstate:?}");
        assert!(pstate.has(Pstate::A) && pstate.has(Pstate::I) && !pstate.has(Pstate::IL), "{pstate:?}");
        assert!(!after.mmio_waits);
        let vbar = match pstate.exception_level() {
            ExceptionLevel::El2 => Reg::VbarEl2,
            _ => Reg::VbarEl1,
        };
        let pc = after.reg(Reg::Pc);
        if pstate.is_aarch32() {
            assert!(u32::try_from(pc).is_ok());
        } else {
            // The injector adds the offset to VBAR as written, RES0 bits included.
            let offset = pc.wrapping_sub(before.reg(vbar));
            assert!(offset < 0x800 && offset % 0x80 == 0, "{offset:#x}");
        }
    }
    let pending = get_events(after).expect("it is initialised");
    if !moved && before.config.ras && applied.serror == Some(SErrorDelivery::Pending) {
        let mut again = after.clone();
        set_events(&mut again, abi, &pending).expect("GET's events are SET's");
        assert_eq!(&again, after);
    }
}

/// The union of `kvm_run`, and the path to a SEA exit.
fn exits(bytes: &[u8; 64], mut vcpu: Vcpu) {
    let (sea, _) = ArmSea::read_from_prefix(bytes).expect("64 bytes hold it");
    assert_eq!(ArmSea::from(SeaExit::from(sea)).as_bytes(), sea.as_bytes());
    let (mmio, _) = Mmio::read_from_prefix(bytes).expect("64 bytes hold it");
    assert_eq!(MmioExit::from(mmio).phys_addr.to_le_bytes(), bytes[..8]);
    let (nisv, _) = ArmNisv::read_from_prefix(bytes).expect("64 bytes hold it");
    assert_eq!(NisvExit::from(nisv).fault_ipa.to_le_bytes(), bytes[8..16]);

    let (far, before) = (vcpu.last_fault.far, vcpu.clone());
    let was_sea = is_sea(vcpu.last_fault.esr);
    let policy = SeaPolicy { to_user: bytes[0] & 1 != 0, guest_has_ras: bytes[1] & 1 != 0 };
    if let Ok(exit) = handle_guest_sea(&mut vcpu, policy) {
        assert!(policy.to_user && vcpu.config.ras);
        assert_eq!(vcpu, before, "an exit pends nothing");
        assert_eq!(exit.esr.bits() & !(SeaExit::ESR_MASK | SeaExit::ESR_SET_MASK), 0);
        assert!(exit.gva_valid().is_none_or(|gva| gva == far));
        assert!(exit.gpa_valid().is_none_or(|gpa| gpa % 0x1000 == 0));
        assert_eq!(is_sea(exit.esr), was_sea);
        assert!(!exit.esr.to_string().is_empty());
    }
}
