//! Statements under way: many are sent before the first answer is awaited.
//!
//! Answers come in the order of the statements. Invariants: what is under way
//! is bounded in bytes and number; an answer is always checked, by
//! [`Pipeline::drain`] at the latest, before the transaction counts as committed; nothing
//! else is sent on the session while statements are under way.

use bytes::Bytes;
use scry_wire::one_row;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

/// The answer to one statement: how many rows it touched.
pub type Answer = Result<u64, tokio_postgres::Error>;
type Flight = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// What a statement was for.
#[derive(Debug, Clone)]
pub struct Note {
    /// The relation, 0 for none.
    pub relid: u32,
    /// INSERT, UPDATE, …
    pub operation: &'static str,
    /// How many rows it must touch, if that is known.
    pub rows: Option<u64>,
    /// The tuple that tells which row it is, for the record of conflicts.
    pub key: Option<Bytes>,
    /// Need not be answered before COMMIT: the server fails a statement that does not touch its one row,
    /// if it is one that does, or the statement is about none.
    pub is_held: bool,
}

impl Note {
    /// For a marked statement (`scry_wire::one_row`).
    pub fn one_row(relid: u32, operation: &'static str, key: Option<Bytes>) -> Self {
        Note { relid, operation, rows: Some(1), key, is_held: true }
    }

    /// For one that must touch so many rows, if that is known.
    pub fn rows(relid: u32, operation: &'static str, rows: Option<u64>) -> Self {
        Note { relid, operation, rows, key: None, is_held: false }
    }

    /// For one that touches no table's rows.
    pub fn plain(operation: &'static str) -> Self {
        Note { relid: 0, operation, rows: None, key: None, is_held: true }
    }
}

/// A statement whose answer was not what it must be.
#[derive(Debug)]
pub enum Miss {
    /// The shadow refused it.
    Sql(Note, tokio_postgres::Error),
    /// It touched another number of rows.
    Rows(Note, u64),
}

/// The statements under way on one session.
#[derive(Default)]
pub struct Pipeline {
    flights: VecDeque<(Flight, Note, usize)>,
    bytes: usize,
}

impl Pipeline {
    /// Sends a statement of about `bytes`; waits for the oldest ones while too
    /// much is under way.
    pub async fn send<F>(&mut self, flight: F, note: Note, bytes: usize) -> Result<(), Miss>
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        let mut flight: Flight = Box::pin(flight);
        // The first poll puts the statement on the wire.
        match poll_fn(|cx| Poll::Ready(flight.as_mut().poll(cx))).await {
            Poll::Ready(answer) => {
                self.drain().await?;
                return check(answer, note);
            }
            Poll::Pending => {}
        }
        let bytes = bytes + OVERHEAD;
        self.bytes += bytes;
        self.flights.push_back((flight, note, bytes));
        while self.bytes > BYTES_MAX || self.flights.len() > FLIGHTS_MAX {
            self.land().await?;
        }
        Ok(())
    }

    /// Waits for every answer.
    pub async fn drain(&mut self) -> Result<(), Miss> {
        while !self.flights.is_empty() {
            self.land().await?;
        }
        Ok(())
    }

    /// Whether nothing is under way.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.flights.is_empty()
    }

    async fn land(&mut self) -> Result<(), Miss> {
        let Some((flight, note, bytes)) = self.flights.pop_front() else { return Ok(()) };
        self.bytes = self.bytes.saturating_sub(bytes);
        check(flight.await, note)
    }
}

fn check(answer: Answer, note: Note) -> Result<(), Miss> {
    match answer {
        Err(error) => match error.as_db_error().and_then(|error| one_row::touched(error.message())) {
            Some(rows) if note.is_held => Err(Miss::Rows(note, rows)),
            _ => Err(Miss::Sql(note, error)),
        },
        Ok(rows) => match note.rows {
            Some(wanted) if wanted != rows => Err(Miss::Rows(note, rows)),
            _ => Ok(()),
        },
    }
}

/// Bytes of statements under way. A single larger one goes alone.
const BYTES_MAX: usize = 8 << 20;
/// What a statement costs here beside its values.
const OVERHEAD: usize = 1 << 10;
const FLIGHTS_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn note(rows: Option<u64>) -> Note {
        Note::rows(1, "UPDATE", rows)
    }

    async fn later(rows: u64) -> Answer {
        tokio::task::yield_now().await;
        Ok(rows)
    }

    #[tokio::test]
    async fn checks_every_answer_by_the_time_it_is_drained() {
        let mut pipeline = Pipeline::default();
        pipeline.send(later(1), note(Some(1)), 10).await.unwrap();
        pipeline.send(later(7), note(None), 10).await.unwrap();
        pipeline.send(later(0), note(Some(1)), 10).await.unwrap();
        assert!(matches!(pipeline.drain().await, Err(Miss::Rows(_, 0))));
    }

    #[tokio::test]
    async fn keeps_a_bounded_amount_under_way() {
        let mut pipeline = Pipeline::default();
        for _ in 0..20 {
            pipeline.send(later(1), note(Some(1)), 1 << 20).await.unwrap();
            assert!(pipeline.bytes <= BYTES_MAX);
        }
    }
}
