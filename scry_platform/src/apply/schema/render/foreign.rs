//! Foreign-data wrappers and servers; foreign tables are rendered as tables.
//!
//! A shadow reaches nothing outside itself: a wrapper is made without its handler and its
//! validator, so that servers and foreign tables stand there by name and shape, for views and
//! functions over them, and cannot be read. Nobody's password comes along.

use super::Rendered;
use super::datatype::part_node;
use crate::apply::schema::plan::{Need, Privileged, Step, main_node};
use crate::apply::schema::quote::{ident, literal};
use scry_wire::catalog::{Class, ForeignDataWrapper, ForeignOption, Object, Server};

pub(super) fn wrapper(object: &Object, wrapper: &ForeignDataWrapper, out: &mut Rendered) {
    let name = ident(&wrapper.name);
    let create = format!("CREATE FOREIGN DATA WRAPPER {name}{}", options(&wrapper.options));
    let step = Step::new(object, "create", vec![create])
        .undo(format!("DROP FOREIGN DATA WRAPPER IF EXISTS {name} CASCADE"))
        .need(Need::Superuser(Privileged::default()));
    out.nodes.push(main_node(object, step));
    if wrapper.handler.is_some() || wrapper.validator.is_some() {
        out.note(object, "made without its functions: a shadow reads nothing outside itself");
    }
}

pub(super) fn server(object: &Object, server: &Server, out: &mut Rendered) {
    let name = ident(&server.name);
    let text = |word: &str, value: &Option<String>| {
        value.as_ref().map_or_else(String::new, |v| format!(" {word} {}", literal(v).trim_start()))
    };
    let create = format!(
        "CREATE SERVER {name}{}{} FOREIGN DATA WRAPPER {}{}",
        text("TYPE", &server.server_type),
        text("VERSION", &server.version),
        ident(&server.wrapper),
        options(&server.options)
    );
    let need =
        Need::Superuser(Privileged { owner: Some(format!("ALTER SERVER {name}")), ..Privileged::default() });
    let undo = format!("DROP SERVER IF EXISTS {name} CASCADE");
    // Its wrapper may come with an extension that the shadow does not have.
    let missing = format!("CREATE FOREIGN DATA WRAPPER {}", ident(&server.wrapper));
    let brought = object.depends_on.iter().any(|id| id.class == Class::ForeignDataWrapper);
    let wrapper = Step::new(object, "wrapper", vec![missing])
        .undo(format!("DROP FOREIGN DATA WRAPPER IF EXISTS {} CASCADE", ident(&server.wrapper)))
        .need(Need::Superuser(Privileged {
            guard: Some(format!(
                "SELECT NOT EXISTS (SELECT FROM pg_catalog.pg_foreign_data_wrapper AS w \
                 WHERE w.fdwname OPERATOR(pg_catalog.=) {}::pg_catalog.name)",
                literal(&server.wrapper)
            )),
            optional: true,
            ..Privileged::default()
        }));
    if !brought {
        out.nodes.push(part_node(object.depends_on.clone(), 6, wrapper));
    }
    let step = Step::new(object, "create", vec![create]).undo(undo).need(need);
    let mut node = main_node(object, step);
    // After the wrapper of last resort.
    node.rank = 7;
    out.nodes.push(node);
}

/// ` OPTIONS (...)`, or nothing.
pub(super) fn options(options: &[ForeignOption]) -> String {
    if options.is_empty() {
        return String::new();
    }
    let list: Vec<String> =
        options.iter().map(|o| format!("{} {}", ident(&o.name), literal(&o.value).trim_start())).collect();
    format!(" OPTIONS ({})", list.join(", "))
}
