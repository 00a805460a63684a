//! Transactions that come in pieces before their end is known, put aside.
//!
//! ```text
//! Piece frames ─► split ─► a file for each transaction ──end──► payloads of batches ─► apply or journal
//! Batch frames ──────────────────────────────────────────────────────────────────────►
//! ```
//!
//! Role: everything behind this knows whole transactions only, in the order of
//! their commits. The source need not keep what is larger than its memory.
//!
//! Invariants: what an abort names leaves nothing, nor does a transaction that
//! never ends; memory is a buffer for each open transaction and a number for
//! each subtransaction that has changes; the files have no names, so that none
//! of them outlives its connection, however that ends.
//! What it does not do: know what a change says. It is not durable either:
//! nothing of a piece is confirmed before its transaction's end.

mod file;
mod split;

use crate::accept::link::{FrameReader, unexpected};
use crate::journal::blocking;
use crate::{Error, Result};
use bytes::Bytes;
use file::Spool;
use scry_wire::frame::Tag;
use scry_wire::message::change::ChangeWriter;
use scry_wire::message::piece::{End, Mark};
use split::{Item, Split};
use std::collections::HashMap;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};

/// A batch's payload, and whether its last change goes on in the next one.
pub type Part = (Bytes, bool);

/// Reads a stream connection's frames: what comes out are batches.
pub struct Intake {
    reader: FrameReader,
    /// `None` while a thread works with it, and for good when that failed.
    spools: Option<Spools>,
}

impl Intake {
    /// Spools stand in `dir`, which is made when the first one is.
    #[must_use]
    pub fn new(reader: FrameReader, dir: &Path) -> Self {
        Intake { reader, spools: Some(Spools::new(dir)) }
    }

    /// The next payload; `None` when the peer has ended the request in order.
    ///
    /// # Errors
    /// A bad frame, a broken connection, or a spool that cannot be written.
    pub async fn next(&mut self) -> Result<Option<Part>> {
        loop {
            if self.spools.as_ref().is_none_or(Spools::has_output)
                && let Some(part) = self.work(Spools::take).await?
            {
                return Ok(Some(part));
            }
            let Some(frame) = self.reader.next().await? else { return Ok(None) };
            match frame.tag() {
                Tag::Batch => return Ok(Some((frame.payload(), frame.continued()))),
                Tag::Piece => {
                    let (payload, continued) = (frame.payload(), frame.continued());
                    self.work(move |spools| spools.put(&payload, continued)).await?;
                }
                _ => return Err(unexpected(&frame, "batch")),
            }
        }
    }

    /// Works with the files where that holds up nobody else.
    async fn work<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Spools) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let mut spools = self.spools.take().ok_or(Error::Gone)?;
        let (spools, done) = blocking(move || {
            let done = work(&mut spools);
            (spools, done)
        })
        .await?;
        self.spools = Some(spools);
        done
    }
}

/// The open transactions of one connection.
struct Spools {
    dir: PathBuf,
    open: HashMap<u64, Spool>,
    /// Whose piece is being read.
    current: Option<u64>,
    split: Split,
    /// Transactions that have ended, to be given out.
    output: VecDeque<(End, Spool)>,
    /// The beginning of the first of them has been given out.
    has_begun: bool,
}

impl Spools {
    fn new(dir: &Path) -> Self {
        Spools {
            dir: dir.to_owned(),
            open: HashMap::new(),
            current: None,
            split: Split::default(),
            output: VecDeque::new(),
            has_begun: false,
        }
    }

    fn has_output(&self) -> bool {
        !self.output.is_empty()
    }

    /// Takes a piece frame's payload.
    fn put(&mut self, payload: &[u8], continued: bool) -> Result<()> {
        let mut rest = payload;
        while let Some(item) = self.split.next(&mut rest)? {
            match item {
                Item::Head(head) => self.bytes(&head)?,
                Item::Bytes(bytes) => self.bytes(bytes)?,
                Item::Mark(mark) => self.mark(mark)?,
            }
        }
        if continued || self.split.is_at_border() {
            return Ok(());
        }
        Err(Error::protocol("a piece ends inside a change"))
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        let spool = self.current.and_then(|xid| self.open.get_mut(&xid)).ok_or_else(no_transaction)?;
        spool.append(bytes).map_err(|error| self.failed("write", &error))
    }

    fn mark(&mut self, mark: Mark) -> Result<()> {
        match mark {
            Mark::Transaction(xid) => {
                if !self.open.contains_key(&xid) {
                    let spool = Spool::new(&self.dir, xid).map_err(|error| self.failed("make", &error))?;
                    self.open.insert(xid, spool);
                }
                self.current = Some(xid);
                self.open.get_mut(&xid).ok_or_else(no_transaction)?.enter(xid);
            }
            Mark::Subtransaction(xid) => {
                let current = self.current.and_then(|xid| self.open.get_mut(&xid));
                current.ok_or_else(no_transaction)?.enter(xid);
            }
            Mark::Abort { xid, subxid } if xid == subxid => {
                self.open.remove(&xid).ok_or_else(no_transaction)?;
            }
            Mark::Abort { xid, subxid } => {
                let spool = self.open.get_mut(&xid).ok_or_else(no_transaction)?;
                spool.cut(subxid).map_err(|error| self.failed("cut", &error))?;
            }
            Mark::End(end) => {
                let spool = self.open.remove(&end.xid).ok_or_else(no_transaction)?;
                self.output.push_back((end, spool));
            }
        }
        Ok(())
    }

    /// The next payload of the transactions that have ended.
    fn take(&mut self) -> Result<Option<Part>> {
        let Some((end, spool)) = self.output.front_mut() else { return Ok(None) };
        let mut payload = Vec::new();
        if !std::mem::replace(&mut self.has_begun, true) {
            ChangeWriter::new(&mut payload).begin(end.begin());
            return Ok(Some((payload.into(), true)));
        }
        match spool.read() {
            Ok(Some(piece)) => Ok(Some((piece, true))),
            Ok(None) => {
                ChangeWriter::new(&mut payload).commit(end.commit());
                self.output.pop_front();
                self.has_begun = false;
                Ok(Some((payload.into(), false)))
            }
            Err(error) => Err(self.failed("read", &error)),
        }
    }

    fn failed(&self, what: &str, error: &std::io::Error) -> Error {
        Error::Spool(format!(
            "could not {what} a file for a large transaction in {}: {error}",
            self.dir.display()
        ))
    }
}

fn no_transaction() -> Error {
    Error::protocol("a piece belongs to no open transaction")
}

#[cfg(test)]
mod tests;
