//! Is the shadow the source's twin? Two documents, compared by name.
//!
//! OIDs, column numbers (dropped columns are not made again) and states (a sequence's value,
//! whether a materialized view is filled) are no part of the comparison; everything else is.
//! Of a child by inheritance the order of columns is none either: columns that its parents got
//! later stand at its end on the source, and in their place when it is made anew. What a shadow
//! disables by its nature (event triggers, triggers of replicas) counts as disabled on both sides, and a foreign-data wrapper as
//! without functions.

use super::{Catalog, Entry, Object};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};

/// An object in which two documents differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Kind and name.
    pub object: String,
    /// What is different: an entry's field, or `missing`, or `extra`.
    pub what: String,
}

impl Catalog {
    /// What is different in `other`, the shadow's document.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<Difference> {
        let mine = self.comparable();
        let mut theirs = other.comparable();
        let mut found = Vec::new();
        for (object, entry) in mine {
            match theirs.remove(&object) {
                None => found.push(Difference { object, what: "missing".to_owned() }),
                Some(their) if their != entry => {
                    found.push(Difference { what: fields(&entry, &their), object });
                }
                Some(_) => {}
            }
        }
        found.extend(theirs.into_keys().map(|object| Difference { object, what: "extra".to_owned() }));
        found
    }

    fn comparable(&self) -> BTreeMap<String, Value> {
        // A partition's copy of a trigger is listed where it is switched otherwise than its parent's.
        let switched: HashMap<u32, bool> = self
            .objects
            .iter()
            .filter_map(|object| match &object.entry {
                Entry::Trigger(trigger) => Some((object.oid, is_off(&trigger.enabled))),
                _ => None,
            })
            .collect();
        let differs = |object: &&Object| match &object.entry {
            Entry::Trigger(trigger) if trigger.parent_oid != 0 => {
                switched.get(&trigger.parent_oid).copied() != Some(is_off(&trigger.enabled))
            }
            _ => true,
        };
        let objects = self.objects.iter().filter(differs);
        objects.map(|object| (object.describe(), comparable(object))).collect()
    }
}

impl Object {
    /// What is compared of it: its entry and comment, without OIDs and states.
    #[must_use]
    pub fn comparable(&self) -> Value {
        comparable(self)
    }
}

fn comparable(object: &Object) -> Value {
    let mut value = serde_json::to_value(&object.entry).unwrap_or(Value::Null);
    strip(&mut value);
    as_on_a_shadow(&object.entry, &mut value);
    let table = match &object.entry {
        Entry::Table(table) => Some(table),
        Entry::ForeignTable(foreign) => Some(&foreign.table),
        _ => None,
    };
    if let (Some(table), Some(Value::Array(columns))) = (table, value.get_mut("columns"))
        && table.partition_bound.is_none()
        && !table.parents.is_empty()
    {
        columns.sort_by_key(|column| column.get("name").map(ToString::to_string));
    }
    if let (Value::Object(fields), Some(comment)) = (&mut value, &object.comment) {
        fields.insert("comment".to_owned(), Value::String(comment.clone()));
    }
    value
}

/// Triggers that fire for a replica too are disabled on a shadow, event triggers all.
fn as_on_a_shadow(entry: &Entry, value: &mut Value) {
    let disabled = match entry {
        Entry::Trigger(trigger) => is_off(&trigger.enabled),
        Entry::Rule(rule) => is_off(&rule.enabled),
        Entry::EventTrigger(_) => true,
        _ => false,
    };
    if let (Entry::ForeignDataWrapper(_), Value::Object(fields)) = (entry, &mut *value) {
        fields.retain(|name, _| name != "handler" && name != "validator");
    }
    if let (true, Value::Object(fields)) = (disabled, value) {
        fields.insert("enabled".to_owned(), Value::String("D".to_owned()));
    }
}

/// On a shadow: disabled there, or because it fires for a replica too.
fn is_off(enabled: &str) -> bool {
    matches!(enabled, "A" | "R" | "D")
}

fn strip(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, _| !is_state(name));
            fields.values_mut().for_each(strip);
        }
        Value::Array(items) => {
            items.retain(|item| item.get("dropped") != Some(&Value::Bool(true)));
            items.iter_mut().for_each(strip);
        }
        _ => {}
    }
}

fn is_state(field: &str) -> bool {
    const STATE: &[&str] = &[
        "oid",
        "label_oids",
        "attnum",
        "last_value",
        "is_called",
        "populated",
        "depends_on",
        "filenode",
        "missing",
        "roles",
    ];
    STATE.contains(&field) || field.ends_with("_oid")
}

fn fields(mine: &Value, theirs: &Value) -> String {
    let (Some(mine), Some(theirs)) = (mine.as_object(), theirs.as_object()) else {
        return "entry".to_owned();
    };
    let changed = mine.iter().filter(|(name, value)| theirs.get(*name) != Some(value)).map(|(name, _)| name);
    let added = theirs.keys().filter(|name| !mine.contains_key(*name));
    changed.chain(added).map(String::as_str).collect::<Vec<_>>().join(", ")
}
