//! The net effects of a run of changes to one table: pure.
//!
//! ```text
//!             insert          update               delete
//! (unknown)   Insert          Update               Delete
//! Insert      left            Insert, merged       Nothing
//! Update      left            Update, merged       Delete
//! Delete      Update, whole   left                 left
//! Nothing     Insert          left                 left
//! ```
//!
//! A change of a key is a delete of the old key and an insert of the new one.
//! A change that is *left* leaves the fold as it was: it contradicts what came
//! before it, or the row's new form is not known whole (a TOASTed value was
//! left out). It and all later changes of the table follow the fold in their
//! own order; what is wrong with it shows there.
//!
//! Invariants: keys are compared by their bytes, so only types whose equality
//! is that of their bytes may be folded (the caller's to know); an unchanged
//! value stays unchanged unless the run has set it; every key stands once.

use crate::{Error, Result};
use bytes::{BufMut, Bytes};
use scry_wire::message::change::OldTuple;
use scry_wire::tuple::{Field, Fields, LEN_NULL, LEN_UNCHANGED};
use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;

/// One change of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The row is new.
    Insert(Bytes),
    /// The row has changed.
    Update(Old, Bytes),
    /// The row is gone.
    Delete(Old),
}

/// What a change tells of the old row: see [`OldTuple`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Old {
    /// Nothing.
    None,
    /// The replica identity's columns.
    Key(Bytes),
    /// All of it.
    Full(Bytes),
}

impl Old {
    /// The tuple, if there is one.
    #[must_use]
    pub fn tuple(&self) -> Option<&Bytes> {
        match self {
            Old::None => None,
            Old::Key(tuple) | Old::Full(tuple) => Some(tuple),
        }
    }

    /// As the wire has it.
    #[must_use]
    pub fn as_wire(&self) -> OldTuple<'_> {
        match self {
            Old::None => OldTuple::None,
            Old::Key(tuple) => OldTuple::Key(tuple),
            Old::Full(tuple) => OldTuple::Full(tuple),
        }
    }
}

/// What the run does to the row of one key.
#[derive(Debug, Clone)]
enum Net {
    Insert(Bytes),
    Update(Bytes),
    Delete(Bytes),
    /// Inserted and deleted.
    Nothing,
}

/// Whether a change is in the fold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It is.
    Folded,
    /// It must follow in its own order, as all that come after it.
    Left,
}

/// Changes of one table, folded.
#[derive(Debug)]
pub struct Fold {
    columns: usize,
    /// Places of the key's columns, ascending.
    key: Vec<usize>,
    slots: HashMap<Bytes, usize>,
    rows: Vec<(Bytes, Net)>,
}

/// The net effects: tuples to be applied as sets, in the order of the fields.
#[derive(Debug, Default)]
pub struct Sets {
    /// Tuples that hold the keys of rows that go, by key.
    pub deletes: Vec<Bytes>,
    /// New forms of rows that stay, by key.
    pub updates: Vec<Bytes>,
    /// New rows, in the order of their arrival.
    pub inserts: Vec<Bytes>,
}

impl Fold {
    /// Nothing folded yet, for tuples of `columns` with the key at `key`.
    #[must_use]
    pub fn new(columns: usize, mut key: Vec<usize>) -> Self {
        key.sort_unstable();
        key.dedup();
        Fold { columns, key, slots: HashMap::new(), rows: Vec::new() }
    }

    /// How many rows it has effects on.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Takes the next change, or leaves it and the fold as they are.
    ///
    /// # Errors
    /// A tuple that is none of this relation.
    pub fn take(&mut self, change: &Change) -> Result<Taken> {
        match change {
            Change::Insert(new) => self.insert(new),
            Change::Update(old, new) => self.update(old.tuple(), new),
            Change::Delete(old) => old.tuple().map_or(Ok(Taken::Left), |old| self.delete(old)),
        }
    }

    fn insert(&mut self, new: &Bytes) -> Result<Taken> {
        if has_unchanged(new)? {
            return Ok(Taken::Left);
        }
        let Some(key) = self.key_of(new)? else { return Ok(Taken::Left) };
        let Some(net) = arrived(self.net(&key), new) else { return Ok(Taken::Left) };
        self.set(key, net);
        Ok(Taken::Folded)
    }

