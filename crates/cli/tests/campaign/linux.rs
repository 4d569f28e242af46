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
    succeeds(&["report", path]);
    let report: Value = serde_json::from_slice(&std::fs::read(map.join("report.json")).unwrap()).unwrap();
    let rows = report["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 18);
    for row in rows {
        assert_eq!(row["as_planned"], true, "{row}");
        // Linux survives no SError (arch/arm64/kernel/traps.c, do_serror).
        let is_serror = row["policy"] == "serror" && row["consumer"] != "device";
        assert!(!is_serror || row["outcome"] == "panic", "{row}");
    }
    let id = rows[17]["id"].as_str().unwrap();
    let again: Value = serde_json::from_str(&succeeds(&["replay", path, id, "--json"])).unwrap();
    assert_eq!(again["result"], rows[17]);
}
