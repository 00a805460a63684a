//! Tokens, certificates, privileges, the socket, and what must not be seen.

use super::{PATIENT, SOON, mixed_pair, says};
use anyhow::{Result, ensure};
use scry_testkit::certs::Kind;
use scry_testkit::sender::poke;
use scry_testkit::{Lab, Pair, PairOptions, scenario};
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::PathBuf;

const TOKEN: &str = "s3cr3t-t0ken-of-the-platform";

#[test]
fn a_wrong_token_is_refused_and_told_until_it_is_right() {
    scenario("wrong_token", |lab| {
        let options = PairOptions {
            platform_token: Some(TOKEN.to_owned()),
            sender_token: Some("another-token".to_owned()),
            ..PairOptions::default()
        };
        let pair = mixed_pair(lab, &options)?;
        pair.start_job("account")?;
        pair.wait_status("the refusal in the status", SOON, |row| says(row, "token"))?;
        lab.user.write_file(&lab.path("sender-token"), TOKEN.as_bytes(), 0o600)?;
        pair.wait_for_shadow(PATIENT)?;
        // The token stands in its two files and nowhere else.
        let mut places =
            vec![pair.source.log_text(), pair.platform.program.log_text(), pair.describe_status()];
        places.push(pair.sql("SELECT string_agg(name || setting, ' ') FROM pg_settings")?);
        for entry in std::fs::read_dir("/proc")?.flatten() {
            places.push(
                String::from_utf8_lossy(&std::fs::read(entry.path().join("cmdline")).unwrap_or_default())
                    .into_owned(),
            );
        }
        ensure!(!places.iter().any(|text| text.contains(TOKEN)), "the token can be seen");
        Ok(())
    });
}

#[test]
fn a_token_file_that_others_can_read_is_refused() {
    scenario("open_token_file", |lab| {
        let options = PairOptions { platform_token: Some(TOKEN.to_owned()), ..PairOptions::default() };
        let pair = mixed_pair(lab, &options)?;
        lab.user.write_file(&lab.path("sender-token"), TOKEN.as_bytes(), 0o644)?;
        pair.start_job("account")?;
        pair.wait_status("the file's mode in the status", SOON, |row| says(row, "0600"))?;
        lab.user.write_file(&lab.path("sender-token"), TOKEN.as_bytes(), 0o600)?;
        pair.wait_for_shadow(PATIENT)
    });
}

#[test]
fn a_good_certificate_is_accepted() {
    scenario("good_certificate", |lab| {
        let options = PairOptions {
            tls: Some(Kind::Good),
            platform_token: Some(TOKEN.to_owned()),
            ..PairOptions::default()
        };
        let pair = mixed_pair(lab, &options)?;
        pair.start_job("*")?;
        pair.assert_equal()
    });
}

#[test]
fn bad_certificates_are_refused_each_with_its_reason() {
    for (kind, reason) in
        [(Kind::Expired, "expired"), (Kind::WrongName, "name"), (Kind::SelfSigned, "issuer")]
    {
        scenario(&format!("certificate_{kind:?}"), |lab| refuses_certificate(lab, kind, reason));
    }
}

fn refuses_certificate(lab: &Lab, kind: Kind, reason: &str) -> Result<()> {
    let pair = mixed_pair(lab, &PairOptions { tls: Some(kind), ..PairOptions::default() })?;
    pair.start_job("account")?;
    let row = pair.wait_status("the certificate in the status", SOON, |row| says(row, "certificate"))?;
    ensure!(says(&row, reason), "the reason is not told: {row:?}");
    pair.assert_source_unharmed()
}

