//! What goes ahead: in transactions of its own, before the one that holds the rows.
//!
//! ```text
//! new extensions ─► as the shadow's role ─┬─ done
//!                                         └─ may not ─► on the platform's list? ─► as superuser
//! new functions, operators, types that something needs which only a superuser makes
//!                ─► as the shadow's role
//! ```
//!
//! An extension may need another one, and what a superuser makes on its own connection does
//! not see what the open transaction has made: so none of them is made in there. What was
//! made stays if the open transaction is rolled back, and is found there the next time.
//!
//! A schema that is new goes ahead with the extension in it; one that gets its name by being
//! renamed does not, nor does the extension.
//!
//! What it does not do: name what could not be made. It is tried once more where it belongs.

use super::changes::Changes;
use crate::apply::schema::extensions;
use crate::apply::schema::plan::{ExtensionNeed, Need, Plan, Step};
use crate::apply::schema::quote::ident;
use crate::apply::schema::session::Session;
use crate::{Error, Result};
use scry_wire::catalog::{Class, Entry, LeftOut, Object, ObjectId};
use std::collections::{HashMap, HashSet};
use tokio_postgres::error::SqlState;

/// Makes the extensions that are new; `role` is the shadow's own.
pub(super) async fn extensions(
    admin: &Session<'_>,
    role: &str,
    changes: &Changes<'_>,
    plan: &Plan,
) -> Result<Vec<LeftOut>> {
    let new: HashSet<ObjectId> = changes
        .created
        .iter()
        .filter(|object| matches!(object.entry, Entry::Extension(_)))
        .map(|object| object.id())
        .collect();
    let schemas: HashSet<&str> = changes
        .created
        .iter()
        .filter_map(|object| match &object.entry {
            Entry::Schema(schema) => Some(schema.name.as_str()),
            _ => None,
        })
        .collect();
    let steps = plan.pre_data.iter().filter(|step| new.contains(&step.object));
    let mut open: Vec<(&Step, &ExtensionNeed)> = steps
        .filter_map(|step| match &step.need {
            Need::Extension(extension) => Some((step, extension)),
            _ => None,
        })
        .collect();
    let mut notes = Vec::new();
    loop {
        let tried = open.len();
        let mut refused = Vec::new();
        for (step, extension) in open {
            let schema = extension.schema.as_deref().filter(|schema| schemas.contains(schema));
            match one(admin, role, step, (extension, schema), &mut notes).await {
                Ok(()) => {}
                Err(error) if error.as_db_error().is_none() => {
                    return Err(Error::sql("create an extension")(error));
                }
                Err(_) => refused.push((step, extension)),
            }
        }
        if refused.is_empty() || refused.len() == tried {
            return Ok(notes);
        }
        open = refused;
    }
}

async fn one(
    admin: &Session<'_>,
    role: &str,
    step: &Step,
    (extension, schema): (&ExtensionNeed, Option<&str>),
    notes: &mut Vec<LeftOut>,
) -> std::result::Result<(), tokio_postgres::Error> {
    if let Some(schema) = schema {
        let schema = format!("CREATE SCHEMA IF NOT EXISTS {}", ident(schema));
        as_role(admin, role, &[&schema]).await?;
    }
    let exact = step.sql.first().map_or("", String::as_str);
    let mut made = by_rights(admin, role, &extension.name, &[exact]).await;
    if let Err(error) = &made
        && error.code() == Some(&SqlState::INVALID_PARAMETER_VALUE)
    {
        made = by_rights(admin, role, &extension.name, &[&extension.any_version]).await;
        if made.is_ok() {
            notes.push(LeftOut {
                object: step.describe.clone(),
                reason: format!(
                    "version {} is not available on the shadow; its default version is there",
                    extension.version
                ),
                sqlstate: None,
            });
        }
    }
    match made {
        Err(error) if error.code() == Some(&SqlState::DUPLICATE_OBJECT) => return Ok(()),
        other => other?,
    }
    if let Some((comment, _)) = &extension.comment {
        // A comment is not worth the extension.
        let _ = by_rights(admin, role, &extension.name, &[comment]).await;
    }
    Ok(())
}

/// Makes what is new and needed by something new that may take a superuser: that is made beside
/// the open transaction, and sees nothing of it. What cannot be made is tried where it belongs.
pub(super) async fn needs(admin: &Session<'_>, role: &str, changes: &Changes<'_>, plan: &Plan) -> Result<()> {
    let created: HashMap<ObjectId, &Object> =
        changes.created.iter().map(|object| (object.id(), *object)).collect();
    let privileged: HashSet<ObjectId> =
        plan.pre_data.iter().filter(|s| matches!(s.need, Need::Superuser(_))).map(|s| s.object).collect();
    let mut open: Vec<ObjectId> = privileged.iter().copied().filter(|id| created.contains_key(id)).collect();
    let mut needed = HashSet::new();
    while let Some(id) = open.pop() {
        let depends_on = created.get(&id).into_iter().flat_map(|object| &object.depends_on);
        // Tables come with their rows, in their place.
        let new = depends_on.filter(|id| created.contains_key(id) && id.class != Class::Relation);
        open.extend(new.copied().filter(|id| needed.insert(*id)));
    }
    for step in plan.pre_data.iter().filter(|s| needed.contains(&s.object) && !privileged.contains(&s.object))
    {
        let statements: Vec<&str> = step.sql.iter().map(String::as_str).collect();
        match as_role(admin, role, &statements).await {
            Err(error) if error.as_db_error().is_none() => {
                return Err(Error::sql(format!("create {}", step.describe))(error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// As the shadow's role if that may, else as superuser if the extension is on the list.
async fn by_rights(
    admin: &Session<'_>,
    role: &str,
    name: &str,
    statements: &[&str],
) -> std::result::Result<(), tokio_postgres::Error> {
    match as_role(admin, role, statements).await {
        Err(error)
            if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE)
                && extensions::superuser_may_create(name) =>
        {
            let mut list = vec![PATIENCE.to_owned()];
            list.extend(statements.iter().map(|sql| (*sql).to_owned()));
            admin.run(list).await
        }
        other => other,
    }
}

pub(super) async fn as_role(
    admin: &Session<'_>,
    role: &str,
    statements: &[&str],
) -> std::result::Result<(), tokio_postgres::Error> {
    let mut list = vec![PATIENCE.to_owned(), format!("SET LOCAL ROLE {}", ident(role))];
    list.extend(statements.iter().map(|sql| (*sql).to_owned()));
    admin.run(list).await
}

/// Never wait for a lock that the open transaction holds.
pub(super) const PATIENCE: &str = "SET LOCAL lock_timeout = '2s'";
