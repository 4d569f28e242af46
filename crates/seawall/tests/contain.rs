//! One containment with all of its parts: ledger, records, host and sink.

mod guest;

use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use guest::{Guest, PC, VBAR, at, vcpu_at};
use seawall::apei::ghes::{Ghes, GhesRegion};
use seawall::ledger::{Cause, Keeper};
use seawall::telemetry::ErrorReport;
use seawall::{
    Action, AddressMap, Answer, Contained, Containment, ErrorKind, Host, HostKnows, MemoryRegion, Recorded,
    Rules, SigbusExit, Source, StopReason,
};
use seawall_arm::Esr;
use seawall_events::{Abi, Layout, Refusal, Refused, Reg, Registers as _, SeaExit, VcpuEvents};
use seawall_inject::{Delivery, Inject, VcpuTraits};
use vm_memory::{Bytes as _, GuestAddress, GuestMemoryMmap};

const RAM: u64 = 0x4000_0000;
const HOST: u64 = 0x7f00_0000_0000;
/// The place of the records.
const RECORDS: u64 = RAM + 0x1000;
const NOW: Duration = Duration::ZERO;

/// The calls that the parts received.
#[derive(Clone, Default)]
struct Told {
    host: Arc<Mutex<Vec<Range<u64>>>>,
    reports: Arc<Mutex<Vec<ErrorReport>>>,
    repairs: bool,
}

impl Host for Told {
    fn tell(&mut self, bad: Range<u64>) -> HostKnows {
        self.host.lock().unwrap().push(bad);
        HostKnows::Kept
    }

    fn repair(&mut self, _: Range<u64>) -> bool {
        self.repairs
    }
}

/// A guest at EL0 with 2 MiB of RAM, and a containment with all parts.
fn all_parts(rules: Rules, told: &Told) -> (Guest, Containment, Arc<Keeper>, GuestMemoryMmap) {
    let exit = SeaExit { flags: 1, esr: Esr::from_bits(0x9200_0210), gva: 0x50_0123, gpa: RAM + 0x2_1000 };
    let vcpu = vcpu_at(0, 0x9200_0210, 0x50_0123);
    let guest = Guest { vcpu, abi: Abi::Extended(Layout::Posted), exit };
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(RAM), 0x20_0000)]).unwrap();
    let mut ghes = Ghes::new(GhesRegion { base: RECORDS, sea: 1, polled: 1, poll_interval: 1000 });
    ghes.reset(&memory).unwrap();
    let ledger = Arc::new(Keeper::default());
    let map = AddressMap::new([MemoryRegion { guest: RAM, host: HOST, size: 0x20_0000 }]).unwrap();
    let reports = told.reports.clone();
    let mut containment = Containment::new(rules)
        .with_addresses(map)
        .with_host(told.clone())
        .with_ledger(ledger.clone())
        .with_telemetry(move |report: &ErrorReport| reports.lock().unwrap().push(report.clone()));
    containment.set_records(Some(ghes));
    (guest, containment, ledger, memory)
}

/// The pages of the ledger, with their causes.
fn pages(ledger: &Keeper) -> Vec<(Range<u64>, Cause)> {
    ledger.with(|ledger| ledger.ranges().map(|bad| (bad.range, bad.cause)).collect())
}

/// The error status block's `Block Status`: 0 if there is no record (ACPI 18.3.2.7.1).
fn has_record(memory: &GuestMemoryMmap, source: u64) -> bool {
    memory.read_obj::<u32>(GuestAddress(RECORDS + source * 512 + 16)).unwrap() != 0
}

fn contain(
    containment: &mut Containment,
    guest: &mut Guest,
    source: impl Into<Source>,
    memory: &GuestMemoryMmap,
) -> Contained {
    containment.contain(guest, &source.into(), Some(memory), &at(NOW)).unwrap()
}

