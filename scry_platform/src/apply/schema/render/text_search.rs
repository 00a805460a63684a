//! Text search parsers, templates, dictionaries and configurations.

use super::Rendered;
use super::vetted::{brought, if_true, procedure, procedure_or_none, routine_name};
use crate::apply::schema::plan::{Need, Step, main_node};
use crate::apply::schema::quote::{ident, qualified};
use scry_wire::catalog::{
    Object, TextSearchConfiguration, TextSearchDictionary, TextSearchParser, TextSearchTemplate,
};

pub(super) fn dictionary(object: &Object, dictionary: &TextSearchDictionary, out: &mut Rendered) {
    let name = qualified(&dictionary.schema, &dictionary.name);
    let template = qualified(&dictionary.template.schema, &dictionary.template.name);
    let options = dictionary.options.as_ref().map_or_else(String::new, |options| format!(", {options}"));
    let create = format!("CREATE TEXT SEARCH DICTIONARY {name} (TEMPLATE = {template}{options})");
    let step = Step::new(object, "create", vec![create])
        .undo(format!("DROP TEXT SEARCH DICTIONARY IF EXISTS {name} CASCADE"));
    out.nodes.push(main_node(object, step));
}

pub(super) fn configuration(object: &Object, configuration: &TextSearchConfiguration, out: &mut Rendered) {
    let name = qualified(&configuration.schema, &configuration.name);
    let parser = qualified(&configuration.parser.schema, &configuration.parser.name);
    let mut sql = vec![format!("CREATE TEXT SEARCH CONFIGURATION {name} (PARSER = {parser})")];
    for mapping in &configuration.mappings {
        let dictionaries: Vec<String> =
            mapping.dictionaries.iter().map(|d| qualified(&d.schema, &d.name)).collect();
        sql.push(format!(
            "ALTER TEXT SEARCH CONFIGURATION {name} ADD MAPPING FOR {} WITH {}",
            ident(&mapping.token),
            dictionaries.join(", ")
        ));
    }
    let step = Step::new(object, "create", sql)
        .undo(format!("DROP TEXT SEARCH CONFIGURATION IF EXISTS {name} CASCADE"));
    out.nodes.push(main_node(object, step));
}

pub(super) fn parser(object: &Object, parser: &TextSearchParser, out: &mut Rendered) {
    let name = qualified(&parser.schema, &parser.name);
    let mut parts = vec![
        format!("START = {}", routine_name(&parser.start)),
        format!("GETTOKEN = {}", routine_name(&parser.token)),
        format!("END = {}", routine_name(&parser.end)),
        format!("LEXTYPES = {}", routine_name(&parser.lextype)),
    ];
    parts.extend(parser.headline.as_ref().map(|f| format!("HEADLINE = {}", routine_name(f))));
    let functions = [
        ("prsstart", procedure(&parser.start)),
        ("prstoken", procedure(&parser.token)),
        ("prsend", procedure(&parser.end)),
        ("prslextype", procedure(&parser.lextype)),
    ];
    let same: Vec<String> = functions
        .iter()
        .map(|(column, function)| format!("p.{column}::pg_catalog.oid OPERATOR(pg_catalog.=) {function}"))
        .collect();
    let headline = procedure_or_none(parser.headline.as_ref());
    let guard = format!(
        "EXISTS (SELECT FROM pg_catalog.pg_ts_parser AS p WHERE {} AND {} \
         AND {headline} OPERATOR(pg_catalog.=) ANY (ARRAY[0::pg_catalog.oid, p.prsheadline::pg_catalog.oid]))",
        brought("pg_ts_parser", "p"),
        same.join(" AND ")
    );
    let create = format!("CREATE TEXT SEARCH PARSER {name} ({})", parts.join(", "));
    let step = Step::new(object, "create", vec![create])
        .undo(format!("DROP TEXT SEARCH PARSER IF EXISTS {name} CASCADE"))
        .need(Need::Superuser(if_true(guard)));
    out.nodes.push(main_node(object, step));
}

pub(super) fn template(object: &Object, template: &TextSearchTemplate, out: &mut Rendered) {
    let name = qualified(&template.schema, &template.name);
    let mut parts = vec![format!("LEXIZE = {}", routine_name(&template.lexize))];
    parts.extend(template.init.as_ref().map(|f| format!("INIT = {}", routine_name(f))));
    let guard = format!(
        "EXISTS (SELECT FROM pg_catalog.pg_ts_template AS t WHERE {} \
         AND t.tmpllexize::pg_catalog.oid OPERATOR(pg_catalog.=) {} \
         AND t.tmplinit::pg_catalog.oid OPERATOR(pg_catalog.=) {})",
        brought("pg_ts_template", "t"),
        procedure(&template.lexize),
        procedure_or_none(template.init.as_ref())
    );
    let create = format!("CREATE TEXT SEARCH TEMPLATE {name} ({})", parts.join(", "));
    let step = Step::new(object, "create", vec![create])
        .undo(format!("DROP TEXT SEARCH TEMPLATE IF EXISTS {name} CASCADE"))
        .need(Need::Superuser(if_true(guard)));
    out.nodes.push(main_node(object, step));
}
