//! Functions, procedures, aggregates.

use super::Rendered;
use crate::apply::schema::plan::{Step, main_node};
use crate::apply::schema::quote::{literal, qualified};
use scry_wire::catalog::{Aggregate, Function, Object};

pub(super) fn function(object: &Object, function: &Function, out: &mut Rendered) {
    let step = Step::new(object, "create", vec![function.definition.clone()])
        .undo(format!("DROP ROUTINE IF EXISTS {} CASCADE", function_name(function)));
    out.nodes.push(main_node(object, step));
}

/// Name and arguments, as DROP and COMMENT want them.
pub(super) fn function_name(function: &Function) -> String {
    format!("{}({})", qualified(&function.schema, &function.name), function.arguments)
}

/// Name and arguments, as DROP and COMMENT want them.
pub(super) fn aggregate_name(aggregate: &Aggregate) -> String {
    format!("{}({})", qualified(&aggregate.schema, &aggregate.name), aggregate.identity_arguments)
}

pub(super) fn aggregate(object: &Object, aggregate: &Aggregate, out: &mut Rendered) {
    let mut parts =
        vec![format!("SFUNC = {}", aggregate.transition), format!("STYPE = {}", aggregate.state_type)];
    if aggregate.state_space != 0 {
        parts.push(format!("SSPACE = {}", aggregate.state_space));
    }
    let mut text = |word: &str, value: Option<&String>| {
        parts.extend(value.map(|value| format!("{word} = {value}")));
    };
    text("FINALFUNC", aggregate.final_function.as_ref());
    text("COMBINEFUNC", aggregate.combine.as_ref());
    text("SERIALFUNC", aggregate.serialize.as_ref());
    text("DESERIALFUNC", aggregate.deserialize.as_ref());
    text("INITCOND", aggregate.initial.as_ref().map(|v| literal(v)).as_ref());
    text("MSFUNC", aggregate.moving_transition.as_ref());
    text("MINVFUNC", aggregate.moving_inverse.as_ref());
    text("MSTYPE", aggregate.moving_state_type.as_ref());
    text("MFINALFUNC", aggregate.moving_final.as_ref());
    text("MINITCOND", aggregate.moving_initial.as_ref().map(|v| literal(v)).as_ref());
    if aggregate.moving_state_space != 0 {
        parts.push(format!("MSSPACE = {}", aggregate.moving_state_space));
    }
    if aggregate.final_function.is_some() {
        parts.push(format!("FINALFUNC_MODIFY = {}", modify_word(&aggregate.final_modify)));
        parts.extend(aggregate.final_extra.then(|| "FINALFUNC_EXTRA".to_owned()));
    }
    if aggregate.moving_final.is_some() {
        parts.push(format!("MFINALFUNC_MODIFY = {}", modify_word(&aggregate.moving_final_modify)));
        parts.extend(aggregate.moving_final_extra.then(|| "MFINALFUNC_EXTRA".to_owned()));
    }
    parts.extend(
        aggregate
            .sort_operator
            .as_ref()
            // An operator's name is made of operator characters and is not quoted.
            .filter(|o| o.name.chars().all(|c| "+-*/<>=~!@#%^&|`?".contains(c)))
            .map(|o| format!("SORTOP = OPERATOR({}.{})", super::ident(&o.schema), o.name)),
    );
    parts.push(format!("PARALLEL = {}", parallel_word(&aggregate.parallel)));
    parts.extend((aggregate.aggkind == "h").then(|| "HYPOTHETICAL".to_owned()));
    let create = format!(
        "CREATE AGGREGATE {}({}) ({})",
        qualified(&aggregate.schema, &aggregate.name),
        aggregate.arguments,
        parts.join(", ")
    );
    let step = Step::new(object, "create", vec![create])
        .undo(format!("DROP AGGREGATE IF EXISTS {} CASCADE", aggregate_name(aggregate)));
    out.nodes.push(main_node(object, step));
}

fn modify_word(code: &str) -> &'static str {
    match code {
        "s" => "SHAREABLE",
        "w" => "READ_WRITE",
        _ => "READ_ONLY",
    }
}

fn parallel_word(code: &str) -> &'static str {
    match code {
        "s" => "SAFE",
        "r" => "RESTRICTED",
        _ => "UNSAFE",
    }
}
