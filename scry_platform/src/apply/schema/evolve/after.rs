//! What goes when the transaction is committed: extensions and other things that only a superuser
//! drops, which he does on his own connection. What the open transaction drops along with them
//! stands in his way until then, and holds the locks that he needs.
//!
//! Invariants: nothing is dropped with CASCADE; until it is gone it is left out by name, so that
//! a crash in between is no secret.

use super::ahead::{PATIENCE, as_role};
use super::run::Refused;
use crate::apply::schema::plan::{Need, Privileged, Step};
use crate::apply::schema::session::Session;
use crate::{Error, Result};
use scry_wire::catalog::{Entry, Object, ObjectId};
use tokio_postgres::Client;

/// What is to be tried again: drops that the role may not do, and what those stood in the way of.
pub(super) fn later(refused: &[Refused], dropped: &[&Object]) -> Vec<Step> {
    let entry = |id: ObjectId| dropped.iter().find(|object| object.id() == id).map(|object| &object.entry);
    let is_superusers = |r: &&Refused| r.code == "42501" && entry(r.step.object).is_some_and(is_superusers);
    let mut steps: Vec<Step> = refused
        .iter()
        .filter(is_superusers)
        .map(|r| r.step.clone().need(Need::Superuser(Privileged::default())))
        .collect();
    if !steps.is_empty() {
        let others = refused.iter().filter(|r| r.code == "2BP01" && r.step.need == Need::Nothing);
        steps.extend(others.map(|r| r.step.clone()));
    }
    steps
}

/// Kinds that are a superuser's own on the shadow: they have no owner, or may have no other.
pub(super) fn is_superusers(entry: &Entry) -> bool {
    matches!(
        entry,
        Entry::Extension(_)
            | Entry::ForeignDataWrapper(_)
            | Entry::AccessMethod(_)
            | Entry::EventTrigger(_)
            | Entry::Language(_)
            | Entry::TextSearchParser(_)
            | Entry::TextSearchTemplate(_)
    )
}

/// Drops what waited for the commit; `role` is the shadow's own. Returns the titles of what is gone.
///
/// # Errors
/// The shadow can't be spoken to.
pub async fn drop_later(admin: &Client, role: &str, steps: Vec<Step>) -> Result<Vec<String>> {
    let admin = Session::new(admin).await.map_err(Error::sql("ask for privileges"))?;
    let (mut open, mut gone) = (steps, Vec::new());
    loop {
        let tried = open.len();
        let mut refused = Vec::new();
        for step in open {
            let done = match &step.need {
                Need::Superuser(_) => {
                    let mut list = vec![PATIENCE.to_owned()];
                    list.extend(step.sql.iter().cloned());
                    admin.run(list).await
                }
                _ => as_role(&admin, role, &step.sql.iter().map(String::as_str).collect::<Vec<_>>()).await,
            };
            match done {
                Ok(()) => gone.push(step.title()),
                Err(error) if error.as_db_error().is_none() => {
                    return Err(Error::sql(format!("drop {}", step.describe))(error));
                }
                Err(_) => refused.push(step),
            }
        }
        if refused.is_empty() || refused.len() == tried {
            return Ok(gone);
        }
        open = refused;
    }
}
