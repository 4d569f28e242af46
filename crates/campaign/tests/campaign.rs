//! Whole campaigns of a bare-metal guest with two services, `a` and `b`: see `seawall_guest::services`.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZero;
use std::path::Path;

use proptest::prelude::*;
use seawall_campaign::{
    Again, Campaign, Error, Firmware, Only, Outcome, POLICIES, Request, Row, Shard, Verified, merge, plan,
    replay, report, run, verify, write_report,
};
use seawall_guest::asm::{Asm, DynasmApi as _};
use seawall_guest::{SERVICE_PAGES, UART, services};

fn request(folder: &Path) -> Request {
    let kernel = folder.join("services.bin");
    std::fs::write(&kernel, services()).unwrap();
    Request {
        program: "test".to_owned(),
        kernel,
        initrd: None,
        disks: Vec::new(),
        command_line: String::new(),
        memory: 2 << 20,
        cpus: 1,
        firmware: vec![Firmware::Dt],
        begin: "campaign: begin".to_owned(),
        moments: 2,
        spacing: 100_000,
        horizon: 300_000,
        checkpoints: 5,
        sample: None,
        seed: 1,
        policies: POLICIES.map(str::to_owned).to_vec(),
    }
}

fn planned(folder: &Path) -> Campaign {
    plan(&request(folder), &folder.join("map"), &mut |_| ()).unwrap()
}

fn whole(campaign: &Campaign, threads: usize) -> Vec<u8> {
    run(campaign, Shard::WHOLE, &Only::default(), NonZero::new(threads), &|_, _| ()).unwrap();
    let (path, status) = merge(campaign, false).unwrap();
    assert_eq!((status.done, status.not_as_planned), (status.all, 0));
    std::fs::read(path).unwrap()
}

/// The same campaign in another folder, without results.
fn copy(campaign: &Campaign, to: &Path) -> Campaign {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(campaign.directory()).unwrap().flatten() {
        if entry.path().is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
    let _ = std::fs::remove_file(to.join("results.parquet"));
    Campaign::open(to).unwrap()
}

#[test]
fn each_page_costs_what_lives_by_it_under_the_policies_that_do_not_panic() {
    let folder = tempfile::tempdir().unwrap();
    let campaign = planned(folder.path());
    whole(&campaign, 2);
    let rows = campaign.rows().unwrap().0;
    let of = |page: u64, policy: &str| {
        let id = format!("dt-0-{page:#x}-{policy}");
        let row = rows.iter().find(|row| row.id == id).unwrap_or_else(|| panic!("{id}"));
        (row.outcome, row.lost_services.as_str())
    };
    let last_of_a = SERVICE_PAGES.end - 0x1000;
    for policy in ["mainline", "full"] {
        assert_eq!(of(SERVICE_PAGES.start, policy), (Outcome::SomeLost, "a (SIGBUS)"));
        assert_eq!(of(last_of_a, policy), (Outcome::SomeLost, "a (SIGBUS)"));
        assert_eq!(of(SERVICE_PAGES.end, policy), (Outcome::SomeLost, "b (SIGBUS)"));
    }
    assert_eq!(of(last_of_a, "serror").0, Outcome::Panic);
    let by_outcome = rows.iter().fold(BTreeMap::<_, u32>::new(), |mut sums, row| {
        *sums.entry((row.policy.as_str(), row.outcome.is_survived())).or_default() += 1;
        sums
    });
    // Nothing that is used goes bad without a loss: this guest never loads a page again.
    assert!(by_outcome.keys().all(|(_, survived)| !survived), "{by_outcome:?}");
}

#[test]
fn plans_and_results_are_the_same_bytes_each_time_and_on_any_number_of_threads() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let campaigns = folders.each_ref().map(|folder| planned(folder.path()));
    assert_eq!(campaigns[0].id, campaigns[1].id);
    assert_eq!(whole(&campaigns[0], 1), whole(&campaigns[1], 3));
    let reports = campaigns.each_ref().map(|campaign| write_report(campaign).unwrap());
    let json: Vec<serde_json::Value> = reports
        .iter()
        .map(|paths| serde_json::from_slice(&std::fs::read(&paths[1]).unwrap()).unwrap())
        .collect();
    assert_eq!(json[0]["cells"], json[1]["cells"]);
    assert_eq!(json[0]["moments"], json[1]["moments"]);
}

