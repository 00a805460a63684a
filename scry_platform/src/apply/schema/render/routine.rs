//! Functions, procedures, aggregates, operators, casts.

use super::datatype::part_node;
use super::{Rendered, vetted};
use crate::apply::schema::plan::{Lookup, Need, Privileged, Step, main_node};
use crate::apply::schema::quote::{ident, literal, qualified};
use scry_wire::catalog::{
    Aggregate, AggregateFunctions, Cast, Class, Function, NativeFunction, Object, Operator, QualifiedName,
    RoutineRef,
};

pub(super) fn function(lookup: &Lookup<'_>, object: &Object, function: &Function, out: &mut Rendered) {
    let superuser = function.leakproof || function.support.is_some();
    let types = function.argument_types.as_ref().filter(|_| superuser);
    let definition = match types {
        Some(_) => without_superuser(function),
        None => function.definition.clone(),
    };
    let mut step = Step::new(object, "create", vec![definition])
        .undo(format!("DROP ROUTINE IF EXISTS {} CASCADE", function_name(function)));
    if let Some(native) = &function.native {
        let (name, sql) = native_function(function, native);
        let mut need = vetted::if_true(vetted::native_has_twin(lookup, &function.language, native));
        need.instead = vec![sql];
        need.owner = Some(format!("ALTER FUNCTION {name}"));
        step = step.need(Need::Superuser(need));
    }
    out.nodes.push(main_node(object, step));
    let Some(types) = types else { return };
    let name = vetted::signature(&function.schema, &function.name, types);
    if function.leakproof {
        let step = Step::new(object, "leakproof", vec![format!("ALTER FUNCTION {name} LEAKPROOF")]);
        let step = step.need(Need::Superuser(Privileged::default()));
        out.nodes.push(part_node(vec![object.id()], 5, step));
    }
    if let Some(support) = &function.support {
        let sql = format!("ALTER FUNCTION {name} SUPPORT {}", vetted::routine_name(support));
        let need = vetted::if_true(vetted::supports_the_same(support, types));
        let step = Step::new(object, "support", vec![sql]).need(Need::Superuser(need));
        out.nodes.push(part_node(vec![object.id()], 5, step));
    }
}

/// The definition without what only a superuser may say: a superuser runs no text of the source.
fn without_superuser(function: &Function) -> String {
    let (definition, language) = (&function.definition, &function.language);
    let plain = language.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    let language = if plain { language.clone() } else { ident(language) };
    let line = format!("\n LANGUAGE {language}\n");
    let Some((head, tail)) = definition.split_once(&line) else { return definition.clone() };
    // One line has all of it, the support function as its last word.
    let (attributes, rest) = tail.split_once('\n').unwrap_or((tail, ""));
    let attributes = attributes.replacen(" LEAKPROOF", "", 1);
    let attributes = match (&function.support, attributes.split_once(" SUPPORT ")) {
        (Some(_), Some((before, _))) => before,
        _ => attributes.as_str(),
    };
    format!("{head}{line}{attributes}\n{rest}")
}

/// The signature, and the statement put together from parts.
fn native_function(function: &Function, native: &NativeFunction) -> (String, String) {
    let named = native.names.len() == native.arguments.len();
    let arguments: Vec<String> = native
        .arguments
        .iter()
        .enumerate()
        .map(|(place, data_type)| {
            let name = native.names.get(place).filter(|name| named && !name.is_empty());
            let name = name.map_or_else(String::new, |name| format!("{} ", ident(name)));
            format!("{name}{}", vetted::type_name(data_type))
        })
        .collect();
    let mut sql = format!(
        "CREATE FUNCTION {}({}) RETURNS {}{} LANGUAGE {}",
        qualified(&function.schema, &function.name),
        arguments.join(", "),
        if native.returns_set { "SETOF " } else { "" },
        vetted::type_name(&native.returns),
        ident(&function.language)
    );
    if function.prokind == "w" {
        sql.push_str(" WINDOW");
    }
    sql.push_str(match native.volatile.as_str() {
        "i" => " IMMUTABLE",
        "s" => " STABLE",
        _ => " VOLATILE",
    });
    if native.strict {
        sql.push_str(" STRICT");
    }
    if native.security_definer {
        sql.push_str(" SECURITY DEFINER");
    }
    sql.push_str(&format!(" PARALLEL {} COST {}", parallel_word(&native.parallel), native.cost));
    if native.returns_set {
        sql.push_str(&format!(" ROWS {}", native.rows));
    }
    match &native.library {
        Some(library) => sql.push_str(&format!(" AS {}, {}", literal(library), literal(&native.source))),
        None => sql.push_str(&format!(" AS {}", literal(&native.source))),
    }
    (vetted::signature(&function.schema, &function.name, &native.arguments), sql)
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
    let mut step = Step::new(object, "create", vec![create])
        .undo(format!("DROP AGGREGATE IF EXISTS {} CASCADE", aggregate_name(aggregate)));
    if let Some(functions) = &aggregate.machine {
        step = step.need(Need::Superuser(machine_aggregate(aggregate, functions)));
    }
    out.nodes.push(main_node(object, step));
}

