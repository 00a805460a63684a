//! The programs by themselves: help, version, one clear line when they can't
//! start, a clean stop; the sender against scripted peers.

use super::require_words;
use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use scry_testkit::certs::{Authority, Kind};
use scry_testkit::platform::{Platform, PlatformOptions};
use scry_testkit::scripted::{CONTENT_TYPE, Script, ScriptedPlatform};
use scry_testkit::sender::poke;
use scry_testkit::wire::message::{Hello, Message, Role};
use scry_testkit::{Lab, Sender, pair, scenario, wait};
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// Runs one of the programs to its end.
fn run(lab: &Lab, program: &str, args: &[&str]) -> Result<Output> {
    let path = lab.server.program(program)?;
    lab.user.command(path).args(args).stdin(Stdio::null()).output().with_context(|| format!("run {program}"))
}

fn requires_one_line(output: &Output, words: &[&str]) -> Result<()> {
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success(), "the program did not fail");
    ensure!(!text.contains("panicked"), "panic: {text}");
    require_words(&text, words)
}

#[test]
fn they_tell_help_and_version() {
    scenario("help_and_version", |lab| {
        for program in ["scry_sender", "scry_platform"] {
            for flag in ["--help", "--version"] {
                let output = run(lab, program, &[flag])?;
                let text = String::from_utf8_lossy(&output.stdout);
                ensure!(output.status.success() && text.contains(program), "{program} {flag}: {text}");
            }
        }
        Ok(())
    });
}

#[test]
fn they_say_why_they_cannot_start() {
    scenario("cannot_start", |lab| {
        requires_one_line(
            &run(lab, "scry_sender", &["--config", "/nowhere/at.toml"])?,
            &["/nowhere/at.toml"],
        )?;
        let bad = [
            ("", "path"),
            ("[socket]\npath = \"/tmp/x\"\n", "endpoint"),
            ("[socket]\npath = \"/tmp/x\"\n[platform]\nendpoint = \"http://192.0.2.1:1\"\n", "loopback"),
            ("[socket]\npath = \"/tmp/x\"\nwith_typo = 1\n", "with_typo"),
            ("not toml", "not valid"),
        ];
        for (text, word) in bad {
            let file = lab.path("bad.toml");
            lab.user.write_file(&file, text.as_bytes(), 0o600)?;
            let output = run(lab, "scry_sender", &["--config", &file.to_string_lossy()])?;
            requires_one_line(&output, &[word]).with_context(|| format!("for {text:?}"))?;
        }
        let serve = |args: &[&str]| run(lab, "scry_platform", &[&["serve"], args].concat());
        let dir = lab.path("p");
        let dir = dir.to_string_lossy();
        requires_one_line(&serve(&["--listen", "0.0.0.0:1", "--data-dir", &dir])?, &["TLS"])?;
        requires_one_line(&serve(&["--listen", "127.0.0.1:1"])?, &["--data-dir"])?;
        requires_one_line(
            &serve(&["--listen", "127.0.0.1:0", "--data-dir", "/proc/nowhere"])?,
            &["/proc/nowhere"],
        )
    });
}

#[test]
fn the_platform_keeps_its_embedded_shadow_over_restarts() {
    scenario("platform_restarts", |lab| {
        let mut platform = Platform::create(lab, "platform", &PlatformOptions::default())?;
        platform.start()?;
        platform.shadow_client(None)?.batch_execute("CREATE TABLE public.kept(i int)")?;
        ensure!(platform.program.stop()?.success(), "no clean stop");
        ensure!(platform.shadow_client(None).is_err(), "the embedded server outlived its platform");
        platform.start()?;
        platform.program.kill()?;
        platform.start()?;
        platform.shadow_client(None)?.batch_execute("INSERT INTO public.kept VALUES (1)")?;
        for path in ["/api/v1/ready", "/api/v1/shadows", "/metrics"] {
            let (status, body) = platform.get(path)?;
            ensure!(status == 200, "{path}: {status} {body}");
        }
        ensure!(platform.get("/api/v1/nothing")?.0 == 404);
        Ok(())
    });
}

