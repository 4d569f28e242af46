//! The kernel half and the decoder: nanoseconds per call.

use std::fmt::Write as _;
use std::hint::black_box;

use seawall_arm::{Esr, Reg, Registers};
use seawall_events::kernel::{LastFault, VcpuConfig, VcpuState, VirtualSError, set_events_bytes};
use seawall_events::{Abi, Layout};

use super::cost::{Cost, Stopwatch};
use super::{Measure, Promise, Trial};

pub(crate) const SET_EVENTS: &str = "set_events, bytes to guest state";
pub(crate) const DECODE: &str = "ESR decode to fields";
pub(crate) const TEXT: &str = "ESR decode to text";

/// Calls in one measurement.
const CALLS: u32 = 1_000_000;

/// Nanoseconds per call of `call`, which gets the number of the call.
fn nanoseconds(mut call: impl FnMut(usize)) -> Cost {
    let start = Stopwatch::start();
    for n in 0..CALLS as usize {
        call(n);
    }
    start.stop().map(|seconds| seconds * 1e9 / f64::from(CALLS))
}

/// `KVM_SET_VCPU_EVENTS` with an instruction abort and a data abort in turn, each with an ESR, into a task at EL0.
pub(super) fn set_events() -> Trial<'static> {
    let mut instruction_abort = [0; 64];
    instruction_abort[3] = 1; // ext_iabt_pending
    instruction_abort[4] = 1; // ext_abt_has_esr
    instruction_abort[17] = 2; // ext_abt_esr: EA
    let mut data_abort = instruction_abort;
    data_abort.swap(2, 3); // ext_dabt_pending
    let calls = [instruction_abort, data_abort];
    let ours = Box::new(move || {
        let mut vcpu = BenchVcpu::default();
        let mut refused = 0;
        let time = nanoseconds(|n| {
            vcpu.set_reg(Reg::Pc, 0x40_1040);
            vcpu.set_reg(Reg::Pstate, 0); // EL0t
            let bytes = black_box(calls[n % 2]);
            refused += u32::from(set_events_bytes(&mut vcpu, ABI, || Some(bytes)).is_err());
            black_box(&vcpu);
        });
        let delivered = refused == 0 && vcpu.reg(Reg::EsrEl1) == 0x9200_0210;
        delivered.then_some(time).ok_or_else(|| "the abort was not delivered".to_owned())
    });
    Trial { name: SET_EVENTS, unit: "ns", promise: Promise::AtMost(100.0), ours, peers: Vec::new() }
}

/// Syndromes of aborts and SErrors, and some of everything else, with ISS bits in every combination of a kind.
fn syndromes() -> Vec<u64> {
    let classes = [0x20, 0x21, 0x24, 0x25, 0x2f, 0x15, 0x18, 0x3c];
    let iss = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 39;
    classes.iter().cycle().zip(0..1024).map(|(class, n)| class << 26 | 1 << 25 | iss(n)).collect()
}

/// Every field of the syndrome of an abort or an SError.
pub(super) fn decode() -> Trial<'static> {
    let esrs = syndromes();
    let ours = Box::new(move || {
        Ok(nanoseconds(|n| {
            black_box(Esr::from_bits(black_box(esrs[n % esrs.len()])).syndrome());
        }))
    });
    Trial { name: DECODE, unit: "ns", promise: Promise::AtMost(10.0), ours, peers: Vec::new() }
}

/// The text of a log line, of syndromes that the peer accepts, too: it makes a tree of fields, and text of that.
pub(super) fn text() -> Trial<'static> {
    let mut esrs = syndromes();
    esrs.retain(|esr| aarch64_esr_decoder::decode(*esr).is_ok());
    let of_peer = esrs.clone();
    let ours = Box::new(move || {
        let mut line = String::with_capacity(256);
        Ok(nanoseconds(|n| {
            line.clear();
            let _ = write!(line, "{}", Esr::from_bits(black_box(esrs[n % esrs.len()])));
            black_box(&line);
        }))
    });
    let peer: Measure<'_> = Box::new(move || {
        let mut line = String::with_capacity(1024);
        Ok(nanoseconds(|n| {
            line.clear();
            for field in
                aarch64_esr_decoder::decode(black_box(of_peer[n % of_peer.len()])).into_iter().flatten()
            {
                let _ = write!(line, "{field}");
            }
            black_box(&line);
        }))
    });
    let peers = vec![("aarch64-esr-decoder".to_owned(), peer)];
    Trial { name: TEXT, unit: "ns", promise: Promise::AtMost(1000.0), ours, peers }
}

const ABI: Abi = Abi::Extended(Layout::Posted);

/// A vCPU as a small hypervisor has it: a register file, and what the last abort was.
#[derive(Default)]
struct BenchVcpu {
    pc: u64,
    pstate: u64,
    elr: u64,
    spsr: u64,
    esr: u64,
    far: u64,
    serror: VirtualSError,
    mmio_waits: bool,
}

impl Registers for BenchVcpu {
    fn reg(&self, reg: Reg) -> u64 {
        match reg {
            Reg::Pc => self.pc,
            Reg::Pstate => self.pstate,
            Reg::ElrEl1 => self.elr,
            Reg::SpsrEl1 => self.spsr,
            Reg::EsrEl1 => self.esr,
            Reg::FarEl1 => self.far,
            Reg::VbarEl1 => 0xffff_8000_0001_0800,
            Reg::SctlrEl1 => 0x30d0_181d,
            _ => 0,
        }
    }

    fn set_reg(&mut self, reg: Reg, value: u64) {
        match reg {
            Reg::Pc => self.pc = value,
            Reg::Pstate => self.pstate = value,
            Reg::ElrEl1 => self.elr = value,
            Reg::SpsrEl1 => self.spsr = value,
            Reg::EsrEl1 => self.esr = value,
            Reg::FarEl1 => self.far = value,
            _ => {}
        }
    }
}

impl VcpuState for BenchVcpu {
    fn config(&self) -> VcpuConfig {
        VcpuConfig { ras: true, ..VcpuConfig::default() }
    }

    fn last_fault(&self) -> LastFault {
        LastFault { esr: Esr::from_bits(0x8200_0210), far: 0x40_1040, ipa: Some(0x8020_1000) }
    }

    fn walk_level(&self, _va: u64, _descriptor_ipa: u64) -> Option<i8> {
        None
    }

    fn drop_mmio(&mut self) {
        self.mmio_waits = false;
    }

    fn serror(&self) -> VirtualSError {
        self.serror
    }

    fn set_serror(&mut self, serror: VirtualSError) {
        self.serror = serror;
    }
}
