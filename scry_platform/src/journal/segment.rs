//! The form of a segment: a header and records. Pure: bytes in, bytes out.
//!
//! ```text
//! header  magic 8, version 2, flags 2 (1: begins a connection), timeline 4, number 8,
//!         system_identifier 8, database_oid 4, generation 8, base 8, crc32c 4
//! record  length 4, flags 4 (1: the last change goes on), mark 8, chain 4, payload
//! ```
//!
//! `base` is the position at the segment's beginning: everything before it was
//! in earlier segments or on the shadow. `mark`, where it is not 0, says that
//! with this record everything up to there is complete. `chain` is the checksum
//! of the one before it (of the header, at first), the record's first 16 bytes
//! and its payload: a record is read only behind all that stood before it when
//! it was written.

use bytes::Bytes;
use scry_wire::Lsn;
use scry_wire::limits::FRAME_PAYLOAD_MAX;

/// Bytes of a segment's header.
pub const HEADER_LEN: usize = 56;
/// Bytes before a record's payload.
pub const RECORD_HEAD_LEN: usize = 20;
/// Bytes of the largest record.
pub const RECORD_MAX: usize = RECORD_HEAD_LEN + FRAME_PAYLOAD_MAX;

/// What stands at the beginning of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The segment's number.
    pub number: u64,
    /// The source's timeline that its changes belong to.
    pub timeline: u32,
    /// The source's cluster.
    pub system_identifier: u64,
    /// The database on it.
    pub database_oid: u32,
    /// The job's full start.
    pub generation: u64,
    /// The position before the first record.
    pub base: Lsn,
    /// A connection of the source begins here.
    pub begins_connection: bool,
}

impl Header {
    /// The header's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        let mut rest = &mut bytes[..];
        let mut put = |field: &[u8]| {
            let (here, behind) = std::mem::take(&mut rest).split_at_mut(field.len());
            here.copy_from_slice(field);
            rest = behind;
        };
        put(MAGIC);
        put(&VERSION.to_be_bytes());
        put(&u16::from(self.begins_connection).to_be_bytes());
        put(&self.timeline.to_be_bytes());
        put(&self.number.to_be_bytes());
        put(&self.system_identifier.to_be_bytes());
        put(&self.database_oid.to_be_bytes());
        put(&self.generation.to_be_bytes());
        put(&self.base.0.to_be_bytes());
        let crc = seed(&bytes);
        if let Some(place) = bytes.last_chunk_mut() {
            *place = crc.to_be_bytes();
        }
        bytes
    }

    /// Reads a header; `None` for anything else.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Header> {
        let bytes: &[u8; HEADER_LEN] = bytes.first_chunk()?;
        let mut rest = &bytes[..];
        if take(&mut rest)? != *MAGIC || u16::from_be_bytes(take(&mut rest)?) != VERSION {
            return None;
        }
        let flags = u16::from_be_bytes(take(&mut rest)?);
        let header = Header {
            timeline: u32::from_be_bytes(take(&mut rest)?),
            number: u64::from_be_bytes(take(&mut rest)?),
            system_identifier: u64::from_be_bytes(take(&mut rest)?),
            database_oid: u32::from_be_bytes(take(&mut rest)?),
            generation: u64::from_be_bytes(take(&mut rest)?),
            base: Lsn(u64::from_be_bytes(take(&mut rest)?)),
            begins_connection: flags == 1,
        };
        (flags <= 1 && u32::from_be_bytes(take(&mut rest)?) == seed(bytes)).then_some(header)
    }

    /// Where the chain of this header's segment begins.
    #[must_use]
    pub fn chain(&self) -> u32 {
        seed(&self.encode())
    }
}

fn seed(header: &[u8; HEADER_LEN]) -> u32 {
    crc32c::crc32c(header.get(..HEADER_LEN - 4).unwrap_or_default())
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (field, behind) = rest.split_first_chunk()?;
    *rest = behind;
    Some(*field)
}

/// The bytes before a record's payload, and the chain behind it.
#[must_use]
pub fn record_head(
    chain: u32,
    payload: &[u8],
    continued: bool,
    mark: Option<Lsn>,
) -> ([u8; RECORD_HEAD_LEN], u32) {
    let mut head = [0; RECORD_HEAD_LEN];
    let fields = [
        u64::from(u32::try_from(payload.len()).unwrap_or(u32::MAX)) << 32 | u64::from(continued),
        mark.map_or(0, |lsn| lsn.0),
    ];
    for (place, field) in head.chunks_exact_mut(8).zip(fields) {
        place.copy_from_slice(&field.to_be_bytes());
    }
    let chain = link(chain, &head, payload);
    if let Some(place) = head.last_chunk_mut() {
        *place = chain.to_be_bytes();
    }
    (head, chain)
}

