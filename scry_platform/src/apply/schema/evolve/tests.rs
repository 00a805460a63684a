//! The planner by itself: two documents in, statements out.

use super::changes::Changes;
use super::settle::Context;
use super::{drop, rename, work};
use crate::apply::schema::plan::{Lookup, Step, plan};
use scry_wire::catalog::{Catalog, Object, ObjectId};
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};

fn catalog(objects: &[Value]) -> Catalog {
    serde_json::from_value(json!({ "format": 1, "objects": objects })).unwrap()
}

fn integer() -> Value {
    json!({ "schema": "pg_catalog", "name": "int4", "sql": "integer" })
}

fn column(attnum: i16, name: &str) -> Value {
    json!({ "attnum": attnum, "name": name, "local": true, "type": integer() })
}

fn table(oid: u32, name: &str, columns: &[Value]) -> Value {
    json!({
        "class": "pg_class", "oid": oid, "selected": true,
        "entry": {
            "kind": "table", "schema": "s", "name": name, "partitioned": false, "replica_identity": "d",
            "columns": columns
        }
    })
}

fn partition(oid: u32, name: &str, parent: u32, columns: &[Value]) -> Value {
    let mut table = table(oid, name, columns);
    table["entry"]["partition_bound"] = json!("FOR VALUES IN (1)");
    table["entry"]["parents"] = json!([{ "oid": parent, "schema": "s", "name": "p" }]);
    table
}

fn enumeration(oid: u32, name: &str, labels: &[(u32, &str)]) -> Value {
    let (oids, names): (Vec<u32>, Vec<&str>) = labels.iter().copied().unzip();
    json!({
        "class": "pg_type", "oid": oid,
        "entry": { "kind": "enum", "schema": "s", "name": name, "labels": names, "label_oids": oids }
    })
}

fn schema(oid: u32, name: &str) -> Value {
    json!({ "class": "pg_namespace", "oid": oid, "entry": { "kind": "schema", "name": name } })
}

fn view(oid: u32, name: &str, of: u32) -> Value {
    json!({
        "class": "pg_class", "oid": oid, "depends_on": [{ "class": "pg_class", "oid": of }],
        "entry": { "kind": "view", "schema": "s", "name": name, "definition": "SELECT 1" }
    })
}

fn sql(steps: &[Step]) -> Vec<&str> {
    steps.iter().flat_map(|step| step.sql.iter().map(String::as_str)).collect()
}

fn renames(old: &Catalog, new: &Catalog) -> Vec<String> {
    let changes = Changes::new(old, new);
    let (renames, _) = rename::renames(&changes, &[]);
    let steps: Vec<Step> = renames.schemas.into_iter().chain(renames.objects).collect();
    sql(&steps).into_iter().map(str::to_owned).collect()
}

/// What a pass does when the shadow is as `have` says, by the document's own OIDs.
fn pass(have: &Catalog, new: &Catalog, emptied: &[u32]) -> Vec<String> {
    let lookup = Lookup::new(new);
    let emptied: HashSet<u32> = emptied.iter().copied().collect();
    let context = Context { lookup: &lookup, bypasses_row_security: true, emptied: &emptied };
    let interest: HashSet<ObjectId> = new.objects.iter().map(Object::id).collect();
    let there: HashMap<String, Object> = have.objects.iter().map(|o| (o.describe(), o.clone())).collect();
    let work = work::work(&context, new, &plan(new), &interest, &there, &work::Made::default());
    sql(&work.drops).into_iter().chain(sql(&work.steps)).map(str::to_owned).collect()
}

#[test]
fn the_same_document_is_no_change() {
    let one = catalog(&[schema(1, "s"), table(2, "t", &[column(1, "a")]), view(3, "v", 2)]);
    assert!(Changes::new(&one, &one.clone()).is_empty());
    assert_eq!(pass(&one, &one, &[]), [""; 0]);
}

#[test]
fn swapped_names_go_over_temporary_ones() {
    let old = catalog(&[table(2, "a", &[]), table(3, "b", &[]), table(4, "c", &[])]);
    let new = catalog(&[table(2, "b", &[]), table(3, "a", &[]), table(4, "d", &[])]);
    let expected = [
        "ALTER TABLE \"s\".\"a\" RENAME TO \"scry_renamed_2\"",
        "ALTER TABLE \"s\".\"b\" RENAME TO \"scry_renamed_3\"",
        "ALTER TABLE \"s\".\"c\" RENAME TO \"d\"",
        "ALTER TABLE \"s\".\"scry_renamed_2\" RENAME TO \"b\"",
        "ALTER TABLE \"s\".\"scry_renamed_3\" RENAME TO \"a\"",
    ];
    assert_eq!(renames(&old, &new), expected);
}

