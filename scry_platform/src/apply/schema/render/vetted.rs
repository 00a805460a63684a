//! What a superuser may make because the source has it: names put together as data, and questions
//! to the shadow whether it does no harm.
//!
//! Machine code takes whatever lies in memory for what its signature says. A function in C or
//! `internal`, a base type, an operator class, an aggregate with a state of type `internal`: each is made
//! only if the server or an extension of the shadow has the same code under the same signature, so
//! that nothing new is reachable through it. A base type counts as the one whose functions,
//! length and alignment it shares (`CREATE TYPE ... (LIKE = ...)`).
//!
//! Invariants: nothing here takes text of the source; names and values are quoted.

use super::super::plan::{Lookup, Privileged};
use super::super::quote::{literal, qualified};
use scry_wire::catalog::{BaseType, NativeFunction, RoutineRef, TypeRef};

/// Said of what has no twin among what the server or an extension brings.
pub(super) const NO_TWIN: &str = "a superuser makes it only where the server or an extension of the shadow has the same code under the same signature";

/// Made by a superuser only if the answer is true.
pub(super) fn if_true(guard: String) -> Privileged {
    Privileged { guard: Some(format!("SELECT {guard}")), otherwise: NO_TWIN, ..Privileged::default() }
}

/// A type's name: never text of the source.
pub(super) fn type_name(data_type: &TypeRef) -> String {
    qualified(&data_type.schema, &data_type.name)
}

/// `"schema"."name"("schema"."type", ...)`.
pub(in crate::apply::schema) fn signature(schema: &str, name: &str, arguments: &[TypeRef]) -> String {
    let arguments: Vec<String> = arguments.iter().map(type_name).collect();
    format!("{}({})", qualified(schema, name), arguments.join(", "))
}

pub(super) fn routine(routine: &RoutineRef) -> String {
    signature(&routine.schema, &routine.name, &routine.arguments)
}

/// The name alone, where the server knows the arguments.
pub(super) fn routine_name(routine: &RoutineRef) -> String {
    qualified(&routine.schema, &routine.name)
}

/// The OID of a routine on the shadow, or NULL. By names: what reads a signature stumbles over shells.
pub(super) fn procedure(of: &RoutineRef) -> String {
    let arguments = of.arguments.iter().enumerate().map(|(place, argument)| {
        format!(" AND fp.proargtypes[{place}] OPERATOR(pg_catalog.=) {}", regtype(argument))
    });
    format!(
        "(SELECT fp.oid FROM pg_catalog.pg_proc AS fp \
         JOIN pg_catalog.pg_namespace AS fpn ON fpn.oid OPERATOR(pg_catalog.=) fp.pronamespace \
         WHERE fpn.nspname OPERATOR(pg_catalog.=) {}::pg_catalog.name \
           AND fp.proname OPERATOR(pg_catalog.=) {}::pg_catalog.name \
           AND fp.pronargs OPERATOR(pg_catalog.=) {}::smallint{})",
        literal(&of.schema),
        literal(&of.name),
        of.arguments.len(),
        arguments.collect::<String>()
    )
}

/// The OID of a routine on the shadow; 0 for none.
pub(super) fn procedure_or_none(of: Option<&RoutineRef>) -> String {
    of.map_or_else(|| "0::pg_catalog.oid".to_owned(), procedure)
}

/// The OID of a type on the shadow, or NULL.
pub(super) fn regtype(data_type: &TypeRef) -> String {
    format!(
        "(SELECT ty.oid FROM pg_catalog.pg_type AS ty \
         JOIN pg_catalog.pg_namespace AS tyn ON tyn.oid OPERATOR(pg_catalog.=) ty.typnamespace \
         WHERE tyn.nspname OPERATOR(pg_catalog.=) {}::pg_catalog.name \
           AND ty.typname OPERATOR(pg_catalog.=) {}::pg_catalog.name)",
        literal(&data_type.schema),
        literal(&data_type.name)
    )
}