#[test]
fn a_sea_exit_is_entered_recorded_injected_and_told_to_the_host_and_to_people() {
    let told = Told::default();
    let (mut guest, mut containment, ledger, memory) = all_parts(Rules::DEFAULT, &told);
    let exit = guest.exit;
    let contained = contain(&mut containment, &mut guest, exit, &memory);
    assert_eq!(
        contained.to_string(),
        "load at EL0, PC 0x401040: gva 0x500123, gpa 0x40021000: data abort, ISS 0x210; guest at vector \
         0xffff800010000c00, ESR 0x92000210, FAR 0x500123; record at source 0; the host does not know of it: the page is \
         kept while this process lives"
    );
    assert_eq!(contained.stop(), None);
    assert_eq!(pages(&ledger), [(0x4002_1000..0x4002_2000, Cause::Consumed)]);
    assert!(has_record(&memory, 0));
    let bad = HOST + 0x2_1000..HOST + 0x2_2000;
    assert_eq!(told.host.lock().unwrap().as_slice(), std::slice::from_ref(&bad));
    let reports = told.reports.lock().unwrap();
    assert_eq!((reports.len(), reports[0].host.as_deref()), (1, Some("kept")));
}

#[test]
fn a_dry_run_enters_nothing_anywhere_and_reports() {
    let told = Told { repairs: true, ..Told::default() };
    for rules in [Rules::DEFAULT, Rules::DEFAULT.with(ErrorKind::UserData, Answer::HostFirst)] {
        let (mut guest, containment, ledger, memory) = all_parts(rules, &told);
        let mut containment = containment.with_dry_run(true);
        let (before, exit) = (guest.vcpu.clone(), guest.exit);
        let contained = contain(&mut containment, &mut guest, exit, &memory);
        assert!(matches!(contained.outcome().unwrap().action, Action::DryRun(_)), "{contained}");
        let sigbus = SigbusExit { address: HOST + 0x3000, lsb: 12, action_required: false };
        let _ = contain(&mut containment, &mut guest, sigbus, &memory);
        assert_eq!((guest.vcpu, pages(&ledger)), (before, vec![]));
        assert!(!has_record(&memory, 0) && !has_record(&memory, 1));
    }
    assert_eq!(*told.host.lock().unwrap(), []);
    let reports = told.reports.lock().unwrap();
    assert_eq!(reports.iter().map(|report| &*report.guest).collect::<Vec<_>>(), ["dry-run", "dry-run"]);
}

/// sigaction(2): `si_addr_lsb` is the size of the lost range around `si_addr`.
#[test]
fn sigbus_names_all_that_the_host_took_away_and_the_host_knows() {
    let told = Told::default();
    let (mut guest, mut containment, ledger, memory) = all_parts(Rules::DEFAULT, &told);
    let sigbus = SigbusExit { address: HOST + 0x2_1234, lsb: 16, action_required: true };
    let contained = contain(&mut containment, &mut guest, sigbus, &memory);
    let outcome = contained.outcome().unwrap();
    assert_eq!(outcome.error.range(), Some(0x4002_0000..0x4003_0000));
    assert_eq!((outcome.recorded, outcome.host), (Recorded::AtSource(0), Some(HostKnows::Told)));
    assert_eq!(pages(&ledger), [(0x4002_0000..0x4003_0000, Cause::Consumed)]);
    assert_eq!(guest.vcpu.reg(Reg::EsrEl1), 0x9200_0010);
    assert_eq!(*told.host.lock().unwrap(), [], "it told us");
}

#[test]
fn an_early_warning_is_entered_and_announced_and_the_vcpu_is_left_alone() {
    let told = Told::default();
    let (mut guest, mut containment, ledger, memory) = all_parts(Rules::DEFAULT, &told);
    let before = guest.vcpu.clone();
    let sigbus = SigbusExit { address: HOST + 0x2_1000, lsb: 12, action_required: false };
    let contained = contain(&mut containment, &mut guest, sigbus, &memory);
    assert_eq!(contained, Contained::Found(0x4002_1000..0x4002_2000));
    assert_eq!(
        contained.to_string(),
        "the host found 0x1000 bytes at gpa 0x40021000 bad; no vCPU has touched them"
    );
    assert_eq!(contained.stop(), None);
    assert_eq!(pages(&ledger), [(0x4002_1000..0x4002_2000, Cause::Found)]);
    assert!(!has_record(&memory, 0) && has_record(&memory, 1), "at the polled source");
    assert_eq!(guest.vcpu, before);
}

