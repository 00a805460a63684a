//! The statements that bring one change to the shadow: pure rendering.
//!
//! A statement is text with parameters, and for each parameter where its value
//! comes from ([`Source`]). Rows are found by the replica identity's columns
//! with the operators of the index that holds them, or, where the whole row is
//! the identity, by its image: byte equality (`*=`) tells apart what `=` calls
//! equal (1.0 and 1.00, -0 and 0) and works for types that have no `=`.
//!
//! What it does not do: touch the network, or see a value.

use super::relation_map::qualified;
use super::schema::quote;
use scry_wire::message::Relation;
use scry_wire::one_row::MARK;

/// Where a parameter's value comes from: a column's place in a tuple.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The new tuple.
    New(usize),
    /// The tuple that tells which row it is.
    Old(usize),
    /// The new tuple as a value of the table's row type; in sets only.
    Row,
}

/// A statement and its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// The text.
    pub sql: String,
    /// The parameters, `$1` first.
    pub params: Vec<Source>,
}

impl Statement {
    /// Marked, as one that must touch one row.
    #[must_use]
    pub fn for_one_row(mut self) -> Self {
        self.sql.insert_str(0, MARK);
        self
    }
}

/// How the shadow finds a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finder {
    /// By these columns, each with its equality operator.
    Key(Vec<KeyColumn>),
    /// By the image of all columns.
    Image,
}

/// A column of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyColumn {
    /// Its place in the tuple.
    pub place: usize,
    /// Schema and name of the operator.
    pub operator: (String, String),
}

/// The array type over a column's type, for values in sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArrayOf {
    /// The oid of the column's type on the shadow.
    pub element: u32,
    /// The array type's name as SQL, without a modifier: values are stored as
    /// they are, and the column's own modifier applies on assignment.
    pub name: String,
}

/// What the values of sets are sent as.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SetTypes {
    /// The array type over each column's type, by place, where there is one: there is none over arrays.
    pub arrays: Vec<Option<ArrayOf>>,
    /// The oid of the table's row type.
    pub row: u32,
    /// Its columns, in their order.
    pub columns: Vec<RowColumn>,
}

/// A column of a table's row type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowColumn {
    /// The oid of its type on the shadow.
    pub type_oid: u32,
    /// Its place in the tuple; generated ones have none.
    pub place: Option<usize>,
}

/// What rendering needs to know of a relation and its twin on the shadow.
#[derive(Debug, Clone)]
pub struct Shape<'a> {
    /// The relation, as the source describes it.
    pub relation: &'a Relation,
    /// The shadow's types of its columns, as SQL.
    pub types: &'a [String],
    /// How rows are found.
    pub finder: &'a Finder,
}

/// Text and parameters under construction.
#[derive(Default)]
struct Draft {
    params: Vec<Source>,
}

impl Draft {
    fn param(&mut self, source: Source) -> String {
        self.params.push(source);
        format!("${}", self.params.len())
    }
}

