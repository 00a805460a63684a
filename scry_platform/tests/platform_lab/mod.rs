//! A real `scry_platform` process with an embedded shadow, and a scripted
//! worker that speaks frames over HTTP/2 to it.
#![allow(dead_code, unused_imports, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

pub mod batch;
pub mod catalog;
pub mod peer;

pub use batch::{Batch, relation, row};
pub use peer::Peer;

use scry_wire::message::{Hello, Role};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio_postgres::{Client, NoTls};

pub const GENERATION: u64 = 7;
pub const COPY_ID: u64 = 41;
pub const TOKEN: &str = "a-token-for-tests";

/// The platform; killed and removed when dropped.
pub struct Platform {
    pub home: tempfile::TempDir,
    pub port: u16,
    pub args: Vec<String>,
    pub env: Vec<(&'static str, PathBuf)>,
    child: Option<Child>,
}

impl Platform {
    /// Prepares a directory; nothing runs yet.
    pub fn new() -> Self {
        let home = tempfile::Builder::new().prefix("plat-").tempdir_in("/tmp").unwrap();
        std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Platform { home, port, args: Vec::new(), env: Vec::new(), child: None }
    }

    pub async fn started() -> Self {
        let mut platform = Self::new();
        platform.start().await;
        platform
    }

    pub fn data_dir(&self) -> PathBuf {
        self.home.path().join("data")
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_scry_platform"));
        command.args(["serve", "--listen", &format!("127.0.0.1:{}", self.port), "--data-dir"]);
        command.arg(self.data_dir()).args(&self.args).envs(self.env.iter().cloned());
        if is_root() {
            let user = std::env::var("SCRY_TEST_USER").unwrap_or_else(|_| "postgres".to_owned());
            command.args(["--run-as", &user]);
        }
        command
    }

    pub async fn start(&mut self) {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.home.path().join("platform.log"))
            .unwrap();
        let mut command = self.command();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().unwrap());
        let start = Instant::now();
        while self.get("/api/v1/ready").await.is_none_or(|(status, _)| status != 200) {
            if let Some(status) = self.child.as_mut().unwrap().try_wait().unwrap() {
                panic!("scry_platform ended: {status}\n{}", self.log());
            }
            assert!(start.elapsed() < Duration::from_secs(60), "not ready:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub async fn start_if_stopped(&mut self) {
        if self.child.is_none() {
            self.start().await;
        }
        let ready = async || self.get("/api/v1/ready").await.is_some_and(|(status, _)| status == 200);
        eventually(true, ready).await;
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// SIGKILL: nothing of it gets a chance to tidy up.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// SIGTERM; returns the exit status.
    pub fn stop(&mut self) -> std::process::ExitStatus {
        let mut child = self.child.take().unwrap();
        Command::new("kill").arg(child.id().to_string()).status().unwrap();
        child.wait().unwrap()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.home.path().join("platform.log")).unwrap_or_default()
    }

    /// The embedded server's process id, while it has one.
    pub fn postmaster(&self) -> Option<u32> {
        let text = std::fs::read_to_string(self.data_dir().join("shadow/postmaster.pid")).ok()?;
        text.lines().next()?.trim().parse().ok()
    }

    /// A plain GET: status and body.
    pub async fn get(&self, path: &str) -> Option<(u16, String)> {
        self.get_with(path, "").await
    }

    pub async fn get_with(&self, path: &str, header: &str) -> Option<(u16, String)> {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let ask = async {
            let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.ok()?;
            let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{header}\r\n");
            stream.write_all(request.as_bytes()).await.ok()?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.ok()?;
            let status = answer.split_whitespace().nth(1)?.parse().ok()?;
            Some((status, answer.split_once("\r\n\r\n")?.1.to_owned()))
        };
        tokio::time::timeout(Duration::from_secs(10), ask).await.ok().flatten()
    }

    pub fn shadow_url(&self) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_scry_platform"))
            .args(["shadow-url", "--data-dir"])
            .arg(self.data_dir())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    pub async fn shadow(&self) -> Client {
        connect(&self.shadow_url()).await
    }

    /// A connection as this role, after its hello.
    pub async fn peer(&self, role: Role) -> Peer {
        let mut peer = Peer::connect(self.port, None).await;
        peer.send(&hello(role)).await;
        peer
    }

    /// Does a whole copy of `tables` rows of table 16001 and completes it.
    pub async fn copied(&self, rows: &[Vec<u8>]) {
        let mut lead = self.peer(Role::Lead).await;
        lead.welcome().await;
        lead.send_catalog(&catalog::items(COPY_ID)).await;
        lead.catalog_applied().await;
        let mut copy = self.peer(Role::Copy).await;
        copy.welcome().await;
        let done = copy.chunk(0, 1, &relation(), rows).await;
        assert_eq!(done.rows, rows.len() as u64);
        lead.finish(&[(catalog::ITEMS, 1, rows.len() as u64), (catalog::NOTES, 0, 0)]).await;
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.stop();
        }
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
    }
}

pub async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// What a process is (proc(5): after the name in brackets stand the state and the parent): whether it
/// lives, and its parent.
fn process(pid: &str) -> Option<(bool, u32)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()? != "Z", fields.next()?.parse::<u32>().ok()?))
}

/// The processes of a server but its postmaster.
fn family_of(postmaster: u32) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let mut family = processes.filter_map(|entry| entry.file_name().into_string().ok()).collect::<Vec<_>>();
    family.retain(|pid| process(pid).is_some_and(|(_, parent)| parent == postmaster));
    family
}

/// Kills a server with its backends, and waits for them: one that is about to end may still answer.
pub async fn kill_server(postmaster: u32) {
    // It goes first: those of its family who end by themselves meanwhile are no error.
    let mut family = family_of(postmaster);
    family.insert(0, postmaster.to_string());
    Command::new("kill").arg("-9").args(&family).stderr(Stdio::null()).status().unwrap();
    while family.iter().any(|pid| process(pid).is_some_and(|(lives, _)| lives)) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// From here on nobody brings a server's WAL to its disk unless a commit waits for it, until it is killed.
pub fn stop_wal_writer(postmaster: u32) {
    let title = |pid: &String| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let writer = family_of(postmaster).into_iter().find(|pid| title(pid).contains("walwriter")).unwrap();
    assert!(Command::new("kill").args(["-STOP", &writer]).status().unwrap().success());
}

pub fn is_root() -> bool {
    Command::new("id").arg("-u").output().unwrap().stdout == b"0\n"
}

pub fn hello(role: Role) -> Hello {
    let (version_min, version_max) = Hello::versions();
    Hello {
        version_min,
        version_max,
        role,
        system_identifier: 7_000_000_000_000_000_001,
        timeline: 1,
        database_oid: 16384,
        server_version_num: 150_020,
        generation: GENERATION,
        database: "shop".into(),
        job: "default".into(),
        shadow_id: "default".into(),
        encoding: "UTF8".into(),
        software: "test".into(),
    }
}

/// `id | v` lines of the table, in order of id.
pub async fn items(client: &Client) -> Vec<(i32, Option<String>)> {
    let rows = client.query("SELECT id, v FROM public.items ORDER BY id", &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

pub fn item(id: i32, v: &str) -> (i32, Option<String>) {
    (id, Some(v.to_owned()))
}

/// Asks again until the answer is this, for ten seconds.
pub async fn eventually<T: PartialEq + std::fmt::Debug>(want: T, mut ask: impl AsyncFnMut() -> T) {
    let start = Instant::now();
    loop {
        let got = ask().await;
        if got == want {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(10), "wanted {want:?}, got {got:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
