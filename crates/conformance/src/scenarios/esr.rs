//! The ISS that user space gives an abort: the kernel ORs it into the ESR that it builds (the proposal of
//! 2025-07-31).

use seawall_events::{Abi, Layout, VcpuEvents};

use super::{data_abort, group, instruction_abort, stop_again, stopped_at, with_iss};
use crate::backend::Setup;
use crate::guest::words::LDR;
use crate::guest::{EL0, EL1H, Taken};
use crate::trial::{Outcome, Trial};

group! { "esr";
    each_iss_bit_of_a_data_abort needs Ras;
    each_iss_bit_of_an_instruction_abort needs Ras;
    each_iss_bit_of_a_data_abort_at_el0 needs Ras;
    each_iss_bit_of_an_instruction_abort_at_el0 needs Ras;
    measured_values_come_out_as_measured needs Ras;
    an_iss_without_has_esr_does_not_count;
    an_iss_with_fnv_leaves_far_as_it_is needs Ras;
    either_layout_carries_it needs Ras;
}

/// Injects for each case, from the same stop, and checks the whole state of the handler.
fn each(trial: &mut Trial, pstate: u64, base: VcpuEvents, at_entry: &Taken, cases: &[(u64, u64)]) -> Outcome {
    let mut guest = stopped_at(trial, Setup::default(), LDR, pstate)?;
    for (n, (iss, esr)) in cases.iter().enumerate() {
        trial.case(format!("ISS {iss:#x}"));
        if n > 0 {
            guest.restart(pstate)?;
            stop_again(&mut guest)?;
        }
        trial.inject(&mut guest, &with_iss(*iss, base))?;
        trial.delivered(&mut guest, &Taken { esr: *esr, ..*at_entry })?;
    }
    Ok(())
}

fn at_el1() -> Taken {
    Taken { far: 0x0a00_1008, ..Taken::default() }
}

fn at_el0() -> Taken {
    Taken { pc: 0x4009_0400, far: 0x0a00_1008, spsr: 0x3c0, ..Taken::default() }
}

/// Bits 0 to 24, one at a time. Bit 4 is set already: it is in FSC 0x10.
fn each_iss_bit_of_a_data_abort(trial: &mut Trial) -> Outcome {
    #[rustfmt::skip]
    let cases = [
        (0x1, 0x9600_0011), (0x2, 0x9600_0012), (0x4, 0x9600_0014),
        (0x8, 0x9600_0018), (0x10, 0x9600_0010), (0x20, 0x9600_0030),
        (0x40, 0x9600_0050), (0x80, 0x9600_0090), (0x100, 0x9600_0110),
        (0x200, 0x9600_0210), (0x400, 0x9600_0410), (0x800, 0x9600_0810),
        (0x1000, 0x9600_1010), (0x2000, 0x9600_2010), (0x4000, 0x9600_4010),
        (0x8000, 0x9600_8010), (0x10000, 0x9601_0010), (0x20000, 0x9602_0010),
        (0x40000, 0x9604_0010), (0x80000, 0x9608_0010), (0x100000, 0x9610_0010),
        (0x200000, 0x9620_0010), (0x400000, 0x9640_0010), (0x800000, 0x9680_0010),
        (0x1000000, 0x9700_0010),
    ];
    each(trial, EL1H, data_abort(), &at_el1(), &cases)
}

/// The same with EC 0x21.
fn each_iss_bit_of_an_instruction_abort(trial: &mut Trial) -> Outcome {
    #[rustfmt::skip]
    let cases = [
        (0x1, 0x8600_0011), (0x2, 0x8600_0012), (0x4, 0x8600_0014),
        (0x8, 0x8600_0018), (0x10, 0x8600_0010), (0x20, 0x8600_0030),
        (0x40, 0x8600_0050), (0x80, 0x8600_0090), (0x100, 0x8600_0110),
        (0x200, 0x8600_0210), (0x400, 0x8600_0410), (0x800, 0x8600_0810),
        (0x1000, 0x8600_1010), (0x2000, 0x8600_2010), (0x4000, 0x8600_4010),
        (0x8000, 0x8600_8010), (0x10000, 0x8601_0010), (0x20000, 0x8602_0010),
        (0x40000, 0x8604_0010), (0x80000, 0x8608_0010), (0x100000, 0x8610_0010),
        (0x200000, 0x8620_0010), (0x400000, 0x8640_0010), (0x800000, 0x8680_0010),
        (0x1000000, 0x8700_0010),
    ];
    each(trial, EL1H, instruction_abort(), &at_el1(), &cases)
}