    fn update(&mut self, old: Option<&Bytes>, new: &Bytes) -> Result<Taken> {
        let Some(key) = self.key_of(new)? else { return Ok(Taken::Left) };
        if let Some(old) = old {
            let Some(old_key) = self.key_of(old)? else { return Ok(Taken::Left) };
            if old_key != key {
                return self.move_key(old, old_key, key, new);
            }
        }
        let net = match self.net(&key) {
            None => Net::Update(new.clone()),
            Some(Net::Insert(row)) => Net::Insert(merge(new, row)?),
            Some(Net::Update(row)) => Net::Update(merge(new, row)?),
            Some(Net::Delete(_) | Net::Nothing) => return Ok(Taken::Left),
        };
        self.set(key, net);
        Ok(Taken::Folded)
    }

    fn move_key(&mut self, old: &Bytes, from: Bytes, to: Bytes, new: &Bytes) -> Result<Taken> {
        let (row, behind) = match self.net(&from) {
            None => (new.clone(), Net::Delete(old.clone())),
            Some(Net::Insert(row)) => (merge(new, row)?, Net::Nothing),
            Some(Net::Update(row)) => (merge(new, row)?, Net::Delete(old.clone())),
            Some(Net::Delete(_) | Net::Nothing) => return Ok(Taken::Left),
        };
        if has_unchanged(&row)? {
            return Ok(Taken::Left);
        }
        let Some(net) = arrived(self.net(&to), &row) else { return Ok(Taken::Left) };
        self.set(from, behind);
        self.set(to, net);
        Ok(Taken::Folded)
    }

    fn delete(&mut self, old: &Bytes) -> Result<Taken> {
        let Some(key) = self.key_of(old)? else { return Ok(Taken::Left) };
        let net = match self.net(&key) {
            None | Some(Net::Update(_)) => Net::Delete(old.clone()),
            Some(Net::Insert(_)) => Net::Nothing,
            Some(Net::Delete(_) | Net::Nothing) => return Ok(Taken::Left),
        };
        self.set(key, net);
        Ok(Taken::Folded)
    }

    /// The sets.
    #[must_use]
    pub fn into_sets(self) -> Sets {
        let mut sets = Sets::default();
        let (mut deletes, mut updates) = (Vec::new(), Vec::new());
        for (key, net) in self.rows {
            match net {
                Net::Insert(row) => sets.inserts.push(row),
                Net::Update(row) => updates.push((key, row)),
                Net::Delete(row) => deletes.push((key, row)),
                Net::Nothing => {}
            }
        }
        // Neighbours in the index lie beside each other.
        deletes.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        updates.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        sets.deletes = deletes.into_iter().map(|(_, row)| row).collect();
        sets.updates = updates.into_iter().map(|(_, row)| row).collect();
        sets
    }

    fn net(&self, key: &Bytes) -> Option<&Net> {
        self.slots.get(key).and_then(|slot| self.rows.get(*slot)).map(|(_, net)| net)
    }

    fn set(&mut self, key: Bytes, net: Net) {
        match self.slots.entry(key) {
            Slot::Occupied(slot) => {
                if let Some(row) = self.rows.get_mut(*slot.get()) {
                    row.1 = net;
                }
            }
            Slot::Vacant(slot) => {
                self.rows.push((slot.key().clone(), net));
                slot.insert(self.rows.len() - 1);
            }
        }
    }

    /// The key's bytes, `None` when a part of it is NULL or left out.
    fn key_of(&self, tuple: &Bytes) -> Result<Option<Bytes>> {
        let mut fields = Fields::new(tuple)?;
        if fields.left() != self.columns {
            return Err(Error::protocol(format!(
                "a row has {} values, its relation has {} columns",
                fields.left(),
                self.columns
            )));
        }
        let mut joined = Vec::new();
        let mut wanted = self.key.iter().peekable();
        let mut place = 0;
        while let (Some(next), Some(field)) = (wanted.peek(), fields.next_field()?) {
            if place == **next {
                let Field::Value(value) = field else { return Ok(None) };
                if self.key.len() == 1 {
                    return Ok(Some(tuple.slice_ref(value)));
                }
                joined.put_u64(value.len() as u64);
                joined.put_slice(value);
                wanted.next();
            }
            place += 1;
        }
        // A key without columns tells no row from another.
        Ok((wanted.peek().is_none() && !joined.is_empty()).then(|| joined.into()))
    }
}