#[test]
fn nobody_may_call_anything_unless_granted() {
    scenario("privileges", |lab| {
        let pair = Pair::start(lab, &PairOptions::default())?;
        pair.sql("CREATE EXTENSION scry_backfill; CREATE ROLE plain")?;
        let sql = "SELECT string_agg(oid::regprocedure::text, ', ') FROM pg_proc \
                   WHERE pronamespace = 'scry_backfill'::regnamespace AND has_function_privilege('plain', oid, 'EXECUTE')";
        let open = pair.sql(sql)?;
        ensure!(open.is_empty(), "PUBLIC may execute {open}");
        // A schema that somebody else made is not taken over, with or without tables in it.
        pair.sql("DROP EXTENSION scry_backfill; CREATE SCHEMA scry_backfill AUTHORIZATION plain")?;
        ensure!(pair.sql("CREATE EXTENSION scry_backfill").is_err(), "a foreign schema was taken over");
        pair.sql("SET ROLE plain; CREATE TABLE scry_backfill.job(name text)")?;
        ensure!(pair.sql("CREATE EXTENSION scry_backfill").is_err(), "a foreign table was taken over");
        ensure!(pair.sql("SELECT count(*) FROM pg_extension WHERE extname = 'scry_backfill'")? == "0");
        Ok(())
    });
}

/// The sender's socket.
fn socket(pair: &Pair) -> Result<PathBuf> {
    scry_testkit::wait::until("the sender's socket", SOON, || {
        let entries = std::fs::read_dir(&pair.socket_dir)?.flatten();
        let mut sockets = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_socket()));
        Ok(sockets.next().map(|entry| entry.path()))
    })
}

#[test]
fn garbage_on_the_socket_ends_that_connection_only() {
    scenario("garbage_on_socket", |lab| {
        let pair = mixed_pair(lab, &PairOptions::default())?;
        pair.start_job("*")?;
        pair.wait_for_shadow(PATIENT)?;
        let path = socket(&pair)?;
        let mode = std::fs::metadata(&pair.socket_dir)?.permissions().mode() & 0o777;
        ensure!(mode == 0o700, "the socket's directory has mode {mode:o}");
        let mut rng = lab.rng();
        let mut bad: Vec<Vec<u8>> = vec![
            Vec::new(),
            b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            vec![0; 64],
            vec![0xff; 4096],
            // A header that announces four gigabytes.
            [&[0xff, 0xff, 0xff, 0xff, b'H', 0, 0, 0][..], &[0; 8][..]].concat(),
            // A truncated frame: ten bytes announced, none there.
            [&[0, 0, 0, 10, b'H', 0, 0, 0][..], &[0; 8][..]].concat(),
        ];
        bad.extend((0..20).map(|_| (0..200).map(|_| rng.below(256) as u8).collect()));
        for bytes in bad {
            let output = poke(lab, &path, &bytes, 30)?;
            ensure!(output.status.success(), "the connection was left open after {} bytes", bytes.len());
        }
        // The token's worth of garbage for the platform, too.
        for bytes in [
            &b"\0\0\0\0"[..],
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\ngarbage",
            b"POST /api/v1/stream HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nabcd",
        ] {
            let mut stream = std::net::TcpStream::connect(("127.0.0.1", pair.platform.port()))?;
            stream.write_all(bytes)?;
        }
        pair.sql("UPDATE account SET balance = balance + 1")?;
        pair.assert_equal()?;
        pair.assert_source_unharmed()
    });
}

/// What a plain role could plant before the extension is there: found first
/// wherever a name without a schema is looked up along the usual path.
const TRAPS: &str = "
    CREATE FUNCTION public.trap(text, text) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'trapped'; END $$;
    CREATE FUNCTION public.trap(oid, oid) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'trapped'; END $$;
    CREATE FUNCTION public.trap(name, text) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'trapped'; END $$;
    CREATE FUNCTION public.trap(varchar, varchar) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'trapped'; END $$;
    CREATE OPERATOR public.= (LEFTARG = text, RIGHTARG = text, FUNCTION = public.trap);
    CREATE OPERATOR public.= (LEFTARG = oid, RIGHTARG = oid, FUNCTION = public.trap);
    CREATE OPERATOR public.= (LEFTARG = name, RIGHTARG = text, FUNCTION = public.trap);
    CREATE OPERATOR public.= (LEFTARG = varchar, RIGHTARG = varchar, FUNCTION = public.trap);
    CREATE FUNCTION public.count(anyelement) RETURNS int8 LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'trapped'; END $$;
    CREATE FUNCTION public.now() RETURNS timestamptz LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'trapped'; END $$;
    CREATE FUNCTION public.format(text, VARIADIC text[]) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'trapped'; END $$;
    CREATE FUNCTION public.quote_ident(varchar) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'trapped'; END $$;";

