//! `scry_platform serve`: start, serve, stop.
//!
//! ```text
//! drop rights ─► data directory, lock ─► shadow up ─► listen ─► … SIGTERM
//!      stop accepting ─► connections end (Refuse: stopping) ─► embedded cluster stops
//! ```

use crate::accept::auth::Auth;
use crate::accept::{App, Listener, Tls};
use crate::apply::applier::Journaling;
use crate::config::{LogFormat, ServeArgs, ServeConfig};
use crate::journal::Journals;
use crate::shadow::embedded::Embedded;
use crate::shadow::{Backend, External, Files, Shadows};
use crate::{Error, api, metrics};
use nix::unistd::{Uid, User};
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Serves until a signal says stop.
///
/// # Errors
/// One line that says why it could not start.
pub fn run(args: &ServeArgs) -> Result<(), String> {
    let config = args.check()?;
    drop_rights(&config, args.run_as.as_deref())?;
    start_log(args.log_format);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| format!("cannot start threads: {e}"))?;
    let result = runtime.block_on(serve(config));
    runtime.shutdown_timeout(Duration::from_secs(2));
    result
}

async fn serve(config: ServeConfig) -> Result<(), String> {
    let recorder = metrics::install().map_err(|e| format!("cannot set up metrics: {e}"))?;
    let auth = Auth::new(config.auth_token_file.as_deref())?;
    let stopping = CancellationToken::new();
    watch_signals(&stopping)?;
    let listener = Listener::bind(config.listen, config.tls.as_ref()).await?;
    let files = Files::new(&config.data_dir);
    scry_failpoint::watch();
    files.create().map_err(|e| format!("cannot use --data-dir {}: {e}", config.data_dir.display()))?;
    let _lock = match files.lock() {
        Ok(Some(lock)) => lock,
        Ok(None) => {
            return Err(format!("another scry_platform runs in --data-dir {}", config.data_dir.display()));
        }
        Err(e) => return Err(format!("cannot lock --data-dir {}: {e}", config.data_dir.display())),
    };
    let tasks = TaskTracker::new();
    let spool = files.spool();
    let shadows = tokio::select! {
        shadows = open_shadows(&config, files, &stopping, &tasks) => shadows.map_err(|e| one_line(&e))?,
        // The embedded cluster stops when what holds it is dropped.
        () = stopping.cancelled() => return Ok(()),
    };
    let app = Arc::new(App { shadows, auth, stopping: stopping.clone(), tasks, spool, recorder });
    reread_files_on_hangup(&app, listener.tls());
    tracing::info!(
        listen = %listener.address().unwrap_or(config.listen),
        tls = config.tls.is_some(),
        token = config.auth_token_file.is_some(),
        "scry_platform is ready"
    );
    let lanes = listener.serve(api::routes(app.clone()), stopping).await;
    app.tasks.close();
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, app.tasks.wait()).await;
    drop(lanes);
    app.shadows.stop().await;
    tracing::info!("scry_platform has stopped");
    Ok(())
}

async fn open_shadows(
    config: &ServeConfig,
    files: Files,
    stopping: &CancellationToken,
    tasks: &TaskTracker,
) -> Result<Shadows, Error> {
    let journaling = config.journal_bytes_max.map(|bytes_max| {
        let journals = Journals::new(&config.data_dir, bytes_max);
        Arc::new(Journaling { journals, stopping: stopping.clone(), tasks: tasks.clone() })
    });
    let backend = match &config.shadow_url {
        Some(url) => Backend::External(Box::new(External::new(url, config.shadow_ca.as_deref())?)),
        None => Backend::Embedded(Box::new(Embedded::start(files, config.pg_bin.as_deref()).await?)),
    };
    Shadows::open(backend, journaling).await
}

fn one_line(error: &Error) -> String {
    match error.refuse() {
        Some(refuse) if !refuse.hint.is_empty() => format!("{}. {}", refuse.message, refuse.hint),
        _ => error.to_string(),
    }
}

/// PostgreSQL does not run as root, and nothing here needs to: before any
/// thread exists the process becomes another user for good.
fn drop_rights(config: &ServeConfig, run_as: Option<&str>) -> Result<(), String> {
    let root = Uid::effective().is_root();
    let Some(name) = run_as else {
        if root && config.shadow_url.is_none() {
            return Err("cannot run as root: PostgreSQL refuses it for the embedded shadow; \
                        give --run-as USER, or --shadow-url"
                .to_owned());
        }
        return Ok(());
    };
    let cannot = |e: &dyn std::fmt::Display| format!("cannot run as user {name}: {e}");
    let user =
        User::from_name(name).map_err(|e| cannot(&e))?.ok_or_else(|| cannot(&"there is no such user"))?;
    if user.uid == Uid::effective() {
        return Ok(());
    }
    if !root {
        return Err(cannot(&"only root can change to another user"));
    }
    if user.uid.is_root() {
        return Err(cannot(&"PostgreSQL refuses root; name another user"));
    }
    give_directory(config, &user)?;
    let c_name = std::ffi::CString::new(name).map_err(|e| cannot(&e))?;
    nix::unistd::initgroups(&c_name, user.gid).map_err(|e| cannot(&e))?;
    nix::unistd::setgid(user.gid).map_err(|e| cannot(&e))?;
    nix::unistd::setuid(user.uid).map_err(|e| cannot(&e))
}

/// Makes the data directory, and hands it over when it is empty.
fn give_directory(config: &ServeConfig, user: &User) -> Result<(), String> {
    let dir = &config.data_dir;
    let cannot = |e: std::io::Error| format!("cannot use --data-dir {}: {e}", dir.display());
    std::fs::create_dir_all(dir).map_err(cannot)?;
    if std::fs::read_dir(dir).map_err(cannot)?.next().is_none() {
        std::os::unix::fs::chown(dir, Some(user.uid.as_raw()), Some(user.gid.as_raw())).map_err(cannot)?;
    }
    Ok(())
}

fn start_log(format: LogFormat) {
    // The driver logs statements and rows' values at debug: never let through.
    let wanted = std::env::var("RUST_LOG").unwrap_or_else(|_| "info".to_owned());
    let filter = tracing_subscriber::EnvFilter::new(format!("{wanted},tokio_postgres=warn"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Text => log.with_ansi(false).try_init(),
        LogFormat::Json => log.json().try_init(),
    };
    // A second start in one process (tests) keeps the first log.
    drop(started);
}

fn watch_signals(stopping: &CancellationToken) -> Result<(), String> {
    for kind in [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::quit()] {
        let mut signals = signal(kind).map_err(|e| format!("cannot watch signals: {e}"))?;
        let stopping = stopping.clone();
        tokio::spawn(async move {
            signals.recv().await;
            tracing::info!("told to stop");
            stopping.cancel();
        });
    }
    Ok(())
}

fn reread_files_on_hangup(app: &Arc<App>, tls: Option<Tls>) {
    let Ok(mut signals) = signal(SignalKind::hangup()) else { return };
    let app = app.clone();
    tokio::spawn(async move {
        while signals.recv().await.is_some() {
            app.auth.reread();
            if let Some(tls) = &tls {
                tls.reread();
            }
        }
    });
}

const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
