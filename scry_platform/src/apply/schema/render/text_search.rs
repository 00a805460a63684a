//! Text search dictionaries and configurations.

use super::Rendered;
use crate::apply::schema::plan::{Step, main_node};
use crate::apply::schema::quote::{ident, qualified};
use scry_wire::catalog::{Object, TextSearchConfiguration, TextSearchDictionary};

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
