//! The steps of a containment one by one: decide, record, inject; and SIGBUS, which reports less than an
//! exit.

mod guest;

use std::time::{Duration, SystemTime};

use guest::{Guest, Met, PC, VBAR, vcpu_at};
use seawall::apei::cper::{MemoryErrorRecord, RECORD_SIZE};
use seawall::apei::ghes::{Ghes, GhesRegion};
use seawall::{
    Access, Action, Containment, Delivery, Evacuate, EvacuationThreshold, Recorded, Rules, StormGuard,
    Verdict,
};
use seawall_arm::{Esr, Target};
use seawall_events::{Abi, Layout, Reg, Registers, SeaExit};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

const BASE: u64 = 0x4000_0000;
const POSTED: Abi = Abi::Extended(Layout::Posted);

/// A guest in `pstate` at PC, whose last stage 2 fault was at `far`.
fn guest(abi: Abi, pstate: u64, far: u64) -> Guest {
    let exit = SeaExit { flags: 0, esr: Esr::from_bits(0), gva: 0, gpa: 0 };
    Guest { vcpu: vcpu_at(pstate, 0x9200_0007, far), abi, exit }
}

fn sigbus() -> Met {
    Met::Sigbus(0x4021_0000..0x4022_0000)
}

fn sea(gpa: u64) -> Met {
    Met::Sea(SeaExit { flags: 1, esr: Esr::from_bits(0x9200_0210), gva: 0x50_0123, gpa })
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A containment with one source for SEAs, in its own memory.
fn with_one_record(policy: Rules) -> (Containment, GuestMemoryMmap) {
    with_records(policy, 1)
}

/// A containment with `sea` sources for SEAs.
fn with_records(policy: Rules, sea: u16) -> (Containment, GuestMemoryMmap) {
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(BASE), 0x4000)]).unwrap();
    let mut ghes = Ghes::new(GhesRegion { base: BASE, sea, polled: 0, poll_interval: 0 });
    ghes.reset(&memory).unwrap();
    let mut containment = Containment::new(policy);
    containment.set_records(Some(ghes));
    (containment, memory)
}

fn record_at_source_0(memory: &GuestMemoryMmap) -> MemoryErrorRecord {
    let mut bytes = [0; RECORD_SIZE];
    memory.read_slice(&mut bytes, GuestAddress(BASE + 16)).unwrap();
    MemoryErrorRecord::from_bytes(&bytes).unwrap()
}

fn acknowledge(memory: &GuestMemoryMmap) {
    memory.write_obj(1_u64, GuestAddress(BASE + 8)).unwrap();
}

/// The FAR is that of the last stage 2 fault, exact to the byte (KVM, `inject_abt64`).
#[test]
fn after_sigbus_the_far_tells_a_fetch_from_a_load() {
    for (pstate, far, esr) in [
        (0, PC, 0x8200_0010),
        (0, PC + 3, 0x8200_0010),
        (0, PC + 4, 0x9200_0010),
        (0, PC - 1, 0x9200_0010),
        (5, PC, 0x8600_0010),
        (5, 0x50_0123, 0x9600_0010),
    ] {
        for abi in [Abi::Mainline, POSTED] {
            let mut guest = guest(abi, pstate, far);
            let mut containment = Containment::new(Rules::FULL);
            let decision = guest::decide(&mut containment, &guest, &sigbus(), seconds(0)).unwrap();
            let outcome = containment.inject(&mut guest, decision).unwrap();
            let Action::Injected { guest: state, .. } = outcome.action else { panic!("{outcome}") };
            let pc = VBAR + if pstate == 0 { 0x400 } else { 0x200 };
            let expected = Delivery::AtVector { target: Target::El1, pc, esr: Esr::from_bits(esr), far };
            assert_eq!(state, expected, "{far:#x}");
            assert_eq!(guest.vcpu.reg(Reg::EsrEl1), esr);
        }
    }
}

