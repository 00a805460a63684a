//! Collations and types.

use super::Rendered;
use super::vetted::{NO_TWIN, base_type_has_twin, routine_name};
use crate::apply::schema::order::Node;
use crate::apply::schema::order::Slot;
use crate::apply::schema::plan::{Lookup, Need, Privileged, StageName, Step, main_node};
use crate::apply::schema::quote::{ident, literal, qualified};
use scry_wire::catalog::{BaseType, Collation, Composite, Domain, EnumType, Object, QualifiedName, Range};

pub(super) fn collation(object: &Object, collation: &Collation, out: &mut Rendered) {
    let provider = match collation.provider.as_str() {
        "i" => "icu",
        "b" => "builtin",
        _ => "libc",
    };
    let mut options = vec![format!("PROVIDER = {provider}")];
    let mut text = |name: &str, value: Option<&String>| {
        options.extend(value.map(|value| format!("{name} = {}", literal(value).trim_start())));
    };
    if collation.provider == "c" {
        text("LC_COLLATE", collation.collate.as_ref());
        text("LC_CTYPE", collation.ctype.as_ref());
    } else {
        // Before PostgreSQL 15 an ICU collation kept its locale in collcollate.
        text("LOCALE", collation.locale.as_ref().or(collation.collate.as_ref()));
    }
    text("RULES", collation.rules.as_ref());
    if !collation.deterministic {
        options.push("DETERMINISTIC = false".to_owned());
    }
    let name = qualified(&collation.schema, &collation.name);
    let step = Step::new(object, "create", vec![format!("CREATE COLLATION {name} ({})", options.join(", "))])
        .undo(format!("DROP COLLATION IF EXISTS {name} CASCADE"));
    out.nodes.push(main_node(object, step));
}

pub(super) fn enumeration(object: &Object, data_type: &EnumType, out: &mut Rendered) {
    let labels: Vec<String> = data_type.labels.iter().map(|label| literal(label)).collect();
    let name = qualified(&data_type.schema, &data_type.name);
    let sql = format!("CREATE TYPE {name} AS ENUM ({})", labels.join(", "));
    out.nodes.push(main_node(object, create_type(object, &name, sql)));
}

pub(super) fn composite(object: &Object, composite: &Composite, out: &mut Rendered) {
    let attributes: Vec<String> = composite
        .attributes
        .iter()
        .map(|a| format!("{} {}{}", ident(&a.name), a.data_type.sql, collate(a.collation.as_ref())))
        .collect();
    let name = qualified(&composite.schema, &composite.name);
    let sql = format!("CREATE TYPE {name} AS ({})", attributes.join(", "));
    out.nodes.push(main_node(object, create_type(object, &name, sql)));
}

/// Checks that call functions are steps of their own: such a function may take the domain.
pub(super) fn domain(object: &Object, domain: &Domain, out: &mut Rendered) {
    let name = qualified(&domain.schema, &domain.name);
    let mut sql =
        format!("CREATE DOMAIN {name} AS {}{}", domain.base.sql, collate(domain.collation.as_ref()));
    if let Some(default) = &domain.default {
        sql.push_str(&format!(" DEFAULT {default}"));
    }
    if domain.not_null {
        sql.push_str(" NOT NULL");
    }
    for check in &domain.constraints {
        let inline = check.validated && check.depends_on.iter().all(|id| *id == object.id());
        let clause = format!("CONSTRAINT {} {}", ident(&check.name), check.definition);
        if inline {
            sql.push_str(&format!(" {clause}"));
            continue;
        }
        let step = Step::new(object, "constraint", vec![format!("ALTER DOMAIN {name} ADD {clause}")]);
        if check.validated {
            let mut depends_on = check.depends_on.clone();
            depends_on.push(object.id());
            out.nodes.push(part_node(depends_on, 6, step));
        } else {
            // Rows of the copy may break it, as those of the source may.
            out.stage(StageName::Checks, step);
        }
    }
    let step = Step::new(object, "create", vec![sql]).undo(format!("DROP DOMAIN IF EXISTS {name} CASCADE"));
    out.nodes.push(main_node(object, step));
}

