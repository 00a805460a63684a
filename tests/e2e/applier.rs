//! What the library does for the applier's sessions in the shadow's server: marked statements are held to
//! their one row, and answers that are kept together lose none.

use anyhow::{Result, anyhow, ensure};
use bytes::Bytes;
use futures_util::future::{join_all, join3};
use futures_util::{SinkExt, TryStreamExt};
use scry_testkit::{Pair, PairOptions, scenario};
use scry_wire::one_row::{MARK, touched};
use std::pin::pin;
use tokio_postgres::{Client, NoTls};

/// Runs `test` in a session on the shadow as the applier has one.
fn served<F: Future<Output = Result<()>>>(name: &str, test: impl FnOnce(Client) -> F) {
    scenario(name, |lab| {
        let pair = Pair::start(lab, &PairOptions::default())?;
        pair.start_job("*")?;
        pair.wait_for_shadow(super::PATIENT)?;
        let url = pair.platform.shadow_url()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(async {
            let (client, connection) = tokio_postgres::connect(&url, NoTls).await?;
            let connection = tokio::spawn(connection);
            client
                .batch_execute("SELECT scry_shadow.serve_applier(); CREATE SCHEMA own; SET search_path = own")
                .await?;
            let tested = tokio::time::timeout(super::PATIENT, test(client)).await;
            tested.map_err(|_| anyhow!("no answer came"))??;
            Ok::<_, anyhow::Error>(connection.await??)
        })?;
        pair.assert_source_unharmed()
    });
}

/// What the server says of a statement that it has failed for its rows.
fn found(error: &tokio_postgres::Error) -> Option<u64> {
    error.as_db_error().filter(|e| e.code().code() == "21000").and_then(|e| touched(e.message()))
}

#[test]
fn a_marked_statement_touches_one_row_or_fails() {
    served("applier_one_row", async |client: Client| {
        client
            .batch_execute(
                "CREATE TABLE t (id int, v int); CREATE TABLE other (id int); INSERT INTO t VALUES (1, 0), (2, 0), (2, 0);
                 CREATE FUNCTION busy() RETURNS trigger LANGUAGE plpgsql AS
                     'BEGIN DELETE FROM own.other; INSERT INTO own.other VALUES (1), (2); RETURN NEW; END';
                 CREATE TRIGGER busy BEFORE UPDATE ON t FOR EACH ROW WHEN (NEW.v = 7) EXECUTE FUNCTION busy()",
            )
            .await?;
        let marked = client.prepare(&format!("{MARK}UPDATE t SET v = $2 WHERE id = $1")).await?;
        let other = client.prepare("UPDATE t SET v = $2 WHERE id = $1").await?;
        for (id, rows) in [(0, 0), (1, 1), (2, 2)] {
            ensure!(client.execute(&other, &[&id, &5]).await? == rows, "an unmarked one");
            let answer = client.execute(&marked, &[&id, &6]).await;
            match rows {
                1 => ensure!(answer? == 1, "its one row"),
                _ => ensure!(answer.as_ref().err().and_then(found) == Some(rows), "{answer:?}"),
            }
        }
        let left: Vec<i32> =
            client.query("SELECT v FROM t ORDER BY id", &[]).await?.iter().map(|row| row.get(0)).collect();
        ensure!(left == [6, 5, 5], "a failed statement has left something: {left:?}");
        // What a marked statement has others do is not held to anything.
        ensure!(client.execute(&marked, &[&1, &7]).await? == 1, "with a trigger's statements");
        for sql in [
            "INSERT INTO t SELECT WHERE false",
            "DELETE FROM t WHERE id = 2",
            "INSERT INTO t VALUES (3), (4)",
        ] {
            let error = client.execute(&format!("{MARK}{sql}"), &[]).await.err();
            ensure!(error.as_ref().and_then(found).is_some(), "{sql}: {error:?}");
        }
        ensure!(client.query(&format!("{MARK}SELECT FROM t"), &[]).await?.len() == 3, "a query is not held");
        // COMMIT travels with it, and does nothing.
        let none = client.execute(&marked, &[&0, &1]);
        let (begun, none, committed) =
            join3(client.batch_execute("BEGIN; DELETE FROM t"), none, client.batch_execute("COMMIT")).await;
        begun?;
        committed?;
        ensure!(none.as_ref().err().and_then(found) == Some(0), "{none:?}");
        ensure!(client.query("SELECT FROM t", &[]).await?.len() == 3, "it was committed");
        Ok(())
    });
}

#[test]
fn every_statement_is_answered() {
    served("applier_answers", async |client: Client| {
        client.batch_execute("CREATE TABLE t (id int PRIMARY KEY, v text)").await?;
        let insert = client.prepare("INSERT INTO t VALUES ($1, $2)").await?;
        let long = client.prepare("SELECT pg_sleep($1::float8 / 1000), $2::text").await?;
        // Small ones, some that fill the server's buffers, and some that take their time, all in one go.
        for width in [1, 200, 5000, 300_000] {
            client.batch_execute("TRUNCATE t").await?;
            let values: Vec<String> =
                (0..300).map(|n| "v".repeat(if n % 7 == 0 { width } else { 3 })).collect();
            let answers = join_all(values.iter().zip(0..).map(|(value, id)| {
                let (client, insert, long) = (&client, &insert, &long);
                async move {
                    match id % 50 {
                        49 => client
                            .query_one(long, &[&3.0, value])
                            .await
                            .map(|row| row.get::<_, String>(1).len()),
                        _ => client.execute(insert, &[&id, value]).await.map(|rows| rows as usize),
                    }
                }
            }));
            for (answer, value) in answers.await.into_iter().zip(&values) {
                let answer = answer?;
                ensure!(answer == 1 || answer == value.len(), "{answer}");
            }
        }
        // An error in the middle: what was sent after it is refused, each for itself.
        client.batch_execute("BEGIN").await?;
        let answers = join_all((295..305).map(|id: i32| {
            let (client, insert) = (&client, &insert);
            async move { client.execute(insert, &[&id, &"x"]).await }
        }));
        let codes: Vec<Option<String>> = (answers.await.iter())
            .map(|answer| answer.as_ref().err()?.code().map(|code| code.code().to_owned()))
            .collect();
        ensure!(codes.first() == Some(&Some("23505".to_owned())), "{codes:?}");
        ensure!(codes.iter().skip(1).all(|code| code.as_deref() == Some("25P02")), "{codes:?}");
        client.batch_execute("ROLLBACK").await?;
        // COPY has answers of its own, for which its client waits before it says more.
        for _ in 0..20 {
            client.batch_execute("TRUNCATE t").await?;
            let sink = client.copy_in::<_, Bytes>("COPY t FROM STDIN").await?;
            let mut sink = pin!(sink);
            for n in 0..100 {
                sink.send(Bytes::from(format!("{n}\tvalue\n"))).await?;
            }
            ensure!(sink.finish().await? == 100, "rows by COPY");
            let read: Vec<Bytes> = client.copy_out("COPY t TO STDOUT").await?.try_collect().await?;
            ensure!(read.concat().iter().filter(|byte| **byte == b'\n').count() == 100, "{read:?}");
        }
        Ok(())
    });
}