#[test]
fn the_platform_serves_tls_and_asks_for_its_token() {
    scenario("platform_tls", |lab| {
        let authority = Authority::new(&lab.path("certs"), &lab.user)?;
        let options = PlatformOptions {
            tls: Some(authority.server(Kind::Good)?),
            ca_file: Some(authority.ca_file.clone()),
            token: Some("the-right-token".to_owned()),
            ..PlatformOptions::default()
        };
        let mut platform = Platform::create(lab, "platform", &options)?;
        platform.start()?;
        ensure!(platform.get("/api/v1/shadows")?.0 == 200);
        Ok(())
    });
}

/// A sender and what it connects to.
fn sender_to(lab: &Lab, platform: &ScriptedPlatform) -> Result<(Sender, PathBuf)> {
    let socket_dir = lab.path("x");
    lab.user.make_dir(&socket_dir)?;
    let mut sender = Sender::create(lab, "sender", &pair::sender_config(&platform.url(), &socket_dir))?;
    sender.program.start()?;
    let socket = socket_dir.join(pair::SOCKET);
    wait::until_true("the sender's socket", Duration::from_secs(10), || Ok(socket.exists()))?;
    Ok((sender, socket))
}

fn hello() -> Hello {
    let (version_min, version_max) = Hello::versions();
    Hello {
        version_min,
        version_max,
        role: Role::Stream,
        system_identifier: 7,
        timeline: 1,
        database_oid: 5,
        server_version_num: 150_000,
        generation: 1,
        database: "db".to_owned(),
        job: "default".to_owned(),
        shadow_id: "test".to_owned(),
        encoding: "UTF8".to_owned(),
        software: "test".to_owned(),
    }
}

#[test]
fn the_sender_refuses_bad_frames_and_goes_on() {
    scenario("sender_bad_frames", |lab| {
        let answer = Arc::new(|_: &Hello| vec![b"whatever".to_vec()]);
        let platform = ScriptedPlatform::start(Script::FramesThenEnd(answer), CONTENT_TYPE)?;
        let (mut sender, socket) = sender_to(lab, &platform)?;
        let good = hello().to_frame();
        let mut flipped = good.clone();
        if let Some(byte) = flipped.last_mut() {
            *byte ^= 1;
        }
        let mut version = hello();
        (version.version_min, version.version_max) = (98, 99);
        for bad in [b"GET / HTTP/1.0\r\n\r\n".to_vec(), vec![0xff; 4096], flipped, version.to_frame()] {
            let output = poke(lab, &socket, &bad, 20)?;
            ensure!(output.status.success(), "left open: {}", String::from_utf8_lossy(&output.stderr));
        }
        ensure!(platform.hellos().is_empty(), "a bad hello reached the platform");
        poke(lab, &socket, &good, 2)?;
        wait::until_true("the good hello to arrive", Duration::from_secs(10), || {
            Ok(platform.hellos().first() == Some(&hello()))
        })?;
        ensure!(
            sender.program.stop_with(Signal::SIGTERM, Duration::from_secs(10))?.success(),
            "no clean stop"
        );
        ensure!(!socket.exists(), "the socket was left behind");
        Ok(())
    });
}

#[test]
fn the_socket_is_for_one_user_only() {
    scenario("socket_peers", |lab| {
        let platform = ScriptedPlatform::start(Script::Silence, CONTENT_TYPE)?;
        let (_sender, socket) = sender_to(lab, &platform)?;
        // A second sender may not take the socket of a living one.
        let config = lab.path("sender/scry-backfill.toml");
        let output = run(lab, "scry_sender", &["--config", &config.to_string_lossy()])?;
        requires_one_line(&output, &["sender.sock"])?;
        ensure!(poke(lab, &socket, &[0xff; 64], 20)?.status.success());
        Ok(())
    });
}