#[test]
fn mainline_and_serror_are_the_same_after_sigbus_as_after_an_exit() {
    let mut victim = guest(Abi::Mainline, 0, PC);
    let mut containment = Containment::new(Rules::MAINLINE);
    let decision = guest::decide(&mut containment, &victim, &sigbus(), seconds(0)).unwrap();
    containment.inject(&mut victim, decision).unwrap();
    assert_eq!(victim.vcpu.reg(Reg::EsrEl1), 0x9200_0010, "a fetch as data");
    let mut victim = guest(Abi::Mainline, 0, PC);
    let mut containment = Containment::new(Rules::SERROR);
    let decision = guest::decide(&mut containment, &victim, &sigbus(), seconds(0)).unwrap();
    containment.inject(&mut victim, decision).unwrap();
    assert_eq!(victim.vcpu.reg(Reg::Pc), VBAR + 0x580);
}

#[test]
fn sigbus_says_how_much_is_bad_and_nothing_of_the_access() {
    let guest = guest(POSTED, 0, 0x50_0123);
    let decision = guest::decide(&mut Containment::new(Rules::FULL), &guest, &sigbus(), seconds(0)).unwrap();
    let error = decision.error;
    assert_eq!(error.range(), Some(0x4021_0000..0x4022_0000));
    assert_eq!((error.access, error.gva, error.esr), (Access::Unknown, None, None));
    assert_eq!(error.to_string(), "access at EL0, PC 0x401040: gva unknown, gpa 0x40210000");
}

/// Linux takes its own page around a record's address offline (`ghes_do_memory_failure`: `PHYS_PFN`), and a
/// host its own (`si_addr_lsb`); a SEA exit names 4 KiB in every case. DDI 0487, `TCR_EL1`: TG0 is `[15:14]`,
/// TG1 `[31:30]`.
#[test]
fn an_error_costs_a_page_of_the_guests_or_of_the_hosts_as_a_whole() {
    const TG0_16K: u64 = 0b10 << 14;
    const TG0_64K: u64 = 0b01 << 14;
    const TG1_16K: u64 = 0b01 << 30;
    const TG1_64K: u64 = 0b11 << 30;
    const USER: u64 = 0x50_0123;
    const KERNEL: u64 = 0xffff_8000_0050_0123;
    let exit = |gva| Met::Sea(SeaExit { flags: 1, esr: Esr::from_bits(0x9200_0210), gva, gpa: 0x4021_d000 });
    let by_host = |range| Met::Sigbus(range);
    for (tcr, pstate, host_page, source, range, mask) in [
        (0, 0, 0x1000, exit(USER), 0x4021_d000..0x4021_e000, 0xffff_ffff_ffff_f000_u64),
        (TG0_16K, 0, 0x1000, exit(USER), 0x4021_c000..0x4022_0000, 0xffff_ffff_ffff_c000),
        (TG0_64K, 0, 0x1000, exit(USER), 0x4021_0000..0x4022_0000, 0xffff_ffff_ffff_0000),
        (TG0_16K, 5, 0x1000, exit(KERNEL), 0x4021_d000..0x4021_e000, 0xffff_ffff_ffff_f000),
        (TG1_16K, 5, 0x1000, exit(KERNEL), 0x4021_c000..0x4022_0000, 0xffff_ffff_ffff_c000),
        (TG1_64K, 5, 0x1000, exit(KERNEL), 0x4021_0000..0x4022_0000, 0xffff_ffff_ffff_0000),
        // The host's pages are larger.
        (0, 0, 0x1_0000, exit(USER), 0x4021_0000..0x4022_0000, 0xffff_ffff_ffff_0000),
        (TG0_16K, 0, 0x1_0000, exit(USER), 0x4021_0000..0x4022_0000, 0xffff_ffff_ffff_0000),
        (TG0_64K, 0, 0x4000, exit(USER), 0x4021_0000..0x4022_0000, 0xffff_ffff_ffff_0000),
        // 4 KiB of the host, in a page of the guest.
        (
            TG0_16K,
            0,
            0x1000,
            by_host(0x4021_d000..0x4021_e000),
            0x4021_c000..0x4022_0000,
            0xffff_ffff_ffff_c000,
        ),
        (0, 0, 0x1000, by_host(0x4021_d000..0x4021_e000), 0x4021_d000..0x4021_e000, 0xffff_ffff_ffff_f000),
        // AArch32 at EL0: no kernel with larger pages supports it.
        (TG0_16K, 0x10, 0x1000, exit(USER), 0x4021_d000..0x4021_e000, 0xffff_ffff_ffff_f000),
    ] {
        let what = format!("{tcr:#x}, {pstate:#x}, {host_page:#x}, {source:x?}");
        let mut guest = guest(POSTED, pstate, 0);
        guest.vcpu.set_reg(Reg::TcrEl1, tcr);
        let (mut containment, memory) = with_one_record(Rules::FULL);
        containment.set_host_page(host_page);
        let mut decision = guest::decide(&mut containment, &guest, &source, seconds(0)).unwrap();
        assert_eq!(decision.error.range(), Some(range.clone()), "{what}");
        containment.record(&memory, &mut decision, SystemTime::UNIX_EPOCH).unwrap();
        // Address and mask of the memory section, behind block and entry. UEFI 2.10, N.2.5.
        let word = |at| memory.read_obj::<u64>(GuestAddress(BASE + 16 + 20 + 72 + at)).unwrap();
        assert_eq!((word(16), word(24)), (0x4021_d000, mask), "{what}");
    }
}

