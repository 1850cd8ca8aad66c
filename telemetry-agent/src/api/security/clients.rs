//! How much one client may ask at one time and in a second.
//!
//! A client is an address; of IPv6 it is a network of 64 bits, because a host there has all addresses of one. The
//! table of clients is bounded: whoever finds it full shares one entry with all others that do.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::super::Config;

/// Clients told apart at one time. An entry has 100 bytes.
const CLIENTS_MAX: usize = 4096;
/// Distance of searches for clients that can be forgotten.
const SWEEP_INTERVAL: Duration = Duration::from_millis(100);
/// Seconds' worth of requests that may come at once.
const BURST_SECONDS: f64 = 2.0;

/// All clients that asked lately.
pub(super) struct Clients {
    concurrency_max: usize,
    rate_max: f64,
    limits_loopback: bool,
    table: Mutex<Table>,
    overflows: AtomicU64,
}

struct Table {
    clients: HashMap<IpAddr, Client>,
    swept: Instant,
}

struct Client {
    answered: usize,
    bucket: Bucket,
}

/// Tokens that come back with time.
pub(super) struct Bucket {
    tokens: f64,
    filled: Instant,
}

/// The limit that a request met, and when to come again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limit {
    /// Too many requests of this client are being answered.
    Concurrency,
    /// Too many came in too little time.
    Rate(Duration),
}

/// A request's place among its client's, until it is dropped.
pub(in crate::api) struct Turn {
    clients: Arc<Clients>,
    client: IpAddr,
}

// === impl Clients ===

impl Clients {
    pub(super) fn new(config: &Config) -> Arc<Self> {
        let table = Table { clients: HashMap::new(), swept: Instant::now() };
        Arc::new(Self {
            concurrency_max: config.client_concurrency_max,
            rate_max: f64::from(config.client_rate_max),
            limits_loopback: config.limit_loopback,
            table: Mutex::new(table),
            overflows: AtomicU64::new(0),
        })
    }

    /// A place for a request of this address; none where there is no limit.
    pub(super) fn take(clients: &Arc<Self>, address: IpAddr, now: Instant) -> Result<Option<Turn>, Limit> {
        let address = address.to_canonical();
        if address.is_loopback() && !clients.limits_loopback {
            return Ok(None);
        }
        let mut table = clients.table();
        let key = clients.entry(&mut table, client(address), now);
        let full = clients.rate_max * BURST_SECONDS;
        let client = table
            .clients
            .entry(key)
            .or_insert_with(|| Client { answered: 0, bucket: Bucket { tokens: full, filled: now } });
        if client.answered >= clients.concurrency_max {
            return Err(Limit::Concurrency);
        }
        if clients.rate_max > 0.0 {
            client.bucket.take(clients.rate_max, full, now).map_err(Limit::Rate)?;
        }
        client.answered += 1;
        drop(table);
        Ok(Some(Turn { clients: Arc::clone(clients), client: key }))
    }

    /// Clients in the table, and requests that found it full.
    pub(super) fn counts(&self) -> (usize, u64) {
        (self.table().clients.len(), self.overflows.load(Relaxed))
    }

    /// The entry of a client: its own, or the one that all share for whom there is no room.
    fn entry(&self, table: &mut Table, client: IpAddr, now: Instant) -> IpAddr {
        if table.clients.contains_key(&client) || table.clients.len() < CLIENTS_MAX {
            return client;
        }
        if now.saturating_duration_since(table.swept) >= SWEEP_INTERVAL {
            table.swept = now;
            // Whose bucket is full again is as one that never asked.
            table.clients.retain(|_, client| {
                client.answered > 0
                    || now.saturating_duration_since(client.bucket.filled).as_secs_f64() < BURST_SECONDS
            });
            if table.clients.len() < CLIENTS_MAX {
                return client;
            }
        }
        self.overflows.fetch_add(1, Relaxed);
        IpAddr::V6(Ipv6Addr::UNSPECIFIED)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Bucket ===

impl Bucket {
    /// Filled to the brim.
    pub(super) fn full(tokens: f64, now: Instant) -> Self {
        Self { tokens, filled: now }
    }

    /// Takes a token; if there is none, how long it takes to come.
    pub(super) fn take(&mut self, rate: f64, full: f64, now: Instant) -> Result<(), Duration> {
        let passed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.tokens = (self.tokens + passed * rate).min(full.max(1.0));
        self.filled = now;
        if self.tokens < 1.0 {
            return Err(Duration::try_from_secs_f64((1.0 - self.tokens) / rate).unwrap_or(Duration::MAX));
        }
        self.tokens -= 1.0;
        Ok(())
    }
}

// === impl Turn ===

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(client) = self.clients.table().clients.get_mut(&self.client) {
            client.answered = client.answered.saturating_sub(1);
        }
    }
}

