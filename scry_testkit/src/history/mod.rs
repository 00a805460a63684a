//! Random histories of a database: schema changes and rows, mixed.
//!
//! ```text
//! seed ─► step: what there is (the catalogs) ─► statements ─► run; refused ones count for nothing
//! ```
//!
//! The generator keeps no model of the database: each statement is made for
//! objects that the catalogs show at that moment, and what the server refuses
//! is rolled back to a savepoint. A seed gives the same choices as long as the
//! server gives the same answers.
//!
//! What it does not do: look at the shadow, or decide whether it is right.

mod change;
mod rows;
mod statement;

pub use change::KINDS;

use anyhow::{Context, Result};
use postgres::Client;

use crate::rng::Rng;
use statement::Catalog;

/// What a history did, for its line of figures.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Steps run.
    pub steps: u64,
    /// Schema changes that the server took.
    pub changes: u64,
    /// Statements on rows that the server took.
    pub rows: u64,
    /// Statements that the server refused.
    pub refused: u64,
    /// The last statements, newest last.
    pub recent: Vec<String>,
}

/// A random history on one connection.
pub struct History {
    rng: Rng,
    number: u64,
    /// What it did so far.
    pub tally: Tally,
}

/// How many statements the tally remembers.
const RECENT_MAX: usize = 60;

impl History {
    /// The history that belongs to `rng`.
    pub fn new(rng: Rng) -> History {
        History { rng, number: 0, tally: Tally::default() }
    }

    /// One step: a statement by itself, or a transaction of several, which may
    /// be rolled back as a whole or in part.
    pub fn step(&mut self, client: &mut Client) -> Result<()> {
        self.tally.steps += 1;
        if self.rng.chance(70) {
            return self.alone(client);
        }
        client.batch_execute("BEGIN").context("begin")?;
        let count = 1 + self.rng.below(6);
        for number in 0..count {
            client.batch_execute(&format!("SAVEPOINT s{number}")).context("savepoint")?;
            if let Err(error) = self.statement(client) {
                self.refused(&error)?;
                client.batch_execute(&format!("ROLLBACK TO s{number}")).context("roll back")?;
            } else if self.rng.chance(10) {
                self.note("ROLLBACK TO SAVEPOINT".to_owned());
                client.batch_execute(&format!("ROLLBACK TO s{number}")).context("roll back")?;
            }
        }
        let end = if self.rng.chance(85) { "COMMIT" } else { "ROLLBACK" };
        self.note(end.to_owned());
        // A deferred constraint may still refuse it.
        if let Err(error) = client.batch_execute(end) {
            self.refused(&error.into())?;
        }
        Ok(())
    }

    fn alone(&mut self, client: &mut Client) -> Result<()> {
        match self.statement(client) {
            Ok(()) => Ok(()),
            Err(error) => self.refused(&error),
        }
    }

    fn statement(&mut self, client: &mut Client) -> Result<()> {
        let catalog = Catalog::read(client)?;
        let is_change = self.rng.chance(45) || catalog.tables.is_empty();
        let sql = if is_change {
            self.number += 1;
            change::statement(&mut self.rng, &catalog, self.number)
        } else {
            rows::statement(&mut self.rng, &catalog)
        };
        let Some(sql) = sql else { return Ok(()) };
        self.note(sql.clone());
        client.batch_execute(&sql).with_context(|| sql.clone())?;
        if is_change {
            self.tally.changes += 1;
        } else {
            self.tally.rows += 1;
        }
        Ok(())
    }

    fn note(&mut self, sql: String) {
        if self.tally.recent.len() == RECENT_MAX {
            self.tally.recent.remove(0);
        }
        self.tally.recent.push(sql);
    }

    /// A refusal is part of the game; a lost connection is not.
    fn refused(&mut self, error: &anyhow::Error) -> Result<()> {
        self.tally.refused += 1;
        let is_refusal = error
            .chain()
            .filter_map(|cause| cause.downcast_ref::<postgres::Error>())
            .any(|cause| cause.as_db_error().is_some());
        self.note(format!("-- refused: {error:#}"));
        anyhow::ensure!(is_refusal, "{error:#}");
        Ok(())
    }
}