#[test]
fn a_decision_alone_changes_nothing_of_the_guest() {
    let guest = guest(POSTED, 0, 0x50_0123);
    let before = guest.vcpu.clone();
    let decision =
        guest::decide(&mut Containment::new(Rules::FULL), &guest, &sea(0x4021_0000), seconds(0)).unwrap();
    assert!(matches!(decision.verdict, Verdict::Inject(_)));
    assert_eq!(guest.vcpu, before);
}

/// Two vCPUs met bad memory, and their decisions were swapped: an abort without an error would kill a healthy
/// process.
#[test]
fn a_decision_about_another_vcpu_is_refused_and_changes_nothing() {
    let (one, mut other) = (guest(POSTED, 0, 0x50_0123), guest(POSTED, 0, 0x50_0123));
    other.vcpu.set_reg(Reg::Pc, PC + 0x40);
    let before = other.vcpu.clone();
    let mut containment = Containment::new(Rules::FULL);
    let decision = guest::decide(&mut containment, &one, &sea(0x4021_0000), seconds(0)).unwrap();
    let error = containment.inject(&mut other, decision).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the decision is about a vCPU at PC 0x401040, and this one is at PC 0x401080: give it the decision about its \
         own error, before it runs again"
    );
    assert_eq!(other.vcpu, before);
}

#[test]
fn the_record_names_the_page_and_lies_there_before_the_abort() {
    let (mut containment, memory) = with_one_record(Rules::FULL);
    let mut guest = guest(POSTED, 0, 0x50_0123);
    let mut decision = guest::decide(&mut containment, &guest, &sea(0x4021_0000), seconds(0)).unwrap();
    containment.record(&memory, &mut decision, SystemTime::UNIX_EPOCH + seconds(9)).unwrap();
    let record = record_at_source_0(&memory);
    assert_eq!(record.range, 0x4021_0000..0x4021_1000);
    assert_eq!(record.time, SystemTime::UNIX_EPOCH + seconds(9));
    assert_eq!(guest.vcpu.reg(Reg::Pc), PC, "not injected yet");
    let outcome = containment.inject(&mut guest, decision).unwrap();
    assert_eq!(outcome.recorded, Recorded::AtSource(0));
    assert!(outcome.to_string().ends_with("FAR 0x500123; record at source 0"), "{outcome}");
}

