//! Steps in the open transaction, each behind a savepoint.
//!
//! ```text
//! step ─ok─► released
//!   └─refused─► rolled back to the savepoint, again after the others, until a round brings nothing
//! ```
//!
//! Invariants: a refused step leaves nothing behind; an error that is not about the statement
//! (locks, disk, connection) ends everything; no text of the source that does not begin like
//! a definition is sent, and each is one statement of the extended protocol: none can end the
//! transaction that holds the rows and the position.

use super::ahead::PATIENCE;
use crate::apply::schema::extensions;
use crate::apply::schema::plan::{ExtensionNeed, Need, Privileged, Step};
use crate::apply::schema::quote::ident;
use crate::apply::schema::refusal::ends_everything;
use crate::apply::schema::session::Session;
use crate::{Error, Result};
use scry_wire::catalog::LeftOut;
use std::time::Duration;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

/// A step that the shadow refused.
pub(super) struct Refused {
    pub step: Step,
    pub message: String,
    pub code: String,
    /// What stands in the way, as the server lists it: names of objects.
    pub detail: String,
}

/// Runs steps in one transaction.
pub(super) struct Runner<'a> {
    pub client: &'a Client,
    /// A superuser's connection, for extensions on the platform's list and what does no harm.
    pub admin: Option<Session<'a>>,
    /// The role of `client`.
    pub role: String,
    pub left_out: Vec<LeftOut>,
    /// Steps that were run.
    pub done: Vec<Step>,
}

impl Runner<'_> {
    /// Runs the steps, those refused again, until nothing more can be done; returns what is left.
    pub(super) async fn rounds(&mut self, steps: Vec<Step>) -> Result<Vec<Refused>> {
        let mut open = steps;
        loop {
            let tried = open.len();
            let mut refused = Vec::new();
            for step in open {
                match self.attempt(&step).await? {
                    None => self.done.push(step),
                    Some((message, code, detail)) => refused.push(Refused { step, message, code, detail }),
                }
            }
            if refused.is_empty() || refused.len() == tried {
                return Ok(refused);
            }
            open = refused.into_iter().map(|refused| refused.step).collect();
        }
    }

    /// Whether a query gives a row; None if the shadow refuses it.
    pub(super) async fn has_rows(&self, sql: &str) -> Result<Option<bool>> {
        self.plain("SAVEPOINT scry_step").await?;
        match self.client.query_opt(sql, &[]).await {
            Ok(row) => self.plain("RELEASE SAVEPOINT scry_step").await.map(|()| Some(row.is_some())),
            Err(error) if error.as_db_error().is_none() => Err(Error::sql("look for rows")(error)),
            Err(_) => self
                .plain("ROLLBACK TO SAVEPOINT scry_step; RELEASE SAVEPOINT scry_step")
                .await
                .map(|()| None),
        }
    }

    /// None when it is done, else why the shadow refuses it.
    async fn attempt(&mut self, step: &Step) -> Result<Option<(String, String, String)>> {
        if let Some(odd) = step.sql.iter().chain(&step.values).find(|sql| !is_definition(sql)) {
            let word: String = odd.chars().take_while(char::is_ascii_alphabetic).take(20).collect();
            let message = format!("a definition of the source does not begin like one (\"{word}\")");
            return Ok(Some((message, String::new(), String::new())));
        }
        self.plain("SAVEPOINT scry_step").await?;
        match self.statements(step).await {
            Ok(()) => {
                self.plain("RELEASE SAVEPOINT scry_step").await?;
                Ok(None)
            }
            Err(error) => {
                let Some(db) = error.as_db_error() else {
                    return Err(Error::sql(format!("change {}", step.describe))(error));
                };
                if ends_everything(db.code()) {
                    return Err(Error::sql(format!("change {}", step.describe))(error));
                }
                let names = matches!(
                    *db.code(),
                    SqlState::DEPENDENT_OBJECTS_STILL_EXIST | SqlState::FEATURE_NOT_SUPPORTED
                );
                let detail = if names { db.detail().unwrap_or_default().to_owned() } else { String::new() };
                let told = (message(step, db), db.code().code().to_owned(), detail);
                self.plain("ROLLBACK TO SAVEPOINT scry_step; RELEASE SAVEPOINT scry_step").await?;
                Ok(Some(told))
            }
        }
    }

    async fn plain(&self, sql: &str) -> Result<()> {
        self.client.batch_execute(sql).await.map_err(Error::sql("change the shadow's schema"))
    }

    async fn statements(&mut self, step: &Step) -> std::result::Result<(), tokio_postgres::Error> {
        match &step.need {
            Need::Extension(extension) => self.extension(step, extension).await,
            Need::Superuser(privileged) => match self.superuser(step, privileged).await {
                Err(error) if privileged.optional && error.as_db_error().is_some() => Ok(()),
                other => other,
            },
            _ => self.own(step).await,
        }
    }

    async fn own(&self, step: &Step) -> std::result::Result<(), tokio_postgres::Error> {
        for sql in step.sql.iter().chain(&step.values) {
            self.client.execute(sql.as_str(), &[]).await?;
        }
        Ok(())
    }

    /// By the role itself if it may, else by the superuser if that does no harm: in a transaction
    /// of its own, which sees nothing of this one and stays if this one does not.
    async fn superuser(
        &mut self,
        step: &Step,
        privileged: &Privileged,
    ) -> std::result::Result<(), tokio_postgres::Error> {
        let Some(admin) = &self.admin else { return self.own(step).await };
        if !privileged.first {
            match self.own(step).await {
                Err(error) if error.as_db_error().is_some() => {
                    self.client.batch_execute("ROLLBACK TO SAVEPOINT scry_step").await?;
                    let harmless = match &privileged.guard {
                        Some(guard) => admin.asks(guard).await?,
                        None => true,
                    };
                    if !harmless {
                        return Err(error);
                    }
                }
                other => return other,
            }
        }
        let owner = privileged.owner.as_ref().map(|alter| format!("{alter} OWNER TO {}", ident(&self.role)));
        let statements = if privileged.instead.is_empty() { &step.sql } else { &privileged.instead };
        let mut list = vec![PATIENCE.to_owned()];
        list.extend(statements.iter().chain(&owner).cloned());
        let (done, is_ours) = beside(self.client, admin, list).await?;
        match done {
            Err(error) if is_ours && error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
                self.left_out.push(LeftOut {
                    object: step.describe.clone(),
                    reason:
                        "only a superuser may make it, and the same transaction changes what it is made of"
                            .to_owned(),
                    sqlstate: None,
                });
                Ok(())
            }
            done => done,
        }
    }

    async fn extension(
        &mut self,
        step: &Step,
        extension: &ExtensionNeed,
    ) -> std::result::Result<(), tokio_postgres::Error> {
        for exact in &step.sql {
            if let Err(error) = self.privileged(exact, &extension.name).await {
                // The version is missing on the shadow.
                if error.code() != Some(&SqlState::INVALID_PARAMETER_VALUE)
                    || extension.any_version.is_empty()
                {
                    return Err(error);
                }
                self.client.batch_execute("ROLLBACK TO SAVEPOINT scry_step").await?;
                self.privileged(&extension.any_version, &extension.name).await?;
                self.left_out.push(LeftOut {
                    object: step.describe.clone(),
                    reason: format!(
                        "version {} is not available on the shadow; its default version is there",
                        extension.version
                    ),
                    sqlstate: None,
                });
            }
        }
        if let Some((sql, _)) = &extension.comment {
            self.privileged(sql, &extension.name).await?;
        }
        Ok(())
    }

    /// By the role itself if it may, else by the superuser if that is allowed; what the latter
    /// does is a transaction of its own, and stays if this one does not.
    async fn privileged(&self, sql: &str, name: &str) -> std::result::Result<(), tokio_postgres::Error> {
        let own = self.client.execute(sql, &[]).await.map(drop);
        match (own, &self.admin) {
            (Err(error), Some(admin))
                if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE)
                    && extensions::superuser_may_create(name) =>
            {
                self.client.batch_execute("ROLLBACK TO SAVEPOINT scry_step").await?;
                admin.run(vec![PATIENCE.to_owned(), sql.to_owned()]).await
            }
            (own, _) => own,
        }
    }
}

