//! Types, text search objects, operators: altered in place, because columns use them.

use super::settle::Settle;
use crate::apply::schema::plan::{Need, Step};
use crate::apply::schema::quote::{ident, literal, qualified};
use crate::apply::schema::render::datatype::collate;
use crate::apply::schema::render::routine::operator_name;
use scry_wire::catalog::{
    Composite, Domain, EnumType, Object, Operator, QualifiedName, TextSearchConfiguration,
    TextSearchDictionary, TextSearchMapping,
};

/// New labels only: a label cannot go, and one with a new text was renamed before.
pub(super) fn enumeration(want: &Object, a: &EnumType, b: &EnumType) -> Settle {
    let name = qualified(&b.schema, &b.name);
    let mut there = a.labels.clone();
    let mut steps = Vec::new();
    for (place, label) in b.labels.iter().enumerate() {
        if there.contains(label) {
            continue;
        }
        let before = place.checked_sub(1).and_then(|p| b.labels.get(p));
        let next = b.labels.iter().skip(place + 1).find(|l| there.contains(l));
        let at = match (before, next) {
            (_, Some(next)) => format!(" BEFORE {}", literal(next)),
            (Some(before), None) if there.last() != Some(before) => format!(" AFTER {}", literal(before)),
            _ => String::new(),
        };
        let sql = format!("ALTER TYPE {name} ADD VALUE {}{at}", literal(label));
        steps.push(Step::new(want, "add value", vec![sql]).need(Need::Success));
        let slot = before.and_then(|b| there.iter().position(|l| l == b)).map_or(0, |p| p + 1);
        there.insert(slot, label.clone());
    }
    if steps.is_empty() && a.labels != b.labels {
        return Settle::again();
    }
    Settle::own(steps)
}

pub(super) fn domain(want: &Object, a: &Domain, b: &Domain) -> Settle {
    if (&a.base, &a.collation) != (&b.base, &b.collation) {
        return Settle::again();
    }
    let name = qualified(&b.schema, &b.name);
    let mut actions = Vec::new();
    if a.default != b.default {
        actions.push(match &b.default {
            Some(default) => ("default", format!("SET DEFAULT {default}")),
            None => ("default", "DROP DEFAULT".to_owned()),
        });
    }
    if a.not_null != b.not_null {
        actions.push(("not null", format!("{} NOT NULL", if b.not_null { "SET" } else { "DROP" })));
    }
    for check in &b.constraints {
        let constraint = ident(&check.name);
        let add = format!("ADD CONSTRAINT {constraint} {}", check.definition);
        match a.constraints.iter().find(|old| old.name == check.name) {
            None => actions.push(("constraint", add)),
            Some(old) if old.definition == check.definition => {}
            Some(old) if !old.validated && check.validated && valid(&old.definition) == check.definition => {
                actions.push(("constraint", format!("VALIDATE CONSTRAINT {constraint}")));
            }
            Some(_) => {
                actions.push(("constraint", format!("DROP CONSTRAINT {constraint}")));
                actions.push(("constraint", add));
            }
        }
    }
    let step = |(part, action)| Step::new(want, part, vec![format!("ALTER DOMAIN {name} {action}")]);
    Settle::own(actions.into_iter().map(step).collect())
}

/// A definition without NOT VALID.
pub(super) fn valid(definition: &str) -> &str {
    definition.strip_suffix(" NOT VALID").unwrap_or(definition)
}

pub(super) fn composite(want: &Object, a: &Composite, b: &Composite) -> Settle {
    let name = qualified(&b.schema, &b.name);
    let mut steps = Vec::new();
    for attribute in &b.attributes {
        let form = format!("{}{}", attribute.data_type.sql, collate(attribute.collation.as_ref()));
        let column = ident(&attribute.name);
        let action = match a.attributes.iter().find(|old| old.name == attribute.name) {
            None => format!("ADD ATTRIBUTE {column} {form}"),
            Some(old) if (&old.data_type, &old.collation) != (&attribute.data_type, &attribute.collation) => {
                format!("ALTER ATTRIBUTE {column} TYPE {form}")
            }
            Some(_) => continue,
        };
        // Typed tables follow their type.
        steps.push(Step::new(want, "attribute", vec![format!("ALTER TYPE {name} {action} CASCADE")]));
    }
    Settle::own(steps)
}

pub(super) fn dictionary(want: &Object, a: &TextSearchDictionary, b: &TextSearchDictionary) -> Settle {
    if a.template != b.template {
        return Settle::again();
    }
    if a.options == b.options {
        return Settle::default();
    }
    let new = b.options.clone().unwrap_or_default();
    let kept = option_names(&new);
    let gone = option_names(a.options.as_deref().unwrap_or_default());
    let mut list: Vec<String> = if new.is_empty() { Vec::new() } else { vec![new] };
    list.extend(gone.into_iter().filter(|name| !kept.contains(name)));
    let name = qualified(&b.schema, &b.name);
    let sql = format!("ALTER TEXT SEARCH DICTIONARY {name} ({})", list.join(", "));
    Settle::own(vec![Step::new(want, "options", vec![sql])])
}

