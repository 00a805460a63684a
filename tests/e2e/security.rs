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
        // A schema that somebody else made is not taken over.
        pair.sql("DROP EXTENSION scry_backfill; CREATE SCHEMA scry_backfill AUTHORIZATION plain")?;
        ensure!(pair.sql("CREATE EXTENSION scry_backfill").is_err(), "a foreign schema was taken over");
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
