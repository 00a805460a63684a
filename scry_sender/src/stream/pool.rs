//! HTTP/2 connections, shared by the workers' streams.
//!
//! Role: changes share one connection, so that acknowledgements never wait
//! behind a copy's bytes; copies share a few, so that TLS runs on several cores.
//! Invariants: connections of one class are made one after another, and
//! whoever waited while an attempt failed shares its failure; a connection
//! that has ended, goes away or is retired takes no new stream, and its old
//! streams go on undisturbed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use h2::client::SendRequest;
use scry_wire::message::Role;
use tokio::sync::{Mutex as AsyncMutex, watch};

use super::connect::{Lease, Live, STREAMS_MAX, connect};
use crate::config::PlatformConfig;
use crate::error::Failure;
use crate::pack::Presses;

/// Which connections a stream shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Changes.
    Stream,
    /// Copies of tables, and their leaders.
    Copy,
}

impl From<Role> for Class {
    fn from(role: Role) -> Self {
        match role {
            Role::Stream => Class::Stream,
            Role::Lead | Role::Copy | Role::Verify => Class::Copy,
        }
    }
}

/// All HTTP/2 connections of the program.
#[derive(Debug)]
pub struct Pool {
    config: watch::Receiver<Arc<PlatformConfig>>,
    stream: Shelf,
    copy: Shelf,
    presses: Arc<Presses>,
}

/// A place for one stream on a connection.
#[derive(Debug)]
pub struct Place {
    /// Makes the request.
    pub requests: SendRequest<Bytes>,
    /// Counts the stream.
    pub lease: Lease,
    /// The settings under which the connection was made.
    pub config: Arc<PlatformConfig>,
}

/// The connections of a class.
#[derive(Debug)]
struct Shelf {
    wanted: usize,
    live: Mutex<Vec<(Live, Arc<PlatformConfig>)>>,
    attempt: AsyncMutex<Option<(Instant, Failure)>>,
}

impl Pool {
    /// No connection yet. `config` may change; connections follow.
    #[must_use]
    pub fn new(config: watch::Receiver<Arc<PlatformConfig>>, copy_connections: usize) -> Self {
        Pool { config, stream: Shelf::new(1), copy: Shelf::new(copy_connections), presses: Arc::default() }
    }

    /// Gives up all connections for new streams: files behind the same
    /// settings may have changed.
    pub fn retire(&self) {
        for shelf in [&self.stream, &self.copy] {
            shelf.live.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
    }

    /// What packs for all streams.
    #[must_use]
    pub fn presses(&self) -> Arc<Presses> {
        Arc::clone(&self.presses)
    }

    /// A place on a connection of this class, new or old.
    pub async fn place(&self, class: Class) -> Result<Place, Failure> {
        let shelf = match class {
            Class::Stream => &self.stream,
            Class::Copy => &self.copy,
        };
        let asked = Instant::now();
        let config = Arc::clone(&self.config.borrow());
        if let Some(place) = shelf.find(&config) {
            return Ok(place);
        }
        let mut attempt = shelf.attempt.lock().await;
        if let Some(place) = shelf.find(&config) {
            return Ok(place);
        }
        if let Some((at, failure)) = attempt.as_ref()
            && *at >= asked
        {
            return Err(failure.clone());
        }
        match connect(&config).await {
            Ok(live) => {
                let place = place_on(&live, &config);
                shelf.live.lock().unwrap_or_else(PoisonError::into_inner).push((live, config));
                Ok(place)
            }
            Err(failure) => {
                *attempt = Some((Instant::now(), failure.clone()));
                Err(failure)
            }
        }
    }
}

impl Shelf {
    fn new(wanted: usize) -> Self {
        Shelf { wanted, live: Mutex::new(Vec::new()), attempt: AsyncMutex::new(None) }
    }

    /// A place on the connection with the fewest streams; none if another
    /// connection should be made.
    fn find(&self, config: &Arc<PlatformConfig>) -> Option<Place> {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.retain(|(live, made_for)| live.shared.end().is_none() && made_for == config);
        let fewest = live.iter().min_by_key(|(live, _)| live.shared.streams())?;
        let streams = fewest.0.shared.streams();
        let most = STREAMS_MAX.min(fewest.0.requests.current_max_send_streams());
        if streams >= most || (streams > 0 && live.len() < self.wanted) {
            return None;
        }
        Some(place_on(&fewest.0, config))
    }

    /// Takes a connection that refused a request off the shelf.
    fn drop_ended(&self, lease: &Lease) {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.retain(|(live, _)| !Arc::ptr_eq(&live.shared, &lease.0));
    }
}

impl Pool {
    /// Takes a connection that refuses requests (it goes away) off its shelf.
    pub fn refuse(&self, lease: &Lease) {
        self.stream.drop_ended(lease);
        self.copy.drop_ended(lease);
    }
}

fn place_on(live: &Live, config: &Arc<PlatformConfig>) -> Place {
    Place { requests: live.requests.clone(), lease: Lease::new(&live.shared), config: Arc::clone(config) }
}
