//! The loader: what takes rows of a copy in the embedded shadow's server instead of COPY; and what holds
//! the applier's statements there to the one row that they must touch, and keeps their answers together.
//!
//! It is part of the extension's library (`scry_backfill_ext/src/loader`), of which the shadow's
//! server needs the file alone, not the extension. Its functions are made by the superuser and
//! given to the owner of the shadows. Where the library is not installed, or of another release,
//! rows are loaded by COPY, and COMMIT waits for the answers before it: slower, and that is all.
//! The same on a shadow elsewhere (`--shadow-url`), where there is no superuser to make them.

use super::Connector;
use crate::apply::relation_map;
use crate::apply::schema::quote;
use crate::{Error, Result};
use scry_wire::message::Relation;
use tokio_postgres::Client;

/// Makes the functions anew, of the library that is installed now, for `owner`; takes them away where
/// there is none. Schema `scry_shadow` must be there.
pub async fn install(admin: &Connector, owner: &str) {
    let made = async {
        let (client, _task) = admin.client().await?;
        client.batch_execute("SET synchronous_commit = off").await?;
        client.batch_execute(&drops()).await?;
        client.batch_execute(&functions(owner)).await
    };
    if let Err(error) = made.await {
        let error = crate::error_text(&error);
        tracing::info!(
            shadow = admin.database(),
            error,
            "no loader: copies go by COPY, which takes longer; put scry_backfill.so of this release into \
             the library directory of the shadow's server and start again"
        );
    }
}

/// Whether the session can use it: then the library is in its process, whatever becomes of the file.
pub async fn is_there(client: &Client) -> Result<bool> {
    Ok(is_made(client).await? && runs(client, "SELECT scry_shadow.rows_loaded()").await)
}

/// Calls a function of the library, which may have been taken away since the functions were made.
async fn runs(client: &Client, sql: &str) -> bool {
    let called = client.batch_execute(sql).await;
    if let Err(error) = &called {
        tracing::warn!(
            error = crate::error_text(error),
            "the library of the loader is gone: copies go by COPY"
        );
    }
    called.is_ok()
}

/// Whether it takes rows of the relation as the table is now.
pub async fn takes(client: &Client, relation: &Relation) -> Result<bool> {
    let table = relation_map::qualified(relation);
    let columns: Vec<&str> = relation.columns.iter().map(|c| c.name.as_str()).collect();
    let sql = "SELECT scry_shadow.can_load($1::text::regclass, $2)";
    let row = client.query_one(sql, &[&table, &columns]).await;
    let what = || format!("ask the loader for {}", relation_map::full_name(relation));
    Ok(row.map_err(Error::sql(what()))?.get(0))
}

/// What stands where `COPY … FROM STDIN` would.
pub fn statement(relation: &Relation) -> String {
    let columns: Vec<String> = relation.columns.iter().map(|c| quote::literal(&c.name)).collect();
    format!(
        "CALL scry_shadow.load_rows({}::regclass, ARRAY[{}]::text[])",
        quote::literal(&relation_map::qualified(relation)),
        columns.join(", ")
    )
}

/// Rows of the session's last load.
pub async fn loaded(client: &Client) -> Result<u64> {
    let row = client.query_one("SELECT scry_shadow.rows_loaded()", &[]).await;
    Ok(row.map_err(Error::sql("count the rows that were loaded"))?.get::<_, i64>(0).cast_unsigned())
}

/// Has the server fail the session's marked statements (`scry_wire::one_row`) unless they touch one row, and
/// answer together what is sent together; false where it does neither.
pub async fn serves_applier(client: &Client) -> Result<bool> {
    Ok(is_made(client).await? && runs(client, "SELECT scry_shadow.serve_applier()").await)
}

/// Whether the session's role may call all of it: the functions come and go together.
async fn is_made(client: &Client) -> Result<bool> {
    let signatures: Vec<String> =
        FUNCTIONS.iter().map(|f| format!("scry_shadow.{}({})", f.name, f.arguments)).collect();
    let row = client.query_one(MAY_CALL, &[&signatures]).await;
    Ok(row.map_err(Error::sql("look for the loader"))?.get(0))
}

fn functions(owner: &str) -> String {
    let owner = quote::ident(owner);
    let mut sql = String::from("BEGIN;");
    for Function { kind, name, arguments, returns } in FUNCTIONS {
        sql.push_str(&format!(
            "CREATE {kind} scry_shadow.{name}({arguments}) {returns} LANGUAGE c AS '$libdir/scry_backfill', '{name}_wrapper';
             REVOKE ALL ON {kind} scry_shadow.{name} FROM PUBLIC;
             GRANT EXECUTE ON {kind} scry_shadow.{name} TO {owner};"
        ));
    }
    sql + "COMMIT"
}

fn drops() -> String {
    let drop = |f: &Function| format!("DROP {} IF EXISTS scry_shadow.{};", f.kind, f.name);
    FUNCTIONS.iter().map(drop).collect()
}

/// A function of the library.
struct Function {
    kind: &'static str,
    name: &'static str,
    arguments: &'static str,
    returns: &'static str,
}

const FUNCTIONS: [Function; 4] = [
    function("FUNCTION", "can_load", "regclass, text[]", "RETURNS boolean STRICT"),
    function("FUNCTION", "rows_loaded", "", "RETURNS bigint STRICT"),
    function("PROCEDURE", "load_rows", "regclass, text[]", ""),
    function("FUNCTION", "serve_applier", "", "RETURNS void STRICT"),
];

const fn function(
    kind: &'static str,
    name: &'static str,
    arguments: &'static str,
    returns: &'static str,
) -> Function {
    Function { kind, name, arguments, returns }
}

const MAY_CALL: &str = "SELECT pg_catalog.bool_and(coalesce( \
        pg_catalog.has_function_privilege(pg_catalog.to_regprocedure(f), 'EXECUTE'), false)) \
    FROM pg_catalog.unnest($1::text[]) AS f";