/// The row `alias` of `catalog` came with the server or with an extension.
pub(super) fn brought(catalog: &str, alias: &str) -> String {
    format!(
        "({alias}.oid OPERATOR(pg_catalog.<) 16384::pg_catalog.oid OR EXISTS ( \
         SELECT FROM pg_catalog.pg_depend AS dep \
         WHERE dep.classid OPERATOR(pg_catalog.=) 'pg_catalog.{catalog}'::pg_catalog.regclass \
           AND dep.objid OPERATOR(pg_catalog.=) {alias}.oid \
           AND dep.deptype OPERATOR(pg_catalog.=) 'e'))"
    )
}

/// A function of the server or of an extension is the same code and takes and returns the same.
pub(super) fn native_has_twin(lookup: &Lookup<'_>, language: &str, native: &NativeFunction) -> String {
    let mut conditions = vec![
        brought("pg_proc", "q"),
        format!("l.lanname OPERATOR(pg_catalog.=) {}::pg_catalog.name", literal(language)),
        same_code("q", &native.source, native.library.as_deref()),
        format!("q.proretset OPERATOR(pg_catalog.=) {}", native.returns_set),
        format!("q.pronargs OPERATOR(pg_catalog.=) {}::smallint", native.arguments.len()),
        // The server keeps NULL from strict functions only.
        format!("(NOT q.proisstrict OR {})", native.strict),
        same_type(lookup, "q.prorettype", &native.returns),
    ];
    conditions.extend(
        native
            .arguments
            .iter()
            .enumerate()
            .map(|(place, argument)| same_type(lookup, &format!("q.proargtypes[{place}]"), argument)),
    );
    format!(
        "EXISTS (SELECT FROM pg_catalog.pg_proc AS q \
         JOIN pg_catalog.pg_language AS l ON l.oid OPERATOR(pg_catalog.=) q.prolang WHERE {})",
        conditions.join(" AND ")
    )
}

/// A function that was brought has this support function, and takes the same.
pub(super) fn supports_the_same(support: &RoutineRef, arguments: &[TypeRef]) -> String {
    let arguments = arguments.iter().enumerate().map(|(place, argument)| {
        format!(" AND q.proargtypes[{place}] OPERATOR(pg_catalog.=) {}", regtype(argument))
    });
    let arguments: Vec<String> = arguments.collect();
    format!(
        "EXISTS (SELECT FROM pg_catalog.pg_proc AS q WHERE {} \
         AND q.prosupport::pg_catalog.oid OPERATOR(pg_catalog.=) {} \
         AND q.pronargs OPERATOR(pg_catalog.=) {}::smallint{})",
        brought("pg_proc", "q"),
        procedure(support),
        arguments.len(),
        arguments.concat()
    )
}

fn same_code(alias: &str, source: &str, library: Option<&str>) -> String {
    let library = match library {
        Some(library) => format!("{alias}.probin OPERATOR(pg_catalog.=) {}::text", literal(library)),
        None => format!("{alias}.probin IS NULL"),
    };
    format!("{alias}.prosrc OPERATOR(pg_catalog.=) {}::text AND {library}", literal(source))
}

/// The type that `column` names is this one, or the one that it is like.
fn same_type(lookup: &Lookup<'_>, column: &str, data_type: &TypeRef) -> String {
    let exact = format!("{column} OPERATOR(pg_catalog.=) {}", regtype(data_type));
    let Some(like) = lookup.base_type(data_type).and_then(|base| is_like(lookup, base)) else {
        return format!("({exact})");
    };
    // A type of that name that is there already must be like it too.
    format!(
        "({exact} OR EXISTS (SELECT FROM pg_catalog.pg_type AS b WHERE b.oid OPERATOR(pg_catalog.=) {column} \
         AND {} AND {like}) AND NOT EXISTS (SELECT FROM pg_catalog.pg_type AS b \
         WHERE b.oid OPERATOR(pg_catalog.=) {} AND b.typisdefined AND NOT ({like})))",
        brought("pg_type", "b"),
        regtype(data_type)
    )
}

