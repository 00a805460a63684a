//! `create_roles()`: a role for each privilege, to be granted to people.
//!
//! Roles belong to the whole cluster and outlive the extension, so CREATE
//! EXTENSION makes none. This function makes them when its caller says so, as
//! the caller (who needs CREATEROLE and the extension's objects), and marks
//! them by a comment. A role of the same name without that comment is somebody
//! else's: nothing is granted to it, and nothing is made. What they may do
//! stands in `sql/source/roles.sql`.

use pgrx::datum::DatumWithOid;
use pgrx::iter::TableIterator;
use pgrx::spi::{self, Spi};
use pgrx::{PgSqlErrorCode, name, pg_extern};

use super::refusal::{Refusal, literal, or_raise};
use crate::pg::read;

/// The roles, and what each is for.
const ROLES: [(&str, &str); 2] =
    [("scry_backfill_operator", "start, stop and watch jobs"), ("scry_backfill_monitor", "watch jobs")];

/// The comment by which a role is known as ours.
const MARK: &str = "made by scry_backfill.create_roles()";

const GRANTS: &str = include_str!("../../../sql/source/roles.sql");

/// Makes the roles, or grants to those that were made from another database.
#[pg_extern(sql = false)]
fn create_roles() -> TableIterator<'static, (name!(role, String), name!(privilege, String), name!(made, bool))>
{
    TableIterator::new(or_raise(try_create()))
}

fn try_create() -> Result<Vec<(String, String, bool)>, Refusal> {
    // All of them are looked at before any is made.
    let mut found = Vec::new();
    for (role, privilege) in ROLES {
        found.push((role, privilege, must_be_made(role)?));
    }
    let mut made = Vec::new();
    for (role, privilege, missing) in found {
        if missing {
            let quoted = spi::quote_identifier(role);
            Spi::run(&format!("CREATE ROLE {quoted} NOLOGIN"))?;
            Spi::run(&format!("COMMENT ON ROLE {quoted} IS {}", literal(MARK)))?;
        }
        made.push((role.to_owned(), privilege.to_owned(), missing));
    }
    Spi::run(GRANTS)?;
    Ok(made)
}

/// Whether a role is missing; an error if somebody else made it. Runs with the
/// caller's search_path, so every operator is named in full.
fn must_be_made(role: &str) -> Result<bool, Refusal> {
    const SQL: &str = "SELECT coalesce(pg_catalog.shobj_description(oid, 'pg_authid'), '') \
                       FROM pg_catalog.pg_roles WHERE rolname::pg_catalog.text OPERATOR(pg_catalog.=) $1";
    match read::one::<String>(SQL, &[DatumWithOid::from(role)])? {
        None => Ok(true),
        Some(comment) if comment == MARK => Ok(false),
        Some(_) => Err(Refusal::new(
            PgSqlErrorCode::ERRCODE_DUPLICATE_OBJECT,
            format!("role \"{role}\" exists and was not made by scry_backfill"),
        )
        .detail("Nothing was granted to it.")
        .hint("Rename it; or grant what docs/operations.md lists, to roles of your own.")),
    }
}
