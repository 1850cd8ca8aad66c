//! Parquet, read by pyarrow and duckdb.

use std::path::PathBuf;
use std::process::Command;

use super::{Data, Said, text_of};

/// Reads every row with pyarrow, asks duckdb of the labels, and prints what the test compares.
const SCRIPT: &str = r#"
import json, struct, sys
import duckdb
import pyarrow.parquet as pq
file = pq.ParquetFile(sys.argv[1])
bits = 0
count = histograms = 0
for batch in file.iter_batches():
    for row in batch.to_pylist():
        count += 1
        if row["histogram"] is not None:
            assert row["value"] is None
            found = json.loads(row["histogram"])
            assert found["schema"] == 2 and found["count"] == 1 + sum(c for _, c in found["positive"])
            histograms += 1
        else:
            bits ^= struct.unpack("<Q", struct.pack("<d", row["value"]))[0]
print(count, histograms, bits)
types = {name: str(kind) for name, kind in zip(file.schema_arrow.names, file.schema_arrow.types)}
print(types["timestamp"], "|", types["labels"], "|", types["value"])
query = "select count(*), sum(value), min(epoch_ms(timestamp)) from read_parquet(?) where name = 'work_seconds_total' and labels['a'] = '3' and labels['path'] = ?"
print(*duckdb.execute(query, [sys.argv[1], "a\\b\"c\nd"]).fetchone())
"#;

/// A Python with both, made once below the target folder.
fn python() -> Option<PathBuf> {
    let dir = std::env::current_exe().unwrap();
    let dir = dir.parent()?.parent()?.join("python-exchange");
    let python = dir.join("bin/python");
    let has_both = |python: &PathBuf| {
        let check = Command::new(python).args(["-c", "import duckdb, pyarrow.parquet"]).output();
        check.is_ok_and(|output| output.status.success())
    };
    if has_both(&python) {
        return Some(python);
    }
    let made = Command::new("python3").args(["-m", "venv"]).arg(&dir).output();
    if made.is_ok_and(|output| output.status.success()) {
        let packages = ["-m", "pip", "install", "--quiet", "duckdb==1.4.2", "pyarrow==22.0.0", "pytz"];
        let _ = Command::new(&python).args(packages).output();
    }
    Some(python).filter(has_both)
}

#[test]
fn pyarrow_and_duckdb_read_what_is_exported() {
    let Some(python) = python() else {
        eprintln!("skipped: no Python with venv, or duckdb and pyarrow cannot be had");
        return;
    };
    let data = Data::filled();
    let file = data.path("all.parquet");
    data.tsdb(&["export", text_of(&file)]).ok();
    let said = Said::of(&Command::new(python).arg("-c").arg(SCRIPT).arg(&file).output().unwrap()).ok();
    let mut bits = 0;
    let mut expected = 0.0;
    for series in 0..5i32 {
        for k in 0..600i32 {
            let counter = f64::from(k * series) * 0.1;
            bits ^= counter.to_bits() ^ (1.0 / f64::from(k - 300 * series)).to_bits();
            expected += if series == 3 { counter } else { 0.0 };
        }
    }
    // Ten equal samples of the log cancel out.
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[0], format!("9010 3000 {bits}"));
    assert_eq!(lines[1], "timestamp[ms, tz=UTC] | map<string, string ('labels')> | double");
    let sum: Vec<f64> = lines[2].split(' ').map(|word| word.parse().unwrap()).collect();
    assert_eq!((sum[0], sum[2]), (600.0, 1_700_006_400_000.0));
    assert!((sum[1] - expected).abs() < 1e-6, "{}", lines[2]);
}

#[test]
fn an_export_never_overwrites() {
    let data = Data::filled();
    let file = data.path("x.parquet");
    std::fs::write(&file, "mine").unwrap();
    let said = data.tsdb(&["export", text_of(&file)]);
    assert_eq!(said.code, 73, "{}", said.err);
    assert_eq!(std::fs::read(&file).unwrap(), b"mine");
    let said = data.tsdb(&["export", text_of(&data.path("none/x.parquet"))]);
    assert_eq!(said.code, 73, "{}", said.err);
}