#[test]
fn the_record_of_a_huge_page_names_all_of_it() {
    let (mut containment, memory) = with_one_record(Rules::FULL);
    let source = Met::Sigbus(0x4000_0000..0x4020_0000);
    let mut decision = guest::decide(&mut containment, &guest(POSTED, 0, 0), &source, seconds(0)).unwrap();
    containment.record(&memory, &mut decision, SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!(record_at_source_0(&memory).range, 0x4000_0000..0x4020_0000);
}

#[test]
fn what_is_no_abort_or_has_no_address_gets_no_record() {
    let (mut containment, memory) = with_one_record(Rules::SERROR);
    let mut decision =
        guest::decide(&mut containment, &guest(POSTED, 0, 0), &sea(0x4021_0000), seconds(0)).unwrap();
    containment.record(&memory, &mut decision, SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!(decision.recorded, Recorded::No);
    let (mut containment, memory) = with_one_record(Rules::FULL);
    let walk = SeaExit { flags: 0, esr: Esr::from_bits(0x9200_0217), gva: 0x50_0123, gpa: 0 };
    let mut decision =
        guest::decide(&mut containment, &guest(POSTED, 0, 0), &Met::Sea(walk), seconds(0)).unwrap();
    containment.record(&memory, &mut decision, SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!(decision.recorded, Recorded::No);
    assert!(matches!(decision.verdict, Verdict::Inject(_)));
}

#[test]
fn a_second_error_waits_until_the_guest_has_read_the_first_one_s_record() {
    let (mut containment, memory) = with_one_record(Rules::FULL);
    let mut guest = guest(POSTED, 0, 0x50_0123);
    let mut first = guest::decide(&mut containment, &guest, &sea(0x4021_0000), seconds(0)).unwrap();
    containment.record(&memory, &mut first, SystemTime::UNIX_EPOCH).unwrap();
    // More often than a storm allows, and within the second.
    for try_number in 0..40 {
        let now = Duration::from_millis(try_number * 20);
        let mut second = guest::decide(&mut containment, &guest, &sea(0x4030_0000), now).unwrap();
        containment.record(&memory, &mut second, SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(second.verdict, Verdict::Wait);
        assert_eq!(containment.inject(&mut guest, second).unwrap().action, Action::Waiting);
        assert_eq!(guest.vcpu.reg(Reg::Pc), PC);
    }
    acknowledge(&memory);
    let mut second =
        guest::decide(&mut containment, &guest, &sea(0x4030_0000), Duration::from_millis(900)).unwrap();
    containment.record(&memory, &mut second, SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!(second.recorded, Recorded::AtSource(0));
    assert_eq!(record_at_source_0(&memory).range, 0x4030_0000..0x4030_1000);
}

/// Linux with `PREEMPT_RT` reads the record at the abort and takes the page offline in a thread (`irq_work`, then
/// `memory_failure_queue`); the process goes on meanwhile.
#[test]
fn a_guest_that_reads_each_record_and_repeats_the_access_gets_the_abort_alone_at_half_the_limit() {
    let (mut containment, memory) = with_one_record(Rules::FULL);
    let guest = guest(POSTED, 0, 0x50_0123);
    let mut report = |gpa| {
        let mut decision = guest::decide(&mut containment, &guest, &sea(gpa), seconds(0)).unwrap();
        containment.record(&memory, &mut decision, SystemTime::UNIX_EPOCH).unwrap();
        acknowledge(&memory);
        assert!(matches!(decision.verdict, Verdict::Inject(_)), "{decision:?}");
        decision.recorded
    };
    for time in 1..=16 {
        let expected = if time <= 8 { Recorded::AtSource(0) } else { Recorded::No };
        assert_eq!(report(0x4021_0000), expected, "time {time}");
        // A different error is not affected.
        assert_eq!(report(0x4030_0000 + (time << 12)), Recorded::AtSource(0), "time {time}");
    }
}

/// Linux's `ghes_notify_sea` reads all sources, whichever CPU took the abort: the first CPU would take the
/// second one's record for its own, and the second CPU would find none.
#[test]
fn a_record_is_not_written_while_another_is_to_be_read_though_sources_are_free() {
    let (mut containment, memory) = with_records(Rules::FULL, 16);
    let guest = guest(POSTED, 0, 0x50_0123);
    let mut report = |gpa, milliseconds| {
        let mut decision =
            guest::decide(&mut containment, &guest, &sea(gpa), Duration::from_millis(milliseconds)).unwrap();
        containment.record(&memory, &mut decision, SystemTime::UNIX_EPOCH).unwrap();
        (decision.verdict == Verdict::Wait, decision.recorded)
    };
    assert_eq!(report(0x4021_0000, 0), (false, Recorded::AtSource(0)));
    // 60 vCPUs wait in turn, each more often than a storm allows.
    for time in 1..20 {
        for vcpu in 0..60 {
            assert_eq!(report(0x4030_0000 + (vcpu << 12), time), (true, Recorded::No));
        }
    }
    acknowledge(&memory);
    assert_eq!(report(0x4030_0000, 20), (false, Recorded::AtSource(0)));
    for time in 21..40 {
        assert_eq!(report(0x4030_1000, time), (true, Recorded::No));
    }
    // Nobody reads it for a second: a record that another CPU may take is better than none.
    assert_eq!(report(0x4030_1000, 1021), (false, Recorded::AtSource(1)));
    // The next one does not wait another second.
    assert_eq!(report(0x4030_2000, 1022), (false, Recorded::AtSource(2)));
    for source in 0..3 {
        memory.write_obj(1_u64, GuestAddress(BASE + source * 512 + 8)).unwrap();
    }
    assert_eq!(report(0x4030_3000, 1023), (false, Recorded::AtSource(0)));
    assert_eq!(report(0x4030_4000, 1024), (true, Recorded::No));
}

/// The guest's own vectors are bad, so it acknowledges nothing.
#[test]
fn a_guest_that_looks_for_records_and_takes_the_same_abort_for_ever_is_stopped_soon() {
    let (mut containment, memory) = with_records(Rules::FULL, 16);
    let guest = guest(POSTED, 5, 0x50_0123);
    let mut milliseconds = 0;
    let stopped = loop {
        let mut decision =
            guest::decide(&mut containment, &guest, &sea(0x4021_0000), Duration::from_millis(milliseconds))
                .unwrap();
        containment.record(&memory, &mut decision, SystemTime::UNIX_EPOCH).unwrap();
        if matches!(decision.verdict, Verdict::Stop(_)) {
            break milliseconds;
        }
        milliseconds += 1;
    };
    // The first abort at 0 ms; patience from 1 ms to 1001 ms; then the second, and the seventeenth 15 ms
    // later.
    assert_eq!(stopped, 1016);
}

#[test]
fn a_guest_that_acknowledges_nothing_gets_the_abort_alone_after_a_second() {
    let (mut containment, memory) = with_one_record(Rules::FULL);
    let mut guest = guest(POSTED, 0, 0x50_0123);
    let mut verdicts = Vec::new();
    for (gpa, milliseconds) in
        [(0x4021_0000, 0), (0x4030_0000, 100), (0x4030_0000, 1099), (0x4030_0000, 1100)]
    {
        let now = Duration::from_millis(milliseconds);
        let mut decision = guest::decide(&mut containment, &guest, &sea(gpa), now).unwrap();
        containment.record(&memory, &mut decision, SystemTime::UNIX_EPOCH).unwrap();
        verdicts.push((matches!(decision.verdict, Verdict::Inject(_)), decision.recorded));
        if decision.recorded == Recorded::Unacknowledged {
            let outcome = containment.inject(&mut guest, decision).unwrap();
            assert!(outcome.to_string().ends_with("no record: the guest acknowledges none"), "{outcome}");
        }
    }
    let expected = [
        (true, Recorded::AtSource(0)),
        (false, Recorded::No),
        (false, Recorded::No),
        (true, Recorded::Unacknowledged),
    ];
    assert_eq!(verdicts, expected);
    assert_eq!(guest.vcpu.reg(Reg::Pc), VBAR + 0x400);
}

#[test]
fn records_that_cannot_be_written_leave_the_decision() {
    let (mut containment, _) = with_one_record(Rules::FULL);
    let elsewhere: GuestMemoryMmap = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x1000)]).unwrap();
    let mut decision =
        guest::decide(&mut containment, &guest(POSTED, 0, 0), &sea(0x4021_0000), seconds(0)).unwrap();
    let before = format!("{decision:?}");
    assert!(containment.record(&elsewhere, &mut decision, SystemTime::UNIX_EPOCH).is_err());
    assert_eq!(format!("{decision:?}"), before);
}

#[test]
fn too_many_bad_pages_are_advice_to_leave_beside_the_injection() {
    let storm = StormGuard::new(64, seconds(10));
    let mut containment = Containment::new(Rules::FULL)
        .with_storm_guard(storm)
        .with_evacuation_threshold(EvacuationThreshold::new(3, seconds(60)));
    let mut advice = Vec::new();
    for (second, gpa) in [(0, 0x4021_0000), (1, 0x4021_0000), (2, 0x4022_0000), (3, 0x4023_0000)] {
        let mut guest = guest(POSTED, 0, 0x50_0123);
        let decision = guest::decide(&mut containment, &guest, &sea(gpa), seconds(second)).unwrap();
        let outcome = containment.inject(&mut guest, decision).unwrap();
        assert!(matches!(outcome.action, Action::Injected { .. }));
        advice.push(outcome.evacuate);
    }
    assert_eq!(advice, [None, None, None, Some(Evacuate { pages: 3, within: seconds(60) })]);
}
