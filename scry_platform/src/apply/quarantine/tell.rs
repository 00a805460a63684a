//! What the worker is told of quarantined tables: the whole list whenever it
//! has changed, and a line for each table that is new in it or has diverged;
//! and of what else the shadow lacks since a change of the schema.
//! At most once a second, however many changes are refused.

use super::{Mark, Marks};
use crate::Result;
use crate::accept::link::FrameSender;
use scry_wire::message::{LeftOutText, Level, Notice};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// What has been told on one connection.
#[derive(Debug, Default)]
pub struct Teller {
    version: Option<u64>,
    at: Option<Instant>,
    /// Marked tables, and whether they had diverged.
    tables: HashMap<u32, bool>,
    /// What the shadow lacks, and nobody was told.
    left_out: Vec<LeftOutText>,
}

impl Teller {
    /// When there is something to tell, if there is.
    #[must_use]
    pub fn due(&self, marks: &Marks) -> Option<Instant> {
        let is_news = self.version != Some(marks.version) || !self.left_out.is_empty();
        is_news.then(|| self.at.map_or_else(Instant::now, |at| at + PAUSE))
    }

    /// What the shadow lacks since a change of the schema that is committed.
    pub fn left_out(&mut self, list: Vec<LeftOutText>) {
        let room = LEFT_OUT_MAX.saturating_sub(self.left_out.len());
        self.left_out.extend(list.into_iter().take(room));
    }

    /// Another connection has been told nothing yet.
    pub fn begin_anew(&mut self) {
        *self = Teller { left_out: std::mem::take(&mut self.left_out), ..Teller::default() };
    }

    /// Tells what is new, if it is time. Only what is committed may be told.
    pub async fn tell(&mut self, marks: &Marks, job: &str, sender: &FrameSender) -> Result<()> {
        if self.due(marks).is_none_or(|due| due > Instant::now()) {
            return Ok(());
        }
        (self.version, self.at) = (Some(marks.version), Some(Instant::now()));
        sender.send(&marks.message()).await?;
        for notice in self.news(marks, job) {
            tracing::warn!(notice = notice.message, "quarantine");
            sender.send(&notice).await?;
        }
        for item in std::mem::take(&mut self.left_out) {
            sender.send(&lacks(&item)).await?;
        }
        Ok(())
    }

    fn news(&mut self, marks: &Marks, job: &str) -> Vec<Notice> {
        let sorted = marks.sorted();
        let is_news = |mark: &&&Mark| self.tables.get(&mark.relid) != Some(&mark.diverged);
        let mut notices: Vec<Notice> =
            sorted.iter().filter(is_news).take(NOTICES_MAX).map(|mark| notice(mark, job)).collect();
        if sorted.is_empty() && !self.tables.is_empty() {
            // Clears what stands in the job's status.
            notices.push(Notice { level: Level::Info, message: String::new(), hint: String::new() });
        }
        self.tables = sorted.iter().map(|mark| (mark.relid, mark.diverged)).collect();
        notices
    }
}

fn notice(mark: &Mark, job: &str) -> Notice {
    let name = crate::apply::schema::quote::qualified(&mark.schema, &mark.relation);
    let cause = &mark.cause;
    let message = match mark.diverged {
        _ if mark.absent => format!("table {name} is left out: {cause}"),
        false => format!("table {name} is quarantined: {cause}"),
        true => format!("table {name} has diverged, too many changes of it were refused: {cause}"),
    };
    let call = [&name, job].map(crate::apply::schema::quote::literal).join(", ");
    let first = match mark.absent {
        true => "The other tables follow.",
        false => "The changes stand in scry_shadow.quarantine on the shadow.",
    };
    Notice {
        level: Level::Warning,
        message: message.replace(char::is_control, "?"),
        hint: format!("{first} Mend the cause there, then: SELECT scry_backfill.resync({call});"),
    }
}

/// For the record: it does not stand in the way of anything.
fn lacks(item: &LeftOutText) -> Notice {
    let message = format!("{} is left out on the shadow: {}", item.object, item.reason);
    Notice {
        level: Level::Info,
        message: message.replace(char::is_control, "?"),
        hint: "SELECT scry_backfill.verify() compares the schemas.".to_owned(),
    }
}

const PAUSE: Duration = Duration::from_secs(1);
/// Lines that are told at a time.
const NOTICES_MAX: usize = 10;
/// Of what the shadow lacks, until somebody listens; all of it stands in scry_shadow.left_out.
const LEFT_OUT_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;
    use scry_wire::Lsn;
    use scry_wire::message::{Format, Relation, ReplicaIdentity};

    fn relation(relid: u32) -> Relation {
        Relation {
            relid,
            format: Format::Binary,
            replica_identity: ReplicaIdentity::Default,
            schema: "s".into(),
            name: "it's".into(),
            columns: Vec::new(),
        }
    }

    #[test]
    fn what_the_shadow_lacks_is_due_until_it_is_told() {
        let (mut teller, marks) = (Teller::default(), Marks::default());
        (teller.version, teller.at) = (Some(marks.version), Some(Instant::now()));
        assert!(teller.due(&marks).is_none());
        let item = LeftOutText { object: "view v".into(), reason: "no\nfunction".into() };
        teller.left_out(vec![item.clone(); LEFT_OUT_MAX + 1]);
        assert!(teller.due(&marks).is_some() && teller.left_out.len() == LEFT_OUT_MAX);
        teller.begin_anew();
        assert_eq!(teller.left_out.len(), LEFT_OUT_MAX);
        assert_eq!(lacks(&item).message, "view v is left out on the shadow: no?function");
    }

    #[test]
    fn tells_each_table_once() {
        let (mut teller, mut marks) = (Teller::default(), Marks::default());
        assert!(teller.news(&marks, "j").is_empty());
        marks.refused(&relation(7), Lsn(1), 1, "could not\n…".into());
        let told = teller.news(&marks, "j");
        assert_eq!(told[0].message, "table \"s\".\"it's\" is quarantined: could not?…");
        assert!(told[0].hint.ends_with("SELECT scry_backfill.resync('\"s\".\"it''s\"', 'j');"), "{told:?}");
        marks.refused(&relation(7), Lsn(2), 1, "another cause".into());
        assert!(teller.news(&marks, "j").is_empty());
        marks.refused(&relation(8), Lsn(2), u64::MAX, "large".into());
        marks.refused(&relation(8), Lsn(2), 1, "no room".into());
        let told = teller.news(&marks, "j");
        assert!(told.len() == 1 && told[0].message.contains("has diverged"), "{told:?}");
        marks.tables.clear();
        assert_eq!(teller.news(&marks, "j")[0].message, "");
        assert!(teller.news(&marks, "j").is_empty());
    }
}