fn link(chain: u32, head: &[u8; RECORD_HEAD_LEN], payload: &[u8]) -> u32 {
    let fields = head.get(..RECORD_HEAD_LEN - 4).unwrap_or_default();
    crc32c::crc32c_append(crc32c::crc32c_append(chain, fields), payload)
}

/// A record, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Changes.
    pub payload: Bytes,
    /// The last one goes on in the next record.
    pub continued: bool,
    /// Everything up to here is complete with this record.
    pub mark: Option<Lsn>,
    /// The chain behind it.
    pub chain: u32,
}

impl Record {
    /// Bytes of the whole record.
    #[must_use]
    pub fn len(&self) -> usize {
        RECORD_HEAD_LEN + self.payload.len()
    }

    /// Whether it carries nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.payload.is_empty()
    }
}

/// What stands at the front of some bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Front {
    /// A whole record.
    Record(Record),
    /// The beginning of one, as far as can be told; or nothing.
    Short,
    /// Something that is none.
    Bad,
}

/// Reads the record at the front of `bytes`, which stands behind `chain`.
#[must_use]
pub fn front(bytes: &Bytes, chain: u32) -> Front {
    let Some(head) = bytes.first_chunk::<RECORD_HEAD_LEN>() else { return Front::Short };
    let mut rest = &head[..];
    let (Some(len), Some(flags), Some(mark), Some(sum)) =
        (take(&mut rest), take(&mut rest), take(&mut rest), take(&mut rest))
    else {
        return Front::Short;
    };
    let (len, flags) = (u32::from_be_bytes(len) as usize, u32::from_be_bytes(flags));
    if len > FRAME_PAYLOAD_MAX || flags > 1 {
        return Front::Bad;
    }
    if bytes.len() < RECORD_HEAD_LEN + len {
        return Front::Short;
    }
    let payload = bytes.slice(RECORD_HEAD_LEN..RECORD_HEAD_LEN + len);
    let chain = link(chain, head, &payload);
    if chain != u32::from_be_bytes(sum) {
        return Front::Bad;
    }
    let mark = Some(Lsn(u64::from_be_bytes(mark))).filter(|lsn| lsn.is_valid());
    Front::Record(Record { payload, continued: flags == 1, mark, chain })
}

/// The last whole transaction of a segment, found by reading all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// Where it ends in the file: the segment is cut there.
    pub offset: u64,
    /// Its position; the base where there is none.
    pub lsn: Lsn,
    /// The chain there.
    pub chain: u32,
}

/// Finds the end of a segment whose bytes `read` gives piece by piece, from the
/// header's end on; an empty piece is the end of the file.
///
/// # Errors
/// What `read` fails with.
pub fn find_end<E>(header: &Header, mut read: impl FnMut() -> Result<Bytes, E>) -> Result<End, E> {
    let mut chain = header.chain();
    let mut at = HEADER_LEN as u64;
    let mut end = End { offset: at, lsn: header.base, chain };
    let mut held = Bytes::new();
    loop {
        let record = match front(&held, chain) {
            Front::Record(record) => record,
            Front::Bad => return Ok(end),
            Front::Short => {
                let piece = read()?;
                if piece.is_empty() {
                    return Ok(end);
                }
                held = if held.is_empty() { piece } else { [&held[..], &piece[..]].concat().into() };
                continue;
            }
        };
        at += record.len() as u64;
        chain = record.chain;
        held = held.slice(record.len()..);
        if let Some(mark) = record.mark {
            end = End { offset: at, lsn: mark.max(end.lsn), chain };
        }
    }
}

const MAGIC: &[u8; 8] = b"SCRYJRNL";
const VERSION: u16 = 1;