/// The plan's proof has them all bad at once; this tries them one by one.
#[test]
fn three_hundred_drawn_pages_that_nothing_uses_survive_one_by_one() {
    let folder = tempfile::tempdir().unwrap();
    let campaign = planned(folder.path());
    let tried = verify(&campaign, &Again { results: 300, unused: 300, seed: 1 }, None, &|_| ()).unwrap();
    assert_eq!(tried, Verified { unused: 300, ..Verified::default() });
}

/// The plan of one moment under the manifest of two: it lacks all that the guest uses from the second on.
#[test]
fn a_page_that_a_plan_left_out_though_something_uses_it_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let small = Request { horizon: 100_000, ..request(folder.path()) };
    let two = plan(&small, &folder.path().join("two"), &mut |_| ()).unwrap();
    let one = Request { moments: 1, ..small };
    let one = plan(&one, &folder.path().join("one"), &mut |_| ()).unwrap();
    let planned = |campaign: &Campaign| {
        let pages = campaign.pages().unwrap().into_iter();
        pages.map(|planned| (planned.moment, planned.page)).collect::<BTreeSet<_>>()
    };
    let left_out: BTreeSet<_> = planned(&two).difference(&planned(&one)).copied().collect();
    assert!(left_out.contains(&(1, SERVICE_PAGES.start)), "{left_out:?}");
    std::fs::copy(one.directory().join("plan.parquet"), two.directory().join("plan.parquet")).unwrap();
    let mut manifest = serde_json::to_value(&two.manifest).unwrap();
    manifest["plan"] = one.manifest.plan.clone().into();
    std::fs::write(two.directory().join("manifest.json"), manifest.to_string()).unwrap();
    let wrong = Campaign::open(two.directory()).unwrap();
    let again = Again { results: 0, unused: usize::MAX, seed: 1 };
    let verified = verify(&wrong, &again, None, &|_| ()).unwrap();
    let found = verified.not_survived.iter().map(|row| (row.moment as usize, row.page));
    assert_eq!(found.collect::<BTreeSet<_>>(), left_out);
}

#[test]
fn results_that_are_not_what_the_guest_does_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let campaign = planned(folder.path());
    whole(&campaign, 2);
    let every = Again { results: usize::MAX, unused: 0, seed: 1 };
    let verified = |campaign: &Campaign| verify(campaign, &every, NonZero::new(2), &|_| ()).unwrap();
    let rows = campaign.rows().unwrap().0;
    assert_eq!(verified(&campaign), Verified { results: rows.len(), ..Verified::default() });
    let told = copy(&campaign, &folder.path().join("told"));
    let results = told.directory().join("results");
    std::fs::create_dir(&results).unwrap();
    let (right, wrong) = (rows[0].clone(), Row { outcome: Outcome::AllAlive, ..rows[3].clone() });
    let lines = [&right, &wrong].map(|row| serde_json::to_string(row).unwrap());
    std::fs::write(results.join("1-0.journal"), format!("{}\n{}\n", told.id, lines.join("\n"))).unwrap();
    let differing = vec![(wrong, rows[3].clone())];
    assert_eq!(verified(&told), Verified { results: 2, differing, ..Verified::default() });
}

#[test]
fn a_replay_is_the_row_that_the_campaign_has_and_shows_the_console() {
    let folder = tempfile::tempdir().unwrap();
    let campaign = planned(folder.path());
    whole(&campaign, 2);
    let id = format!("dt-1-{:#x}-full", SERVICE_PAGES.end);
    let replayed = replay(&campaign, &id).unwrap();
    assert_eq!(replayed.before.as_ref(), Some(&replayed.row));
    assert!(replayed.lines.iter().any(|line| line == "workload: b ended: SIGBUS"), "{:?}", replayed.lines);
    assert!(replayed.lines.iter().any(|line| line.starts_with("seawall: ")), "{:?}", replayed.lines);
    for wrong in
        ["dt-7-0x40100000-full", "dt-1-0x40100001-full", "dt-1-0x80000000-full", "dt-1-0x40100000-none"]
    {
        assert!(matches!(replay(&campaign, wrong), Err(Error::NoExperiment(_))), "{wrong}");
    }
}

