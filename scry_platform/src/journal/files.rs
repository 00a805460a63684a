//! A journal's files on disk: found, cut to what is whole, written, removed.
//!
//! What it does not do: decide when. [`super::store`] does.

use super::segment::{HEADER_LEN, Header, find_end};
use super::store::Identity;
use bytes::Bytes;
use scry_wire::Lsn;
use std::collections::VecDeque;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, IoSlice, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file of the journal, open.
#[derive(Debug)]
pub(super) struct Segment {
    /// What it says of itself.
    pub header: Header,
    /// Where it is.
    pub path: PathBuf,
    /// Open for reading and writing.
    pub file: Arc<File>,
    /// Bytes of the file that count.
    pub len: u64,
    /// Nothing is appended to it any more.
    pub closed: bool,
}

/// Makes a directory for the platform's user only.
pub(super) fn make_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    // Its entry must not be lost before what stands in it.
    match dir.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// The segments that belong together, in order. What stands behind one that
/// cannot be read is of no use.
pub(super) fn read_segments(dir: &Path, identity: &Identity) -> io::Result<VecDeque<Segment>> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(dir)?.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == EXTENSION));
    paths.sort();
    let mut segments = VecDeque::new();
    let mut is_whole = true;
    for path in paths {
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        let len = file.metadata()?.len();
        let mut head = [0; HEADER_LEN];
        let header = match file.read_exact_at(&mut head, 0) {
            Ok(()) => Header::decode(&head),
            Err(_) => None,
        };
        let header = header.filter(|header| {
            let whose = Identity {
                system_identifier: header.system_identifier,
                database_oid: header.database_oid,
                generation: header.generation,
            };
            let named = format!("{:016x}", header.number);
            whose == *identity && path.file_stem().is_some_and(|stem| *stem == *named)
        });
        is_whole &= header.is_some();
        match header {
            Some(header) if is_whole => {
                segments.push_back(Segment { header, path, file: Arc::new(file), len, closed: true });
            }
            _ => {
                tracing::warn!(segment = %path.display(), "removing a segment of the journal that cannot be used");
                std::fs::remove_file(&path)?;
            }
        }
    }
    Ok(segments)
}

/// Cuts what follows the last whole transaction, and brings the rest to disk.
pub(super) fn cut_torn(last: &mut Segment) -> io::Result<Lsn> {
    let mut at = HEADER_LEN as u64;
    let file = last.file.clone();
    let end = find_end(&last.header, || {
        let mut piece = vec![0; PIECE];
        let read = file.read_at(&mut piece, at)?;
        piece.truncate(read);
        at += read as u64;
        Ok::<_, io::Error>(Bytes::from(piece))
    })?;
    if end.offset < last.len {
        tracing::info!(segment = %last.path.display(), bytes = last.len - end.offset, "cut the journal's torn end");
    }
    last.file.set_len(end.offset)?;
    last.file.sync_all()?;
    last.len = end.offset;
    Ok(end.lsn)
}

/// Writes head and payload at once.
pub(super) fn write_all(file: &File, at: u64, head: &[u8], payload: &[u8]) -> io::Result<()> {
    use std::io::{Seek, SeekFrom};
    let mut file = file;
    // Nobody else moves it: records are written under the journal's lock.
    file.seek(SeekFrom::Start(at))?;
    let mut slices = &mut [IoSlice::new(head), IoSlice::new(payload)][..];
    while !slices.is_empty() {
        match file.write_vectored(slices) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut slices, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// What cannot be removed is found again at the next start.
pub(super) fn remove(segment: Option<Segment>) {
    let Some(segment) = segment else { return };
    if let Err(error) = std::fs::remove_file(&segment.path) {
        tracing::warn!(segment = %segment.path.display(), %error, "could not remove a segment of the journal");
    }
}

/// What a segment's name ends with.
pub(super) const EXTENSION: &str = "journal";
/// Bytes that are read or written at a time: no record is larger.
pub(super) const PIECE: usize = 1 << 20;