#[test]
fn bad_memory_that_is_not_the_guests_stops_it_only_if_a_vcpu_touched_it() {
    let (mut guest, mut containment, ledger, memory) = all_parts(Rules::DEFAULT, &Told::default());
    for (action_required, stop) in [(false, None), (true, Some(StopReason::NotGuests { address: 0x1000 }))] {
        let sigbus = SigbusExit { address: 0x1000, lsb: 12, action_required };
        let contained = contain(&mut containment, &mut guest, sigbus, &memory);
        assert_eq!((&contained, contained.stop()), (&Contained::NotGuests(sigbus), stop));
    }
    assert_eq!(pages(&ledger), []);
    assert_eq!(guest.vcpu.reg(Reg::Pc), PC);
    // A shift that no host reports.
    let sigbus = SigbusExit { address: 0x1000, lsb: 255, action_required: false };
    assert!(matches!(contain(&mut containment, &mut guest, sigbus, &memory), Contained::Found(_)));
}

#[test]
fn a_host_with_a_copy_puts_it_there_and_the_guest_never_knows() {
    let told = Told { repairs: true, ..Told::default() };
    let rules = Rules::DEFAULT.with(ErrorKind::UserData, Answer::HostFirst);
    let (mut guest, mut containment, ledger, memory) = all_parts(rules, &told);
    let (before, exit) = (guest.vcpu.clone(), guest.exit);
    let contained = contain(&mut containment, &mut guest, exit, &memory);
    assert_eq!(contained.outcome().unwrap().action, Action::Repaired);
    assert_eq!(guest.vcpu, before);
    assert!(!has_record(&memory, 0));
    assert_eq!(pages(&ledger), [], "what is there now is good");
    assert_eq!(*told.host.lock().unwrap(), [], "and is not to be taken away");
}

/// Linux takes the frame of the record's address offline (`ghes_do_memory_failure`), and the host is told of
/// its own page.
#[test]
fn of_a_larger_page_the_record_names_where_it_was_met_and_the_host_loses_no_more_than_its_own() {
    const TG0_64K: u64 = 0b01 << 14;
    for (tcr, host_page, page, lost) in
        [(TG0_64K, 0x1000, 0x1000, 0x1_0000), (0, 0x1_0000, 0x1_0000, 0x1_0000), (0, 0x1000, 0x1000, 0x1000)]
    {
        let told = Told::default();
        let (mut guest, containment, ledger, memory) = all_parts(Rules::DEFAULT, &told);
        let mut containment = containment.with_host_page(host_page);
        guest.vcpu.set_reg(Reg::TcrEl1, tcr);
        guest.exit.gpa = RAM + 0x2_d000;
        let exit = guest.exit;
        let _ = contain(&mut containment, &mut guest, exit, &memory);
        let start = (RAM + 0x2_d000) & !(lost - 1);
        assert_eq!(pages(&ledger), [(start..start + lost, Cause::Consumed)]);
        // Behind block and entry: UEFI 2.10, N.2.5.
        let address: u64 = memory.read_obj(GuestAddress(RECORDS + 16 + 20 + 72 + 16)).unwrap();
        assert_eq!(address, RAM + 0x2_d000);
        let told_of = (HOST + 0x2_d000) & !(page - 1);
        assert_eq!(told.host.lock().unwrap().as_slice(), std::slice::from_ref(&(told_of..told_of + page)));
    }
}