/// A guest that says this, and then nothing.
fn says(words: &str) -> Vec<u8> {
    let mut asm = Asm::new();
    asm.say(words);
    asm.ops.push_u32(0x1400_0000); // b .
    asm.console(UART);
    asm.finish(0x1000)
}

#[test]
fn a_guest_that_cannot_be_judged_is_refused_with_its_own_words() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |words: &str| {
        let request = request(folder.path());
        std::fs::write(&request.kernel, says(words)).unwrap();
        plan(&request, &folder.path().join("map"), &mut |_| ()).unwrap_err().to_string()
    };
    let panicked = refused("Kernel panic - not syncing: no root\n---[ end ]---\n");
    assert_eq!(
        panicked,
        "the guest did not come to say \"campaign: begin\" (--begin) when it was booted with dt; \
         its last words: \"Kernel panic - not syncing: no root\""
    );
    // No service, or one whose name is none: it would survive whatever happens.
    for words in ["campaign: begin\n", "a: alive 1\ncampaign: begin\n<b>: alive 2\n"] {
        let silent = refused(words);
        assert!(silent.starts_with("the guest has no service to judge it by"), "{silent}");
    }
}

#[test]
fn what_does_not_belong_to_a_campaign_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let campaign = planned(folder.path());
    let error = |result: Result<Campaign, Error>| result.unwrap_err().to_string();
    let other = copy(&campaign, &folder.path().join("other"));
    // A snapshot that is another one.
    let snapshot = other.directory().join("moment-dt-0.snapshot");
    std::fs::copy(other.directory().join("moment-dt-1.snapshot"), &snapshot).unwrap();
    let refused = run(&other, Shard::WHOLE, &Only::default(), None, &|_, _| ()).unwrap_err().to_string();
    assert!(refused.contains("the snapshot that this campaign was planned with"), "{refused}");
    // Results of another plan.
    let mut foreign = request(folder.path());
    foreign.seed = 2;
    let foreign = plan(&foreign, &folder.path().join("foreign"), &mut |_| ()).unwrap();
    let table =
        run(&foreign, Shard { number: 0, of: 8 }, &Only::default(), None, &|_, _| ()).unwrap().unwrap();
    std::fs::create_dir_all(campaign.directory().join("results")).unwrap();
    std::fs::copy(&table, campaign.directory().join("results/x.parquet")).unwrap();
    let refused = merge(&campaign, true).unwrap_err().to_string();
    assert!(refused.contains("expected results of campaign"), "{refused}");
    // A manifest that was changed.
    let changed = copy(&campaign, &folder.path().join("changed"));
    let mut manifest = serde_json::to_value(&changed.manifest).unwrap();
    manifest["memory"] = (1_u64 << 62).into();
    std::fs::write(changed.directory().join("manifest.json"), manifest.to_string()).unwrap();
    let refused = error(Campaign::open(changed.directory()));
    assert!(refused.contains("expected dt-0 to have 4611686018427387904 bytes of RAM"), "{refused}");
    // A plan that was changed.
    std::fs::write(foreign.directory().join("plan.parquet"), b"PAR1").unwrap();
    let refused = error(Campaign::open(foreign.directory()));
    assert!(refused.contains("the plan of this campaign"), "{refused}");
    let missing = merge(&copy(&campaign, &folder.path().join("empty")), false).unwrap_err();
    assert!(matches!(missing, Error::Missing { missing, all, .. } if missing == all), "{missing}");
    assert!(campaign.check_program("test").is_ok());
    assert!(campaign.check_program("0.2.0").unwrap_err().to_string().contains("test"));
}

#[test]
fn a_run_of_some_experiments_leaves_the_others_to_the_next_run() {
    let folder = tempfile::tempdir().unwrap();
    let campaign = planned(folder.path());
    let expected = whole(&copy(&campaign, &folder.path().join("whole")), 2);
    let some = Only { moments: vec!["dt-1".into()], policies: vec!["full".into()], pages: Some(7) };
    let rows = || campaign.rows().unwrap().0;
    assert_eq!(run(&campaign, Shard::WHOLE, &some, None, &|_, _| ()).unwrap(), None);
    assert_eq!(rows().len(), 7);
    assert!(rows().iter().all(|row| (row.moment, row.policy.as_str()) == (1, "full")));
    let foreign = Only { policies: vec!["none".into()], ..Only::default() };
    let refused = run(&campaign, Shard::WHOLE, &foreign, None, &|_, _| ()).unwrap_err().to_string();
    assert_eq!(refused, "expected one of serror, mainline, full, got none");
    assert_eq!(whole(&campaign, 2), expected);
}

