//! A cluster of the test's own with two databases: `source`, and `shadow` owned by the role
//! `shadow_owner`, which is no superuser.

use scry_platform::apply::schema::{create_post_data, create_pre_data};
use scry_wire::catalog::{
    Catalog, ClosureRow, DependsRow, LeftOut, SETTINGS, closure_objects, closure_query, depends_query,
    queries,
};
use std::path::{Path, PathBuf};
use std::process::Command;
use tokio_postgres::{Client, NoTls};

/// The cluster; stopped and removed when dropped.
pub struct Lab {
    home: tempfile::TempDir,
    bin: PathBuf,
    as_postgres: bool,
}

impl Lab {
    /// Makes the cluster, its roles and databases.
    pub async fn start() -> Self {
        let lab = Self::with_data(|lab| {
            let data = lab.data();
            let locale = ["-E", "UTF8", "--locale=C.UTF-8"];
            let always = ["--no-sync", "-U", "postgres", "-A", "trust", "-D", &data];
            lab.run("initdb", &[always.as_slice(), &locale].concat());
        });
        let client = lab.superuser("postgres").await;
        for sql in [
            "CREATE ROLE shadow_owner LOGIN NOSUPERUSER",
            "CREATE ROLE corpus_reader",
            "GRANT SET ON PARAMETER session_replication_role TO shadow_owner",
            "CREATE DATABASE source",
            "CREATE DATABASE shadow OWNER shadow_owner",
        ] {
            client.batch_execute(sql).await.unwrap();
        }
        lab
    }

    /// Starts a copy of a cluster that [`Lab::start`] made before.
    #[allow(dead_code, reason = "not every test has one")]
    pub async fn from_data(template: &Path) -> Self {
        let lab = Self::with_data(|lab| {
            let copied = Command::new("cp").arg("-a").arg(template).arg(lab.data()).status().unwrap();
            assert!(copied.success());
        });
        let client = lab.superuser("postgres").await;
        client.batch_execute("DROP DATABASE IF EXISTS shadow").await.unwrap();
        client.batch_execute("CREATE DATABASE shadow OWNER shadow_owner").await.unwrap();
        lab
    }

    fn with_data(make: impl FnOnce(&Self)) -> Self {
        let output = Command::new("pg_config").arg("--bindir").output().expect("pg_config is in the PATH");
        let bin = PathBuf::from(String::from_utf8(output.stdout).unwrap().trim());
        let id = Command::new("id").arg("-u").output().unwrap();
        let as_postgres = id.stdout == b"0\n";
        let home = tempfile::Builder::new().prefix("schema-").tempdir_in("/tmp").unwrap();
        let lab = Self { home, bin, as_postgres };
        if as_postgres {
            let chown = Command::new("chown").arg("postgres").arg(lab.home.path()).status().unwrap();
            assert!(chown.success());
        }
        make(&lab);
        let options = format!(
            "-c fsync=off -c listen_addresses='' -c unix_socket_directories='{}' -c max_connections=30",
            lab.home.path().display()
        );
        lab.run(
            "pg_ctl",
            &["-w", "-D", &lab.data(), "-l", &format!("{}/log", lab.data()), "-o", &options, "start"],
        );
        lab
    }

    fn data(&self) -> String {
        format!("{}/data", self.home.path().display())
    }