/// An aggregate whose state is a pointer: only with the functions of one that was brought.
fn machine_aggregate(aggregate: &Aggregate, functions: &AggregateFunctions) -> Privileged {
    let same = |column: &str, function: Option<&RoutineRef>| {
        let wanted = vetted::procedure_or_none(function);
        format!("a.{column}::pg_catalog.oid OPERATOR(pg_catalog.=) {wanted}")
    };
    let or_none = |column: &str, function: Option<&RoutineRef>| match function {
        Some(_) => same(column, function),
        None => "true".to_owned(),
    };
    // The final function reads what the transition kept, as the types that it expects.
    let arguments = aggregate.argument_types.iter().enumerate().map(|(place, data_type)| {
        let wanted = vetted::regtype(data_type);
        format!("p.proargtypes[{place}] OPERATOR(pg_catalog.=) {wanted}")
    });
    let same_arguments: Vec<String> = arguments.collect();
    let guard = format!(
        "{} AND EXISTS (SELECT FROM pg_catalog.pg_aggregate AS a \
         JOIN pg_catalog.pg_proc AS p ON p.oid OPERATOR(pg_catalog.=) a.aggfnoid::pg_catalog.oid \
         WHERE {} AND a.aggkind OPERATOR(pg_catalog.=) {}::\"char\" \
           AND a.aggfinalextra OPERATOR(pg_catalog.=) {} AND p.pronargs OPERATOR(pg_catalog.=) {}::smallint \
           AND a.aggnumdirectargs OPERATOR(pg_catalog.=) {}::smallint AND {})",
        aggregate.moving_state_type.is_none() && aggregate.initial.is_none(),
        vetted::brought("pg_proc", "p"),
        literal(&aggregate.aggkind),
        aggregate.final_extra,
        same_arguments.len(),
        aggregate.direct_arguments,
        [
            same("aggtransfn", Some(&functions.transition)),
            same("aggfinalfn", functions.final_function.as_ref()),
            or_none("aggcombinefn", functions.combine.as_ref()),
            or_none("aggserialfn", functions.serialize.as_ref()),
            or_none("aggdeserialfn", functions.deserialize.as_ref()),
        ]
        .into_iter()
        .chain(same_arguments)
        .collect::<Vec<_>>()
        .join(" AND ")
    );
    let mut parts = vec![
        format!("SFUNC = {}", vetted::routine_name(&functions.transition)),
        "STYPE = pg_catalog.internal".to_owned(),
    ];
    if aggregate.state_space != 0 {
        parts.push(format!("SSPACE = {}", aggregate.state_space));
    }
    if let Some(function) = &functions.final_function {
        parts.push(format!("FINALFUNC = {}", vetted::routine_name(function)));
        parts.push(format!("FINALFUNC_MODIFY = {}", modify_word(&aggregate.final_modify)));
        parts.extend(aggregate.final_extra.then(|| "FINALFUNC_EXTRA".to_owned()));
    }
    for (word, function) in [
        ("COMBINEFUNC", &functions.combine),
        ("SERIALFUNC", &functions.serialize),
        ("DESERIALFUNC", &functions.deserialize),
    ] {
        parts.extend(function.as_ref().map(|f| format!("{word} = {}", vetted::routine_name(f))));
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
    let name = qualified(&aggregate.schema, &aggregate.name);
    let arguments = aggregate_arguments(aggregate);
    let mut need = vetted::if_true(guard);
    need.instead = vec![format!("CREATE AGGREGATE {name}({arguments}) ({})", parts.join(", "))];
    need.owner = Some(format!("ALTER AGGREGATE {name}({arguments})"));
    need
}

/// What stands in the parentheses, from parts.
fn aggregate_arguments(aggregate: &Aggregate) -> String {
    let last = aggregate.argument_types.len().saturating_sub(1);
    let mut arguments: Vec<String> = aggregate
        .argument_types
        .iter()
        .enumerate()
        .map(|(place, data_type)| {
            let variadic = if aggregate.variadic && place == last { "VARIADIC " } else { "" };
            let name = aggregate.argument_names.get(place).filter(|name| !name.is_empty());
            let name = name.map_or_else(String::new, |name| format!("{} ", ident(name)));
            format!("{variadic}{name}{}", vetted::type_name(data_type))
        })
        .collect();
    if aggregate.aggkind == "n" {
        return if arguments.is_empty() { "*".to_owned() } else { arguments.join(", ") };
    }
    let direct = usize::try_from(aggregate.direct_arguments).unwrap_or(0).min(arguments.len());
    let mut ordered = arguments.split_off(direct);
    if ordered.is_empty() {
        ordered.extend(arguments.last().cloned());
    }
    format!("{} ORDER BY {}", arguments.join(", "), ordered.join(", "))
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
pub(super) fn operator_symbol(schema: &str, name: &str) -> Option<String> {
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
    let step = Step::new(object, "create", vec![create])
        .undo(format!("DROP CAST IF EXISTS {name} CASCADE"))
        .need(Need::Superuser(cast_need(cast, context)));
    out.nodes.push(main_node(object, step));
}

/// Between types that are not the role's own. A function of the role's must not be found where a
/// superuser's statement asks for no cast.
fn cast_need(cast: &Cast, context: &str) -> Privileged {
    let (how, guard) = match &cast.function {
        Some(f) => {
            let function = RoutineRef {
                schema: f.schema.clone(),
                name: f.name.clone(),
                arguments: f.argument_types.clone(),
            };
            let found = format!(
                "EXISTS (SELECT FROM pg_catalog.pg_proc AS p WHERE p.oid OPERATOR(pg_catalog.=) {} AND {})",
                vetted::procedure(&function),
                vetted::brought("pg_proc", "p")
            );
            let guard = if cast.context == "e" { "true".to_owned() } else { found };
            (format!("WITH FUNCTION {}", vetted::routine(&function)), guard)
        }
        None if cast.method == "i" => ("WITH INOUT".to_owned(), "true".to_owned()),
        None => {
            let same = "EXISTS (SELECT FROM pg_catalog.pg_type AS s, pg_catalog.pg_type AS t, \
                 pg_catalog.pg_proc AS si, pg_catalog.pg_proc AS ti, pg_catalog.pg_proc AS so, pg_catalog.pg_proc AS tt";
            let same = format!(
                "{same} WHERE s.oid OPERATOR(pg_catalog.=) {} AND t.oid OPERATOR(pg_catalog.=) {} \
                 AND si.oid OPERATOR(pg_catalog.=) s.typinput AND ti.oid OPERATOR(pg_catalog.=) t.typinput \
                 AND so.oid OPERATOR(pg_catalog.=) s.typoutput AND tt.oid OPERATOR(pg_catalog.=) t.typoutput \
                 AND si.prosrc OPERATOR(pg_catalog.=) ti.prosrc AND si.probin IS NOT DISTINCT FROM ti.probin \
                 AND so.prosrc OPERATOR(pg_catalog.=) tt.prosrc AND so.probin IS NOT DISTINCT FROM tt.probin \
                 AND s.typtype OPERATOR(pg_catalog.=) 'b' AND t.typtype OPERATOR(pg_catalog.=) 'b')",
                vetted::regtype(&cast.source_type),
                vetted::regtype(&cast.target_type)
            );
            ("WITHOUT FUNCTION".to_owned(), same)
        }
    };
    let mut need = vetted::if_true(guard);
    need.instead = vec![format!("CREATE CAST {} {how}{context}", cast_name(cast))];
    need
}

/// Its types, as CREATE, DROP and COMMENT want them.
pub(super) fn cast_name(cast: &Cast) -> String {
    format!("({} AS {})", vetted::type_name(&cast.source_type), vetted::type_name(&cast.target_type))
}