impl Shape<'_> {
    fn column(&self, place: usize) -> String {
        self.relation.columns.get(place).map(|c| quote::ident(&c.name)).unwrap_or_default()
    }

    fn type_of(&self, place: usize) -> &str {
        self.types.get(place).map_or("text", String::as_str)
    }

    fn columns(&self) -> String {
        quote::ident_list(self.relation.columns.iter().map(|c| c.name.as_str()))
    }

    /// Inserts the new tuple.
    #[must_use]
    pub fn insert(&self) -> Statement {
        let table = qualified(self.relation);
        if self.relation.columns.is_empty() {
            return Statement { sql: format!("INSERT INTO {table} DEFAULT VALUES"), params: Vec::new() };
        }
        let mut draft = Draft::default();
        let values: Vec<String> =
            (0..self.relation.columns.len()).map(|place| draft.param(Source::New(place))).collect();
        let sql = format!(
            "INSERT INTO {table} ({}) OVERRIDING SYSTEM VALUE VALUES ({})",
            self.columns(),
            values.join(", ")
        );
        Statement { sql, params: draft.params }
    }

    /// Deletes the row.
    #[must_use]
    pub fn delete(&self) -> Statement {
        let mut draft = Draft::default();
        let sql =
            format!("DELETE FROM ONLY {} WHERE {}", qualified(self.relation), self.condition(&mut draft));
        Statement { sql, params: draft.params }
    }

    /// Updates the row; `unchanged` tells which columns keep their value.
    /// `None` when nothing can be set. A column GENERATED ALWAYS AS IDENTITY
    /// cannot be set at all: see [`replace`](Self::replace).
    #[must_use]
    pub fn update(&self, unchanged: &[bool]) -> Option<Statement> {
        let mut draft = Draft::default();
        let mut set = Vec::new();
        for (place, column) in self.relation.columns.iter().enumerate() {
            if column.identity_always || unchanged.get(place) == Some(&true) {
                continue;
            }
            let value = draft.param(Source::New(place));
            set.push(format!("{} = {value}", quote::ident(&column.name)));
        }
        if set.is_empty() {
            return None;
        }
        let table = qualified(self.relation);
        let condition = self.condition(&mut draft);
        let sql = format!("UPDATE ONLY {table} SET {} WHERE {condition}", set.join(", "));
        Some(Statement { sql, params: draft.params })
    }

    /// Deletes the row and inserts its new form: for a new value in a column
    /// GENERATED ALWAYS AS IDENTITY. Unchanged columns are carried over.
    #[must_use]
    pub fn replace(&self, unchanged: &[bool]) -> Statement {
        let mut draft = Draft::default();
        let condition = self.condition(&mut draft);
        let mut kept = Vec::new();
        let mut values = Vec::new();
        for place in 0..self.relation.columns.len() {
            if unchanged.get(place) == Some(&true) {
                kept.push(self.column(place));
                values.push(format!("old.{}", self.column(place)));
            } else {
                let value = draft.param(Source::New(place));
                values.push(format!("{value}::{}", self.type_of(place)));
            }
        }
        let returning = if kept.is_empty() { "1".to_owned() } else { kept.join(", ") };
        let table = qualified(self.relation);
        let sql = format!(
            "WITH old AS (DELETE FROM ONLY {table} WHERE {condition} RETURNING {returning}) \
             INSERT INTO {table} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM old",
            self.columns(),
            values.join(", ")
        );
        Statement { sql, params: draft.params }
    }

    /// Updates a set of rows by their key; `unchanged` tells which columns keep
    /// their value. The parameters are arrays of columns' values, or one of rows. `None`
    /// when nothing can be set.
    #[must_use]
    pub fn update_set(&self, unchanged: &[bool], types: &SetTypes) -> Option<Statement> {
        let keys = self.key_places()?;
        // The key is what it was, byte for byte.
        let set: Vec<usize> = (0..self.relation.columns.len())
            .filter(|place| unchanged.get(*place) != Some(&true) && !keys.contains(place))
            .collect();
        if set.is_empty() {
            return None;
        }
        let (from, params) = self.rows_of(keys.iter().chain(&set).copied(), types)?;
        let terms: Vec<String> =
            set.iter().map(|place| format!("{} = scry_s.c{place}", self.column(*place))).collect();
        let (table, condition) = (qualified(self.relation), self.key_condition()?);
        let terms = terms.join(", ");
        let sql = format!("UPDATE ONLY {table} AS scry_t SET {terms} FROM {from} WHERE {condition}");
        Some(Statement { sql, params })
    }

    /// Deletes a set of rows by their key, as [`update_set`](Self::update_set).
    #[must_use]
    pub fn delete_set(&self, types: &SetTypes) -> Option<Statement> {
        let (from, params) = self.rows_of(self.key_places()?.into_iter(), types)?;
        let (table, condition) = (qualified(self.relation), self.key_condition()?);
        Some(Statement {
            sql: format!("DELETE FROM ONLY {table} AS scry_t USING {from} WHERE {condition}"),
            params,
        })
    }

    /// Inserts a set of rows, in their order, as [`update_set`](Self::update_set).
    #[must_use]
    pub fn insert_set(&self, types: &SetTypes) -> Option<Statement> {
        let places = 0..self.relation.columns.len();
        if places.is_empty() {
            return None;
        }
        let names: Vec<String> = places.clone().map(|place| format!("scry_s.c{place}")).collect();
        let (from, params) = self.rows_of(places, types)?;
        let (table, columns, names) = (qualified(self.relation), self.columns(), names.join(", "));
        let sql =
            format!("INSERT INTO {table} ({columns}) OVERRIDING SYSTEM VALUE SELECT {names} FROM {from}");
        Some(Statement { sql, params })
    }

    /// Rows `scry_s` of these places of tuples: column `cN` is place N. Out of arrays of one length, a
    /// column each: these functions stand in the select list, where they give row by row what `FROM`
    /// would first put aside (nodeProjectSet.c, nodeFunctionscan.c). Where a type has no array, out of an
    /// array of the table's rows; not if these have more than a tuple says (generated columns).
    fn rows_of(
        &self,
        places: impl Iterator<Item = usize>,
        types: &SetTypes,
    ) -> Option<(String, Vec<Source>)> {
        let arrays: Option<Vec<(usize, &ArrayOf)>> =
            places.map(|place| Some((place, types.arrays.get(place)?.as_ref()?))).collect();
        let Some(arrays) = arrays else {
            let names: Option<Vec<String>> =
                types.columns.iter().map(|column| Some(format!("c{}", column.place?))).collect();
            let (table, names) = (qualified(self.relation), names?.join(", "));
            return Some((
                format!("pg_catalog.unnest($1::{table}[]) AS scry_s ({names})"),
                vec![Source::Row],
            ));
        };
        let columns: Vec<String> = arrays
            .iter()
            .enumerate()
            .map(|(at, (place, array))| format!("pg_catalog.unnest(${}::{}) AS c{place}", at + 1, array.name))
            .collect();
        let params = arrays.iter().map(|(place, _)| Source::New(*place)).collect();
        Some((format!("(SELECT {}) AS scry_s", columns.join(", ")), params))
    }

    fn key_places(&self) -> Option<Vec<usize>> {
        match self.finder {
            Finder::Key(columns) => Some(columns.iter().map(|key| key.place).collect()),
            Finder::Image => None,
        }
    }

    fn key_condition(&self) -> Option<String> {
        let Finder::Key(columns) = self.finder else { return None };
        let terms: Vec<String> = columns
            .iter()
            .map(|key| {
                let (schema, name) = &key.operator;
                let (column, place) = (self.column(key.place), key.place);
                format!("scry_t.{column} OPERATOR({}.{name}) scry_s.c{place}", quote::ident(schema))
            })
            .collect();
        Some(terms.join(" AND "))
    }

    /// The cast names the type where the operator does not, as `record = record`.
    fn condition(&self, draft: &mut Draft) -> String {
        match self.finder {
            Finder::Key(columns) => {
                let terms: Vec<String> = columns
                    .iter()
                    .map(|key| {
                        let (schema, name) = &key.operator;
                        let value = draft.param(Source::Old(key.place));
                        let operator = format!("OPERATOR({}.{name})", quote::ident(schema));
                        format!("{} {operator} {value}::{}", self.column(key.place), self.type_of(key.place))
                    })
                    .collect();
                terms.join(" AND ")
            }
            Finder::Image => self.image(draft),
        }
    }

    /// The casts keep the server from comparing field by field.
    fn image(&self, draft: &mut Draft) -> String {
        let places = 0..self.relation.columns.len();
        let values: Vec<String> = places
            .map(|place| format!("{}::{}", draft.param(Source::Old(place)), self.type_of(place)))
            .collect();
        let table = qualified(self.relation);
        format!(
            "ctid = (SELECT ctid FROM ONLY {table} WHERE ROW({})::record OPERATOR(pg_catalog.*=) \
             ROW({})::record LIMIT 1)",
            self.columns(),
            values.join(", ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use scry_wire::message::{Column, Format, ReplicaIdentity};

    fn relation(columns: &[(&str, bool)]) -> Relation {
        Relation {
            relid: 1,
            format: Format::Binary,
            replica_identity: ReplicaIdentity::Default,
            schema: "s".into(),
            name: "t\"x".into(),
            columns: columns
                .iter()
                .map(|(name, identity_always)| Column {
                    attnum: 1,
                    key: false,
                    identity_always: *identity_always,
                    type_oid: 23,
                    type_mod: -1,
                    name: (*name).to_owned(),
                })
                .collect(),
        }
    }

    fn key() -> Finder {
        Finder::Key(vec![KeyColumn { place: 0, operator: ("pg_catalog".into(), "=".into()) }])
    }

    fn types() -> Vec<String> {
        vec!["integer".into(), "character varying(3)".into()]
    }

    #[test]
    fn writes_inserts() {
        let relation = relation(&[("id", true), ("v", false)]);
        let shape = Shape { relation: &relation, types: &types(), finder: &key() };
        let insert = shape.insert();
        assert_eq!(
            insert.sql,
            "INSERT INTO \"s\".\"t\"\"x\" (\"id\", \"v\") OVERRIDING SYSTEM VALUE VALUES ($1, $2)"
        );
        assert_eq!(insert.params, [Source::New(0), Source::New(1)]);
    }

    #[test]
    fn writes_updates_without_unchanged_and_identity_columns() {
        let relation = relation(&[("id", true), ("v", false)]);
        let shape = Shape { relation: &relation, types: &types(), finder: &key() };
        let update = shape.update(&[false, false]).unwrap();
        assert_eq!(
            update.sql,
            "UPDATE ONLY \"s\".\"t\"\"x\" SET \"v\" = $1 WHERE \"id\" OPERATOR(\"pg_catalog\".=) $2::integer"
        );
        assert_eq!(update.params, [Source::New(1), Source::Old(0)]);
        assert_eq!(shape.update(&[false, true]), None);
    }

    #[test]
    fn replaces_rows_whose_identity_column_moves() {
        let relation = relation(&[("id", true), ("v", false)]);
        let shape = Shape { relation: &relation, types: &types(), finder: &key() };
        let replace = shape.replace(&[false, true]);
        assert!(replace.sql.contains("RETURNING \"v\") INSERT"), "{}", replace.sql);
        assert!(replace.sql.ends_with("SELECT $2::integer, old.\"v\" FROM old"), "{}", replace.sql);
        assert_eq!(replace.params, [Source::Old(0), Source::New(0)]);
    }

    #[test]
    fn finds_rows_by_their_image() {
        let relation = relation(&[("id", false), ("v", false)]);
        let shape = Shape { relation: &relation, types: &types(), finder: &Finder::Image };
        let delete = shape.delete();
        assert!(delete.sql.contains(
            "WHERE ROW(\"id\", \"v\")::record OPERATOR(pg_catalog.*=) \
             ROW($1::integer, $2::character varying(3))::record LIMIT 1"
        ));
    }

    #[test]
    fn writes_sets_by_key() {
        let relation = relation(&[("id", false), ("v", false)]);
        let shape = Shape { relation: &relation, types: &types(), finder: &key() };
        let array = |name: &str| Some(ArrayOf { element: 1, name: name.to_owned() });
        let column = |type_oid, place| RowColumn { type_oid, place };
        let columns = vec![column(23, Some(0)), column(1043, Some(1))];
        let types = |arrays: [Option<ArrayOf>; 2]| SetTypes {
            arrays: arrays.into(),
            row: 9,
            columns: columns.clone(),
        };
        let arrays = types([array("pg_catalog._int4"), array("pg_catalog._varchar")]);
        let update = shape.update_set(&[false, false], &arrays).unwrap();
        assert_eq!(
            update.sql,
            "UPDATE ONLY \"s\".\"t\"\"x\" AS scry_t SET \"v\" = scry_s.c1 \
             FROM (SELECT pg_catalog.unnest($1::pg_catalog._int4) AS c0, \
             pg_catalog.unnest($2::pg_catalog._varchar) AS c1) AS scry_s WHERE scry_t.\"id\" OPERATOR(\"pg_catalog\".=) scry_s.c0"
        );
        assert_eq!(update.params, [Source::New(0), Source::New(1)]);
        assert_eq!(shape.update_set(&[false, true], &arrays), None, "nothing to set");
        let arrays = types([array("pg_catalog._int4"), None]);
        let update = shape.update_set(&[false, false], &arrays).unwrap();
        assert_eq!(update.params, [Source::Row]);
        assert!(
            update.sql.contains("FROM pg_catalog.unnest($1::\"s\".\"t\"\"x\"[]) AS scry_s (c0, c1) WHERE")
        );
        let insert = shape.insert_set(&arrays).unwrap();
        assert!(
            insert.sql.contains("(\"id\", \"v\") OVERRIDING SYSTEM VALUE SELECT scry_s.c0, scry_s.c1 FROM")
        );
        let generated = SetTypes { columns: vec![column(23, Some(0)), column(20, None)], ..arrays.clone() };
        assert_eq!(shape.update_set(&[false, false], &generated), None, "no array, and more than a tuple");
        let delete = shape.delete_set(&arrays).unwrap();
        assert!(
            delete.sql.ends_with("AS c0) AS scry_s WHERE scry_t.\"id\" OPERATOR(\"pg_catalog\".=) scry_s.c0")
        );
    }

    #[test]
    fn writes_tables_without_columns() {
        let relation = relation(&[]);
        let shape = Shape { relation: &relation, types: &[], finder: &Finder::Image };
        assert_eq!(shape.insert().sql, "INSERT INTO \"s\".\"t\"\"x\" DEFAULT VALUES");
    }
}