/// Who is one client.
fn client(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clients(concurrency: usize, rate: u32) -> Arc<Clients> {
        let config =
            Config { client_concurrency_max: concurrency, client_rate_max: rate, ..Config::default() };
        Clients::new(&config)
    }

    fn take(clients: &Arc<Clients>, address: &str, now: Instant) -> Result<Option<Turn>, Limit> {
        Clients::take(clients, address.parse().unwrap(), now)
    }

    #[test]
    fn one_client_has_so_many_at_one_time_and_another_its_own() {
        let (clients, now) = (clients(2, 0), Instant::now());
        let first = take(&clients, "10.0.0.1", now);
        let second = take(&clients, "::ffff:10.0.0.1", now);
        assert!(first.is_ok() && second.is_ok());
        assert_eq!(take(&clients, "10.0.0.1", now).err(), Some(Limit::Concurrency));
        assert!(take(&clients, "10.0.0.2", now).is_ok());
        drop(first);
        assert!(take(&clients, "10.0.0.1", now).is_ok());
    }

    #[test]
    fn a_network_of_version_six_is_one_client() {
        let (clients, now) = (clients(1, 0), Instant::now());
        let held = take(&clients, "2001:db8::1", now);
        assert!(held.is_ok());
        assert!(take(&clients, "2001:db8::ffff", now).is_err());
        assert!(take(&clients, "2001:db8:0:1::1", now).is_ok());
    }

    #[test]
    fn a_rate_comes_back_with_time_and_says_when() {
        let (clients, now) = (clients(1, 10), Instant::now());
        for _ in 0..20 {
            assert!(take(&clients, "10.0.0.1", now).is_ok(), "two seconds' worth at once");
        }
        let Err(Limit::Rate(wait)) = take(&clients, "10.0.0.1", now) else { panic!("no limit") };
        assert!((0.09..0.11).contains(&wait.as_secs_f64()), "{wait:?}");
        assert!(take(&clients, "10.0.0.1", now + Duration::from_millis(101)).is_ok());
    }

    #[test]
    fn loopback_is_left_out_unless_told() {
        let mut config = Config { client_concurrency_max: 1, ..Config::default() };
        let now = Instant::now();
        let open = Clients::new(&config);
        let held = take(&open, "127.0.0.1", now);
        assert!(matches!(held, Ok(None)) && take(&open, "::1", now).is_ok());
        config.limit_loopback = true;
        let limited = Clients::new(&config);
        let held = take(&limited, "127.0.0.1", now);
        assert!(matches!(held, Ok(Some(_))) && take(&limited, "127.0.0.1", now).is_err());
    }

    #[test]
    fn the_table_is_bounded_and_those_beyond_share_an_entry() {
        let (clients, now) = (clients(1, 1), Instant::now());
        let held: Vec<_> = (0..u32::try_from(CLIENTS_MAX).unwrap())
            .map(|k| Clients::take(&clients, IpAddr::V4((0x0a01_0000 + k).into()), now).ok().unwrap())
            .collect();
        let shared = take(&clients, "10.9.0.1", now);
        assert!(shared.is_ok() && take(&clients, "10.9.0.2", now).is_err());
        assert_eq!(clients.counts().1, 2);
        drop(held);
        assert!(take(&clients, "10.9.0.3", now + Duration::from_secs(3)).is_ok());
        assert!(clients.counts().0 <= 3, "those that ended long ago are forgotten");
    }
}
