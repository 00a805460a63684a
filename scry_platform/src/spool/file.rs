//! One transaction's changes in a file without a name.
//!
//! Subtransactions are nested: from a subtransaction's first change to its abort
//! nothing else of the transaction has changes but it and those within it. So
//! what an abort voids is cut off (worker.c in the server's
//! replication/logical, `stream_abort_internal`, does the same). Those within
//! it that have been released are named by aborts of their own.

use crate::journal::is_disk_short;
use bytes::Bytes;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};

/// A transaction's changes.
#[derive(Debug)]
pub struct Spool {
    dir: PathBuf,
    xid: u64,
    file: File,
    /// Bytes in the file.
    written: u64,
    /// Bytes that follow them.
    buf: Vec<u8>,
    /// Bytes given out.
    read: u64,
    /// Bytes written since the disk's room was looked at.
    unlooked: u64,
    /// Whom the next change belongs to.
    subxid: u64,
    /// Where each subtransaction's first change stands.
    firsts: HashMap<u64, u64>,
    /// The same subtransactions, by that place.
    order: Vec<u64>,
}

impl Spool {
    /// An empty one; its file is gone when this is.
    pub fn new(dir: &Path, xid: u64) -> io::Result<Spool> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        Ok(Spool {
            dir: dir.to_owned(),
            xid,
            file: tempfile::tempfile_in(dir)?,
            written: 0,
            buf: Vec::new(),
            read: 0,
            unlooked: u64::MAX,
            subxid: xid,
            firsts: HashMap::new(),
            order: Vec::new(),
        })
    }

    /// What follows belongs to this subtransaction, or to the transaction itself.
    pub fn enter(&mut self, subxid: u64) {
        self.subxid = subxid;
    }

    /// Appends bytes of changes.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.note_first();
        self.buf.extend_from_slice(bytes);
        if self.buf.len() >= BUF_BYTES { self.flush() } else { Ok(()) }
    }

    fn note_first(&mut self) {
        if self.subxid == self.xid {
            return;
        }
        let at = self.len();
        if let Entry::Vacant(new) = self.firsts.entry(self.subxid) {
            new.insert(at);
            self.order.push(self.subxid);
        }
    }

    /// Cuts off what belongs to a subtransaction and those within it.
    pub fn cut(&mut self, subxid: u64) -> io::Result<()> {
        let Some(at) = self.firsts.get(&subxid).copied() else { return Ok(()) };
        while let Some(last) =
            self.order.pop_if(|last| self.firsts.get(last).is_some_and(|first| *first >= at))
        {
            self.firsts.remove(&last);
        }
        self.subxid = self.xid;
        if at >= self.written {
            self.buf.truncate(usize::try_from(at - self.written).unwrap_or(usize::MAX));
            return Ok(());
        }
        self.buf.clear();
        self.written = at;
        self.file.set_len(at)
    }

    fn len(&self) -> u64 {
        self.written + self.buf.len() as u64
    }

    fn flush(&mut self) -> io::Result<()> {
        let bytes = self.buf.len() as u64;
        self.unlooked = self.unlooked.saturating_add(bytes);
        if self.unlooked >= LOOK_BYTES {
            if is_disk_short(&self.dir) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.unlooked = 0;
        }
        self.file.write_all_at(&self.buf, self.written)?;
        self.written += bytes;
        self.buf.clear();
        Ok(())
    }

    /// The next bytes from the beginning; `None` behind the last. Nothing is
    /// appended any more.
    pub fn read(&mut self) -> io::Result<Option<Bytes>> {
        let left = self.written.saturating_sub(self.read);
        if left == 0 {
            let rest = std::mem::take(&mut self.buf);
            return Ok((!rest.is_empty()).then(|| rest.into()));
        }
        let mut piece = vec![0; usize::try_from(left).map_or(BUF_BYTES, |left| left.min(BUF_BYTES))];
        self.file.read_exact_at(&mut piece, self.read)?;
        self.read += piece.len() as u64;
        Ok(Some(piece.into()))
    }
}

/// Bytes that are written or read at a time.
const BUF_BYTES: usize = 1 << 20;
/// The disk's room is looked at once in so many bytes.
const LOOK_BYTES: u64 = 32 << 20;
