//! `admin/*`: what changes the store or copies it, where the operator has allowed it.

use std::path::Path;
use std::time::SystemTime;

use telemetry_promql::text::quoted;
use telemetry_tsdb::db::Snapshot;
use time::OffsetDateTime;
use time::macros::format_description;

use super::Call;
use super::answer::{Failure, Kind, Success};
use super::params::{MAX_TIME, MIN_TIME, invalid};

/// Where snapshots are, below the store.
const SNAPSHOTS: &str = "snapshots";
/// The store in a data directory: a snapshot looks like one, and can be used as one.
const STORE: &str = "tsdb";

/// `admin/tsdb/delete_series`.
pub(super) fn delete_series(call: Call<'_>) -> Result<Success, Failure> {
    allowed(&call)?;
    if call.params.all("match[]").next().is_none() {
        return Err(Failure::bad_data("no match[] parameter provided"));
    }
    let (from, to) = (call.params.time_or("start", MIN_TIME)?, call.params.time_or("end", MAX_TIME)?);
    let sets = call
        .params
        .matchers(&call.options.language)
        .map_err(|failure| invalid("match[]", &failure.message))?;
    for matchers in &sets {
        call.shared.db.delete(matchers, from, to).map_err(failed)?;
    }
    // It is true once it is on disk.
    call.shared.db.commit().map_err(failed)?;
    Ok(Success::default())
}

/// `admin/tsdb/clean_tombstones`.
pub(super) fn clean_tombstones(call: Call<'_>) -> Result<Success, Failure> {
    allowed(&call)?;
    call.shared.db.apply_deletions().map_err(failed)?;
    Ok(Success::default())
}

/// `admin/tsdb/snapshot`: a copy of the store below itself, under a new name.
pub(super) fn snapshot(call: Call<'_>) -> Result<Success, Failure> {
    allowed(&call)?;
    let what = match call.params.get("skip_head") {
        "" | "0" | "f" | "F" | "false" | "FALSE" | "False" => Snapshot::Whole,
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Snapshot::Files,
        other => {
            let problem = format!(
                "unable to parse boolean \"skip_head\" argument: strconv.ParseBool: parsing {}: invalid syntax",
                quoted(other)
            );
            return Err(invalid("skip_head", &problem));
        }
    };
    let name = name(SystemTime::now());
    call.shared.db.snapshot(&Path::new(SNAPSHOTS).join(&name).join(STORE), what).map_err(failed)?;
    Ok(Success::json(format!("{{\"name\":\"{name}\"}}")))
}

fn allowed(call: &Call<'_>) -> Result<(), Failure> {
    if call.shared.queries.config().admin {
        return Ok(());
    }
    Err(Failure::new(Kind::Unavailable, "admin APIs disabled"))
}

fn failed(error: telemetry_tsdb::db::Error) -> Failure {
    Failure::new(Kind::Internal, error.to_string())
}

/// The time to the second, as names of snapshots begin, and what else there is of it, which no two of them share.
fn name(now: SystemTime) -> String {
    let format = format_description!("[year][month][day]T[hour][minute][second]Z");
    let nanos = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().subsec_nanos();
    // Its parts are numbers, which are always written.
    let second = OffsetDateTime::from(now).format(format).unwrap_or_default();
    format!("{second}-{nanos:016x}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn names_sort_by_time() {
        let now = SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 255);
        assert_eq!(name(now), "20231114T221320Z-00000000000000ff");
    }
}
