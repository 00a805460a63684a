//! Each kind's DDL.
//!
//! Names come from the document as data and go through [`super::quote`]; expressions and
//! definitions are the source server's own text, each sent as one statement by a role that
//! is no superuser. What only a superuser may do is put together in [`vetted`].

mod access;
mod attached;
pub(super) mod comment;
pub(super) mod datatype;
mod foreign;
mod language;
pub(super) mod routine;
pub(super) mod sequence;
mod table;
mod text_search;
pub(super) mod vetted;
pub(super) mod view;

use super::order::Node;
use super::plan::{ExtensionNeed, Lookup, Need, StageName, Step, main_node};
use super::quote::{ident, literal};
use scry_wire::catalog::{Entry, Extension, LeftOut, Object};
use std::collections::HashMap;

pub(super) type Stages = HashMap<StageName, Vec<Step>>;

/// What the objects become.
#[derive(Default)]
pub(super) struct Rendered {
    /// What is put into an order by its needs.
    pub nodes: Vec<Node>,
    /// What has its place by its kind.
    pub stages: Stages,
    /// What is made otherwise than on the source.
    pub notes: Vec<LeftOut>,
}

impl Rendered {
    fn stage(&mut self, name: StageName, step: Step) {
        self.stages.entry(name).or_default().push(step);
    }

    fn note(&mut self, object: &Object, reason: &str) {
        self.notes.push(LeftOut { object: object.describe(), reason: reason.to_owned(), sqlstate: None });
    }
}

/// Renders one object into nodes and steps.
pub(super) fn object(lookup: &Lookup<'_>, object: &Object, out: &mut Rendered) {
    match &object.entry {
        Entry::Schema(schema) => {
            let create = Step::new(object, "create", vec![format!("CREATE SCHEMA {}", ident(&schema.name))])
                .undo(format!("DROP SCHEMA IF EXISTS {} CASCADE", ident(&schema.name)))
                .need(Need::MayExist);
            out.nodes.push(main_node(object, create));
        }
        Entry::Extension(extension) => out.nodes.push(self::extension(lookup, object, extension)),
        Entry::Collation(collation) => datatype::collation(object, collation, out),
        Entry::Enum(data_type) => datatype::enumeration(object, data_type, out),
        Entry::Domain(domain) => datatype::domain(object, domain, out),
        Entry::Composite(composite) => datatype::composite(object, composite, out),
        Entry::Range(range) => datatype::range(object, range, out),
        Entry::BaseType(base) => datatype::base_type(lookup, object, base, out),
        Entry::Sequence(sequence) => sequence::sequence(lookup, object, sequence, out),
        Entry::Table(table) => table::table(lookup, object, table, out),
        Entry::ForeignTable(foreign) => table::foreign(lookup, object, foreign, out),
        Entry::Function(function) => routine::function(lookup, object, function, out),
        Entry::Aggregate(aggregate) => routine::aggregate(object, aggregate, out),
        Entry::Operator(operator) => routine::operator(object, operator, out),
        Entry::Cast(cast) => routine::cast(object, cast, out),
        Entry::OperatorFamily(family) => access::family(object, family, out),
        Entry::OperatorClass(class) => access::class(object, class, out),
        Entry::AccessMethod(method) => access::access_method(object, method, out),
        Entry::Conversion(conversion) => language::conversion(object, conversion, out),
        Entry::Language(language) => language::language(object, language, out),
        Entry::Transform(transform) => language::transform(object, transform, out),
        Entry::EventTrigger(trigger) => language::event_trigger(object, trigger, out),
        Entry::ForeignDataWrapper(wrapper) => foreign::wrapper(object, wrapper, out),
        Entry::Server(server) => foreign::server(object, server, out),
        Entry::TextSearchParser(parser) => text_search::parser(object, parser, out),
        Entry::TextSearchTemplate(template) => text_search::template(object, template, out),
        Entry::TextSearchDictionary(dictionary) => text_search::dictionary(object, dictionary, out),
        Entry::TextSearchConfiguration(configuration) => {
            text_search::configuration(object, configuration, out)
        }
        Entry::View(view) => view::view(object, view, out),
        Entry::MaterializedView(view) => view::materialized(object, view, out),
        Entry::Constraint(constraint) => attached::constraint(lookup, object, constraint, out),
        Entry::Index(index) => attached::index(lookup, object, index, out),
        Entry::Statistics(statistics) => attached::statistics(object, statistics, out),
        Entry::Rule(rule) => attached::rule(object, rule, out),
        Entry::Trigger(trigger) => attached::trigger(lookup, object, trigger, out),
        Entry::Policy(policy) => attached::policy(object, policy, out),
        Entry::Unknown => out.note(object, "the platform does not know objects of this kind"),
    }
    comment::comments(object, out);
}

fn extension(lookup: &Lookup<'_>, object: &Object, extension: &Extension) -> Node {
    // A schema that is a member of the extension is made by its script.
    let placed = lookup.has_schema(&extension.schema) || extension.schema == "pg_catalog";
    let schema = if placed { format!(" SCHEMA {}", ident(&extension.schema)) } else { String::new() };
    let create = format!("CREATE EXTENSION IF NOT EXISTS {}{schema}", ident(&extension.name));
    let comment = object.comment.as_ref().map(|text| {
        (format!("COMMENT ON EXTENSION {} IS {}", ident(&extension.name), literal(text)), text.clone())
    });
    let step = Step::new(object, "create", vec![format!("{create} VERSION {}", literal(&extension.version))])
        .undo(format!("DROP EXTENSION IF EXISTS {} CASCADE", ident(&extension.name)))
        .need(Need::Extension(ExtensionNeed {
            name: extension.name.clone(),
            any_version: create,
            version: extension.version.clone(),
            schema: lookup.has_schema(&extension.schema).then(|| extension.schema.clone()),
            comment,
        }));
    main_node(object, step)
}

/// `WITH (...)` of storage parameters in the form of `reloptions`; empty if there are none.
pub(super) fn options<'a>(
    plain: impl IntoIterator<Item = &'a String>,
    toast: impl IntoIterator<Item = &'a String>,
) -> String {
    let one = |prefix: &str, option: &str| {
        let (name, value) = option.split_once('=').unwrap_or((option, "true"));
        format!("{prefix}{} = {}", ident(name), literal(value).trim_start())
    };
    let plain = plain.into_iter().map(|option| one("", option));
    let toast = toast.into_iter().map(|option| one("toast.", option));
    let list: Vec<String> = plain.chain(toast).collect();
    if list.is_empty() { String::new() } else { format!("({})", list.join(", ")) }
}

pub(super) fn storage_word(code: &str) -> Option<&'static str> {
    match code {
        "p" => Some("PLAIN"),
        "e" => Some("EXTERNAL"),
        "m" => Some("MAIN"),
        "x" => Some("EXTENDED"),
        _ => None,
    }
}

pub(super) fn compression_word(code: &str) -> Option<&'static str> {
    match code {
        "p" => Some("pglz"),
        "l" => Some("lz4"),
        _ => None,
    }
}
