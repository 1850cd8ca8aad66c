//! Damage is named and counted; what reads does not disturb who writes; a killed import is repeated.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use telemetry_tests::host::eventually;

use super::{Data, START, text_of, tool};
use crate::blocks::make_blocks;

#[test]
fn a_whole_store_is_found_whole() {
    let data = Data::filled();
    let said = data.tsdb(&["verify"]).ok();
    assert!(said.ends_with("nothing is damaged\n"), "{said}");
    assert_eq!(data.tsdb(&["verify", "--quiet"]).ok(), "");
    let stat = data.tsdb(&["stat"]).ok();
    assert!(stat.contains("not in use") && stat.contains("9,000 samples in"), "{stat}");
    let json: serde_json::Value = serde_json::from_str(&data.tsdb(&["stat", "-o", "json"]).ok()).unwrap();
    assert_eq!(
        (&json["file_samples"], &json["log"]["samples"], &json["series"]),
        (&9000.into(), &10.into(), &16.into())
    );
    assert_eq!(json["health"], serde_json::json!([]));
    assert_eq!(json["tiers"][0]["min_time_ms"], START);
}

#[test]
fn damage_is_named_with_what_it_costs() {
    let data = Data::filled();
    let path = fs::read_dir(data.path("tsdb/blocks")).unwrap().next().unwrap().unwrap().path();
    let good = fs::read(&path).unwrap();
    let name = path.file_name().unwrap().to_str().unwrap();
    let (mut costly, mut noticed) = (0, 0);
    let step = good.len() / 40;
    for at in (0..good.len()).step_by(step) {
        let mut bad = good.clone();
        bad[at] ^= 1;
        fs::write(&path, &bad).unwrap();
        let said = data.tsdb(&["verify"]);
        noticed += usize::from(said.code == 65);
        assert!(said.code == 65 || said.code == 0, "{}", said.err);
        if said.code == 65 {
            assert!(said.out.contains(name) && said.err.contains("is damaged"), "{}{}", said.out, said.err);
            costly += usize::from(!said.out.contains("no sample is lost"));
        }
    }
    assert!(noticed >= 39 && costly > 20, "{noticed} noticed, {costly} costly");
    fs::write(&path, &good[..good.len() / 2]).unwrap();
    let said = data.tsdb(&["verify"]);
    assert_eq!(said.code, 65);
    assert_eq!(fs::read(&path).unwrap().len(), good.len() / 2, "a verification moves nothing");
}

#[test]
fn reading_goes_on_beside_a_writer() {
    let data = Data::filled();
    let held = data.db();
    for args in [&["stat"][..], &["verify"], &["dump"]] {
        let said = data.tsdb(args).ok();
        assert!(!said.is_empty());
    }
    assert!(data.tsdb(&["stat"]).ok().contains("in use by a process"));
    drop(held);
    let none = Data::new();
    let said = none.tsdb(&["stat"]);
    assert_eq!(said.code, 66, "{}", said.err);
    assert!(said.err.contains("there is no store in"), "{}", said.err);
}

#[test]
fn a_killed_import_is_repeated() {
    let Some(promtool) = tool("promtool") else { return };
    let (whole, killed) = (Data::new(), Data::new());
    let blocks = make_blocks(&promtool, &whole, 6 * 480);
    whole.tsdb(&["import", text_of(&blocks)]).ok();
    let mut child = killed.command(&["import", text_of(&blocks)]).stdout(Stdio::null()).spawn().unwrap();
    let files = killed.path("tsdb/blocks");
    eventually("a first file", Duration::from_secs(30), || {
        let names = fs::read_dir(&files).into_iter().flatten().flatten();
        Ok(names.filter(|entry| entry.path().extension().is_some_and(|e| e == "blk")).count() > 0)
    })
    .unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let partly = killed.dump();
    let said = killed.tsdb(&["import", text_of(&blocks)]).ok();
    assert!(said.contains("were there already"), "{said}");
    assert!(killed.dump() == whole.dump(), "both imports have the same samples");
    let all = whole.dump();
    let known: std::collections::HashSet<&str> = all.lines().collect();
    assert!(partly.lines().all(|line| known.contains(line)), "nothing is invented");
    let again = killed.tsdb(&["import", text_of(&blocks)]).ok();
    assert!(again.starts_with("0 samples taken"), "{again}");
    killed.tsdb(&["verify"]).ok();
}