/// The same with EC 0x24.
fn each_iss_bit_of_a_data_abort_at_el0(trial: &mut Trial) -> Outcome {
    #[rustfmt::skip]
    let cases = [
        (0x1, 0x9200_0011), (0x2, 0x9200_0012), (0x4, 0x9200_0014),
        (0x8, 0x9200_0018), (0x10, 0x9200_0010), (0x20, 0x9200_0030),
        (0x40, 0x9200_0050), (0x80, 0x9200_0090), (0x100, 0x9200_0110),
        (0x200, 0x9200_0210), (0x400, 0x9200_0410), (0x800, 0x9200_0810),
        (0x1000, 0x9200_1010), (0x2000, 0x9200_2010), (0x4000, 0x9200_4010),
        (0x8000, 0x9200_8010), (0x10000, 0x9201_0010), (0x20000, 0x9202_0010),
        (0x40000, 0x9204_0010), (0x80000, 0x9208_0010), (0x100000, 0x9210_0010),
        (0x200000, 0x9220_0010), (0x400000, 0x9240_0010), (0x800000, 0x9280_0010),
        (0x1000000, 0x9300_0010),
    ];
    each(trial, EL0, data_abort(), &at_el0(), &cases)
}

/// The same with EC 0x20.
fn each_iss_bit_of_an_instruction_abort_at_el0(trial: &mut Trial) -> Outcome {
    #[rustfmt::skip]
    let cases = [
        (0x1, 0x8200_0011), (0x2, 0x8200_0012), (0x4, 0x8200_0014),
        (0x8, 0x8200_0018), (0x10, 0x8200_0010), (0x20, 0x8200_0030),
        (0x40, 0x8200_0050), (0x80, 0x8200_0090), (0x100, 0x8200_0110),
        (0x200, 0x8200_0210), (0x400, 0x8200_0410), (0x800, 0x8200_0810),
        (0x1000, 0x8200_1010), (0x2000, 0x8200_2010), (0x4000, 0x8200_4010),
        (0x8000, 0x8200_8010), (0x10000, 0x8201_0010), (0x20000, 0x8202_0010),
        (0x40000, 0x8204_0010), (0x80000, 0x8208_0010), (0x100000, 0x8210_0010),
        (0x200000, 0x8220_0010), (0x400000, 0x8240_0010), (0x800000, 0x8280_0010),
        (0x1000000, 0x8300_0010),
    ];
    each(trial, EL0, instruction_abort(), &at_el0(), &cases)
}

/// The proposal's own selftest: ISV, SAS, SF, AR, CM, FnV, EA for data, ISV, FnV, EA for a fetch. And all bits at once.
fn measured_values_come_out_as_measured(trial: &mut Trial) -> Outcome {
    let data = [(0x1c0_c700, 0x97c0_c710), (0x1ff_ffff, 0x97ff_ffff), (0, 0x9600_0010)];
    each(trial, EL1H, data_abort(), &at_el1(), &data)?;
    let instruction = [(0x100_0600, 0x8700_0610), (0x1ff_ffff, 0x87ff_ffff), (0, 0x8600_0010)];
    each(trial, EL1H, instruction_abort(), &at_el1(), &instruction)
}

/// Not even an invalid one counts.
fn an_iss_without_has_esr_does_not_count(trial: &mut Trial) -> Outcome {
    let mut guest = stopped_at(trial, Setup::default(), LDR, EL1H)?;
    for (n, iss) in [0x1ff_ffff, 0x200_0000, u64::MAX].into_iter().enumerate() {
        trial.case(format!("ext_abt_esr {iss:#x}"));
        if n > 0 {
            guest.restart(EL1H)?;
            stop_again(&mut guest)?;
        }
        trial.inject(&mut guest, &VcpuEvents { ext_abt_esr: iss, ..data_abort() })?;
        trial.delivered(&mut guest, &Taken { esr: 0x9600_0010, ..at_el1() })?;
    }
    Ok(())
}

/// FnV says that FAR has no meaning. KVM still writes it.
fn an_iss_with_fnv_leaves_far_as_it_is(trial: &mut Trial) -> Outcome {
    let mut guest = stopped_at(trial, Setup::default(), LDR, EL1H)?;
    trial.inject(&mut guest, &with_iss(0x400, data_abort()))?;
    trial.delivered(&mut guest, &Taken { esr: 0x9600_0410, far: 0x0a00_1008, ..Taken::default() })
}

/// The posted layout has `ext_abt_esr` at 16, the thread's other candidate at 56.
fn either_layout_carries_it(trial: &mut Trial) -> Outcome {
    for (layout, offset) in [(Layout::Posted, 16), (Layout::Trailing, 56)] {
        trial.case(format!("{layout:?}"));
        let setup = Setup { abi: Abi::Extended(layout), ..Setup::default() };
        let mut guest = stopped_at(trial, setup, LDR, EL1H)?;
        let mut bytes = [0; 64];
        // ext_iabt_pending, ext_abt_has_esr
        (bytes[3], bytes[4]) = (1, 1);
        bytes[offset..offset + 8].copy_from_slice(&0x600_u64.to_le_bytes());
        guest.vm().set_events_bytes(&bytes)?;
        trial.delivered(&mut guest, &Taken { esr: 0x8600_0610, ..at_el1() })?;
    }
    Ok(())
}