/// What no log and no view of a plain role may show.
const MARKER: &str = "m4rk3r-0f-a-row";

/// Calls every function of ours as a role; an error names those that did
/// anything else than refuse. (Not with NULLs: strict functions are not even
/// called with those.)
fn open_to(role: &str) -> String {
    format!(
        "SET search_path = pg_catalog; SET ROLE {role};
         DO $$ DECLARE f record; open text := '';
         BEGIN
             FOR f IN SELECT p.oid::regprocedure AS name, p.proname,
                     (SELECT string_agg(CASE format_type(t, NULL) WHEN 'boolean' THEN 'false' WHEN 'jsonb' THEN '''{{}}'''
                         WHEN 'interval' THEN '''1s''' ELSE '''x''' END, ', ')
                         FROM unnest(p.proargtypes::oid[]) AS t) AS args
                 FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
                 WHERE n.nspname = 'scry_backfill' AND p.prorettype <> 'event_trigger'::regtype
             LOOP
                 BEGIN
                     EXECUTE format('SELECT scry_backfill.%I(%s)', f.proname, f.args);
                     open := open || ' ' || f.name;
                 EXCEPTION WHEN insufficient_privilege THEN NULL;
                 END;
             END LOOP;
             IF open <> '' THEN RAISE EXCEPTION 'open to {role}:%', open; END IF;
         END $$;"
    )
}

