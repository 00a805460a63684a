//! Access methods, operator families, operator classes.
//!
//! Only superusers may make them, because a wrong one can bring the server down. See
//! [`super::vetted`] for which are made all the same.

use super::Rendered;
use super::routine::operator_symbol;
use super::vetted::{brought, if_true, procedure, regtype, routine, type_name};
use crate::apply::schema::plan::{Need, Privileged, Step, main_node};
use crate::apply::schema::quote::{ident, literal, qualified};
use scry_wire::catalog::{
    AccessMethod, FamilyFunction, FamilyOperator, Object, OperatorClass, OperatorFamily, RoutineRef, TypeRef,
};

pub(super) fn access_method(object: &Object, method: &AccessMethod, out: &mut Rendered) {
    let name = ident(&method.name);
    let (word, code) = if method.amtype == "t" { ("TABLE", "t") } else { ("INDEX", "i") };
    let handler = qualified(&method.handler.schema, &method.handler.name);
    let create = format!("CREATE ACCESS METHOD {name} TYPE {word} HANDLER {handler}");
    let guard = format!(
        "EXISTS (SELECT FROM pg_catalog.pg_am AS a WHERE {} AND a.amtype OPERATOR(pg_catalog.=) '{code}' \
         AND a.amhandler OPERATOR(pg_catalog.=) {})",
        brought("pg_am", "a"),
        procedure(&method.handler)
    );
    let step = Step::new(object, "create", vec![create])
        .undo(format!("DROP ACCESS METHOD IF EXISTS {name} CASCADE"))
        .need(Need::Superuser(if_true(guard)));
    out.nodes.push(main_node(object, step));
}

/// Name and method, as ALTER, DROP and COMMENT want them.
pub(super) fn using(schema: &str, name: &str, method: &str) -> String {
    format!("{} USING {}", qualified(schema, name), ident(method))
}

pub(super) fn family(object: &Object, family: &OperatorFamily, out: &mut Rendered) {
    let name = using(&family.schema, &family.name, &family.access_method);
    let need = Privileged { owner: Some(format!("ALTER OPERATOR FAMILY {name}")), ..Privileged::default() };
    let step = Step::new(object, "create", vec![format!("CREATE OPERATOR FAMILY {name}")])
        .undo(format!("DROP OPERATOR FAMILY IF EXISTS {name} CASCADE"))
        .need(Need::Superuser(need));
    let mut node = main_node(object, step);
    let Some(items) = items(&family.operators, &family.functions) else {
        out.note(object, "it holds an operator whose name is not one");
        return;
    };
    if !items.is_empty() {
        // Its classes bring what they hold themselves; this is the rest, and may need more.
        let depends_on = std::mem::take(&mut node.depends_on);
        let sql = format!("ALTER OPERATOR FAMILY {name} ADD {}", items.join(", "));
        let need = if_true(functions_are_fit(&family.access_method, &family.functions));
        let step = Step::new(object, "members", vec![sql]).need(Need::Superuser(need));
        let mut depends = depends_on.clone();
        depends.push(object.id());
        out.nodes.push(super::datatype::part_node(depends, 6, step));
        node.depends_on = depends_on.into_iter().filter(|id| is_container(*id)).collect();
    }
    out.nodes.push(node);
}

fn is_container(id: scry_wire::catalog::ObjectId) -> bool {
    use scry_wire::catalog::Class;
    matches!(id.class, Class::Namespace | Class::AccessMethod | Class::Extension)
}

pub(super) fn class(object: &Object, class: &OperatorClass, out: &mut Rendered) {
    let name = using(&class.schema, &class.name, &class.access_method);
    let Some(mut items) = items(&class.operators, &class.functions) else {
        out.note(object, "it holds an operator whose name is not one");
        return;
    };
    if let Some(storage) = &class.storage {
        items.push(format!("STORAGE {}", type_name(storage)));
    } else if items.is_empty() {
        items.push(format!("STORAGE {}", type_name(&class.input)));
    }
    let create = format!(
        "CREATE OPERATOR CLASS {}{} FOR TYPE {} USING {} FAMILY {} AS {}",
        qualified(&class.schema, &class.name),
        if class.default { " DEFAULT" } else { "" },
        type_name(&class.input),
        ident(&class.access_method),
        qualified(&class.family.schema, &class.family.name),
        items.join(", ")
    );
    let mut need = if_true(class_is_fit(class));
    need.owner = Some(format!("ALTER OPERATOR CLASS {name}"));
    let step = Step::new(object, "create", vec![create])
        .undo(format!("DROP OPERATOR CLASS IF EXISTS {name} CASCADE"))
        .need(Need::Superuser(need));
    out.nodes.push(main_node(object, step));
}

fn items(operators: &[FamilyOperator], functions: &[FamilyFunction]) -> Option<Vec<String>> {
    let mut items = Vec::new();
    for item in operators {
        let symbol = operator_symbol(&item.operator.schema, &item.operator.name)?;
        let order = item
            .order_family
            .as_ref()
            .map_or_else(String::new, |f| format!(" FOR ORDER BY {}", qualified(&f.schema, &f.name)));
        items.push(format!(
            "OPERATOR {} {symbol} ({}, {}){order}",
            item.strategy,
            type_name(&item.left),
            type_name(&item.right)
        ));
    }
    for item in functions {
        items.push(format!(
            "FUNCTION {} ({}, {}) {}",
            item.number,
            type_name(&item.left),
            type_name(&item.right),
            routine(&item.function)
        ));
    }
    Some(items)
}

