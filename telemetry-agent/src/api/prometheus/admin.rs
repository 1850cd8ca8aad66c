//! `admin/*`: what changes the store, where the operator has allowed it.

use super::Call;
use super::answer::{Failure, Kind, Success};
use super::params::{MAX_TIME, MIN_TIME, invalid};

/// `admin/tsdb/delete_series`.
pub(super) fn delete_series(call: Call<'_>) -> Result<Success, Failure> {
    if !call.shared.queries.config().admin {
        return Err(Failure::new(Kind::Unavailable, "admin APIs disabled"));
    }
    if call.params.all("match[]").next().is_none() {
        return Err(Failure::bad_data("no match[] parameter provided"));
    }
    let (from, to) = (call.params.time_or("start", MIN_TIME)?, call.params.time_or("end", MAX_TIME)?);
    let sets = call
        .params
        .matchers(&call.options.language)
        .map_err(|failure| invalid("match[]", &failure.message))?;
    for matchers in &sets {
        let deleted = call.shared.db.delete(matchers, from, to);
        deleted.map_err(|error| Failure::new(Kind::Internal, error.to_string()))?;
    }
    // It is true once it is on disk.
    call.shared.db.commit().map_err(|error| Failure::new(Kind::Internal, error.to_string()))?;
    Ok(Success::default())
}
