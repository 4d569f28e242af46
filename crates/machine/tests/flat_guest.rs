//! The example `flat_guest`, and docs/guests.md, which shows it.

#[path = "../examples/flat_guest.rs"]
#[allow(dead_code, reason = "the example's main is not called")]
mod flat_guest;

const SOURCE: &str = include_str!("../examples/flat_guest.rs");
const PAGE: &str = include_str!("../../../docs/guests.md");

/// What stands between ```` ```LANGUAGE ```` and the next fence, each time.
fn blocks(language: &str) -> Vec<&'static str> {
    let begin = format!("```{language}\n");
    PAGE.split(begin.as_str()).skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

#[test]
fn the_guest_meets_the_abort_as_it_happened_and_goes_on() {
    let log = flat_guest::run().unwrap();
    assert_eq!(
        log,
        "guest: loading from 0x40200000\n\
         exit:   0x92000210 data abort from a lower EL, IL, SET=UER EA DFSC 0x10 synchronous external abort, gva \
         0x40200000, gpa 0x40200000\n\
         inject: load at EL1, PC 0x4008001c: gva 0x40200000, gpa 0x40200000: data abort, ISS 0x210; guest at vector \
         0x40080a00, ESR 0x96000210, FAR 0x40200000\n\
         guest: abort, ESR 0x96000210, FAR 0x40200000\n\
         guest: still alive\n"
    );
    assert_eq!(blocks("text"), [log]);
}

#[test]
fn the_page_shows_the_examples_code() {
    let blocks = blocks("rust");
    assert_eq!(blocks.len(), 2);
    for block in blocks {
        assert!(SOURCE.contains(block), "not in the example:\n{block}");
    }
}
