//! The schema twin of databases that nobody made for it: every `.sql` file of a directory is run
//! by psql, errors passed over, and the twin of what is there afterwards is compared.
//!
//! `SCRY_TWIN_SQL=DIR cargo test -p scry_platform --test twin -- --ignored --nocapture`; DIR may have a
//! `schedule` (names without `.sql`, in order), otherwise files run by name; or `data`, a cluster's data folder.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod schema_lab;

use schema_lab::{Lab, diff};
use std::path::PathBuf;
use std::time::Instant;

/// The files of the directory, in their order.
fn files(directory: &std::path::Path) -> Vec<PathBuf> {
    if let Ok(schedule) = std::fs::read_to_string(directory.join("schedule")) {
        let names = schedule.split_whitespace().map(|name| directory.join(format!("{name}.sql")));
        return names.collect();
    }
    let mut files: Vec<PathBuf> = std::fs::read_dir(directory).unwrap().map(|f| f.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|e| e == "sql"));
    files.sort();
    files
}

#[tokio::test]
#[ignore = "needs SCRY_TWIN_SQL, a directory of SQL files"]
async fn of_a_directory() {
    let directory = PathBuf::from(std::env::var("SCRY_TWIN_SQL").expect("SCRY_TWIN_SQL is set"));
    let made = directory.join("data");
    let lab = if made.is_dir() {
        Lab::from_data(&made).await
    } else {
        let lab = Lab::start().await;
        for file in files(&directory) {
            lab.psql("source", &file);
        }
        lab
    };
    let source = lab.superuser("source").await;
    let begun = Instant::now();
    let catalog = lab.catalog(&source, true, &[]).await;
    println!("{} objects read in {:?}", catalog.objects.len(), begun.elapsed());
    for left_out in &catalog.left_out {
        println!("not sent: {}: {}", left_out.object, left_out.reason);
    }
    let begun = Instant::now();
    let refused = lab.build(&catalog).await;
    println!("built in {:?}", begun.elapsed());
    for left_out in &refused {
        let code = left_out.sqlstate.as_deref().unwrap_or_default();
        println!("not made: {code} {}: {}", left_out.object, left_out.reason);
    }
    let shadow = lab.superuser("shadow").await;
    let twin = lab.catalog(&shadow, true, &[]).await;
    let differences = catalog.differences(&twin);
    for difference in &differences {
        println!("differs: {}: {}", difference.object, difference.what);
    }
    let (mine, theirs) = (lab.dump("source"), lab.dump("shadow"));
    println!("{}", diff(&mine, &theirs));
}