/// The row `b` of `pg_type` has the same layout, and is read and written by the same code. None if
/// the document does not say by which.
fn is_like(lookup: &Lookup<'_>, base: &BaseType) -> Option<String> {
    let code = |column: &str, routine: Option<&RoutineRef>| {
        let native = lookup.native(routine?)?;
        Some(format!(
            "EXISTS (SELECT FROM pg_catalog.pg_proc AS f WHERE f.oid OPERATOR(pg_catalog.=) b.{column} AND {})",
            same_code("f", &native.source, native.library.as_deref())
        ))
    };
    let conditions = [
        "b.typtype OPERATOR(pg_catalog.=) 'b'".to_owned(),
        format!("b.typlen OPERATOR(pg_catalog.=) {}::smallint", base.length),
        format!("b.typbyval OPERATOR(pg_catalog.=) {}", base.by_value),
        format!("b.typalign OPERATOR(pg_catalog.=) {}::\"char\"", literal(&base.alignment)),
        code("typinput", base.input.as_ref())?,
        code("typoutput", base.output.as_ref())?,
    ];
    Some(conditions.join(" AND "))
}

/// A base type of the server or of an extension has the same layout and the same functions.
pub(super) fn base_type_has_twin(lookup: &Lookup<'_>, base: &BaseType) -> Option<String> {
    if base.element.is_some() || base.subscript.is_some() || base.analyze.is_some() {
        return None;
    }
    let mut conditions = vec![brought("pg_type", "b"), is_like(lookup, base)?];
    // What stands on the shadow now, not what the document says of it.
    let functions = [
        ("typinput", &base.input),
        ("typoutput", &base.output),
        ("typreceive", &base.receive),
        ("typsend", &base.send),
        ("typmodin", &base.modifier_input),
        ("typmodout", &base.modifier_output),
    ];
    for (column, routine) in functions {
        let Some(routine) = routine else { continue };
        conditions.push(format!(
            "EXISTS (SELECT FROM pg_catalog.pg_proc AS mine, pg_catalog.pg_proc AS theirs \
             WHERE mine.oid OPERATOR(pg_catalog.=) {} AND theirs.oid OPERATOR(pg_catalog.=) b.{column} \
               AND mine.prolang OPERATOR(pg_catalog.=) theirs.prolang \
               AND mine.prosrc OPERATOR(pg_catalog.=) theirs.prosrc \
               AND mine.probin IS NOT DISTINCT FROM theirs.probin)",
            procedure(routine)
        ));
    }
    if base.storage != "p" {
        conditions.push(format!(
            "b.typstorage OPERATOR(pg_catalog.<>) 'p' AND {}::\"char\" IS NOT NULL",
            literal(&base.storage)
        ));
    }
    Some(format!("EXISTS (SELECT FROM pg_catalog.pg_type AS b WHERE {})", conditions.join(" AND ")))
}

#[cfg(test)]
mod tests {
    use super::{regtype, routine, signature};
    use scry_wire::catalog::{RoutineRef, TypeRef};

    #[test]
    fn names_are_data_for_a_superuser_too() {
        let evil = TypeRef {
            schema: "s\"".to_owned(),
            name: "t); DROP TABLE x; --".to_owned(),
            sql: "int4) OWNER TO me; --".to_owned(),
        };
        let asked = regtype(&evil);
        assert!(asked.contains("'s\"'::pg_catalog.name"), "{asked}");
        assert!(asked.contains("'t); DROP TABLE x; --'::pg_catalog.name"), "{asked}");
        assert!(!asked.contains("OWNER TO"), "{asked}");
        let name = signature("a", "b'", std::slice::from_ref(&evil));
        assert_eq!(name, "\"a\".\"b'\"(\"s\"\"\".\"t); DROP TABLE x; --\")");
        let same = RoutineRef { schema: "a".to_owned(), name: "b'".to_owned(), arguments: vec![evil] };
        assert_eq!(routine(&same), name);
    }
}
