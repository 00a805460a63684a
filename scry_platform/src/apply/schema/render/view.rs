//! Views and materialized views.

use super::datatype::{collate, part_node};
use super::{Rendered, compression_word, options, storage_word};
use crate::apply::schema::plan::{StageName, Step, main_node};
use crate::apply::schema::quote::{ident, qualified};
use scry_wire::catalog::{MaterializedView, Object, View};

/// `CREATE OR REPLACE VIEW`
pub(in crate::apply::schema) fn replace(object: &Object, view: &View) -> Step {
    let name = qualified(&view.schema, &view.name);
    let check = view.options.iter().find_map(|option| option.strip_prefix("check_option="));
    let with = options(view.options.iter().filter(|o| !o.starts_with("check_option=")), []);
    let with = if with.is_empty() { with } else { format!(" WITH {with}") };
    let check = match check {
        Some("local") => " WITH LOCAL CHECK OPTION",
        Some(_) => " WITH CASCADED CHECK OPTION",
        None => "",
    };
    let query = view.definition.trim_end().trim_end_matches(';');
    Step::new(object, "create", vec![format!("CREATE OR REPLACE VIEW {name}{with} AS\n{query}{check}")])
}

pub(super) fn view(object: &Object, view: &View, out: &mut Rendered) {
    let name = qualified(&view.schema, &view.name);
    let undo = format!("DROP VIEW IF EXISTS {name} CASCADE");
    let create = replace(object, view).undo(undo.clone());
    let mut node = main_node(object, create.makes(&view.schema, &view.name));
    let columns: Vec<String> = view
        .columns
        .iter()
        .map(|c| {
            let value = format!("NULL::{}{}", c.data_type.sql, collate(c.collation.as_ref()));
            format!("{value} AS {}", ident(&c.name))
        })
        .collect();
    let stand_in = format!("CREATE VIEW {name} AS SELECT {}", columns.join(", "));
    let stand_in = Step::new(object, "stand-in", vec![stand_in]).undo(undo);
    node.stand_in = Some(stand_in.makes(&view.schema, &view.name));
    out.nodes.push(node);
    for column in &view.columns {
        if let Some(default) = &column.default {
            let sql =
                format!("ALTER VIEW {name} ALTER COLUMN {} SET DEFAULT {}", ident(&column.name), default.sql);
            let mut depends_on = default.depends_on.clone();
            depends_on.push(object.id());
            let mut node = part_node(depends_on, 13, Step::new(object, "default", vec![sql]));
            node.lazy = true;
            out.nodes.push(node);
        }
    }
}

pub(super) fn materialized(object: &Object, view: &MaterializedView, out: &mut Rendered) {
    let name = qualified(&view.schema, &view.name);
    let using = view.access_method.as_ref().filter(|am| *am != "heap");
    let using = using.map_or_else(String::new, |am| format!(" USING {}", ident(am)));
    let with = options(&view.options, &view.toast_options);
    let with = if with.is_empty() { with } else { format!(" WITH {with}") };
    let query = view.definition.trim_end().trim_end_matches(';');
    let create = format!("CREATE MATERIALIZED VIEW {name}{using}{with} AS\n{query}\nWITH NO DATA");
    let mut sql = vec![create];
    for column in &view.columns {
        let mut alter = |action: String| {
            let column = ident(&column.name);
            sql.push(format!("ALTER MATERIALIZED VIEW {name} ALTER COLUMN {column} {action}"));
        };
        if let Some(word) = column.storage.as_deref().and_then(storage_word) {
            alter(format!("SET STORAGE {word}"));
        }
        if let Some(word) = compression_word(&column.compression) {
            alter(format!("SET COMPRESSION {word}"));
        }
        if let Some(target) = column.statistics {
            alter(format!("SET STATISTICS {target}"));
        }
        if !column.options.is_empty() {
            alter(format!("SET {}", options(&column.options, [])));
        }
    }
    let step = Step::new(object, "create", sql);
    let step =
        step.undo(format!("DROP MATERIALIZED VIEW IF EXISTS {name} CASCADE")).makes(&view.schema, &view.name);
    out.nodes.push(main_node(object, step));
    if view.populated {
        out.stage(StageName::Refresh, refresh(object, view));
    }
}

/// `REFRESH MATERIALIZED VIEW`, with rows or without, as the source has it.
pub(in crate::apply::schema) fn refresh(object: &Object, view: &MaterializedView) -> Step {
    let name = qualified(&view.schema, &view.name);
    let (part, with) = if view.populated { ("refresh", "") } else { ("empty", " WITH NO DATA") };
    Step::new(object, part, vec![format!("REFRESH MATERIALIZED VIEW {name}{with}")])
}