#[test]
fn of_a_huge_page_over_two_slots_the_one_that_was_touched_is_consumed() {
    let (mut guest, containment, ledger, memory) = all_parts(Rules::DEFAULT, &Told::default());
    let slots = [
        MemoryRegion { guest: RAM, host: HOST, size: 0x8000 },
        MemoryRegion { guest: RAM + 0x10_0000, host: HOST + 0x8000, size: 0x8000 },
    ];
    let mut containment = containment.with_addresses(AddressMap::new(slots).unwrap());
    let sigbus = SigbusExit { address: HOST + 0x9000, lsb: 16, action_required: true };
    let _ = contain(&mut containment, &mut guest, sigbus, &memory);
    let (first, second) = (RAM..RAM + 0x8000, RAM + 0x10_0000..RAM + 0x10_8000);
    assert_eq!(pages(&ledger), [(first, Cause::Found), (second, Cause::Consumed)]);
}

/// A vCPU whose registers cannot be written.
struct Fails {
    guest: Guest,
    injects: bool,
}

impl Inject for Fails {
    type Error = Refused;

    fn traits(&self) -> VcpuTraits {
        self.guest.traits()
    }

    fn reg(&self, reg: Reg) -> Result<u64, Refused> {
        self.guest.reg(reg)
    }

    fn set_reg(&mut self, _: Reg, _: u64) -> Result<(), Refused> {
        Err(Refusal::Unreadable.into())
    }

    fn inject(&mut self, events: &VcpuEvents) -> Result<Delivery, Refused> {
        if self.injects { self.guest.inject(events) } else { Err(Refusal::Unreadable.into()) }
    }
}

#[test]
fn a_record_whose_abort_does_not_follow_is_taken_back() {
    let (guest, mut containment, _, memory) = all_parts(Rules::DEFAULT, &Told::default());
    let source = Source::Sea(guest.exit);
    let mut fails = Fails { guest, injects: false };
    assert!(containment.contain(&mut fails, &source, Some(&memory), &at(NOW)).is_err());
    assert!(!has_record(&memory, 0));
    fails.injects = true;
    let contained = containment.contain(&mut fails, &source, Some(&memory), &at(NOW)).unwrap();
    assert_eq!(contained.outcome().unwrap().recorded, Recorded::AtSource(0), "it is free again");
}

/// An error would say that nothing was injected.
#[test]
fn a_fetch_that_cannot_be_told_as_one_is_a_data_abort() {
    let (mut guest, mut containment, _, memory) = all_parts(Rules::DEFAULT, &Told::default());
    guest.vcpu = vcpu_at(0, 0x9200_0007, PC);
    let sigbus = SigbusExit { address: HOST + 0x2_1000, lsb: 12, action_required: true };
    let mut fails = Fails { guest, injects: true };
    let contained = containment.contain(&mut fails, &sigbus.into(), Some(&memory), &at(NOW)).unwrap();
    let Action::Injected { guest: Delivery::AtVector { esr, .. }, .. } = contained.outcome().unwrap().action
    else {
        panic!("{contained}")
    };
    assert_eq!(esr.bits(), 0x9200_0010);
}

#[test]
fn an_error_whose_record_cannot_be_written_is_injected_alone() {
    let (mut guest, mut containment, _, _) = all_parts(Rules::DEFAULT, &Told::default());
    let elsewhere = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x1000)]).unwrap();
    let exit = guest.exit;
    let contained = contain(&mut containment, &mut guest, exit, &elsewhere);
    assert_eq!(contained.outcome().unwrap().recorded, Recorded::Unwritable);
    assert_eq!(guest.vcpu.reg(Reg::Pc), VBAR + 0x400);
}

/// One record at a time: see `Containment::record`.
#[test]
fn a_vcpu_that_waits_is_told_of_to_nobody() {
    let told = Told::default();
    let (mut guest, mut containment, _, memory) = all_parts(Rules::DEFAULT, &told);
    let exit = guest.exit;
    let _ = contain(&mut containment, &mut guest, exit, &memory);
    let (mut other, _, _, _) = all_parts(Rules::DEFAULT, &told);
    let contained = contain(&mut containment, &mut other, exit, &memory);
    assert_eq!((contained.outcome(), contained.stop()), (None, None));
    assert_eq!(other.vcpu.reg(Reg::Pc), PC);
    assert_eq!((told.host.lock().unwrap().len(), told.reports.lock().unwrap().len()), (1, 1));
}
