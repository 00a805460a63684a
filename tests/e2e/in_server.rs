//! In-server tests: the regression and isolation files of `pgrx-tests/`, run by
//! PostgreSQL's own programs against a private cluster with the extension
//! preloaded. `SCRY_ACCEPT=1` takes what came out as what is expected from now
//! on: to be read as a difference before it is committed.

use anyhow::{Context, Result, ensure};
use scry_testkit::{Cluster, ClusterOptions, Lab, scenario};
use std::path::{Path, PathBuf};

#[test]
fn regression_sql() {
    scenario("regression", |lab| run(lab, "pg_regress", "regress/pg_regress", "sql", "sql"));
}

#[test]
fn isolation_specs() {
    scenario("isolation", |lab| run(lab, "isolation", "isolation/pg_isolation_regress", "specs", "spec"));
}

/// Runs every file of `pgrx-tests/DIR/SUB` with the program.
fn run(lab: &Lab, dir: &str, program: &str, sub: &str, extension: &str) -> Result<()> {
    lab.server.require_extension()?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../pgrx-tests");
    let names = names(&root.join(dir).join(sub), extension)?;
    if names.is_empty() {
        eprintln!("no files in pgrx-tests/{dir}/{sub}");
        return Ok(());
    }
    let program = lab.server.pgxs_test.join(program);
    ensure!(program.exists(), "{} is missing: install the server's development package", program.display());

    let conf = std::fs::read_to_string(root.join("logical.conf")).context("read logical.conf")?;
    let cluster = Cluster::start_new(lab, "one", &ClusterOptions { conf: vec![conf], own_identity: false })?;
    // The checkout may be closed to the clusters' user: files are copied, and
    // results written, in the lab.
    let input = lab.path("input");
    for part in [sub, "expected"] {
        copy_files(lab, &root.join(dir).join(part), &input.join(part))?;
    }
    let output_dir = lab.path("output");
    lab.user.make_dir(&output_dir)?;
    let output = lab
        .user
        .command(&program)
        .arg(format!("--bindir={}", lab.server.bindir.display()))
        .arg(format!("--inputdir={}", input.display()))
        .arg(format!("--outputdir={}", output_dir.display()))
        .arg(format!("--host={}", cluster.socket_dir.display()))
        .arg(format!("--port={}", cluster.port()))
        .args(["--user=postgres", "--dbname=regression"])
        .args(&names)
        .output()
        .with_context(|| format!("run {}", program.display()))?;
    eprintln!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if std::env::var_os("SCRY_ACCEPT").is_some() {
        return accept(&output_dir.join("results"), &root.join(dir).join("expected"), &names);
    }
    let diffs = std::fs::read_to_string(output_dir.join("regression.diffs")).unwrap_or_default();
    ensure!(output.status.success(), "differences:\n{diffs}");
    ensure!(cluster.crashes().is_empty(), "{:?}", cluster.crashes());
    Ok(())
}

/// Copies the results over what was expected.
fn accept(results: &Path, expected: &Path, names: &[String]) -> Result<()> {
    for name in names {
        let file = format!("{name}.out");
        std::fs::copy(results.join(&file), expected.join(&file)).with_context(|| format!("accept {file}"))?;
    }
    Ok(())
}

/// The names of the files, without their extension, in order.
fn names(dir: &Path, extension: &str) -> Result<Vec<String>> {
    let mut names: Vec<String> = files(dir)?
        .into_iter()
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .collect();
    names.sort();
    Ok(names)
}

fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    match std::fs::read_dir(dir) {
        Ok(entries) => Ok(entries.flatten().map(|entry| entry.path()).collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("list {}", dir.display())),
    }
}

fn copy_files(lab: &Lab, from: &Path, to: &Path) -> Result<()> {
    if let Some(parent) = to.parent() {
        lab.user.make_dir(parent)?;
    }
    lab.user.make_dir(to)?;
    for file in files(from)? {
        let content = std::fs::read(&file).with_context(|| format!("read {}", file.display()))?;
        let name = file.file_name().context("a file without a name")?;
        lab.user.write_file(&to.join(name), &content, 0o644)?;
    }
    Ok(())
}
