//! A relocated copy of a PostgreSQL installation with the extension and the
//! programs in it, so that nothing is written into the system's directories
//! and no root is needed.
//!
//! PostgreSQL finds its share and library directories relative to the place of
//! its own binary, so a tree of the same shape is an installation. The tree
//! holds real copies of the binaries (a link would be resolved back to the
//! system's), links to the rest, and beside it:
//!
//! ```text
//!   target/stage/...        what `make ext-stage` packed     -> lib, share/extension
//!   tests/extension/        install scripts of earlier versions, to upgrade from
//!   target/PROFILE/scry_*   sender and platform              -> bin
//!   template/               a data directory, made once      -> copied by `Cluster`
//! ```
//!
//! The tree's name is a hash of all that goes into it, so a new build gets a
//! new tree and parallel test processes share one. It must be readable by the
//! clusters' user also when the checkout is not (below /root, say): that is
//! why it does not stand in `target`.

use crate::lab;
use crate::user::ClusterUser;
use anyhow::{Context, Result, anyhow, bail};
use std::collections::HashMap;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};

/// The programs that are put beside the server's binaries.
const PROGRAMS: [&str; 3] = ["scry_sender", "scry_platform", "scry_poke"];

/// The extension's name.
const EXTENSION: &str = "scry_backfill";

/// The directories of the relocated installation.
#[derive(Debug, Clone)]
pub struct ServerFiles {
    /// `postgres`, `initdb`, `psql`, ..., and scry_sender, scry_platform.
    pub bindir: PathBuf,
    /// Loadable libraries: `$libdir`.
    pub pkglibdir: PathBuf,
    /// `share`: the extension's control and SQL files are in its `extension`.
    pub sharedir: PathBuf,
    /// The server's regression test programs (`pg_regress`), if installed.
    pub pgxs_test: PathBuf,
    /// An initialized data directory that clusters are copied from.
    pub template: PathBuf,
    /// Whether the extension had been staged.
    pub has_extension: bool,
    // Keeps others from removing the tree.
    _in_use: Arc<File>,
}

impl ServerFiles {
    /// The tree for the current build; made at the first call.
    pub fn prepare(user: &ClusterUser) -> Result<ServerFiles> {
        static FILES: OnceLock<Result<ServerFiles, String>> = OnceLock::new();
        FILES
            .get_or_init(|| build(user).map_err(|error| format!("{error:#}")))
            .clone()
            .map_err(|error| anyhow!(error))
    }

    /// One of the installation's programs.
    pub fn bin(&self, name: &str) -> PathBuf {
        self.bindir.join(name)
    }

    /// Fails with the command to run when the extension was not staged.
    pub fn require_extension(&self) -> Result<()> {
        if !self.has_extension {
            bail!("the extension is not staged: run `make ext-stage`");
        }
        Ok(())
    }

    /// A program of ours; fails with the command to run when it is not built.
    pub fn program(&self, name: &str) -> Result<PathBuf> {
        let path = self.bin(name);
        if !path.exists() {
            bail!("{name} is not built: run `make build`");
        }
        Ok(path)
    }
}

/// What `pg_config` says about the installed server.
struct Installed {
    bindir: PathBuf,
    pkglibdir: PathBuf,
    sharedir: PathBuf,
    pgxs_test: PathBuf,
    version: String,
}