/// The names in a list `name = 'value', ...` as the server writes it.
fn option_names(list: &str) -> Vec<String> {
    let (mut names, mut name, mut quoted, mut value) = (Vec::new(), String::new(), false, false);
    for c in list.chars() {
        match c {
            '\'' => quoted = !quoted,
            _ if quoted => {}
            '=' if !value => {
                names.push(std::mem::take(&mut name).trim().to_owned());
                value = true;
            }
            ',' => value = false,
            c if !value => name.push(c),
            _ => {}
        }
    }
    names
}

pub(super) fn configuration(
    want: &Object,
    a: &TextSearchConfiguration,
    b: &TextSearchConfiguration,
) -> Settle {
    if a.parser != b.parser {
        return Settle::again();
    }
    let name = qualified(&b.schema, &b.name);
    let find = |list: &[TextSearchMapping], token: &str| -> Option<Vec<QualifiedName>> {
        list.iter().find(|m| m.token == token).map(|m| m.dictionaries.clone())
    };
    let mut sql = Vec::new();
    for old in a.mappings.iter().filter(|old| find(&b.mappings, &old.token).is_none()) {
        sql.push(format!("ALTER TEXT SEARCH CONFIGURATION {name} DROP MAPPING FOR {}", ident(&old.token)));
    }
    for new in &b.mappings {
        let word = match find(&a.mappings, &new.token) {
            Some(old) if old == new.dictionaries => continue,
            Some(_) => "ALTER",
            None => "ADD",
        };
        let with: Vec<String> = new.dictionaries.iter().map(|d| qualified(&d.schema, &d.name)).collect();
        sql.push(format!(
            "ALTER TEXT SEARCH CONFIGURATION {name} {word} MAPPING FOR {} WITH {}",
            ident(&new.token),
            with.join(", ")
        ));
    }
    let steps = (!sql.is_empty()).then(|| Step::new(want, "mappings", sql));
    Settle::own(steps.into_iter().collect())
}

/// The server sets commutator and negator when the other operator is made.
pub(super) fn operator(want: &Object, a: &Operator, b: &Operator) -> Settle {
    let fixed = |o: &Operator| (o.function.clone(), o.merges, o.hashes);
    if fixed(a) != fixed(b) {
        return Settle::again();
    }
    let (Some(name), true) = (operator_name(b), (&a.restrict, &a.join) != (&b.restrict, &b.join)) else {
        let waits = (a.commutator.is_none() && b.commutator.is_some())
            || (a.negator.is_none() && b.negator.is_some());
        return if (&a.commutator, &a.negator) == (&b.commutator, &b.negator) || waits {
            Settle::default()
        } else {
            Settle::again()
        };
    };
    let function = |name: &Option<QualifiedName>| {
        name.as_ref().map_or_else(|| "NONE".to_owned(), |n| qualified(&n.schema, &n.name))
    };
    let sql = format!(
        "ALTER OPERATOR {name} SET (RESTRICT = {}, JOIN = {})",
        function(&b.restrict),
        function(&b.join)
    );
    Settle::own(vec![Step::new(want, "estimators", vec![sql])])
}

#[cfg(test)]
mod tests {
    use super::{enumeration, option_names};
    use scry_wire::catalog::{Class, Entry, EnumType, Object};

    fn labels(list: &[&str]) -> EnumType {
        let labels = list.iter().map(|l| (*l).to_owned()).collect();
        EnumType { schema: "s".into(), name: "e".into(), labels, label_oids: Vec::new() }
    }

    fn added(a: &[&str], b: &[&str]) -> Vec<String> {
        let (a, b) = (labels(a), labels(b));
        let want = Object {
            class: Class::Type,
            oid: 1,
            selected: true,
            comment: None,
            depends_on: Vec::new(),
            entry: Entry::Enum(b.clone()),
        };
        let steps = enumeration(&want, &a, &b).own;
        steps
            .into_iter()
            .map(|s| s.sql.join("").split("VALUE ").last().unwrap_or_default().to_owned())
            .collect()
    }

    #[test]
    fn labels_come_to_their_place() {
        assert_eq!(added(&["a", "b"], &["a", "b", "c", "d"]), ["'c'", "'d'"]);
        assert_eq!(added(&["a", "b"], &["x", "y", "a", "b"]), ["'x' BEFORE 'a'", "'y' BEFORE 'a'"]);
        assert_eq!(added(&["a", "b"], &["a", "x", "y", "b"]), ["'x' BEFORE 'b'", "'y' BEFORE 'b'"]);
        assert_eq!(added(&[], &["a", "b"]), ["'a'", "'b'"]);
    }

    #[test]
    fn option_names_are_read() {
        assert_eq!(option_names("language = 'german', stopwords = 'a, b = ''c'"), ["language", "stopwords"]);
        assert_eq!(option_names("").len(), 0);
    }
}
