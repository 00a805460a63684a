//! What comes out of the spools, for any way in.

use super::*;
use proptest::prelude::*;
use scry_wire::Lsn;

/// Something that a source writes.
#[derive(Debug, Clone)]
enum Step {
    /// A change of a transaction (0 to 2), in the subtransaction on top.
    Change(u64, u16),
    /// A subtransaction begins in it.
    Begin(u64),
    /// Its youngest one is released (true) or aborted.
    Leave(u64, bool),
    /// It ends.
    End(u64),
}

/// A transaction of the model: what counts, and who is open with its first change's place.
#[derive(Default)]
struct Open {
    changes: Vec<u64>,
    is_sent: bool,
    /// Ids of open subtransactions, each with those that were released into it.
    stack: Vec<(u64, Vec<u64>)>,
    /// Where the first change of each stands.
    firsts: HashMap<u64, usize>,
}

/// Writes the steps as a source does, and tells what each end must give out.
#[derive(Default)]
struct Source {
    buf: Vec<u8>,
    open: HashMap<u64, Open>,
    next_xid: u64,
    next_value: u64,
    ends: Vec<(u64, Vec<u64>)>,
}

fn change(buf: &mut Vec<u8>, value: u64, len: usize) {
    let mut writer = ChangeWriter::new(buf);
    let open = writer.insert(9);
    writer.tuple().extend_from_slice(&value.to_be_bytes());
    writer.tuple().resize(len, 0);
    writer.close(open).unwrap();
}

impl Source {
    fn step(&mut self, step: &Step) {
        match *step {
            Step::Change(xid, len) => {
                self.next_value += 1;
                let value = self.next_value;
                let open = self.open.entry(xid).or_default();
                let subxid = open.stack.last().map_or(xid, |(subxid, _)| *subxid);
                open.firsts.entry(subxid).or_insert(open.changes.len());
                open.changes.push(value);
                open.is_sent = true;
                Mark::Transaction(xid).write(&mut self.buf);
                if subxid != xid {
                    Mark::Subtransaction(subxid).write(&mut self.buf);
                }
                let at = self.buf.len();
                change(&mut self.buf, value, at + usize::from(len) + 20);
            }
            Step::Begin(xid) => {
                self.next_xid += 1;
                self.open.entry(xid).or_default().stack.push((100 + self.next_xid, Vec::new()));
            }
            Step::Leave(xid, true) => {
                let Some(open) = self.open.get_mut(&xid) else { return };
                let Some((subxid, mut within)) = open.stack.pop() else { return };
                within.push(subxid);
                if let Some((_, parents)) = open.stack.last_mut() {
                    parents.extend(within);
                }
            }
            Step::Leave(xid, false) => {
                let Some(open) = self.open.get_mut(&xid) else { return };
                let Some((subxid, mut within)) = open.stack.pop() else { return };
                within.push(subxid);
                for subxid in within {
                    if open.is_sent {
                        Mark::Abort { xid, subxid }.write(&mut self.buf);
                    }
                    if let Some(first) = open.firsts.remove(&subxid) {
                        open.changes.truncate(first);
                    }
                }
                open.firsts.retain(|_, first| *first < open.changes.len());
            }
            Step::End(xid) => {
                if let Some(open) = self.open.remove(&xid).filter(|open| open.is_sent) {
                    let end = End { xid, commit_lsn: Lsn(1), commit_time: 2, end_lsn: Lsn(3) };
                    Mark::End(end).write(&mut self.buf);
                    self.ends.push((xid, open.changes));
                }
            }
        }
    }
}

