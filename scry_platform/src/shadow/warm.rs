//! Bringing a shadow that has just been copied into its server's memory.
//!
//! A copy goes past the server's shared buffers (it writes through a small ring of them), so that the
//! first changes after it would each wait for a page to be read, into memory that the kernel has to
//! clear first. This reads them once, in the background: indexes first, then tables, the small ones
//! first, as far as there is room. By the function of the server's own `pg_prewarm`, as a temporary one
//! of this session, so that nothing of it stands in the shadow.
//!
//! What it does not do: fail anything. Where the library is not installed, or there is no superuser
//! (`--shadow-url`), the first changes are slower, and that is all.

use super::Shadow;
use tokio_postgres::Client;

/// Reads what fits.
pub async fn warm(shadow: &Shadow) {
    let Some(admin) = &shadow.admin else { return };
    let Ok((client, _task)) = admin.client().await else { return };
    match read(&client).await {
        Ok(blocks) => tracing::debug!(shadow = %shadow.database, blocks, "read into shared buffers"),
        Err(error) => {
            let error = crate::error_text(&error);
            tracing::debug!(shadow = %shadow.database, error, "could not read tables into shared buffers");
        }
    }
}

async fn read(client: &Client) -> Result<i64, tokio_postgres::Error> {
    client.batch_execute(FUNCTION).await?;
    let mut blocks = 0;
    for row in client.query(RELATIONS, &[]).await? {
        let relation: u32 = row.get(0);
        // A table that has been dropped meanwhile ends it: somebody is at work on the schema.
        blocks += client.query_one(READ, &[&relation]).await?.get::<_, i64>(0);
    }
    Ok(blocks)
}

/// contrib/pg_prewarm/pg_prewarm--1.1.sql
const FUNCTION: &str = "SET synchronous_commit = off; CREATE FUNCTION pg_temp.scry_prewarm(regclass, text, text, int8, int8) RETURNS int8 \
    AS '$libdir/pg_prewarm', 'pg_prewarm' LANGUAGE C";

const READ: &str = "SELECT pg_temp.scry_prewarm($1::oid::regclass, 'buffer', 'main', NULL, NULL)";

/// Three quarters of the shared buffers: the rest is the changes'.
const RELATIONS: &str = "\
    WITH relation AS (SELECT c.oid, c.relkind = 'i' AS is_index, pg_catalog.pg_relation_size(c.oid) AS bytes \
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
        WHERE c.relkind IN ('r', 'i') AND c.relpersistence = 'p' \
            AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'), \
    ordered AS (SELECT oid, bytes, sum(bytes) OVER (ORDER BY is_index DESC, bytes, oid) AS upto \
        FROM relation WHERE bytes > 0) \
    SELECT oid FROM ordered \
    WHERE upto <= 0.75 * (SELECT setting::int8 * 8192 FROM pg_catalog.pg_settings WHERE name = 'shared_buffers') \
    ORDER BY upto";