/// 19 of 512 pages are in use at either moment, and this guest survives the loss of none.
#[test]
fn a_share_of_ram_is_of_the_moments_that_were_tried() {
    let folder = tempfile::tempdir().unwrap();
    let campaign = planned(folder.path());
    let some = Only { moments: vec!["dt-1".into()], policies: vec!["full".into()], pages: None };
    run(&campaign, Shard::WHOLE, &some, None, &|_, _| ()).unwrap();
    let report = report(&campaign).unwrap();
    let full = report.cells.iter().find(|cell| cell.policy == "full").unwrap();
    assert_eq!((full.survived.hits, full.survived.of, full.survived.all), (0, 19, 19));
    assert!((full.of_ram - 0.962_890_625).abs() < 1e-9, "{}", full.of_ram);
    let none = report.cells.iter().find(|cell| cell.policy == "serror").unwrap();
    assert_eq!((none.survived.of, none.survived.low, none.survived.high), (0, 0.0, 1.0));
}

#[test]
fn a_journal_of_a_killed_run_is_gone_on_from_and_its_half_line_is_done_again() {
    let folder = tempfile::tempdir().unwrap();
    let campaign = planned(folder.path());
    let expected = whole(&campaign, 2);
    let row = |n: usize| serde_json::to_string(&campaign.rows().unwrap().0[n]).unwrap();
    let killed = copy(&campaign, &folder.path().join("killed"));
    let results = killed.directory().join("results");
    std::fs::create_dir(&results).unwrap();
    let journal = format!("{}\n{}\n{}\n{}", killed.id, row(3), row(0), &row(1)[..40]);
    std::fs::write(results.join("1-0.journal"), journal).unwrap();
    let new = std::sync::Mutex::new(0);
    run(&killed, Shard::WHOLE, &Only::default(), None, &|progress, _| *new.lock().unwrap() = progress.new)
        .unwrap();
    assert_eq!(*new.lock().unwrap(), killed.rows().unwrap().1.all - 2);
    assert_eq!(std::fs::read(merge(&killed, false).unwrap().0).unwrap(), expected);
    // Two results of one experiment.
    let mut changed: serde_json::Value = serde_json::from_str(&row(0)).unwrap();
    changed["lost"] = 7.into();
    std::fs::write(results.join("2-0.journal"), format!("{}\n{changed}\n", killed.id)).unwrap();
    let disagree = merge(&killed, false).unwrap_err().to_string();
    let says = format!(
        "disagree about {}: lost 2 in the one, lost 7 in the other; ",
        campaign.rows().unwrap().0[0].id
    );
    assert!(disagree.contains(&says), "{disagree}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, ..ProptestConfig::default() })]

    #[test]
    fn shards_in_any_split_and_order_merge_to_the_same_bytes(
        of in 1..9_usize, order in any::<u64>(), threads in 1..3_usize,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let campaign = planned(folder.path());
        let expected = whole(&campaign, 1);
        let split = copy(&campaign, &folder.path().join("split"));
        let mut shards: Vec<usize> = (0..of).collect();
        shards.sort_by_key(|number| (*number as u64 + 1).wrapping_mul(order | 1).rotate_left(17));
        for number in shards {
            run(&split, Shard { number, of }, &Only::default(), NonZero::new(threads), &|_, _| ()).unwrap();
        }
        prop_assert_eq!(std::fs::read(merge(&split, false).unwrap().0).unwrap(), expected);
    }

    #[test]
    fn shards_have_each_experiment_once(all in 0..10_000_usize, of in 1..300_usize) {
        let mut next = 0;
        for number in 0..of {
            let range = Shard { number, of }.range(all);
            prop_assert_eq!(range.start, next);
            next = range.end;
        }
        prop_assert_eq!(next, all);
    }
}