/// Feeds the bytes in frames of so many bytes and reads what comes out.
fn through(bytes: &[u8], frame: usize) -> Vec<(u64, Vec<u64>)> {
    use scry_wire::codec::Reader;
    use scry_wire::message::change::Change;
    let dir = tempfile::tempdir().unwrap();
    let mut spools = Spools::new(&dir.path().join("spool"));
    let mut out = Vec::new();
    let frames: Vec<&[u8]> = bytes.chunks(frame).collect();
    for (n, payload) in frames.iter().enumerate() {
        spools.put(payload, n + 1 < frames.len()).unwrap();
        while let Some((payload, _)) = spools.take().unwrap() {
            out.extend_from_slice(&payload);
        }
    }
    let (mut reader, mut ends) = (Reader::new(&out), Vec::new());
    while reader.remaining() > 0 {
        // Rows of the model are no tuples: by hand.
        if reader.rest().first() == Some(&b'I') {
            reader.u8("tag").unwrap();
            let len = reader.u32("length").unwrap() as usize;
            let body = reader.bytes(len, "row").unwrap();
            let (_, values): &mut (u64, Vec<u64>) = ends.last_mut().unwrap();
            values.push(u64::from_be_bytes(*body[4..].first_chunk().unwrap()));
            continue;
        }
        match Change::read(&mut reader).unwrap() {
            Change::Begin(begin) => ends.push((begin.xid, Vec::new())),
            Change::Commit(_) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(std::fs::read_dir(dir.path().join("spool")).map_or(0, Iterator::count) == 0, "a file has a name");
    ends
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0u64..3, prop_oneof![4 => 0u16..50, 1 => Just(u16::MAX)]).prop_map(|(xid, len)| Step::Change(xid, len)),
        2 => (0u64..3).prop_map(Step::Begin),
        3 => (0u64..3, any::<bool>()).prop_map(|(xid, released)| Step::Leave(xid, released)),
        1 => (0u64..3).prop_map(Step::End),
    ]
}

proptest! {
    #[test]
    fn gives_out_what_was_committed_and_nothing_else(
        steps in proptest::collection::vec(step(), 0..120),
        frame in prop_oneof![1usize..40, Just(1 << 17)],
    ) {
        let mut source = Source::default();
        steps.iter().for_each(|step| source.step(step));
        prop_assert_eq!(through(&source.buf, frame), source.ends);
    }
}

#[test]
fn cuts_what_has_reached_the_file() {
    let mut source = Source::default();
    source.step(&Step::Change(1, 0));
    source.step(&Step::Begin(1));
    (0..40).for_each(|_| source.step(&Step::Change(1, u16::MAX)));
    source.step(&Step::Leave(1, false));
    source.step(&Step::Change(1, 0));
    (0..40).for_each(|_| source.step(&Step::Change(1, u16::MAX)));
    source.step(&Step::End(1));
    assert_eq!(source.ends[0].1.len(), 42);
    assert_eq!(through(&source.buf, 1 << 20), source.ends);
}

#[test]
fn refuses_what_belongs_to_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let put = |marks: &[Mark], changes: bool| {
        let mut buf = Vec::new();
        marks.iter().for_each(|mark| mark.write(&mut buf));
        if changes {
            change(&mut buf, 1, 80);
        }
        Spools::new(dir.path()).put(&buf, false)
    };
    let end = Mark::End(End { xid: 7, commit_lsn: Lsn(1), commit_time: 2, end_lsn: Lsn(3) });
    assert!(put(&[], true).is_err());
    assert!(put(&[end], false).is_err());
    assert!(put(&[Mark::Transaction(7), end, end], false).is_err());
    assert!(put(&[Mark::Subtransaction(7)], false).is_err());
    assert!(put(&[Mark::Abort { xid: 7, subxid: 8 }], false).is_err());
    assert!(put(&[Mark::Transaction(7), Mark::Abort { xid: 7, subxid: 7 }], true).is_err());
    assert!(put(&[Mark::Transaction(7), Mark::Abort { xid: 7, subxid: 8 }], true).is_ok());
    let mut spools = Spools::new(dir.path());
    let mut cut = Vec::new();
    Mark::Transaction(7).write(&mut cut);
    cut.extend_from_slice(b"I\0\0\0\x09abc");
    assert!(spools.put(&cut, false).is_err(), "it ends inside a change");
}