#[test]
fn roles_traps_signals_and_rows_inside_the_source() {
    scenario("inside_the_source", |lab| {
        let pair = Pair::start(lab, &PairOptions::default())?;
        pair.sql(&format!(
            "CREATE ROLE plain; CREATE ROLE watcher; CREATE ROLE worker; CREATE ROLE signaller IN ROLE pg_signal_backend;
             GRANT CREATE ON SCHEMA public TO plain; CREATE SCHEMA app;
             SET ROLE plain; {TRAPS}
             RESET ROLE; SET search_path = pg_catalog;
             CREATE TABLE app.t(id int PRIMARY KEY, v text UNIQUE); CREATE TABLE app.closed(id int PRIMARY KEY);
             GRANT USAGE ON SCHEMA app TO worker; GRANT SELECT ON app.t TO worker;
             INSERT INTO app.t SELECT g, '{MARKER}' || g FROM generate_series(1, 500) AS g",
        ))?;
        // Made when asked for, and not of what somebody else has made.
        pair.sql("CREATE EXTENSION scry_backfill; CREATE ROLE scry_backfill_monitor")?;
        let error = super::error_of(&pair, "SELECT scry_backfill.create_roles()")?;
        super::require_words(&error, &["role \"scry_backfill_monitor\" exists", "Nothing was granted"])?;
        let made = "SELECT count(*) FROM pg_roles WHERE rolname ~ '^scry_backfill_'";
        ensure!(pair.sql(&format!("SET search_path = pg_catalog; {made}"))? == "1", "half of it was made");
        pair.sql("DROP ROLE scry_backfill_monitor; SELECT scry_backfill.create_roles()")?;
        let again = pair.sql("SELECT role, made FROM scry_backfill.create_roles() ORDER BY 1")?;
        ensure!(again == "scry_backfill_monitor|f\nscry_backfill_operator|f", "{again}");
        pair.sql(
            "GRANT scry_backfill_operator TO worker; GRANT scry_backfill_monitor TO watcher;
             GRANT USAGE ON SCHEMA scry_backfill TO plain",
        )?;

        // Nobody, a monitor, an operator.
        pair.sql(&open_to("plain"))?;
        let denied = |role: &str, script: &str| -> Result<()> {
            let error = super::error_of(&pair, &format!("SET ROLE {role}; {script}"))?;
            super::require_words(&error, &["permission denied"])
        };
        denied("plain", "SELECT * FROM scry_backfill.status")?;
        for call in ["start('app.t')", "stop()", "verify()", "create_roles()"] {
            denied("watcher", &format!("SELECT scry_backfill.{call}"))?;
        }
        denied("watcher", "SELECT * FROM scry_backfill.job")?;
        denied("worker", "SELECT scry_backfill.start('app.t,app.closed')")?;
        pair.sql("SET ROLE worker; SELECT scry_backfill.start('app.t')")?;
        pair.sql("SET ROLE worker; SELECT scry_backfill.wait_for_shadow(timeout => '120s')")?;
        let verdict = pair.sql("SET ROLE worker; SELECT verdict FROM scry_backfill.verify('app.t')")?;
        ensure!(verdict == "equal", "{verdict}");
        pair.sql("SET ROLE worker; SELECT scry_backfill.pause(); SELECT scry_backfill.resume()")?;

        // A row that the shadow refuses: told by table and cause, never by value.
        pair.shadow_client()?.batch_execute(&format!("INSERT INTO app.t VALUES (9999, '{MARKER}501')"))?;
        pair.sql(&format!("INSERT INTO app.t VALUES (501, '{MARKER}501')"))?;
        pair.wait_status("the refused row in the status", SOON, |row| says(row, "t_v_key"))?;
        let mut seen = vec![pair.source.log_text(), pair.platform.program.log_text()];
        seen.push(std::fs::read_to_string(pair.socket_dir.join("scry_sender.log"))?);
        seen.push(std::fs::read_to_string(pair.platform.data_dir.join("shadow.log"))?);
        for view in ["status", "progress", "tables", "events"] {
            let rows =
                pair.sql(&format!("SET ROLE watcher; SELECT v::text FROM scry_backfill.{view} AS v"))?;
            ensure!(!rows.is_empty(), "the monitor reads {view}");
            seen.push(rows);
        }
        for path in ["/api/v1/shadows", "/metrics"] {
            seen.push(pair.platform.get(path)?.1);
        }
        ensure!(seen.iter().all(|text| !text.is_empty() && !text.contains(MARKER)), "a row can be seen");
        ensure!(!seen.iter().any(|text| text.contains("trapped")), "a planted object was called");
        pair.shadow_client()?.batch_execute("DELETE FROM app.t WHERE id = 9999")?;
        pair.sql("SET ROLE worker; SELECT scry_backfill.resume()")?;
        pair.sql("SET ROLE worker; SELECT scry_backfill.wait_for_shadow(timeout => '120s')")?;

        // Whoever may signal backends may not signal ours.
        let pids =
            "SET search_path = pg_catalog; SELECT pid FROM pg_stat_activity WHERE backend_type LIKE '%scry%'";
        let pids = pair.sql(pids)?;
        ensure!(pids.lines().count() >= 2, "launcher and stream worker: {pids}");
        for pid in pids.lines() {
            for function in ["pg_terminate_backend", "pg_cancel_backend"] {
                let error = super::error_of(
                    &pair,
                    &format!("SET ROLE signaller; SELECT pg_catalog.{function}({pid})"),
                )?;
                super::require_words(&error, &["must be a superuser"])?;
            }
        }
        pair.sql("SET ROLE worker; SELECT scry_backfill.stop()")?;
        pair.assert_source_unharmed()
    });
}

