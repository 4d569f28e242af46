//! Memory that the host knows to be bad, or that is bad without its knowledge. The tests run in the lab,
//! whose memory may be used up.

use seawall_host::{HostKnows, hwpoison, sigbus, tell};
use seawall_lab_machine::{PoisonRegister, is_lab, physical_address};

use crate::mapping::{Mapping, give_up_privilege};

/// Returns true in the lab, as root.
fn lab() -> bool {
    if !is_lab() {
        println!("skipped: not in the lab, and memory that is made bad is lost to its host");
    }
    is_lab()
}

/// Each kind of memory that this host has.
fn kinds() -> Vec<Mapping> {
    let huge = [Mapping::anonymous_huge(2), Mapping::shared_huge(2)];
    [Mapping::anonymous(2), Mapping::shared(2)].into_iter().chain(huge.into_iter().flatten()).collect()
}

#[test]
fn memory_that_is_told_of_is_bad_for_this_process_too_until_it_is_healed() {
    if !lab() {
        return;
    }
    for memory in kinds() {
        let bad = memory.at(1).start + 0x40..memory.at(1).start + 0x80;
        assert_eq!(tell(bad.clone()), HostKnows::Told, "{:?}", memory.backing);
        assert!(memory.is_good(0) && !memory.is_good(1), "{:?}", memory.backing);
        assert_eq!(tell(bad.clone()), HostKnows::Told, "the second time");
        assert_eq!(memory.heal(bad), Ok(HostKnows::Told), "{:?}", memory.backing);
        assert_eq!(memory.bytes(), [1, 0], "{:?}", memory.backing);
        assert_eq!(sigbus::take(), None);
    }
}

/// The host learned of it elsewhere, or from the hardware: no privilege is needed to find that out.
#[test]
fn memory_that_the_host_knows_to_be_bad_is_healed_without_privilege() {
    if !lab() {
        return;
    }
    let kinds = kinds();
    for memory in &kinds {
        hwpoison(memory.at(1)).unwrap();
    }
    give_up_privilege();
    for memory in kinds {
        assert_eq!(tell(memory.at(1)), HostKnows::Told, "{:?}", memory.backing);
        assert_eq!(memory.heal(memory.at(1)), Ok(HostKnows::Told), "{:?}", memory.backing);
        assert_eq!(memory.bytes(), [1, 0], "{:?}", memory.backing);
    }
}

/// The lab's register turns a line bad without telling anybody. A reader would be killed, or the host would
/// panic.
#[test]
fn neither_telling_nor_keeping_nor_healing_reads_the_bad_line() {
    if !lab() {
        return;
    }
    sigbus::install().unwrap();
    for is_privileged in [true, false] {
        if !is_privileged {
            give_up_privilege();
        }
        let expected = if is_privileged { HostKnows::Told } else { HostKnows::Kept };
        for memory in [Mapping::anonymous(2), Mapping::shared(2)] {
            let line = memory.at(1).start + 0x40;
            // Opening it before the privilege is given up would do as well: /dev/mem needs root, not
            // CAP_SYS_ADMIN.
            let mut register = PoisonRegister::open().unwrap();
            let Ok(physical) = physical_address(line) else { continue };
            register.poison(physical, 64).unwrap();
            assert_eq!(tell(line..line + 64), expected);
            assert!(!memory.is_good(1));
            assert_eq!(memory.heal(line..line + 64), Ok(expected));
            assert_eq!(memory.bytes(), [1, 0]);
            register.heal(physical);
        }
    }
}

/// Linux splits a huge page when one of its pages is told, and checks the others for zeroes: the host would
/// go down.
#[test]
fn telling_of_a_bad_page_does_not_read_another_in_the_same_huge_page() {
    if !lab() {
        return;
    }
    sigbus::install().unwrap();
    let Some(memory) = Mapping::transparent() else { return };
    let mut register = PoisonRegister::open().unwrap();
    let lines = [0x5040, 0x9040].map(|offset| memory.start + offset);
    let physical = lines.map(|line| physical_address(line).unwrap());
    assert_eq!(physical[1] - physical[0], 0x4000, "one huge page");
    for line in physical {
        register.poison(line, 64).unwrap();
    }
    for line in lines {
        assert_eq!(tell(line..line + 64), HostKnows::Told);
    }
    let page = memory.start & !0xfff;
    for line in lines {
        assert_eq!(memory.heal(line..line + 64), Ok(HostKnows::Told));
    }
    let good = |at: u64| {
        let mut bytes = [0xff; 64];
        // SAFETY: it is mapped.
        unsafe { seawall_host::read(at as *const u8, &mut bytes) }.map(|()| bytes[0])
    };
    assert_eq!([0, 0x5040, 0x8000, 0x9040].map(|at| good(page + at)), [Ok(1), Ok(0), Ok(0), Ok(0)]);
    for line in physical {
        register.heal(line);
    }
}