/// B-trees and hashes call functions of plain types: what each takes must be what it is given.
/// The others hand out pointers: all functions must be those of one class that was brought.
fn class_is_fit(class: &OperatorClass) -> String {
    if matches!(class.access_method.as_str(), "btree" | "hash") {
        return functions_are_fit(&class.access_method, &class.functions);
    }
    let storage = class.storage.as_ref().map_or_else(|| "0::pg_catalog.oid".to_owned(), regtype);
    let each: Vec<String> = class
        .functions
        .iter()
        .map(|f| {
            format!(
                "EXISTS (SELECT FROM pg_catalog.pg_amproc AS p \
                 WHERE p.amprocfamily OPERATOR(pg_catalog.=) c.opcfamily AND {})",
                same_function(f)
            )
        })
        .collect();
    let each = if each.is_empty() { "true".to_owned() } else { each.join(" AND ") };
    format!(
        "EXISTS (SELECT FROM pg_catalog.pg_opclass AS c \
         JOIN pg_catalog.pg_am AS a ON a.oid OPERATOR(pg_catalog.=) c.opcmethod \
         WHERE {} AND a.amname OPERATOR(pg_catalog.=) {}::pg_catalog.name \
           AND c.opcintype OPERATOR(pg_catalog.=) {} AND c.opckeytype OPERATOR(pg_catalog.=) {storage} AND {each})",
        brought("pg_opclass", "c"),
        literal(&class.access_method),
        regtype(&class.input),
    )
}

fn functions_are_fit(method: &str, functions: &[FamilyFunction]) -> String {
    let open: Vec<String> = functions
        .iter()
        .filter(|function| !takes_what_it_is_given(method, function))
        .map(|function| {
            format!(
                "EXISTS (SELECT FROM pg_catalog.pg_amproc AS p \
                 JOIN pg_catalog.pg_opfamily AS f ON f.oid OPERATOR(pg_catalog.=) p.amprocfamily \
                 JOIN pg_catalog.pg_am AS a ON a.oid OPERATOR(pg_catalog.=) f.opfmethod \
                 WHERE {} AND a.amname OPERATOR(pg_catalog.=) {}::pg_catalog.name AND {})",
                brought("pg_opfamily", "f"),
                literal(method),
                same_function(function)
            )
        })
        .collect();
    if open.is_empty() { "true".to_owned() } else { open.join(" AND ") }
}

fn same_function(function: &FamilyFunction) -> String {
    format!(
        "p.amprocnum OPERATOR(pg_catalog.=) {}::smallint AND p.amproclefttype OPERATOR(pg_catalog.=) {} \
         AND p.amprocrighttype OPERATOR(pg_catalog.=) {} AND p.amproc::pg_catalog.oid OPERATOR(pg_catalog.=) {}",
        function.number,
        regtype(&function.left),
        regtype(&function.right),
        procedure(&function.function)
    )
}

/// The access method passes these types to that support function.
fn takes_what_it_is_given(method: &str, item: &FamilyFunction) -> bool {
    let RoutineRef { schema, name, arguments } = &item.function;
    let is =
        |data_type: &TypeRef, of: &TypeRef| (&data_type.schema, &data_type.name) == (&of.schema, &of.name);
    let built_in = |data_type: &TypeRef, of: &str| data_type.schema == "pg_catalog" && data_type.name == of;
    match (method, item.number, arguments.as_slice()) {
        ("btree", 1, [left, right]) => is(left, &item.left) && is(right, &item.right),
        ("btree", 3, [value, base, offset, subtract, less]) => {
            is(value, &item.left)
                && is(base, &item.left)
                && is(offset, &item.right)
                && built_in(subtract, "bool")
                && built_in(less, "bool")
        }
        ("btree", 4, _) => schema == "pg_catalog" && name == "btequalimage",
        ("hash", 1, [value]) => is(value, &item.left) && is(value, &item.right),
        ("hash", 2, [value, seed]) => {
            is(value, &item.left) && is(value, &item.right) && built_in(seed, "int8")
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::takes_what_it_is_given;
    use scry_wire::catalog::{FamilyFunction, RoutineRef, TypeRef};

    fn data_type(name: &str) -> TypeRef {
        TypeRef { schema: "pg_catalog".to_owned(), name: name.to_owned(), sql: name.to_owned() }
    }

    fn function(number: i16, of: &str, arguments: &[&str]) -> FamilyFunction {
        FamilyFunction {
            number,
            left: data_type(of),
            right: data_type(of),
            function: RoutineRef {
                schema: "s".to_owned(),
                name: "f".to_owned(),
                arguments: arguments.iter().map(|a| data_type(a)).collect(),
            },
        }
    }

    #[test]
    fn a_function_for_other_types_is_not_fit() {
        assert!(takes_what_it_is_given("btree", &function(1, "int4", &["int4", "int4"])));
        assert!(!takes_what_it_is_given("btree", &function(1, "int4", &["text", "text"])));
        assert!(!takes_what_it_is_given("btree", &function(2, "int4", &["internal"])));
        assert!(!takes_what_it_is_given("btree", &function(4, "int4", &["oid"])));
        assert!(takes_what_it_is_given("hash", &function(2, "text", &["text", "int8"])));
        assert!(!takes_what_it_is_given("gist", &function(1, "text", &["text"])));
    }
}
