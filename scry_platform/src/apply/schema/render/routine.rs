//! Functions, procedures, aggregates, operators, casts.

use super::Rendered;
use crate::apply::schema::plan::{Step, main_node};
use crate::apply::schema::quote::{literal, qualified};
use scry_wire::catalog::{Aggregate, Cast, Class, Function, Object, Operator, QualifiedName};

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
            .and_then(operator_reference)
            .map(|operator| format!("SORTOP = {operator}")),
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

/// `OPERATOR(schema.name)`. The name is not quoted, so it must be one: None if not.
fn operator_reference(name: &QualifiedName) -> Option<String> {
    Some(format!("OPERATOR({})", operator_symbol(&name.schema, &name.name)?))
}

/// `schema.name` of an operator.
fn operator_symbol(schema: &str, name: &str) -> Option<String> {
    let legal = !name.is_empty() && name.chars().all(|c| "+-*/<>=~!@#%^&|`?".contains(c));
    let comment = name.contains("--") || name.contains("/*");
    (legal && !comment).then(|| format!("{}.{name}", super::ident(schema)))
}

/// Name and arguments, as DROP and COMMENT want them.
pub(in crate::apply::schema) fn operator_name(operator: &Operator) -> Option<String> {
    let side = |sql: &Option<String>| sql.clone().unwrap_or_else(|| "NONE".to_owned());
    let symbol = operator_symbol(&operator.schema, &operator.name)?;
    Some(format!("{symbol} ({}, {})", side(&operator.left), side(&operator.right)))
}

pub(super) fn operator(object: &Object, operator: &Operator, out: &mut Rendered) {
    let (Some(symbol), Some(name)) =
        (operator_symbol(&operator.schema, &operator.name), operator_name(operator))
    else {
        out.note(object, "its name is not one of an operator");
        return;
    };
    let function = |name: &QualifiedName| qualified(&name.schema, &name.name);
    let mut parts = vec![format!("FUNCTION = {}", function(&operator.function))];
    let mut part = |word: &str, value: Option<String>| {
        parts.extend(value.map(|value| format!("{word} = {value}")));
    };
    part("LEFTARG", operator.left.clone());
    part("RIGHTARG", operator.right.clone());
    part("COMMUTATOR", operator.commutator.as_ref().and_then(operator_reference));
    part("NEGATOR", operator.negator.as_ref().and_then(operator_reference));
    part("RESTRICT", operator.restrict.as_ref().map(function));
    part("JOIN", operator.join.as_ref().map(function));
    parts.extend(operator.merges.then(|| "MERGES".to_owned()));
    parts.extend(operator.hashes.then(|| "HASHES".to_owned()));
    let create = format!("CREATE OPERATOR {symbol} ({})", parts.join(", "));
    let step =
        Step::new(object, "create", vec![create]).undo(format!("DROP OPERATOR IF EXISTS {name} CASCADE"));
    let mut node = main_node(object, step);
    // Its commutator and negator may come later: the server keeps their place.
    node.depends_on.retain(|id| id.class != Class::Operator);
    out.nodes.push(node);
}

pub(super) fn cast(object: &Object, cast: &Cast, out: &mut Rendered) {
    let how = match &cast.function {
        Some(f) => format!("WITH FUNCTION {}({})", qualified(&f.schema, &f.name), f.arguments),
        None if cast.method == "i" => "WITH INOUT".to_owned(),
        None => "WITHOUT FUNCTION".to_owned(),
    };
    let context = match cast.context.as_str() {
        "a" => " AS ASSIGNMENT",
        "i" => " AS IMPLICIT",
        _ => "",
    };
    let name = cast_name(cast);
    let create = format!("CREATE CAST {name} {how}{context}");
    let step = Step::new(object, "create", vec![create]).undo(format!("DROP CAST IF EXISTS {name} CASCADE"));
    out.nodes.push(main_node(object, step));
}

pub(super) fn cast_name(cast: &Cast) -> String {
    format!("({} AS {})", cast.source, cast.target)
}
