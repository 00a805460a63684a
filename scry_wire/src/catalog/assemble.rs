//! From rows of the queries to the document.
//!
//! Invariants: the order of entries is kept; every edge ends at an object of the document; an
//! edge that starts at a column default or a domain's constraint is kept at that part.

use super::{CATALOG_FORMAT, Catalog, Class, ColumnDefault, Entry, LeftOut, Object, ObjectId};
use serde::Deserialize;
use serde_json::Value;
use std::collections::{HashMap, HashSet};

/// A row of `closure.sql`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClosureRow {
    /// OID of the system catalog.
    pub classid: u32,
    /// OID of the object.
    pub objid: u32,
    /// `selected`, `needed` or `left_out`.
    pub standing: String,
    /// The name of what is left out.
    pub object: Option<String>,
    /// Why it is left out.
    pub reason: Option<String>,
}

/// A row of `depends.sql`: the first needs the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DependsRow {
    /// Catalog of the first.
    pub classid: u32,
    /// OID of the first.
    pub objid: u32,
    /// Catalog of the second.
    pub refclassid: u32,
    /// OID of the second.
    pub refobjid: u32,
}

/// Why rows make no document.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// An entry is not what its kind asks for.
    #[error("catalog entry of kind {kind} could not be read: {source}")]
    Entry {
        /// The kind.
        kind: String,
        /// What the reader says.
        source: serde_json::Error,
    },
}

/// The ids of the closure that come along, in the form that `depends.sql` takes.
#[must_use]
pub fn closure_objects(closure: &[ClosureRow]) -> (Vec<u32>, Vec<u32>) {
    closure.iter().filter(|row| row.standing != "left_out").map(|row| (row.classid, row.objid)).unzip()
}

/// The ids of one class that come along: the argument of a kind's query.
fn ids_of(closure: &[ClosureRow], class: Class) -> Vec<u32> {
    let listed = closure.iter().filter(|row| row.standing != "left_out");
    listed.filter(|row| Class::from_oid(row.classid) == class).map(|row| row.objid).collect()
}

impl super::CatalogQuery {
    /// The argument `$1` of this query.
    #[must_use]
    pub fn ids(&self, closure: &[ClosureRow]) -> Vec<u32> {
        ids_of(closure, self.class)
    }
}

#[derive(Deserialize)]
struct Head {
    oid: u32,
    #[serde(default)]
    comment: Option<String>,
}

impl Catalog {
    /// Sets the rows together: `entries` are pairs of a kind and its entry's JSON text.
    pub fn assemble<K: AsRef<str>, J: AsRef<str>>(
        whole_database: bool,
        closure: &[ClosureRow],
        entries: impl IntoIterator<Item = (K, J)>,
        depends: impl IntoIterator<Item = DependsRow>,
    ) -> Result<Self, CatalogError> {
        let selected: HashSet<(u32, u32)> =
            closure.iter().filter(|r| r.standing == "selected").map(|r| (r.classid, r.objid)).collect();
        let selected: HashSet<ObjectId> = selected
            .into_iter()
            .map(|(classid, oid)| ObjectId { class: Class::from_oid(classid), oid })
            .collect();
        let mut catalog =
            Self { format: CATALOG_FORMAT, whole_database, objects: Vec::new(), left_out: left_out(closure) };
        for (kind, json) in entries {
            match read_entry(kind.as_ref(), json.as_ref())? {
                Read::Object(mut object) => {
                    object.selected = selected.contains(&object.id());
                    catalog.objects.push(*object);
                }
                Read::Vanished(left_out) => catalog.left_out.push(left_out),
            }
        }
        catalog.join(depends);
        Ok(catalog)
    }