/// What the superuser does beside the open transaction; and whether that one itself was what it
/// waited for, which no patience helps against.
async fn beside(
    open: &Client,
    admin: &Session<'_>,
    list: Vec<String>,
) -> std::result::Result<(std::result::Result<(), tokio_postgres::Error>, bool), tokio_postgres::Error> {
    const SQL: &str =
        "SELECT pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.=) ANY (pg_catalog.pg_blocking_pids($1))";
    let work = admin.run(list);
    tokio::pin!(work);
    tokio::select! {
        done = &mut work => return Ok((done, false)),
        () = tokio::time::sleep(LOOK_AFTER) => {}
    }
    let is_ours = open.query_one(SQL, &[&admin.pid]).await?.get(0);
    Ok((work.await, is_ours))
}

/// Before [`PATIENCE`] is over.
const LOOK_AFTER: Duration = Duration::from_secs(1);

fn message(step: &Step, db: &tokio_postgres::error::DbError) -> String {
    // Class 22 quotes the value that it refuses.
    let mut text = if db.code().code().starts_with("22") {
        "the shadow refused a value".to_owned()
    } else {
        db.message().to_owned()
    };
    if let Need::Extension(extension) = &step.need
        && *db.code() == SqlState::INSUFFICIENT_PRIVILEGE
        && !extensions::superuser_may_create(&extension.name)
    {
        text.push_str("; it is not among those that the platform creates: create it on the shadow by hand");
    }
    text
}

/// Every statement about a schema begins with one of these; none of them ends a transaction.
fn is_definition(sql: &str) -> bool {
    let word: String = sql.trim_start().chars().take_while(char::is_ascii_alphabetic).collect();
    ["CREATE", "ALTER", "DROP", "COMMENT", "REFRESH", "TRUNCATE", "DELETE", "SELECT"]
        .contains(&&*word.to_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::is_definition;

    #[test]
    fn nothing_that_ends_a_transaction_is_a_definition() {
        assert!(is_definition("CREATE OR REPLACE FUNCTION f()"));
        assert!(is_definition("\n create rule x"));
        for odd in
            ["COMMIT", "ROLLBACK", "END", "ABORT", "SET x = 1", "/* */ COMMIT", "", "PREPARE TRANSACTION 'x'"]
        {
            assert!(!is_definition(odd), "{odd}");
        }
    }
}
