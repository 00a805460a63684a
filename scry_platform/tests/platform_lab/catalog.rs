//! A catalog document by hand: two tables, a key, a sequence.

use serde_json::{Value, json};

pub const ITEMS: u32 = 16001;
pub const NOTES: u32 = 16002;

fn column(attnum: i16, name: &str, sql: &str, not_null: bool) -> Value {
    json!({
        "attnum": attnum, "name": name, "not_null": not_null, "local": true,
        "type": { "schema": "pg_catalog", "name": sql, "sql": sql }
    })
}

fn table(oid: u32, name: &str, identity: &str, columns: &[Value]) -> Value {
    json!({
        "class": "pg_class", "oid": oid, "selected": true,
        "entry": {
            "kind": "table", "schema": "public", "name": name, "partitioned": false,
            "replica_identity": identity, "columns": columns
        }
    })
}

/// The document of tables `items (id int primary key, v text)` and
/// `notes (j json, n numeric)` and sequence `counter`.
pub fn items(copy_id: u64) -> Vec<u8> {
    document(copy_id, "v")
}

/// The same with another name for the second column of `items`.
pub fn document(copy_id: u64, second: &str) -> Vec<u8> {
    let key = json!({
        "class": "pg_constraint", "oid": 16003, "selected": true,
        "depends_on": [{ "class": "pg_class", "oid": ITEMS }],
        "entry": {
            "kind": "constraint", "name": "items_pkey", "table_oid": ITEMS, "schema": "public",
            "table": "items", "type": "p", "definition": "PRIMARY KEY (id)", "validated": true, "local": true,
            "index": {
                "oid": 16004, "name": "items_pkey", "method": "btree",
                "definition": "CREATE UNIQUE INDEX items_pkey ON public.items USING btree (id)"
            }
        }
    });
    let sequence = json!({
        "class": "pg_class", "oid": 16005, "selected": true,
        "entry": {
            "kind": "sequence", "schema": "public", "name": "counter", "type": "bigint", "start": 1,
            "increment": 1, "min": 1, "max": 1000, "cache": 1, "cycle": false, "last_value": 33, "is_called": true
        }
    });
    let document = json!({
        "format": 1, "copy_id": copy_id,
        "objects": [
            { "class": "pg_namespace", "oid": 2200, "entry": { "kind": "schema", "name": "public" } },
            table(ITEMS, "items", "d", &[column(1, "id", "integer", true), column(2, second, "text", false)]),
            table(NOTES, "notes", "f", &[column(1, "j", "json", false), column(2, "n", "numeric", false)]),
            key,
            sequence
        ]
    });
    serde_json::to_vec(&document).unwrap()
}
