//! Marks and changes of pieces told apart: pure.
//!
//! Changes are passed over by their lengths, wherever frames cut them; marks
//! are read. Memory: one mark, or the head of a change.

use crate::Result;
use scry_wire::codec::Reader;
use scry_wire::limits;
use scry_wire::message::piece::{MARK_BYTES_MAX, Mark};

/// What stands next.
#[derive(Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// The head of a change that a frame's end had cut.
    Head([u8; HEAD_LEN]),
    /// Bytes of changes.
    Bytes(&'a [u8]),
    /// A mark.
    Mark(Mark),
}

/// Where in the run of changes the last payload ended.
#[derive(Debug, Default)]
pub struct Split {
    /// A mark, or the head of a change, that is not whole.
    kept: Vec<u8>,
    /// Of the change at hand so many bytes are still to come.
    left: usize,
}

impl Split {
    /// Whether the next byte begins a change or a mark.
    pub fn is_at_border(&self) -> bool {
        self.left == 0 && self.kept.is_empty()
    }

    /// Takes what stands next off the front of `input`; `None` when that is used up.
    ///
    /// # Errors
    /// A mark does not read, or a change is above its bound.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Item<'a>>> {
        let run = self.run(input)?;
        if run > 0 {
            return Ok(split_off(input, run).map(Item::Bytes));
        }
        self.fill(input, HEAD_LEN);
        let Some(body) = body_len(&self.kept)? else { return Ok(None) };
        let head = self.kept.first_chunk::<HEAD_LEN>().copied().filter(|head| !Mark::is_tag(head[0]));
        if let Some(head) = head {
            self.left = body;
            self.kept.clear();
            return Ok(Some(Item::Head(head)));
        }
        if body > MARK_BYTES_MAX {
            let (got, max) = (body as u64, MARK_BYTES_MAX as u64);
            return Err(scry_wire::Error::TooLarge { what: "mark length", got, max }.into());
        }
        self.fill(input, HEAD_LEN + body);
        if self.kept.len() < HEAD_LEN + body {
            return Ok(None);
        }
        let mark = Mark::read(&mut Reader::new(&self.kept))?;
        self.kept.clear();
        Ok(Some(Item::Mark(mark)))
    }

    /// Bytes of changes at the front of `input`, up to a mark or a head that is not whole.
    fn run(&mut self, input: &[u8]) -> Result<usize> {
        if !self.kept.is_empty() {
            return Ok(0);
        }
        let mut run = self.left;
        while let Some(rest) = input.get(run..).filter(|rest| !rest.is_empty()) {
            if rest.first().is_some_and(|tag| Mark::is_tag(*tag)) {
                break;
            }
            let Some(body) = body_len(rest)? else { break };
            run += HEAD_LEN + body;
        }
        let here = run.min(input.len());
        self.left = run - here;
        Ok(here)
    }

    /// Lets `kept` grow to `wanted` bytes, as far as there are any.
    fn fill(&mut self, input: &mut &[u8], wanted: usize) {
        let more = wanted.saturating_sub(self.kept.len()).min(input.len());
        self.kept.extend_from_slice(split_off(input, more).unwrap_or_default());
    }
}

fn split_off<'a>(input: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (front, rest) = input.split_at_checked(len)?;
    *input = rest;
    Some(front)
}

/// Bytes of the body behind a head, if that is there.
fn body_len(bytes: &[u8]) -> Result<Option<usize>> {
    let Some(head) = bytes.first_chunk::<HEAD_LEN>() else { return Ok(None) };
    let mut reader = Reader::new(head);
    reader.u8("change tag")?;
    Ok(Some(reader.count(limits::MESSAGE_BYTES_MAX, "change length")?))
}

/// Tag and length.
const HEAD_LEN: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use scry_wire::Lsn;
    use scry_wire::message::change::ChangeWriter;
    use scry_wire::message::piece::End;

    const MARKS: [Mark; 4] = [
        Mark::Transaction(7),
        Mark::Subtransaction(8),
        Mark::Abort { xid: 7, subxid: 8 },
        Mark::End(End { xid: 7, commit_lsn: Lsn(1), commit_time: 2, end_lsn: Lsn(3) }),
    ];

    /// The marks with two changes behind each, and the changes alone.
    fn sample() -> (Vec<u8>, Vec<u8>) {
        let (mut all, mut changes) = (Vec::new(), Vec::new());
        for mark in MARKS {
            mark.write(&mut all);
            for buf in [&mut all, &mut changes] {
                let mut writer = ChangeWriter::new(buf);
                let open = writer.insert(9);
                // Bytes that look like a mark's head stand inside.
                writer.tuple().extend_from_slice(b"P\0\0\0\x08abcdefgh");
                writer.close(open).unwrap();
                writer.truncate(0, &[9]);
            }
        }
        (all, changes)
    }

    fn split(parts: &[&[u8]]) -> (Vec<u8>, Vec<Mark>, bool) {
        let (mut split, mut bytes, mut marks) = (Split::default(), Vec::new(), Vec::new());
        for part in parts {
            let mut rest = *part;
            while let Some(item) = split.next(&mut rest).unwrap() {
                match item {
                    Item::Head(head) => bytes.extend_from_slice(&head),
                    Item::Bytes(more) => bytes.extend_from_slice(more),
                    Item::Mark(mark) => marks.push(mark),
                }
            }
            assert!(rest.is_empty());
        }
        (bytes, marks, split.is_at_border())
    }

    #[test]
    fn tells_marks_and_changes_apart_wherever_they_are_cut() {
        let (all, changes) = sample();
        for first in 0..all.len() {
            for len in [1, 2, 6, 40] {
                let second = (first + len).min(all.len());
                let (bytes, marks, at_border) = split(&[&all[..first], &all[first..second], &all[second..]]);
                assert_eq!(
                    (bytes, &marks[..], at_border),
                    (changes.clone(), &MARKS[..], true),
                    "{first} {len}"
                );
            }
        }
    }

    #[test]
    fn knows_that_a_change_goes_on() {
        let (all, _) = sample();
        let ends: Vec<usize> = (0..=all.len()).filter(|len| split(&[&all[..*len]]).2).collect();
        assert_eq!(ends.len(), 1 + 3 * MARKS.len());
    }

    #[test]
    fn refuses_what_is_above_its_bound() {
        for mut bytes in [&b"I\xff\xff\xff\xff"[..], b"P\0\0\0\x21", b"P\0\0\0\x01x"] {
            assert!(Split::default().next(&mut bytes).is_err());
        }
    }
}
