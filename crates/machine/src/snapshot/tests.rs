//! Files whose checksums are right, and whose contents cannot be.

use super::file::{ATTACHMENT, CONFIG, END, PAGES, STATE, SavedConfig, Writer, encode};
use super::{Limits, Snapshot, SnapshotError, State};
use crate::vm::{Config, Vm};

fn config() -> Config {
    Config { memory_size: 0x10000, cpus: 2, ..Config::default() }
}

fn state() -> State {
    State::of(&Vm::new(config()).expect("64 KiB"))
}

/// A file of these sections.
fn file(sections: &[(u8, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes).expect("memory has room");
    for (kind, payload) in sections {
        writer.section(*kind, payload).expect("memory has room");
    }
    bytes
}

fn saved(config: &Config) -> Vec<u8> {
    encode(&SavedConfig::of(config)).expect("memory has room")
}

/// What a file of these sections behind configuration and state is refused for.
fn refusal_of_pages(sections: &[(u8, &[u8])]) -> Option<String> {
    let (config, state) = (saved(&config()), encode(&state()).expect("memory has room"));
    let mut all = vec![(CONFIG, &*config), (STATE, &*state)];
    all.extend(sections);
    Snapshot::load(&*file(&all)).err().map(|error| error.to_string())
}

/// A section's payload of these pages.
fn pages(numbers: &[u32]) -> Vec<u8> {
    let bytes = vec![1; 4096 * numbers.len()];
    numbers.iter().flat_map(|number| number.to_le_bytes()).chain(bytes).collect()
}

#[test]
fn pages_come_in_rising_order_and_inside_ram() {
    assert_eq!(refusal_of_pages(&[(PAGES, &pages(&[0, 15])), (END, &[])]), None);
    assert_eq!(refusal_of_pages(&[(PAGES, &pages(&[3])), (PAGES, &pages(&[4])), (END, &[])]), None);
    let expected = "the snapshot is not one of a machine: expected whole pages inside RAM, in rising order, got something else";
    for sections in [
        &[(PAGES, &*pages(&[16]))][..],
        &[(PAGES, &pages(&[u32::MAX]))],
        &[(PAGES, &pages(&[5, 5]))],
        &[(PAGES, &pages(&[5, 4]))],
        &[(PAGES, &pages(&[5])), (PAGES, &pages(&[5]))],
        &[(PAGES, &[])],
        &[(PAGES, &pages(&[5])[1..])],
    ] {
        assert_eq!(refusal_of_pages(sections).as_deref(), Some(expected));
    }
}

#[test]
fn sections_come_in_their_order() {
    let (config, state) = (saved(&config()), encode(&state()).expect("memory has room"));
    let refusal = |sections: &[(u8, &[u8])]| Snapshot::load(&*file(sections)).err().map(|e| e.to_string());
    for (sections, expected) in [
        (&[(STATE, &*state)][..], "its configuration"),
        (&[(CONFIG, &config), (CONFIG, &config)], "its state"),
        (&[(CONFIG, &config), (STATE, &state), (STATE, &state)], "its pages, or its end"),
        (&[(CONFIG, &config), (STATE, &state), (END, &[0])], "its pages, or its end"),
        (&[(CONFIG, &config), (STATE, &state), (9, &[])], "its pages, or its end"),
        (&[(CONFIG, &config), (STATE, &state), (ATTACHMENT, &[1]), (PAGES, &[])], "its pages, or its end"),
        (
            &[(CONFIG, &config), (STATE, &state), (ATTACHMENT, &[1]), (ATTACHMENT, &[1])],
            "its pages, or its end",
        ),
        (
            &[(CONFIG, &config), (STATE, &state), (ATTACHMENT, &[1]), (END, &[])],
            "a machine without devices around it",
        ),
        (&[(CONFIG, &config[1..])], "its configuration"),
        (&[(CONFIG, &config), (STATE, &[&state[..], &[0]].concat())], "its state"),
    ] {
        let expected =
            format!("the snapshot is not one of a machine: expected {expected}, got something else");
        assert_eq!(refusal(sections), Some(expected));
    }
}

#[test]
fn a_configuration_that_no_machine_has_is_refused() {
    let state = encode(&state()).expect("memory has room");
    let refusal = |config: &[u8]| {
        Snapshot::load(&*file(&[(CONFIG, config), (STATE, &state), (END, &[])])).err().map(|e| e.to_string())
    };
    // cpus, memory_size (a varint), abi, ras, sea_to_user, no_syndrome, store_policy, error_state, el2
    let good = [2, 0x80, 0x80, 4, 1, 1, 1, 0, 0, 0, 0];
    assert_eq!(refusal(&good), None);
    for (at, value, expected) in [
        (0, 0, "the snapshot is not one of a machine, by its number of CPUs"),
        (0, 124, "the snapshot is not one of a machine, by its number of CPUs"),
        (0, 3, "the snapshot is not one of a machine, by the number of CPUs"),
        (
            1,
            0x81,
            "RAM must be whole 4 KiB pages within 48 bits of physical address, got 0x10001 bytes at 0x40000000",
        ),
        (4, 3, "the snapshot is not one of a machine, by its ABI"),
        (7, 3, "the snapshot is not one of a machine, by what it does without a syndrome"),
        (8, 3, "the snapshot is not one of a machine, by what a store to bad memory does"),
        (9, 4, "the snapshot is not one of a machine, by its SET"),
        (10, 1, "the snapshot is not one of a machine, by the number of CPUs with EL2"),
    ] {
        let mut config = good;
        config[at] = value;
        assert_eq!(refusal(&config).as_deref(), Some(expected), "{at}");
    }
}

#[test]
fn a_file_cannot_make_the_host_allocate_what_it_does_not_hold() {
    let huge = Config { memory_size: 1 << 46, ..config() };
    let state = encode(&state()).expect("memory has room");
    let error = Snapshot::load(&*file(&[(CONFIG, &saved(&huge)), (STATE, &state), (END, &[])]));
    assert!(matches!(error, Err(SnapshotError::TooBig { what: "RAM", .. })), "{error:?}");
    let limits = Limits { memory: 1 << 46, ..Limits::default() };
    let sections = file(&[(CONFIG, &saved(&huge)), (STATE, &state), (END, &[])]);
    let error = Snapshot::load_with(&*sections, &limits);
    assert!(matches!(error, Err(SnapshotError::Memory(_))), "{error:?}");
}

/// Zeros are packed 255 to one.
#[test]
fn a_section_that_unpacks_to_more_than_its_kind_has_is_refused_before_it_is_unpacked() {
    let zeros = vec![0; 64 << 20];
    let (small, state) = (saved(&config()), encode(&state()).expect("memory has room"));
    let refusal = |sections: &[(u8, &[u8])], limits: &Limits| {
        let file = file(sections);
        assert!(file.len() < 1 << 20, "{}", file.len());
        Snapshot::load_with(&*file, limits).expect_err("too much").to_string()
    };
    let expected = |limit: u64, what: &str| {
        format!(
            "expected at most {limit} bytes of {what} in the snapshot, got 67108864; raise the limit if you trust the \
             file"
        )
    };
    let (limits, config) = (Limits { attachment: 64 << 19, ..Limits::default() }, (CONFIG, &*small));
    assert_eq!(refusal(&[(CONFIG, &zeros)], &limits), expected(256, "its configuration"));
    // 64 KiB, 16 KiB for each of two CPUs, 20 bytes for each of 16 pages.
    assert_eq!(refusal(&[config, (STATE, &zeros)], &limits), expected(98_624, "its state"));
    let sections = [config, (STATE, &*state), (PAGES, &zeros)];
    assert_eq!(refusal(&sections, &limits), expected(262_400, "pages in a section"));
    let sections = [config, (STATE, &*state), (ATTACHMENT, &zeros)];
    assert_eq!(refusal(&sections, &limits), expected(33_554_432, "what is attached"));
    let whole = file(&[&sections[..], &[(END, &[])]].concat());
    let limits = Limits { attachment: 64 << 20, ..limits };
    let (_, attached) = Snapshot::load_with(&*whole, &limits).expect("as much as is taken");
    assert_eq!(attached.len(), 64 << 20);
}

/// No number that is packed takes twice the bytes that it has in memory.
#[test]
fn the_greatest_state_is_within_its_limit() {
    let config = Config { memory_size: 0x1_0000_0000, cpus: 123, ..config() };
    let mut vm = Vm::new(config).expect("room");
    vm.poison(0x4000_0000..0x1_4000_0000).expect("RAM");
    let state = encode(&State::of(&vm)).expect("memory has room").len();
    assert!(state > 10 << 20 && state < (1 << 20) * 20, "{state}");
    let file =
        file(&[(CONFIG, &saved(&config)), (STATE, &encode(&State::of(&vm)).expect("room")), (END, &[])]);
    assert!(Snapshot::load(&*file).is_ok());
}

#[test]
fn a_state_that_no_machine_can_be_in_is_refused() {
    let text = serde_json::to_value(state()).expect("JSON");
    for (pointer, value, expected) in [
        ("/visible/cpus/0/pstate", "9", "a CPU's PSTATE has a mode that this CPU does not have"),
        ("/visible/cpus/1/sys/mpidr", "0", "a CPU's system registers"),
        ("/visible/cpus/1/sys/physical_timer/control", "4", "a CPU's system registers"),
        ("/visible/cpus/0/pmu/counting", "true", "a CPU's performance monitor"),
        ("/visible/cpus/0/debug/watching", "true", "a CPU's debug registers"),
        ("/visible/cpus/0/debug/breakpoints/1/control", "512", "a CPU's debug registers"),
        ("/visible/cpus/0/steps", "4611686018427387904", "the CPUs' steps"),
        ("/visible/cpus/0/landing/1", "4", "a CPU's BTYPE"),
        ("/visible/cpus/0/monitor", r#"{"pa":0,"size":3,"value":0}"#, "a CPU's exclusive monitor"),
        (
            "/visible/cpus/0/mmio",
            r#"{"Register":[13,0,[0,0,0,0,0,0,0,0]]}"#,
            "a CPU's MMIO access that waits",
        ),
        ("/visible/cpus/0/mmio", r#"{"Accesses":[]}"#, "a CPU's MMIO access that waits"),
        (
            "/visible/cpus/0/mmio",
            r#"{"Accesses":[{"va":0,"pa":2,"len":4,"write":false,"data":0}]}"#,
            "a CPU's MMIO access that waits",
        ),
        ("/visible/gic/cpus/1/interface/binary_point/0", "8", "the interrupt controller"),
        ("/visible/gic/distributor/routes/3", "2147483648", "the interrupt controller"),
        ("/visible/gic/distributor/banks/3/priority/7", "1", "the interrupt controller"),
        ("/visible/turn/cpu", "2", "whose turn it is"),
        ("/visible/turn/left", "10001", "whose turn it is"),
        ("/visible/now", "18446744073709551615", "the time"),
        ("/visible/poison", r#"{"16":1}"#, "poison outside RAM"),
        ("/cpu_budgets", "[null]", "the number of CPUs' budgets"),
    ] {
        let mut changed = text.clone();
        *changed.pointer_mut(pointer).expect(pointer) = serde_json::from_str(value).expect("JSON");
        let changed: State = serde_json::from_value(changed).expect(pointer);
        assert_eq!(changed.check(&config()), Err(expected), "{pointer}");
    }
    assert_eq!(state().check(&config()), Ok(()));
}