pub(super) fn range(object: &Object, range: &Range, out: &mut Rendered) {
    let name = qualified(&range.schema, &range.name);
    let of = |what: &QualifiedName| qualified(&what.schema, &what.name);
    let mut options = vec![format!("SUBTYPE = {}", range.subtype.sql)];
    let mut option = |word: &str, value: Option<&QualifiedName>| {
        options.extend(value.map(|value| format!("{word} = {}", of(value))));
    };
    option("SUBTYPE_OPCLASS", range.operator_class.as_ref());
    option("COLLATION", range.collation.as_ref());
    option("CANONICAL", range.canonical.as_ref());
    option("SUBTYPE_DIFF", range.subtype_diff.as_ref());
    option("MULTIRANGE_TYPE_NAME", Some(&range.multirange));
    let sql = format!("CREATE TYPE {name} AS RANGE ({})", options.join(", "));
    let mut node = main_node(object, create_type(object, &name, sql));
    if range.canonical.is_some() {
        let shell = Step::new(object, "shell", vec![format!("CREATE TYPE {name}")]);
        node.stand_in = Some(shell.undo(format!("DROP TYPE IF EXISTS {name} CASCADE")));
    }
    out.nodes.push(node);
}

/// A base type is a superuser's: its shell too, because who fills a shell must have made it.
pub(super) fn base_type(lookup: &Lookup<'_>, object: &Object, base: &BaseType, out: &mut Rendered) {
    let name = qualified(&base.schema, &base.name);
    let undo = format!("DROP TYPE IF EXISTS {name} CASCADE");
    let shell = vec![format!("CREATE TYPE {name}")];
    if base.shell {
        let step = Step::new(object, "create", shell).undo(undo);
        out.nodes.push(main_node(object, step.need(Need::Superuser(Privileged::default()))));
        return;
    }
    let guard = base_type_has_twin(lookup, base).unwrap_or_else(|| "false".to_owned());
    let need = Privileged {
        guard: Some(format!("SELECT {guard}")),
        owner: Some(format!("ALTER TYPE {name}")),
        otherwise: NO_TWIN,
        ..Privileged::default()
    };
    let create = format!("CREATE TYPE {name} ({})", base_type_parts(base).join(", "));
    let step = Step::new(object, "create", vec![create]).undo(undo.clone()).need(Need::Superuser(need));
    let mut node = main_node(object, step);
    let first = Need::Superuser(Privileged { first: true, ..Privileged::default() });
    node.stand_in = Some(Step::new(object, "shell", shell).undo(undo).need(first));
    out.nodes.push(node);
}

fn base_type_parts(base: &BaseType) -> Vec<String> {
    let mut parts = Vec::new();
    let functions = [
        ("INPUT", &base.input),
        ("OUTPUT", &base.output),
        ("RECEIVE", &base.receive),
        ("SEND", &base.send),
        ("TYPMOD_IN", &base.modifier_input),
        ("TYPMOD_OUT", &base.modifier_output),
    ];
    for (word, function) in functions {
        parts.extend(function.as_ref().map(|f| format!("{word} = {}", routine_name(f))));
    }
    let length = if base.length < 0 { "VARIABLE".to_owned() } else { base.length.to_string() };
    parts.push(format!("INTERNALLENGTH = {length}"));
    parts.extend(base.by_value.then(|| "PASSEDBYVALUE".to_owned()));
    let alignment = match base.alignment.as_str() {
        "c" => "char",
        "s" => "int2",
        "d" => "double",
        _ => "int4",
    };
    parts.push(format!("ALIGNMENT = {alignment}"));
    parts.extend(super::storage_word(&base.storage).map(|word| format!("STORAGE = {word}")));
    parts.push(format!("CATEGORY = {}", literal(&base.category)));
    parts.extend(base.preferred.then(|| "PREFERRED = true".to_owned()));
    parts.push(format!("DELIMITER = {}", literal(&base.delimiter)));
    parts.extend(base.collatable.then(|| "COLLATABLE = true".to_owned()));
    parts.extend(base.default.as_ref().map(|value| format!("DEFAULT = {}", literal(value))));
    parts
}

fn create_type(object: &Object, name: &str, sql: String) -> Step {
    Step::new(object, "create", vec![sql]).undo(format!("DROP TYPE IF EXISTS {name} CASCADE"))
}

pub(in crate::apply::schema) fn collate(collation: Option<&QualifiedName>) -> String {
    collation.map_or_else(String::new, |c| format!(" COLLATE {}", qualified(&c.schema, &c.name)))
}

/// A node for a part of an object: nothing depends on it.
pub(super) fn part_node(depends_on: Vec<scry_wire::catalog::ObjectId>, rank: u8, step: Step) -> Node {
    Node { provides: None, depends_on, rank, late: false, lazy: false, stand_in: None, slot: Slot::Pre, step }
}
