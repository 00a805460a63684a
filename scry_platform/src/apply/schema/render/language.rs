//! Languages, transforms, conversions, event triggers.
//!
//! An event trigger would do on the shadow what its work on the source has sent already, and would
//! stand in the way of the platform's own statements: it is made, and disabled at once.

use super::Rendered;
use super::vetted::{brought, if_true, procedure, procedure_or_none, routine, routine_name, type_name};
use crate::apply::schema::plan::{Need, Privileged, Step, main_node};
use crate::apply::schema::quote::{ident, literal, qualified};
use scry_wire::catalog::{Conversion, EventTrigger, Language, Object, Transform};

pub(super) fn language(object: &Object, language: &Language, out: &mut Rendered) {
    let name = ident(&language.name);
    let Some(handler) = &language.handler else {
        out.note(object, "it has no handler");
        return;
    };
    let trusted = if language.trusted { "TRUSTED " } else { "" };
    let mut create = format!("CREATE {trusted}LANGUAGE {name} HANDLER {}", routine_name(handler));
    for (word, function) in [("INLINE", &language.inline), ("VALIDATOR", &language.validator)] {
        if let Some(function) = function {
            create.push_str(&format!(" {word} {}", routine_name(function)));
        }
    }
    let same_or_none = |column: &str, function| {
        let wanted = procedure_or_none(function);
        format!("{wanted} OPERATOR(pg_catalog.=) ANY (ARRAY[0::pg_catalog.oid, l.{column}::pg_catalog.oid])")
    };
    let guard = format!(
        "{} AND EXISTS (SELECT FROM pg_catalog.pg_language AS l WHERE {} AND l.lanpltrusted \
         AND l.lanplcallfoid OPERATOR(pg_catalog.=) {} AND {} AND {})",
        language.trusted,
        brought("pg_language", "l"),
        procedure(handler),
        same_or_none("laninline", language.inline.as_ref()),
        same_or_none("lanvalidator", language.validator.as_ref()),
    );
    let mut need = if_true(guard);
    need.owner = Some(format!("ALTER LANGUAGE {name}"));
    let step = Step::new(object, "create", vec![create])
        .undo(format!("DROP LANGUAGE IF EXISTS {name} CASCADE"))
        .need(Need::Superuser(need));
    out.nodes.push(main_node(object, step));
}

/// Type and language, as DROP and COMMENT want them.
pub(super) fn transform_name(transform: &Transform) -> String {
    format!("FOR {} LANGUAGE {}", type_name(&transform.data_type), ident(&transform.language))
}

pub(super) fn transform(object: &Object, transform: &Transform, out: &mut Rendered) {
    let name = transform_name(transform);
    let mut functions = Vec::new();
    for (word, function) in [("FROM SQL", &transform.from_sql), ("TO SQL", &transform.to_sql)] {
        functions.extend(function.as_ref().map(|f| format!("{word} WITH FUNCTION {}", routine(f))));
    }
    let create = format!("CREATE TRANSFORM {name} ({})", functions.join(", "));
    let guard = format!(
        "EXISTS (SELECT FROM pg_catalog.pg_transform AS t WHERE {} \
         AND t.trffromsql::pg_catalog.oid OPERATOR(pg_catalog.=) {} \
         AND t.trftosql::pg_catalog.oid OPERATOR(pg_catalog.=) {})",
        brought("pg_transform", "t"),
        procedure_or_none(transform.from_sql.as_ref()),
        procedure_or_none(transform.to_sql.as_ref()),
    );
    let step = Step::new(object, "create", vec![create])
        .undo(format!("DROP TRANSFORM IF EXISTS {name} CASCADE"))
        .need(Need::Superuser(if_true(guard)));
    out.nodes.push(main_node(object, step));
}

pub(super) fn conversion(object: &Object, conversion: &Conversion, out: &mut Rendered) {
    let name = qualified(&conversion.schema, &conversion.name);
    let create = format!(
        "CREATE {}CONVERSION {name} FOR {} TO {} FROM {}",
        if conversion.default { "DEFAULT " } else { "" },
        literal(&conversion.from).trim_start(),
        literal(&conversion.to).trim_start(),
        routine_name(&conversion.function)
    );
    let step =
        Step::new(object, "create", vec![create]).undo(format!("DROP CONVERSION IF EXISTS {name} CASCADE"));
    out.nodes.push(main_node(object, step));
}

pub(super) fn event_trigger(object: &Object, trigger: &EventTrigger, out: &mut Rendered) {
    let name = ident(&trigger.name);
    let tags: Vec<String> = trigger.tags.iter().map(|tag| literal(tag)).collect();
    let when = if tags.is_empty() { String::new() } else { format!(" WHEN TAG IN ({})", tags.join(", ")) };
    let create = format!(
        "CREATE EVENT TRIGGER {name} ON {}{when} EXECUTE FUNCTION {}()",
        ident(&trigger.event),
        routine_name(&trigger.function)
    );
    let disable = format!("ALTER EVENT TRIGGER {name} DISABLE");
    let step = Step::new(object, "create", vec![create, disable])
        .undo(format!("DROP EVENT TRIGGER IF EXISTS {name} CASCADE"))
        .need(Need::Superuser(Privileged::default()));
    out.nodes.push(main_node(object, step));
    if trigger.enabled != "D" {
        out.note(
            object,
            "enabled on the source; disabled here, or it would act on the platform's own statements",
        );
    }
}
