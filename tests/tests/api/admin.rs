//! What changes the store or copies it, where the operator has allowed it.

use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::Value;
use telemetry_tests::agent::{self, Settings};
use telemetry_tests::host::{claim, kernel_test};
use telemetry_tests::http;
use telemetry_tests::prometheus::{percent, query};
use telemetry_tests::remote_write::Request;

use super::beside::now_ms;

#[test]
fn a_snapshot_is_a_store_and_what_is_deleted_stays_deleted() {
    kernel_test(|| {
        let agent = Settings::new().line("query", "admin = true").start()?;
        let address = agent.address();
        let labels = |k: &str| vec![("__name__".to_owned(), "x".to_owned()), ("k".to_owned(), k.to_owned())];
        let all = [labels("a"), labels("b")];
        let mut request = Request::new(all.iter().map(Vec::as_slice));
        let start = now_ms()? - 600_000;
        for tick in 0..20 {
            request.send(address.port(), "/api/v1/write", start + tick * 15_000, &[Some(1.0), Some(2.0)])?;
        }
        let post = |path: &str| -> Result<Value> {
            let answer = http::post(address, &format!("/api/v1/admin/tsdb/{path}"), &[], b"")?;
            claim(matches!(answer.status, 200 | 204), || format!("{path}: {answer:?}"))?;
            Ok(serde_json::from_slice(&answer.body).unwrap_or(Value::Null))
        };
        let made = post("snapshot")?;
        let name = made.pointer("/data/name").and_then(Value::as_str).context("a name")?.to_owned();
        post(&format!("delete_series?match[]={}", percent("x{k=\"a\"}")))?;
        post("clean_tombstones")?;
        let left = query(address, "count by (k) (last_over_time(x[15m]))")?;
        claim(left.len() == 1, || format!("deleted, but: {left:?}"))?;
        // The copy has both, and everything that the agent knew of itself.
        let copy = agent.dir().join("data/tsdb/snapshots").join(name);
        let dump = Command::new(agent::binary()?)
            .args(["tsdb", "dump", "--match", "__name__=x", "--data-dir"])
            .arg(&copy)
            .output()
            .context("tsdb dump")?;
        let text = String::from_utf8_lossy(&dump.stdout);
        let lines = text.lines().filter(|line| line.contains("k=\"a\"")).count();
        claim(dump.status.success() && lines == 20, || format!("{lines}: {dump:?}"))
    });
}

#[test]
fn nothing_is_allowed_unasked() {
    kernel_test(|| {
        let agent = Settings::new().start()?;
        for path in ["snapshot", "clean_tombstones", "delete_series?match[]=x"] {
            let answer = http::post(agent.address(), &format!("/api/v1/admin/tsdb/{path}"), &[], b"")?;
            claim(answer.status == 403, || format!("{path}: {answer:?}"))?;
        }
        Ok(())
    });
}