    /// Puts each edge where it starts.
    fn join(&mut self, depends: impl IntoIterator<Item = DependsRow>) {
        let known: HashSet<ObjectId> = self.objects.iter().map(Object::id).collect();
        let mut edges: HashMap<ObjectId, Vec<ObjectId>> = HashMap::new();
        for row in depends {
            let from = ObjectId { class: Class::from_oid(row.classid), oid: row.objid };
            let to = ObjectId { class: Class::from_oid(row.refclassid), oid: row.refobjid };
            if known.contains(&to) && from != to {
                edges.entry(from).or_default().push(to);
            }
        }
        for object in &mut self.objects {
            object.depends_on = edges.remove(&object.id()).unwrap_or_default();
            let this = object.id();
            let mut part = |class, oid| {
                let mut found = edges.remove(&ObjectId { class, oid }).unwrap_or_default();
                found.retain(|id| *id != this);
                found
            };
            let mut default = |default: &mut Option<ColumnDefault>| {
                if let Some(default) = default {
                    default.depends_on = part(Class::AttributeDefault, default.oid);
                }
            };
            match &mut object.entry {
                Entry::Table(table) => table.columns.iter_mut().for_each(|c| default(&mut c.default)),
                Entry::ForeignTable(foreign) => {
                    foreign.table.columns.iter_mut().for_each(|c| default(&mut c.default));
                }
                Entry::View(view) => view.columns.iter_mut().for_each(|c| default(&mut c.default)),
                Entry::Domain(domain) => {
                    for constraint in &mut domain.constraints {
                        constraint.depends_on = part(Class::Constraint, constraint.oid);
                    }
                }
                _ => {}
            }
        }
    }
}

fn left_out(closure: &[ClosureRow]) -> Vec<LeftOut> {
    let rows = closure.iter().filter(|row| row.standing == "left_out");
    rows.map(|row| LeftOut {
        object: row.object.clone().unwrap_or_default(),
        reason: row.reason.clone().unwrap_or_default(),
        sqlstate: None,
    })
    .collect()
}

enum Read {
    Object(Box<Object>),
    Vanished(LeftOut),
}

/// Reads an entry. The server prints definitions from its newest catalog and not from the
/// transaction's snapshot: of an object dropped meanwhile there is none.
fn read_entry(kind: &str, json: &str) -> Result<Read, CatalogError> {
    let wrong = |source| CatalogError::Entry { kind: kind.to_owned(), source };
    let mut value: Value = serde_json::from_str(json).map_err(wrong)?;
    let head = Head::deserialize(&value).map_err(wrong)?;
    if value.get("definition") == Some(&Value::Null) {
        let name = value.get("name").and_then(Value::as_str).unwrap_or_default();
        return Ok(Read::Vanished(LeftOut {
            object: format!("{} {name}", kind.replace('_', " ")),
            reason: "it was dropped while the catalog was read".to_owned(),
            sqlstate: None,
        }));
    }
    if let Value::Object(fields) = &mut value {
        fields.insert("kind".to_owned(), Value::String(kind.to_owned()));
    }
    let entry = serde_json::from_value(value).map_err(wrong)?;
    Ok(Read::Object(Box::new(Object {
        class: class_of(&entry),
        oid: head.oid,
        selected: false,
        comment: head.comment,
        depends_on: Vec::new(),
        entry,
    })))
}