impl Installed {
    fn query() -> Result<Installed> {
        let pg_config = std::env::var("PG_CONFIG").unwrap_or_else(|_| "pg_config".to_owned());
        let output =
            Command::new(&pg_config).output().with_context(|| format!("run {pg_config} (set PG_CONFIG)"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let values: HashMap<&str, &str> = text.lines().filter_map(|line| line.split_once(" = ")).collect();
        let get = |key: &str| {
            values
                .get(key)
                .map(|value| value.to_string())
                .with_context(|| format!("{pg_config} does not tell {key}"))
        };
        // .../src/makefiles/pgxs.mk -> .../src/test
        let pgxs = PathBuf::from(get("PGXS")?);
        let src = pgxs.ancestors().nth(2).map_or_else(PathBuf::new, Path::to_path_buf);
        Ok(Installed {
            bindir: get("BINDIR")?.into(),
            pkglibdir: get("PKGLIBDIR")?.into(),
            sharedir: get("SHAREDIR")?.into(),
            pgxs_test: src.join("test"),
            version: get("VERSION")?,
        })
    }
}

fn build(user: &ClusterUser) -> Result<ServerFiles> {
    let installed = Installed::query()?;
    let (profile_dir, stage) = build_dirs()?;
    let mut staged = staged_files(&stage);
    if !staged.is_empty() {
        // Install scripts of earlier versions, to upgrade from.
        staged.extend(staged_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/extension")));
    }
    let programs: Vec<PathBuf> =
        PROGRAMS.iter().map(|name| profile_dir.join(name)).filter(|path| path.is_file()).collect();

    let base = lab::base_dir()?;
    let hash = fingerprint(&installed, user, staged.iter().chain(&programs));
    remove_unused(&base, hash);
    let root = base.join(format!("pg-{hash:016x}"));
    let lock_path = base.join(format!("pg-{hash:016x}.lock"));
    let lock = File::options().create(true).truncate(false).write(true).open(&lock_path);
    let lock = lock.with_context(|| format!("open {}", lock_path.display()))?;

    let prefix = common_prefix(&[&installed.bindir, &installed.pkglibdir, &installed.sharedir]);
    let place = |dir: &Path| root.join(dir.strip_prefix(&prefix).unwrap_or(dir));
    let files = ServerFiles {
        bindir: place(&installed.bindir),
        pkglibdir: place(&installed.pkglibdir),
        sharedir: place(&installed.sharedir),
        pgxs_test: installed.pgxs_test.clone(),
        template: root.join("template"),
        has_extension: !staged.is_empty(),
        _in_use: Arc::new(lock),
    };
    let complete = root.join("complete");
    files._in_use.lock_shared().context("share the server files")?;
    if !complete.exists() {
        // Whoever gets the lock first fills the tree; the others find it full.
        files._in_use.unlock().context("unlock the server files")?;
        files._in_use.lock().context("lock the server files")?;
        if !complete.exists() {
            let _ = std::fs::remove_dir_all(&root);
            fill(&files, &installed, &staged, &programs)?;
            make_template(&files, user, &root)?;
            std::fs::write(&complete, b"").context("mark the server files complete")?;
        }
        files._in_use.unlock().context("unlock the server files")?;
        files._in_use.lock_shared().context("share the server files")?;
    }
    Ok(files)
}

/// Puts binaries, links, extension and programs in their places.
fn fill(files: &ServerFiles, installed: &Installed, staged: &[PathBuf], programs: &[PathBuf]) -> Result<()> {
    make_dir(&files.bindir)?;
    for file in entries(&installed.bindir)? {
        copy_into(&file, &files.bindir)?;
    }
    link_all(&installed.pkglibdir, &files.pkglibdir)?;
    // Where bin and lib share a prefix, a directory may contain another one:
    // `extension` is the only one that has to be ours.
    link_all(&installed.sharedir, &files.sharedir)?;
    let extension_dir = files.sharedir.join("extension");
    std::fs::remove_file(&extension_dir).context("unlink share/extension")?;
    link_all(&installed.sharedir.join("extension"), &extension_dir)?;
    for file in staged {
        let is_library = file.extension().is_some_and(|ext| ext == "so" || ext == "dylib");
        copy_into(file, if is_library { &files.pkglibdir } else { &extension_dir })?;
    }
    for file in programs {
        copy_into(file, &files.bindir)?;
    }
    Ok(())
}

/// Makes the data directory that clusters start from. It is not synced:
/// nothing in it has to survive the machine.
fn make_template(files: &ServerFiles, user: &ClusterUser, root: &Path) -> Result<()> {
    make_dir(root)?;
    user.make_dir(&files.template)?;
    let output = user
        .command(files.bin("initdb"))
        .args(["--no-sync", "--no-instructions", "-U", "postgres", "-A", "trust"])
        .args(["-E", "UTF8", "--locale=C.UTF-8", "-D"])
        .arg(&files.template)
        .output()
        .context("run initdb")?;
    if !output.status.success() {
        bail!("initdb failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// `target/PROFILE` of the running test or program, and `target/stage`.
fn build_dirs() -> Result<(PathBuf, PathBuf)> {
    let exe = std::env::current_exe().context("find the running program")?;
    let mut profile_dir = exe.parent().unwrap_or(Path::new("/")).to_owned();
    if profile_dir.ends_with("deps") {
        profile_dir.pop();
    }
    let from_env = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let stage = from_env("SCRY_STAGE_DIR")
        .unwrap_or_else(|| profile_dir.parent().unwrap_or(&profile_dir).join("stage"));
    Ok((from_env("SCRY_BIN_DIR").unwrap_or(profile_dir), stage))
}

/// The extension's files as `cargo pgrx package` laid them out below `stage`.
fn staged_files(stage: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(stage).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(staged_files(&path));
        } else if is_ours(&path) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn is_ours(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(EXTENSION))
}

fn fingerprint<'a>(
    installed: &Installed,
    user: &ClusterUser,
    files: impl Iterator<Item = &'a PathBuf>,
) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&installed.version, &installed.bindir, &user.name).hash(&mut hasher);
    for file in files {
        let meta = std::fs::metadata(file).map(|meta| (meta.len(), meta.mtime(), meta.mtime_nsec()));
        (file, meta.unwrap_or_default()).hash(&mut hasher);
    }
    hasher.finish()
}

/// Removes the trees of earlier builds that no process uses any more.
fn remove_unused(base: &Path, keep: u64) {
    let keep = format!("pg-{keep:016x}");
    for entry in std::fs::read_dir(base).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(tree) = name.strip_suffix(".lock").filter(|tree| tree.starts_with("pg-") && *tree != keep)
        else {
            continue;
        };
        let Ok(lock) = File::open(entry.path()) else { continue };
        if lock.try_lock().is_ok() {
            let _ = std::fs::remove_dir_all(base.join(tree));
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

fn common_prefix(dirs: &[&Path]) -> PathBuf {
    let mut prefix = dirs.first().map_or_else(PathBuf::new, |dir| dir.to_path_buf());
    while !dirs.iter().all(|dir| dir.starts_with(&prefix)) && prefix.pop() {}
    prefix
}

fn make_dir(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755))
        .with_context(|| format!("set mode of {}", dir.display()))
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let list = std::fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))?;
    Ok(list.flatten().map(|entry| entry.path()).filter(|path| !is_ours(path)).collect())
}

