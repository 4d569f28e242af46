//! A small campaign of Debian's kernel and services: `cargo xtask ci --only campaign`, or with `-- --ignored`.

use serde_json::Value;

use super::{campaign, succeeds};

/// `exit::UNAVAILABLE`: Debian's packages cannot be had.
const UNAVAILABLE: i32 = 9;

#[test]
#[ignore = "fetches and boots Linux: cargo xtask ci --only campaign"]
fn a_sample_of_linuxs_pages_is_tried_and_each_result_can_be_replayed() {
    let folder = tempfile::tempdir().unwrap();
    let map = folder.path().join("map");
    let path = map.to_str().unwrap();
    let planned =
        campaign(&["plan", path, "--services", "--firmware", "acpi", "--sample", "6", "--horizon", "100"]);
    if planned.status.code() == Some(UNAVAILABLE) {
        println!("skipped: {}", String::from_utf8_lossy(&planned.stderr));
        return;
    }
    assert!(planned.status.success(), "{}", String::from_utf8_lossy(&planned.stderr));
    let told = String::from_utf8(planned.stdout).unwrap();
    assert!(!told.contains("does not say what its pages are used for"), "{told}");
    succeeds(&["run", path]);
    let status: Value = serde_json::from_str(&succeeds(&["status", path, "--json"])).unwrap();
    assert_eq!(
        (&status["done"], &status["all"], &status["not_as_planned"]),
        (&18.into(), &18.into(), &0.into())
    );
    let report: Value = serde_json::from_slice(&std::fs::read(map.join("report.json")).unwrap()).unwrap();
    let serror = &report["cells"][0];
    assert_eq!((&serror["policy"], &serror["survived"]["of"]), (&"serror".into(), &6.into()));
    // Linux survives no SError (arch/arm64/kernel/traps.c, do_serror).
    assert_eq!(serror["survived"]["hits"], 0, "{serror}");
    let moment = &report["moments"][0];
    let outcomes = moment["results"]["full"]["outcome"].as_array().unwrap();
    let tried = outcomes.iter().position(|outcome| outcome != -1).unwrap();
    let page = 0x4000_0000 + moment["page"][tried].as_u64().unwrap() * 0x1000;
    // A replay with another outcome than the campaign's ends with 1.
    let id = format!("acpi-0-{page:#x}-full");
    let again: Value = serde_json::from_str(&succeeds(&["replay", path, &id, "--json"])).unwrap();
    let outcome = report["outcomes"][outcomes[tried].as_u64().unwrap() as usize].clone();
    assert_eq!(again["result"]["outcome"], outcome);
    let verified = succeeds(&["verify", path, "--results", "6", "--unused", "40", "--json"]);
    assert_eq!(
        verified, "{\"differing\":[],\"not_survived\":[],\"results\":6,\"unused\":40}\n",
        "40 of the pages that the plan left out"
    );
}