fn class_of(entry: &Entry) -> Class {
    match entry {
        Entry::Schema(_) => Class::Namespace,
        Entry::Extension(_) => Class::Extension,
        Entry::Collation(_) => Class::Collation,
        Entry::Enum(_) | Entry::Domain(_) | Entry::Composite(_) | Entry::Range(_) | Entry::BaseType(_) => {
            Class::Type
        }
        Entry::Function(_) | Entry::Aggregate(_) => Class::Proc,
        Entry::Sequence(_)
        | Entry::Table(_)
        | Entry::ForeignTable(_)
        | Entry::Index(_)
        | Entry::View(_)
        | Entry::MaterializedView(_) => Class::Relation,
        Entry::Operator(_) => Class::Operator,
        Entry::Cast(_) => Class::Cast,
        Entry::OperatorFamily(_) => Class::OperatorFamily,
        Entry::OperatorClass(_) => Class::OperatorClass,
        Entry::AccessMethod(_) => Class::AccessMethod,
        Entry::Conversion(_) => Class::Conversion,
        Entry::Language(_) => Class::Language,
        Entry::Transform(_) => Class::Transform,
        Entry::TextSearchParser(_) => Class::TextSearchParser,
        Entry::TextSearchTemplate(_) => Class::TextSearchTemplate,
        Entry::ForeignDataWrapper(_) => Class::ForeignDataWrapper,
        Entry::Server(_) => Class::Server,
        Entry::EventTrigger(_) => Class::EventTrigger,
        Entry::TextSearchDictionary(_) => Class::TextSearchDictionary,
        Entry::TextSearchConfiguration(_) => Class::TextSearchConfiguration,
        Entry::Constraint(_) => Class::Constraint,
        Entry::Statistics(_) => Class::Statistics,
        Entry::Rule(_) => Class::Rewrite,
        Entry::Trigger(_) => Class::Trigger,
        Entry::Policy(_) => Class::Policy,
        Entry::Unknown => Class::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::{Catalog, CatalogError, ClosureRow, DependsRow, closure_objects};
    use crate::catalog::{Class, Entry, ObjectId};

    fn row(classid: u32, objid: u32, standing: &str) -> ClosureRow {
        let text = |s: &str| (standing == "left_out").then(|| s.to_owned());
        ClosureRow {
            classid,
            objid,
            standing: standing.to_owned(),
            object: text("view v"),
            reason: text("why"),
        }
    }

    const TABLE: &str = r#"{"oid": 5, "schema": "s", "name": "t", "partitioned": false, "replica_identity": "d",
        "comment": "c", "columns": [{"attnum": 1, "name": "a", "default": {"oid": 50, "sql": "1"}}]}"#;
    const SCHEMA: &str = r#"{"oid": 7, "name": "s", "comment": null, "unknown": [1]}"#;

    fn catalog() -> Catalog {
        let closure = [row(1259, 5, "selected"), row(2615, 7, "needed"), row(1259, 9, "left_out")];
        assert_eq!(closure_objects(&closure), (vec![1259, 2615], vec![5, 7]));
        let edge = |classid, objid, refclassid, refobjid| DependsRow { classid, objid, refclassid, refobjid };
        // To its schema, from its default, and to something that is not here.
        let depends = [edge(1259, 5, 2615, 7), edge(2604, 50, 2615, 7), edge(1259, 5, 1255, 1)];
        Catalog::assemble(false, &closure, [("schema", SCHEMA), ("table", TABLE)], depends).unwrap()
    }

    #[test]
    fn sets_edges_where_they_start() {
        let catalog = catalog();
        let schema = ObjectId { class: Class::Namespace, oid: 7 };
        let [first, second] = catalog.objects.as_slice() else { panic!("two objects") };
        assert_eq!((first.id(), first.selected), (schema, false));
        assert_eq!((second.depends_on.as_slice(), second.selected), ([schema].as_slice(), true));
        assert_eq!(second.comment.as_deref(), Some("c"));
        let Entry::Table(table) = &second.entry else { panic!("a table") };
        assert_eq!(table.columns[0].default.as_ref().unwrap().depends_on, [schema]);
        assert_eq!(catalog.left_out[0].object, "view v");
    }

    #[test]
    fn reads_what_it_wrote_and_passes_over_what_it_does_not_know() {
        let catalog = catalog();
        let mut json = serde_json::to_value(&catalog).unwrap();
        assert_eq!(serde_json::from_value::<Catalog>(json.clone()).unwrap(), catalog);
        json["new"] = 1.into();
        json["objects"][0]["entry"] = serde_json::json!({"kind": "of the future", "name": "x"});
        json["objects"][1]["class"] = "pg_future".into();
        let read: Catalog = serde_json::from_value(json).unwrap();
        assert_eq!(read.objects[0].entry, Entry::Unknown);
        assert_eq!(read.objects[1].class, Class::Unknown);
    }

    #[test]
    fn leaves_out_what_was_dropped_meanwhile() {
        let view = r#"{"oid": 9, "schema": "s", "name": "v", "definition": null}"#;
        let catalog = Catalog::assemble(false, &[], [("view", view)], []).unwrap();
        assert_eq!((catalog.objects.len(), catalog.left_out[0].object.as_str()), (0, "view v"));
    }

    #[test]
    fn rejects_entries_of_another_form() {
        let wrong = Catalog::assemble(false, &[], [("table", "{\"oid\": 1}")], []);
        let Err(CatalogError::Entry { kind, .. }) = wrong else { panic!("an error") };
        assert_eq!(kind, "table");
    }

    #[test]
    fn finds_differences_by_name_and_not_by_oid() {
        let mine = catalog();
        let mut theirs = mine.clone();
        for object in &mut theirs.objects {
            object.oid += 1000;
            object.depends_on.clear();
        }
        assert_eq!(mine.differences(&theirs), []);
        if let Entry::Table(table) = &mut theirs.objects[1].entry {
            table.columns[0].not_null = true;
        }
        theirs.objects.remove(0);
        let found = mine.differences(&theirs);
        let found: Vec<_> = found.iter().map(|d| (d.object.as_str(), d.what.as_str())).collect();
        assert_eq!(found, [("schema s", "missing"), ("table s.t", "columns")]);
    }
}