    fn run(&self, program: &str, arguments: &[&str]) -> String {
        let path = self.bin.join(program);
        let mut command = if self.as_postgres {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(path);
            command
        } else {
            Command::new(path)
        };
        command.env("LC_ALL", "C.UTF-8").current_dir(Path::new("/"));
        // pg_ctl's child would keep a pipe open.
        if program == "pg_ctl" {
            let status = command.args(arguments).stdout(std::process::Stdio::null()).status().unwrap();
            assert!(status.success(), "{program} failed");
            return String::new();
        }
        let output = command.args(arguments).output().unwrap();
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// A connection of the superuser.
    pub async fn superuser(&self, database: &str) -> Client {
        self.connect("postgres", database).await.unwrap()
    }

    /// A connection of the shadow's owner.
    pub async fn owner(&self) -> Result<Client, tokio_postgres::Error> {
        self.connect("shadow_owner", "shadow").await
    }

    async fn connect(&self, user: &str, database: &str) -> Result<Client, tokio_postgres::Error> {
        let mut config = tokio_postgres::Config::new();
        config.host_path(self.home.path()).user(user).dbname(database);
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// Reads the catalog as the extension does.
    pub async fn catalog(&self, client: &Client, whole: bool, tables: &[&str]) -> Catalog {
        for (name, value) in SETTINGS {
            client.execute("SELECT pg_catalog.set_config($1, $2, false)", &[name, value]).await.unwrap();
        }
        let mut chosen: Vec<u32> = Vec::new();
        for table in tables {
            let row = client.query_one("SELECT $1::text::regclass::oid", &[table]).await.unwrap();
            chosen.push(row.get(0));
        }
        let rows = client.query(closure_query(), &[&chosen, &whole]).await.unwrap();
        let closure: Vec<ClosureRow> = rows
            .iter()
            .map(|row| ClosureRow {
                classid: row.get(0),
                objid: row.get(1),
                standing: row.get(2),
                object: row.get(3),
                reason: row.get(4),
            })
            .collect();
        let mut entries = Vec::new();
        for query in queries() {
            // As text, which the extension gets too.
            let sql = format!("SELECT q.entry::text FROM ({}) AS q (entry)", query.sql.trim_end());
            for row in client.query(&sql, &[&query.ids(&closure)]).await.unwrap() {
                entries.push((query.kind, row.get::<_, String>(0)));
            }
        }
        let (classes, oids) = closure_objects(&closure);
        let depends = client.query(depends_query(), &[&classes, &oids]).await.unwrap();
        let depends = depends.iter().map(|row| DependsRow {
            classid: row.get(0),
            objid: row.get(1),
            refclassid: row.get(2),
            refobjid: row.get(3),
        });
        let catalog = Catalog::assemble(whole, &closure, entries, depends).unwrap();
        // Over the wire.
        serde_json::from_slice(&serde_json::to_vec(&catalog).unwrap()).unwrap()
    }

    /// Creates everything on the shadow; returns what the shadow could not make.
    pub async fn build(&self, catalog: &Catalog) -> Vec<LeftOut> {
        let (client, admin) = (self.owner().await.unwrap(), self.superuser("shadow").await);
        let made = create_pre_data(&client, Some(&admin), catalog).await.unwrap();
        let here = catalog.without(&made.absent.iter().map(|table| table.relid).collect());
        let mut left_out = made.left_out;
        left_out.extend(create_post_data(|| self.owner(), 4, &here, |_| {}).await.unwrap());
        left_out
    }

    /// Runs a file by psql, whatever it says.
    #[allow(dead_code, reason = "not every test runs files")]
    pub fn psql(&self, database: &str, file: &Path) {
        let host = self.home.path().display().to_string();
        let file = file.display().to_string();
        self.run(
            "psql",
            &["-X", "-q", "-o", "/dev/null", "-h", &host, "-U", "postgres", "-d", database, "-f", &file],
        );
    }

    /// The schema of a database, without what differs from run to run.
    pub fn dump(&self, database: &str) -> String {
        let host = self.home.path().display().to_string();
        let arguments = [
            "-h",
            &host,
            "-U",
            "postgres",
            "--schema-only",
            "--no-owner",
            "--no-privileges",
            "-N",
            "scry_shadow",
            database,
        ];
        let dump = self.run("pg_dump", &arguments);
        dump.lines()
            .filter(|l| !l.starts_with("\\restrict") && !l.starts_with("\\unrestrict"))
            .collect::<Vec<_>>()
            .join("\n")
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Some(file) = std::env::var_os("SCRY_TWIN_LOG") {
            let _ = std::fs::copy(format!("{}/log", self.data()), file);
        }
        let path = self.bin.join("pg_ctl");
        let mut command = if self.as_postgres { Command::new("runuser") } else { Command::new(&path) };
        if self.as_postgres {
            command.args(["-u", "postgres", "--"]).arg(&path);
        }
        let _ = command.args(["-D", &self.data(), "-m", "immediate", "stop"]).output();
    }
}

/// Lines of one text that the other does not have, by a plain walk; for people.
pub fn diff(mine: &str, theirs: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("source.sql"), dir.path().join("shadow.sql"));
    std::fs::write(&a, mine).unwrap();
    std::fs::write(&b, theirs).unwrap();
    let output = Command::new("diff").arg("-U2").args([a, b]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}