/// Links each entry of `from` (but an installed scry_backfill) into `to`.
fn link_all(from: &Path, to: &Path) -> Result<()> {
    make_dir(to)?;
    for source in entries(from)? {
        let Some(name) = source.file_name() else { continue };
        let target = to.join(name);
        if !target.exists() {
            symlink(&source, &target).with_context(|| format!("link {}", target.display()))?;
        }
    }
    Ok(())
}

fn copy_into(file: &Path, dir: &Path) -> Result<()> {
    let Some(name) = file.file_name() else { return Ok(()) };
    let target = dir.join(name);
    let mode = if std::fs::metadata(file).is_ok_and(|meta| meta.mode() & 0o100 != 0) { 0o755 } else { 0o644 };
    std::fs::copy(file, &target).with_context(|| format!("copy {} to {}", file.display(), dir.display()))?;
    std::fs::set_permissions(&target, std::fs::Permissions::from_mode(mode))
        .with_context(|| format!("set mode of {}", target.display()))
}

#[cfg(test)]
mod tests {
    use super::common_prefix;
    use std::path::{Path, PathBuf};

    #[test]
    fn finds_what_debian_and_source_installations_share() {
        let debian = ["/usr/lib/postgresql/15/bin", "/usr/lib/postgresql/15/lib", "/usr/share/postgresql/15"];
        let source = ["/opt/pg/bin", "/opt/pg/lib", "/opt/pg/share"];
        let prefix = |dirs: [&str; 3]| common_prefix(&dirs.map(Path::new));
        assert_eq!(prefix(debian), PathBuf::from("/usr"));
        assert_eq!(prefix(source), PathBuf::from("/opt/pg"));
    }
}