#[test]
fn what_stays_in_a_renamed_schema_is_not_moved() {
    let old = catalog(&[schema(1, "s"), table(2, "t", &[])]);
    let mut new = catalog(&[schema(1, "n"), table(2, "t", &[])]);
    let moved = serde_json::to_string(&new).unwrap().replace("\"schema\":\"s\"", "\"schema\":\"n\"");
    new = serde_json::from_str(&moved).unwrap();
    assert_eq!(renames(&old, &new), ["ALTER SCHEMA \"s\" RENAME TO \"n\""]);
    // The same name, and another schema has it now.
    let new = catalog(&[schema(1, "n"), schema(9, "s"), table(2, "t", &[])]);
    let expected = ["ALTER SCHEMA \"s\" RENAME TO \"n\"", "ALTER TABLE \"n\".\"t\" SET SCHEMA \"s\""];
    assert_eq!(renames(&old, &new), expected);
}

#[test]
fn columns_and_labels_are_renamed_by_number() {
    let old = catalog(&[
        enumeration(1, "e", &[(10, "a"), (11, "b")]),
        table(2, "t", &[column(1, "x"), column(2, "y")]),
    ]);
    let new = catalog(&[
        enumeration(1, "e", &[(10, "b"), (11, "a"), (12, "c")]),
        table(2, "t", &[column(1, "z"), column(2, "x")]),
    ]);
    let expected = [
        "ALTER TYPE \"s\".\"e\" RENAME VALUE 'a' TO 'scry_renamed_0'",
        "ALTER TYPE \"s\".\"e\" RENAME VALUE 'b' TO 'scry_renamed_1'",
        "ALTER TYPE \"s\".\"e\" RENAME VALUE 'scry_renamed_0' TO 'b'",
        "ALTER TYPE \"s\".\"e\" RENAME VALUE 'scry_renamed_1' TO 'a'",
        "ALTER TABLE \"s\".\"t\" RENAME COLUMN \"y\" TO \"scry_renamed_1\"",
        "ALTER TABLE \"s\".\"t\" RENAME COLUMN \"x\" TO \"z\"",
        "ALTER TABLE \"s\".\"t\" RENAME COLUMN \"scry_renamed_1\" TO \"x\"",
    ];
    let found = renames(&old, &new);
    assert_eq!(found[..4], expected[..4]);
    assert_eq!(found.len(), expected.len());
}

#[test]
fn drops_go_from_the_leaves_to_the_roots() {
    let old = catalog(&[
        schema(1, "s"),
        enumeration(2, "e", &[]),
        table(3, "t", &[column(1, "a"), column(2, "b")]),
        table(4, "u", &[]),
        view(5, "v", 3),
    ]);
    let new = catalog(&[table(3, "t", &[column(1, "a")])]);
    let changes = Changes::new(&old, &new);
    let expected = [
        "DROP VIEW IF EXISTS \"s\".\"v\"",
        "ALTER TABLE IF EXISTS \"s\".\"t\" DROP COLUMN IF EXISTS \"b\"",
        "DROP TABLE IF EXISTS \"s\".\"u\"",
        "DROP TYPE IF EXISTS \"s\".\"e\"",
        "DROP SCHEMA IF EXISTS \"s\"",
    ];
    assert_eq!(sql(&drop::drops(&changes)), expected);
}

#[test]
fn partitions_leave_before_their_parent_goes() {
    let old = catalog(&[table(2, "p", &[]), partition(3, "p1", 2, &[])]);
    let new = catalog(&[table(3, "p1", &[])]);
    let changes = Changes::new(&old, &new);
    let expected = ["ALTER TABLE IF EXISTS \"s\".\"p\" DETACH PARTITION \"s\".\"p1\""];
    assert_eq!(sql(&drop::detaches(&changes)), expected);
}

#[test]
fn a_dropped_type_that_is_needed_makes_way_for_its_name() {
    let old = catalog(&[enumeration(2, "e", &[]), enumeration(3, "f", &[])]);
    let new = catalog(&[enumeration(9, "e", &[])]);
    let changes = Changes::new(&old, &new);
    let in_the_way: Vec<&Object> = old.objects.iter().collect();
    let (renames, waiting) = rename::renames(&changes, &in_the_way);
    assert_eq!(sql(&renames.schemas), ["ALTER TYPE \"s\".\"e\" RENAME TO \"scry_renamed_2\""]);
    let names: Vec<String> = waiting.iter().map(Object::describe).collect();
    assert_eq!(names, ["type s.scry_renamed_2", "type s.f"]);
}