/// Puts a token file in place at once.
fn write_token(lab: &Lab, file: &str, text: &str) -> Result<()> {
    lab.user.write_file(&lab.path(file), text.as_bytes(), 0o600)
}

#[test]
fn tokens_and_certificates_are_replaced_without_a_restart() {
    scenario("rotation", |lab| {
        let options = PairOptions {
            tls: Some(Kind::Good),
            client_certificates: true,
            platform_token: Some(TOKEN.to_owned()),
            ..PairOptions::default()
        };
        let mut pair = mixed_pair(lab, &options)?;
        pair.start_job("*")?;
        pair.wait_for_shadow(PATIENT)?;
        let platform = pair.platform.program.pid();
        let change = |pair: &Pair| pair.sql("UPDATE account SET balance = balance + 1").map(drop);
        let read_again = |pair: &Pair, what: &str, times: usize| {
            scry_testkit::wait::until_true(what, SOON, || {
                Ok(pair.platform.program.log_text().matches(what).count() >= times)
            })
        };

        // Both tokens serve while the source still shows the old one.
        let both = format!("{TOKEN}\nthe-next-token-of-it\n");
        write_token(lab, "platform/token", &both)?;
        read_again(&pair, "tokens=2", 1)?;
        change(&pair)?;
        pair.wait_for_shadow(PATIENT)?;
        write_token(lab, "sender-token", "the-next-token-of-it")?;
        // The old one is taken out: the stream ends, and comes back with the new one.
        write_token(lab, "platform/token", "the-next-token-of-it")?;
        read_again(&pair, "tokens=1", 1)?;
        change(&pair)?;
        pair.wait_for_shadow(PATIENT)?;

        // New certificates on both sides; a reload makes the sender connect anew.
        let authority = pair.authority.take().ok_or_else(|| anyhow::anyhow!("no authority"))?;
        authority.server(Kind::Good)?;
        authority.client()?;
        pair.platform.program.signal(nix::sys::signal::Signal::SIGHUP)?;
        read_again(&pair, "certificates read again", 1)?;
        let reconnect = |pair: &mut Pair| -> Result<()> {
            let sender = worker_sender(pair)?;
            scry_testkit::program::signal_pid(sender, nix::sys::signal::Signal::SIGHUP)?;
            pair.sql("SELECT scry_backfill.pause(); SELECT scry_backfill.resume()").map(drop)
        };
        reconnect(&mut pair)?;
        change(&pair)?;
        pair.wait_for_shadow(PATIENT)?;

        // A certificate of somebody else's is refused, and told until it is right.
        let good = std::fs::read(lab.path("certs/client.pem"))?;
        let good_key = std::fs::read(lab.path("certs/client.key"))?;
        let stranger = scry_testkit::certs::Authority::new(&lab.path("others"), &lab.user)?.client()?;
        lab.user.write_file(&lab.path("certs/client.pem"), &std::fs::read(&stranger.cert)?, 0o644)?;
        lab.user.write_file(&lab.path("certs/client.key"), &std::fs::read(&stranger.key)?, 0o600)?;
        reconnect(&mut pair)?;
        pair.wait_status("the certificate in the status", SOON, |row| says(row, "client certificate"))?;
        lab.user.write_file(&lab.path("certs/client.pem"), &good, 0o644)?;
        lab.user.write_file(&lab.path("certs/client.key"), &good_key, 0o600)?;
        change(&pair)?;
        pair.wait_for_shadow(PATIENT)?;
        ensure!(pair.platform.program.pid() == platform, "the platform was restarted");
        pair.assert_source_unharmed()
    });
}

/// The managed sender's process.
fn worker_sender(pair: &Pair) -> Result<u32> {
    let text = pair.sql("SELECT substring(sender FROM 'pid ([0-9]+)') FROM scry_backfill.status")?;
    text.parse().map_err(|_| anyhow::anyhow!("no managed sender: {text}"))
}
