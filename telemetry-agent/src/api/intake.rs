//! Bodies on their way in: as many bytes at one time as there may be, whoever sends them.
//!
//! A body's bytes are counted as they come, not as they are announced: a sender that says much and sends nothing takes
//! nothing from others.

use std::sync::Arc;

use axum::body::Body;
use futures_util::StreamExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What is counted at once.
const UNIT: usize = 16 * 1024;

/// Room for bodies.
pub(super) struct Intake {
    units: Arc<Semaphore>,
}

/// A body that was read; its room is free when it is dropped.
pub(super) struct Taken {
    pub(super) bytes: Vec<u8>,
    _room: Option<OwnedSemaphorePermit>,
}

/// Why one was not.
#[derive(Debug, thiserror::Error)]
pub(super) enum IntakeError {
    /// Longer than any may be.
    #[error("a body may have {0} bytes")]
    TooLarge(usize),
    /// Others have all the room.
    #[error("too many bytes of others are on their way")]
    Full,
    /// Its sender broke it off.
    #[error("{0}")]
    Broken(String),
}

// === impl Intake ===

impl Intake {
    /// Room for so many bytes.
    pub(super) fn new(bytes: usize) -> Self {
        Self { units: Arc::new(Semaphore::new(bytes / UNIT)) }
    }

    /// Reads a body of `max` bytes at most.
    pub(super) async fn read(&self, body: Body, max: usize) -> Result<Taken, IntakeError> {
        let mut taken = Taken { bytes: Vec::new(), _room: None };
        let mut room = 0;
        let mut parts = body.into_data_stream();
        while let Some(part) = parts.next().await {
            let part = part.map_err(|error| IntakeError::Broken(error.to_string()))?;
            let length = taken.bytes.len() + part.len();
            if length > max {
                return Err(IntakeError::TooLarge(max));
            }
            // A buffer that grows doubles, so its room does, too.
            let wanted = length.next_power_of_two().min(max).max(UNIT);
            if wanted > room {
                let units = u32::try_from((wanted - room).div_ceil(UNIT)).unwrap_or(u32::MAX);
                let more = Arc::clone(&self.units).try_acquire_many_owned(units);
                let more = more.map_err(|_| IntakeError::Full)?;
                room = wanted;
                match taken._room.as_mut() {
                    Some(held) => held.merge(more),
                    None => taken._room = Some(more),
                }
                taken.bytes.reserve_exact(wanted - taken.bytes.len());
            }
            taken.bytes.extend_from_slice(&part);
        }
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bodies_have_so_much_room_together_and_no_more() {
        let intake = Intake::new(8 * UNIT);
        let read = |len: usize| intake.read(Body::from(vec![7; len]), 6 * UNIT);
        assert!(matches!(read(6 * UNIT + 1).await, Err(IntakeError::TooLarge(_))));
        let first = read(4 * UNIT).await.unwrap();
        assert_eq!(first.bytes, vec![7; 4 * UNIT]);
        assert!(matches!(read(6 * UNIT).await, Err(IntakeError::Full)));
        let second = read(UNIT).await.unwrap();
        drop(first);
        assert_eq!(read(6 * UNIT).await.unwrap().bytes.len(), 6 * UNIT);
        drop(second);
        assert!(read(0).await.unwrap().bytes.is_empty());
        assert_eq!(intake.units.available_permits(), 8);
    }
}
