//! Whether two definitions say the same in other words.
//!
//! ```text
//! source's document ─► made in an empty database ─► read back ─┐
//! shadow's document ─► made in another ──────────► read back ──┴─► equal? ─► both are dropped
//! ```
//!
//! Role: PostgreSQL keeps parsed definitions, and some read otherwise once they were made from
//! what it printed (`v IN ('a', 'b')` over a varchar, say). The shadow was made from the source's
//! print, so the texts differ though nothing does. What the server itself makes of a text is its
//! normal form, for every kind of object.
//!
//! Invariants: only what differs, and what that needs, is made, without rows, away from the
//! shadow's own database; what cannot be made or read back stays different. Where the shadow's
//! role may not create databases nothing is taken back.

use super::schema::read_catalog;
use crate::apply::lead::on_own_thread;
use crate::apply::schema::{create_post_data, create_pre_data, quote};
use crate::shadow::{Connector, Shadow};
use crate::{Error, Result};
use scry_wire::catalog::{Catalog, Entry};
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};
use tokio_postgres::Client;

/// Which of these objects, in which the two documents differ, are the same nevertheless.
pub async fn same(
    shadow: &Shadow,
    source: &Catalog,
    theirs: &Catalog,
    objects: &HashSet<String>,
) -> HashSet<String> {
    let found = async {
        let mine = normal(shadow, source, objects).await?;
        // What the source's text comes to here is what the shadow has.
        let (mut same, open) = split(objects, &mine, &values(theirs, objects));
        if !open.is_empty() {
            let other = normal(shadow, theirs, &open).await?;
            same.extend(split(&open, &mine, &other).0);
        }
        Ok::<_, Error>(same)
    };
    match tokio::time::timeout(TIMEOUT, found).await {
        Ok(Ok(same)) => same,
        Ok(Err(error)) => {
            tracing::info!(%error, "could not bring definitions to a normal form: their texts are compared");
            HashSet::new()
        }
        Err(_) => {
            tracing::info!("bringing definitions to a normal form takes too long: their texts are compared");
            HashSet::new()
        }
    }
}

/// The objects that are the same in both, and the others.
fn split(
    objects: &HashSet<String>,
    mine: &HashMap<String, Value>,
    theirs: &HashMap<String, Value>,
) -> (HashSet<String>, HashSet<String>) {
    let is_same = |object: &String| mine.get(object).is_some_and(|value| theirs.get(object) == Some(value));
    objects.iter().cloned().partition(is_same)
}

/// What the server makes of these objects' definitions.
async fn normal(
    shadow: &Shadow,
    catalog: &Catalog,
    objects: &HashSet<String>,
) -> Result<HashMap<String, Value>> {
    let mut part = catalog.around(objects);
    for object in &mut part.objects {
        if let Entry::MaterializedView(view) = &mut object.entry {
            view.populated = false;
        }
    }
    let scratch = Scratch::make(shadow).await?;
    let (owner, admin) = scratch.connectors(shadow);
    let made = on_own_thread(async move || remake(&owner, admin.as_ref(), &part).await).await;
    // The server writes a checkpoint for it; nobody needs to wait for that.
    tokio::spawn(scratch.drop());
    Ok(values(&made??, objects))
}

fn values(catalog: &Catalog, objects: &HashSet<String>) -> HashMap<String, Value> {
    let named = catalog.objects.iter().map(|object| (object.describe(), object));
    named
        .filter(|(name, _)| objects.contains(name))
        .map(|(name, object)| (name, object.comparable()))
        .collect()
}

/// An empty database on the shadow's server.
struct Scratch {
    /// On the shadow's database, as whoever made the other one.
    maker: Client,
    database: String,
}

impl Scratch {
    async fn make(shadow: &Shadow) -> Result<Self> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let cannot = || Error::sql("make a database to compare definitions in");
        let maker = shadow.admin.as_ref().unwrap_or(&shadow.owner);
        let (maker, _task) = maker.client().await.map_err(cannot())?;
        let time = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_micros());
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let database = format!("{SCRATCH_PREFIX}{time:x}_{number}");
        let sql = format!(
            "CREATE DATABASE {} OWNER {} TEMPLATE template0 ENCODING 'UTF8'",
            quote::ident(&database),
            quote::ident(shadow.owner.role())
        );
        maker.batch_execute(&sql).await.map_err(cannot())?;
        Ok(Scratch { maker, database })
    }

    /// To this database, as the shadow's owner and its superuser.
    fn connectors(&self, shadow: &Shadow) -> (Connector, Option<Connector>) {
        let there = |connector: &Connector| connector.on_database(&self.database);
        (there(&shadow.owner), shadow.admin.as_ref().map(there))
    }

    async fn drop(self) {
        let sql = format!("DROP DATABASE {} WITH (FORCE)", quote::ident(&self.database));
        if let Err(error) = self.maker.batch_execute(&sql).await {
            tracing::warn!(%error, database = self.database, "could not drop a database of verify()");
        }
    }
}

/// Makes the document's objects in an empty database, and reads them back.
async fn remake(owner: &Connector, admin: Option<&Connector>, catalog: &Catalog) -> Result<Catalog> {
    let cannot = || Error::sql("make definitions anew");
    let connect = async || owner.client().await.map(|(client, _task)| client);
    let client = connect().await.map_err(cannot())?;
    let admin = match admin {
        Some(admin) => Some(admin.client().await.map_err(cannot())?.0),
        None => None,
    };
    let made = create_pre_data(&client, admin.as_ref(), catalog).await;
    let absent = made.map_err(|error| Error::protocol(error.to_string()))?.absent;
    let here = catalog.without(&absent.iter().map(|table| table.relid).collect());
    let made = create_post_data(connect, 1, &here, |_| {}).await;
    made.map_err(|error| Error::protocol(error.to_string()))?;
    client.batch_execute("BEGIN").await.map_err(cannot())?;
    read_catalog(&client, &[], true).await
}

/// How the names of these databases begin; the embedded server drops what a crash has left of them.
pub const SCRATCH_PREFIX: &str = "scry_compare_";
const TIMEOUT: Duration = Duration::from_secs(120);
