//! `scry_platform serve` as a process of a test: started, killed, frozen,
//! asked over HTTP, and its embedded shadow found.

use crate::certs::CertFiles;
use crate::lab::Lab;
use crate::port::Port;
use crate::program::Program;
use crate::server_files::ServerFiles;
use crate::user::ClusterUser;
use crate::wait;
use anyhow::{Context, Result, bail};
use postgres::{Client, Config, NoTls};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};

/// What a platform is started with.
#[derive(Debug, Clone, Default)]
pub struct PlatformOptions {
    /// `--shadow-url`; `None` for an embedded shadow.
    pub shadow_url: Option<String>,
    /// `--tls-cert` and `--tls-key`.
    pub tls: Option<CertFiles>,
    /// The CA that the test's own requests trust.
    pub ca_file: Option<PathBuf>,
    /// Clients must show a certificate of the CA: this one, for the test's own requests.
    pub client: Option<CertFiles>,
    /// The token it wants; written to its `--auth-token-file`.
    pub token: Option<String>,
    /// Further arguments.
    pub args: Vec<String>,
}

/// A platform; stopped and gone when dropped, and its embedded shadow with it.
#[derive(Debug)]
pub struct Platform {
    /// The process.
    pub program: Program,
    /// Its data directory.
    pub data_dir: PathBuf,
    /// Its base URL.
    pub url: String,
    options: PlatformOptions,
    port: Port,
    server: ServerFiles,
    user: ClusterUser,
}

impl Platform {
    /// Prepares a platform; it is not started yet.
    pub fn create(lab: &Lab, name: &str, options: &PlatformOptions) -> Result<Platform> {
        let home = lab.path(name);
        lab.user.make_dir(&home)?;
        let data_dir = home.join("data");
        lab.user.make_dir(&data_dir)?;
        let port = Port::reserve()?;
        let scheme = if options.tls.is_some() { "https" } else { "http" };
        let binary = lab.server.program("scry_platform")?;
        let mut program = Program::new(name, binary, home.join("platform.log"), &lab.user);
        program.arg("serve").arg("--listen").arg(format!("127.0.0.1:{}", port.number()));
        program.arg("--data-dir").arg(&data_dir);
        if let Some(url) = &options.shadow_url {
            program.arg("--shadow-url").arg(url);
        }
        if let Some(tls) = &options.tls {
            program.arg("--tls-cert").arg(&tls.cert).arg("--tls-key").arg(&tls.key);
        }
        if let (Some(_), Some(ca)) = (&options.client, &options.ca_file) {
            program.arg("--tls-client-ca").arg(ca);
        }
        if let Some(token) = &options.token {
            let file = home.join("token");
            lab.user.write_file(&file, token.as_bytes(), 0o600)?;
            program.arg("--auth-token-file").arg(&file);
        }
        for arg in &options.args {
            program.arg(arg);
        }
        program.env("PATH", &path_with(&lab.server)?).env("RUST_BACKTRACE", "1");
        Ok(Platform {
            program,
            data_dir,
            url: format!("{scheme}://127.0.0.1:{}", port.number()),
            options: options.clone(),
            port,
            server: lab.server.clone(),
            user: lab.user.clone(),
        })
    }

    /// Starts the process and waits until it says that it is ready.
    pub fn start(&mut self) -> Result<()> {
        self.program.start()?;
        self.wait_ready(Duration::from_secs(60))
    }

    /// Waits until `GET /api/v1/ready` answers 200.
    pub fn wait_ready(&mut self, timeout: Duration) -> Result<()> {
        let ended = "scry_platform ended; its log:\n";
        wait::until("scry_platform to be ready", timeout, || {
            if !self.program.is_running() {
                return Ok(Some(false));
            }
            let (status, body) = self.get("/api/v1/ready")?;
            if status != 200 {
                bail!("status {status}: {body}");
            }
            Ok(Some(true))
        })
        .and_then(|ready| if ready { Ok(()) } else { bail!("{ended}{}", self.program.log_text()) })
    }

    /// A request to the platform, with its token: status and body.
    pub fn get(&self, path: &str) -> Result<(u16, String)> {
        let mut tls = TlsConfig::builder();
        if let Some(ca) = &self.options.ca_file {
            let pem = std::fs::read(ca).with_context(|| format!("read {}", ca.display()))?;
            let cert = Certificate::from_pem(&pem).context("parse the CA's certificate")?;
            tls = tls.root_certs(RootCerts::new_with_certs(&[cert]));
        }
        if let Some(client) = &self.options.client {
            let read =
                |file: &PathBuf| std::fs::read(file).with_context(|| format!("read {}", file.display()));
            let cert =
                Certificate::from_pem(&read(&client.cert)?).context("parse the client's certificate")?;
            let key = PrivateKey::from_pem(&read(&client.key)?).context("parse the client's key")?;
            tls = tls.client_cert(Some(ClientCert::new_with_certs(&[cert], key)));
        }
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(5)))
            .http_status_as_error(false)
            .tls_config(tls.build())
            .build();
        let mut request = ureq::Agent::new_with_config(config).get(format!("{}{path}", self.url));
        if let Some(token) = &self.options.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let mut response = request.call().with_context(|| format!("GET {path}"))?;
        let body =
            response.body_mut().read_to_string().with_context(|| format!("read the answer to {path}"))?;
        Ok((response.status().as_u16(), body))
    }

    /// The TCP port it listens on.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// What `scry_platform shadow-url` prints.
    pub fn shadow_url(&self) -> Result<String> {
        if let Some(url) = &self.options.shadow_url {
            return Ok(url.clone());
        }
        let output = self
            .user
            .command(self.server.program("scry_platform")?)
            .args(["shadow-url", "--data-dir"])
            .arg(&self.data_dir)
            .output()
            .context("run scry_platform shadow-url")?;
        if !output.status.success() {
            bail!("scry_platform shadow-url: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Connects to a database of the shadow; `None` for the one that
    /// `shadow-url` names.
    pub fn shadow_client(&self, database: Option<&str>) -> Result<Client> {
        let url = self.shadow_url()?;
        let mut config: Config = url.parse().with_context(|| format!("parse {url}"))?;
        if let Some(database) = database {
            config.dbname(database);
        }
        config.connect_timeout(Duration::from_secs(10)).connect(NoTls).context("connect to the shadow")
    }

    /// The process id of the embedded shadow's postmaster.
    pub fn shadow_postmaster(&self) -> Result<u32> {
        let file = self.data_dir.join("shadow/postmaster.pid");
        let text = std::fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        text.lines().next().and_then(|line| line.trim().parse().ok()).context("no pid in postmaster.pid")
    }
}

/// PATH with the installation of the test first: there the platform finds
/// the binaries for its embedded shadow.
fn path_with(server: &ServerFiles) -> Result<String> {
    let mut dirs = vec![OsString::from(&server.bindir)];
    dirs.extend(std::env::var_os("PATH").iter().flat_map(std::env::split_paths).map(OsString::from));
    let joined = std::env::join_paths(dirs).context("build PATH")?;
    Ok(joined.to_string_lossy().into_owned())
}
