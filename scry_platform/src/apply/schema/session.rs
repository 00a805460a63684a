//! A transaction of one step, and what its settings are.
//!
//! Settings are local to the transaction: the caller's session stays as it was.

use tokio_postgres::Client;

/// Begins with everything set that creation leans on.
///
/// `search_path` is empty (text is qualified, and nobody's operators are found); function
/// bodies are not checked (what they name may come later); constraints print and parse
/// under one set of formats; commits do not wait for the disk, later ones do so for all.
const BEGIN: &str = "BEGIN; \
    SET LOCAL search_path = ''; \
    SET LOCAL check_function_bodies = off; \
    SET LOCAL row_security = off; \
    SET LOCAL statement_timeout = 0; \
    SET LOCAL lock_timeout = 0; \
    SET LOCAL idle_in_transaction_session_timeout = 0; \
    SET LOCAL standard_conforming_strings = on; \
    SET LOCAL DateStyle = 'ISO, MDY'; \
    SET LOCAL IntervalStyle = 'postgres'; \
    SET LOCAL TimeZone = 'UTC'; \
    SET LOCAL extra_float_digits = 3; \
    SET LOCAL xmloption = content; \
    SET LOCAL default_tablespace = ''; \
    SET LOCAL default_table_access_method = heap; \
    SET LOCAL client_min_messages = warning; \
    SET LOCAL synchronous_commit = off";

/// A statement that ends a transaction, with its parameters.
pub(super) struct Mark<'a> {
    pub(super) sql: &'a str,
    pub(super) values: &'a [&'a (dyn tokio_postgres::types::ToSql + Sync)],
}

/// A connection to the shadow with what was learnt about its role.
pub(super) struct Session<'a> {
    client: &'a Client,
    begin: String,
    /// Row security does not bind the role.
    pub(super) bypasses_row_security: bool,
    /// Its name.
    pub(super) role: String,
    /// The server's process.
    pub(super) pid: i32,
}

impl<'a> Session<'a> {
    /// Asks what the role may do.
    pub(super) async fn new(client: &'a Client) -> Result<Self, tokio_postgres::Error> {
        let row = client
            .query_one(
                "SELECT r.rolsuper OR r.rolbypassrls, \
                        pg_catalog.current_setting('transaction_timeout', true) IS NOT NULL, \
                        r.rolname::text, pg_catalog.pg_backend_pid() \
                 FROM pg_catalog.pg_roles AS r \
                 WHERE r.rolname OPERATOR(pg_catalog.=) CURRENT_USER",
                &[],
            )
            .await?;
        let mut begin = BEGIN.to_owned();
        if row.get(1) {
            begin.push_str("; SET LOCAL transaction_timeout = 0");
        }
        // Needs a grant on the parameter; without it triggers fire, of which there are none yet
        // in pre-data, and none that DDL would fire after it.
        let replica = "BEGIN; SET LOCAL session_replication_role = replica; COMMIT";
        if client.batch_execute(replica).await.is_ok() {
            begin.push_str("; SET LOCAL session_replication_role = replica");
        } else {
            client.batch_execute("ROLLBACK").await?;
        }
        Ok(Self { client, begin, bypasses_row_security: row.get(0), role: row.get(2), pid: row.get(3) })
    }

    pub(super) fn client(&self) -> &'a Client {
        self.client
    }

    /// Runs statements in one transaction, each alone; then `mark` in the same one.
    pub(super) async fn transaction<'m>(
        &self,
        statements: impl IntoIterator<Item = &'m str>,
        mark: Option<Mark<'_>>,
    ) -> Result<(), tokio_postgres::Error> {
        self.client.batch_execute(&self.begin).await?;
        let done = self.statements(statements, mark).await;
        match done {
            Ok(()) => self.client.batch_execute("COMMIT").await,
            Err(error) => {
                if !error.is_closed() {
                    self.client.batch_execute("ROLLBACK").await?;
                }
                Err(error)
            }
        }
    }

    /// Runs statements in one transaction, each alone. (Of iterators the compiler does not see
    /// that they may move to another thread.)
    pub(super) async fn run(&self, statements: Vec<String>) -> Result<(), tokio_postgres::Error> {
        self.client.batch_execute(&self.begin).await?;
        for sql in &statements {
            if let Err(error) = self.client.execute(sql.as_str(), &[]).await {
                if !error.is_closed() {
                    self.client.batch_execute("ROLLBACK").await?;
                }
                return Err(error);
            }
        }
        self.client.batch_execute("COMMIT").await
    }

    /// Asks a question whose answer is one boolean; NULL is no.
    pub(super) async fn asks(&self, sql: &str) -> Result<bool, tokio_postgres::Error> {
        self.client.batch_execute(&self.begin).await?;
        let answer = self.client.query_one(sql, &[]).await;
        match answer {
            Ok(row) => {
                self.client.batch_execute("COMMIT").await?;
                Ok(row.get::<_, Option<bool>>(0) == Some(true))
            }
            Err(error) => {
                if !error.is_closed() {
                    self.client.batch_execute("ROLLBACK").await?;
                }
                Err(error)
            }
        }
    }

    async fn statements<'m>(
        &self,
        statements: impl IntoIterator<Item = &'m str>,
        mark: Option<Mark<'_>>,
    ) -> Result<(), tokio_postgres::Error> {
        for sql in statements {
            self.client.execute(sql, &[]).await?;
        }
        if let Some(Mark { sql, values }) = mark {
            self.client.execute(sql, values).await?;
        }
        Ok(())
    }
}