/// What a row that appears under a key makes of the key's net effect.
fn arrived(before: Option<&Net>, row: &Bytes) -> Option<Net> {
    match before {
        None | Some(Net::Nothing) => Some(Net::Insert(row.clone())),
        Some(Net::Delete(_)) => Some(Net::Update(row.clone())),
        Some(Net::Insert(_) | Net::Update(_)) => None,
    }
}

fn has_unchanged(tuple: &[u8]) -> Result<bool> {
    let mut fields = Fields::new(tuple)?;
    while let Some(field) = fields.next_field()? {
        if field == Field::Unchanged {
            return Ok(true);
        }
    }
    Ok(false)
}

/// `new`, with what it leaves out taken from `earlier`.
fn merge(new: &Bytes, earlier: &Bytes) -> Result<Bytes> {
    if !has_unchanged(new)? {
        return Ok(new.clone());
    }
    let (mut ours, mut theirs) = (Fields::new(new)?, Fields::new(earlier)?);
    let mut out = Vec::with_capacity(new.len() + earlier.len());
    out.extend_from_slice(new.get(..2).unwrap_or_default());
    while let (Some(field), Some(before)) = (ours.next_field()?, theirs.next_field()?) {
        match if field == Field::Unchanged { before } else { field } {
            Field::Null => out.put_i32(LEN_NULL),
            Field::Unchanged => out.put_i32(LEN_UNCHANGED),
            Field::Value(value) => {
                out.put_i32(i32::try_from(value.len()).unwrap_or(i32::MAX));
                out.put_slice(value);
            }
        }
    }
    Ok(out.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum V {
        Null,
        Same,
        Is(u8),
    }

    fn tuple(values: &[V]) -> Bytes {
        let mut out = i16::try_from(values.len()).unwrap().to_be_bytes().to_vec();
        for value in values {
            match value {
                V::Null => out.put_i32(LEN_NULL),
                V::Same => out.put_i32(LEN_UNCHANGED),
                V::Is(v) => {
                    out.put_i32(1);
                    out.push(*v);
                }
            }
        }
        out.into()
    }

    fn values(tuple: &Bytes) -> Vec<V> {
        let mut fields = Fields::new(tuple).unwrap();
        let mut out = Vec::new();
        while let Some(field) = fields.next_field().unwrap() {
            out.push(match field {
                Field::Null => V::Null,
                Field::Unchanged => V::Same,
                Field::Value(v) => V::Is(v[0]),
            });
        }
        out
    }

    /// A table of two key columns around two others.
    type Table = BTreeMap<(V2, V2), Vec<V>>;
    type V2 = u8;

    fn key(row: &[V]) -> (u8, u8) {
        let (V::Is(a), V::Is(b)) = (row[0], row[2]) else { panic!("a key is NULL") };
        (a, b)
    }

    fn known(new: &[V], before: &[V]) -> Vec<V> {
        new.iter().zip(before).map(|(n, b)| if *n == V::Same { *b } else { *n }).collect()
    }

    /// Applies one change as the shadow does, one row at a time.
    fn apply(table: &mut Table, change: &Change) {
        match change {
            Change::Insert(new) => {
                let row = values(new);
                assert!(!row.contains(&V::Same));
                assert!(table.insert(key(&row), row).is_none(), "duplicate key");
            }
            Change::Update(old, new) => {
                let new = values(new);
                let old_key = old.tuple().map_or_else(|| key(&new), |old| key(&values(old)));
                let before = table.remove(&old_key).expect("no such row");
                let row = known(&new, &before);
                assert!(table.insert(key(&row), row).is_none(), "duplicate key");
            }
            Change::Delete(old) => {
                table.remove(&key(&values(old.tuple().unwrap()))).expect("no such row");
            }
        }
    }

    /// A change that the source could make, from three numbers.
    fn legal(table: &Table, (kind, at, to): (u8, u8, u8)) -> Option<Change> {
        let (at, to) = ((at % 3, at / 3 % 2), (to % 3, to / 3 % 2));
        let value = |n: u8| if n.is_multiple_of(5) { V::Null } else { V::Is(n) };
        let old = Old::Key(tuple(&[V::Is(at.0), V::Null, V::Is(at.1), V::Null]));
        let row = |key: (u8, u8), third: V| tuple(&[V::Is(key.0), value(kind), V::Is(key.1), third]);
        match (kind % 6, table.contains_key(&at), table.contains_key(&to)) {
            (0 | 1, false, _) => Some(Change::Insert(row(at, value(kind / 2)))),
            (0 | 1, true, _) => Some(Change::Update(Old::None, row(at, V::Same))),
            (2, true, _) => Some(Change::Update(old, row(at, value(kind / 3)))),
            (3, true, false) => Some(Change::Update(old, row(to, value(kind / 4)))),
            (4, true, false) => Some(Change::Update(old, row(to, V::Same))),
            (5, true, _) => Some(Change::Delete(old)),
            _ => None,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        /// Whatever the source does to a table: the sets, and then what was
        /// left in its own order, make of the shadow what the changes make.
        #[test]
        fn sets_do_what_the_changes_do_in_order(
            before in proptest::collection::vec((0u8..3, 0u8..2), 0..6),
            steps in proptest::collection::vec(any::<(u8, u8, u8)>(), 0..60),
        ) {
            let row = |k: (u8, u8)| vec![V::Is(k.0), V::Is(99), V::Is(k.1), V::Is(98)];
            let start: Table = before.into_iter().map(|k| (k, row(k))).collect();
            let mut source = start.clone();
            let mut fold = Fold::new(4, vec![2, 0]);
            let mut tail = Vec::new();
            for step in steps {
                let Some(change) = legal(&source, step) else { continue };
                apply(&mut source, &change);
                if !tail.is_empty() || fold.take(&change).unwrap() == Taken::Left {
                    tail.push(change);
                }
            }
            let mut shadow = start;
            let sets = fold.into_sets();
            for row in &sets.deletes {
                prop_assert!(shadow.remove(&key(&values(row))).is_some());
            }
            for row in &sets.updates {
                let new = values(row);
                let before = shadow.get(&key(&new)).cloned();
                prop_assert!(before.is_some());
                shadow.insert(key(&new), known(&new, &before.unwrap()));
            }
            for row in &sets.inserts {
                let new = values(row);
                prop_assert!(!new.contains(&V::Same));
                prop_assert!(shadow.insert(key(&new), new).is_none());
            }
            for change in &tail {
                apply(&mut shadow, change);
            }
            prop_assert_eq!(shadow, source);
        }
    }

    fn row(id: u8, v: V) -> Bytes {
        tuple(&[V::Is(id), v])
    }

    fn folded(changes: &[Change]) -> (Fold, usize) {
        let mut fold = Fold::new(2, vec![0]);
        let taken = changes.iter().take_while(|c| fold.take(c).unwrap() == Taken::Folded).count();
        (fold, taken)
    }

    #[test]
    fn folds_hot_rows_and_keeps_unchanged_values() {
        let updates: Vec<Change> = (0..100).map(|n| Change::Update(Old::None, row(1, V::Is(n)))).collect();
        let (mut fold, taken) = folded(&updates);
        assert_eq!(taken, 100);
        fold.take(&Change::Update(Old::None, row(1, V::Same))).unwrap();
        fold.take(&Change::Update(Old::None, row(2, V::Same))).unwrap();
        let sets = fold.into_sets();
        assert_eq!(sets.updates, [row(1, V::Is(99)), row(2, V::Same)]);
    }

    #[test]
    fn leaves_what_contradicts_or_is_not_known_whole() {
        let moved = Change::Update(Old::Key(row(1, V::Null)), row(2, V::Same));
        assert_eq!(folded(std::slice::from_ref(&moved)).1, 0);
        let set = Change::Update(Old::None, row(1, V::Is(5)));
        assert_eq!(folded(&[set.clone(), moved]).1, 2);
        let insert = Change::Insert(row(1, V::Null));
        assert_eq!(folded(&[insert.clone(), insert.clone()]).1, 1);
        let delete = Change::Delete(Old::Key(row(1, V::Null)));
        assert_eq!(folded(&[delete.clone(), set]).1, 1);
        let (fold, taken) = folded(&[delete, insert]);
        assert_eq!((taken, fold.into_sets().updates.len()), (2, 1));
        assert_eq!(folded(&[Change::Insert(tuple(&[V::Null, V::Null]))]).1, 0);
    }

    #[test]
    fn rejects_tuples_of_another_relation() {
        assert!(Fold::new(2, vec![0]).take(&Change::Insert(tuple(&[V::Null]))).is_err());
    }
}