#[test]
fn rows_older_than_a_column_get_its_stored_value() {
    let have = catalog(&[table(2, "p", &[column(1, "a")]), partition(3, "p1", 2, &[column(1, "a")])]);
    let mut own = column(2, "n");
    own["default"] = json!({ "oid": 5, "sql": "8" });
    let mut inherited = own.clone();
    inherited["missing"] = json!("{7}");
    inherited["local"] = json!(false);
    inherited["inherited"] = json!(1);
    let new = catalog(&[
        table(2, "p", &[column(1, "a"), own]),
        partition(3, "p1", 2, &[column(1, "a"), inherited]),
    ]);
    let expected = [
        "ALTER TABLE \"s\".\"p\" ADD COLUMN \"n\" integer DEFAULT '7'::integer",
        "ALTER TABLE ONLY \"s\".\"p\" ALTER COLUMN \"n\" SET DEFAULT 8",
    ];
    assert_eq!(pass(&have, &new, &[]), expected);
}

#[test]
fn a_new_type_keeps_values_or_has_none() {
    let have = catalog(&[table(2, "t", &[column(1, "a")])]);
    let mut wider = column(1, "a");
    wider["type"] = json!({ "schema": "pg_catalog", "name": "int8", "sql": "bigint" });
    let new = catalog(&[table(2, "t", &[wider])]);
    let alter =
        |using: &str| format!("ALTER TABLE \"s\".\"t\" ALTER COLUMN \"a\" TYPE bigint USING {using}::bigint");
    assert_eq!(pass(&have, &new, &[]), [alter("\"a\"")]);
    assert_eq!(pass(&have, &new, &[2]), [alter("NULL")]);
}

#[test]
fn what_cannot_be_altered_is_made_again_with_what_needs_it() {
    let mut aggregate = json!({
        "class": "pg_proc", "oid": 2,
        "entry": {
            "kind": "aggregate", "schema": "s", "name": "total", "arguments": "integer",
            "identity_arguments": "integer", "aggkind": "n", "parallel": "s", "transition": "s.acc",
            "state_type": "integer", "final_modify": "r", "moving_final_modify": "r"
        }
    });
    let mut view = view(3, "v", 0);
    view["depends_on"] = json!([{ "class": "pg_proc", "oid": 2 }]);
    let have = catalog(&[aggregate.clone(), view.clone()]);
    aggregate["entry"]["initial"] = json!("5");
    let new = catalog(&[aggregate, view]);
    let found = pass(&have, &new, &[]);
    assert_eq!(
        found[..2],
        ["DROP VIEW IF EXISTS \"s\".\"v\"", "DROP AGGREGATE IF EXISTS \"s\".\"total\"(integer)"]
    );
    assert!(
        found[2].starts_with("CREATE AGGREGATE") && found[3].starts_with("CREATE OR REPLACE VIEW"),
        "{found:?}"
    );
}

#[test]
fn a_rebuilt_index_is_not_dropped() {
    let index = |oid: u32| {
        json!({
            "class": "pg_class", "oid": oid,
            "entry": {
                "kind": "index", "schema": "s", "name": "i", "table_oid": 2, "table_schema": "s", "table": "t",
                "table_kind": "r", "definition": "CREATE INDEX i ON s.t USING btree (a)"
            }
        })
    };
    let old = catalog(&[table(2, "t", &[column(1, "a")]), index(3)]);
    let new = catalog(&[table(2, "t", &[column(1, "a")]), index(4)]);
    let changes = Changes::new(&old, &new);
    assert_eq!((changes.dropped.len(), changes.created.len(), changes.changed.len()), (0, 0, 1));
}

#[test]
fn a_foreign_key_tells_its_columns() {
    for (list, column, expected) in [
        ("s.t(id, v) ON DELETE CASCADE", "v", true),
        ("s.t(id)", "d", false),
        ("s.t(\"odd, (one\")", "odd, (one", true),
        ("\"s(x\".t(id)", "id", true),
        ("s.t", "t", false),
    ] {
        assert_eq!(super::refers_to(list, column), expected, "{list}: {column}");
    }
}