const _: () = assert!(8 + 2 + 2 + 4 + 8 + 8 + 4 + 8 + 8 + 4 == HEADER_LEN, "the fields fill the header");

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header() -> Header {
        Header {
            number: 3,
            timeline: 2,
            system_identifier: 7,
            database_oid: 5,
            generation: 9,
            base: Lsn(100),
            begins_connection: true,
        }
    }

    type Written = (Vec<u8>, bool, Option<Lsn>);

    /// A segment's bytes, and where each record ends.
    fn segment(records: &[Written]) -> (Vec<u8>, Vec<(u64, Lsn)>) {
        let mut bytes = header().encode().to_vec();
        let (mut chain, mut marks) = (header().chain(), vec![(HEADER_LEN as u64, header().base)]);
        for (payload, continued, mark) in records {
            let (head, next) = record_head(chain, payload, *continued, *mark);
            bytes.extend_from_slice(&head);
            bytes.extend_from_slice(payload);
            chain = next;
            if let Some(lsn) = mark {
                marks.push((bytes.len() as u64, *lsn));
            }
        }
        (bytes, marks)
    }

    fn end_of(bytes: &[u8], piece: usize) -> End {
        let mut pieces = bytes[HEADER_LEN..].chunks(piece.max(1));
        let read = || Ok::<_, ()>(pieces.next().map(Bytes::copy_from_slice).unwrap_or_default());
        find_end(&header(), read).unwrap()
    }

    fn records() -> impl Strategy<Value = Vec<Written>> {
        let one = (proptest::collection::vec(any::<u8>(), 0..40), any::<bool>(), any::<bool>());
        proptest::collection::vec(one, 0..12).prop_map(|list| {
            let numbered = list.into_iter().zip(101..);
            numbered
                .map(|((bytes, continued, marks), n)| (bytes, continued, marks.then_some(Lsn(n))))
                .collect()
        })
    }

    #[test]
    fn reads_the_header_it_writes_and_no_other() {
        let bytes = header().encode();
        assert_eq!(Header::decode(&bytes), Some(header()));
        for bit in 0..HEADER_LEN * 8 {
            let mut bad = bytes;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::decode(&bad), None, "bit {bit}");
        }
        assert_eq!(Header::decode(&bytes[..HEADER_LEN - 1]), None);
    }

    #[test]
    fn rejects_a_record_behind_another() {
        let (one, chain) = record_head(1, b"x", false, None);
        let bytes = Bytes::from([&one[..], b"x"].concat());
        assert!(matches!(front(&bytes, 1), Front::Record(record) if record.chain == chain));
        assert_eq!(front(&bytes, 2), Front::Bad);
        let mut long = bytes.to_vec();
        long[..4].copy_from_slice(&u32::MAX.to_be_bytes());
        assert_eq!(front(&long.into(), 1), Front::Bad, "it is not waited for");
    }

    proptest! {
        /// Cut at every byte: the last whole transaction before the cut is the end.
        #[test]
        fn ends_at_the_last_whole_transaction_wherever_it_is_cut(records in records(), piece in 1usize..200) {
            let (bytes, marks) = segment(&records);
            for cut in HEADER_LEN..=bytes.len() {
                let end = end_of(&bytes[..cut], piece);
                let wanted = marks.iter().rfind(|(offset, _)| *offset <= cut as u64).unwrap();
                prop_assert_eq!((end.offset, end.lsn), *wanted, "cut at {}", cut);
            }
        }

        /// A flipped bit: nothing at or behind it is taken for whole.
        #[test]
        fn takes_nothing_behind_a_flipped_bit(records in records(), at in any::<proptest::sample::Index>(), bit in 0u8..8) {
            let (mut bytes, marks) = segment(&records);
            prop_assume!(bytes.len() > HEADER_LEN);
            let place = HEADER_LEN + at.index(bytes.len() - HEADER_LEN);
            bytes[place] ^= 1 << bit;
            let end = end_of(&bytes, 64);
            let wanted = marks.iter().rfind(|(offset, _)| *offset <= place as u64).unwrap();
            prop_assert_eq!((end.offset, end.lsn), *wanted);
        }

        /// What an older file left behind the end is not taken for more.
        #[test]
        fn takes_nothing_of_what_stood_there_before(new in records(), old in records()) {
            let (bytes, marks) = segment(&new);
            let (stale, _) = segment(&old);
            let mut mixed = bytes.clone();
            mixed.extend_from_slice(stale.get(bytes.len()..).unwrap_or_default());
            let end = end_of(&mixed, 50);
            let same = old.len() >= new.len() && old[..new.len()] == new[..];
            prop_assume!(!same);
            prop_assert_eq!((end.offset, end.lsn), *marks.last().unwrap());
        }

        /// Any bytes at all: no panic, and no end beyond them.
        #[test]
        fn takes_garbage_for_nothing(garbage in proptest::collection::vec(any::<u8>(), 0..300)) {
            let bytes = [&header().encode()[..], &garbage].concat();
            let end = end_of(&bytes, 33);
            prop_assert_eq!((end.offset, end.lsn), (HEADER_LEN as u64, Lsn(100)));
        }
    }
}
