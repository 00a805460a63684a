//! Who connects, for which job, and which versions it speaks.

use super::Message;
use crate::codec::{Reader, Writer};
use crate::frame::Tag;
use crate::{Error, version};

/// The first four bytes of a hello: a peer that is something else is told so.
const MAGIC: u32 = u32::from_be_bytes(*b"SCRY");

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Role {
    /// The stream worker: changes.
    Stream = b's',
    /// The snapshot leader: catalog, beginning and end of a copy.
    Lead = b'l',
    /// A snapshot worker: chunks of tables.
    Copy = b'c',
    /// A session that compares both sides.
    Verify = b'v',
}

/// The first frame of every connection.
///
/// A job is known by `(system_identifier, database_oid, job)`; `generation`
/// tells one full start of it from the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Lowest version the worker speaks.
    pub version_min: u16,
    /// Highest version the worker speaks.
    pub version_max: u16,
    /// What the connection is for.
    pub role: Role,
    /// The cluster (`pg_control_system()`).
    pub system_identifier: u64,
    /// The cluster's timeline.
    pub timeline: u32,
    /// The database's oid on the source.
    pub database_oid: u32,
    /// `server_version_num` of the source.
    pub server_version_num: u32,
    /// Which full start of the job this is.
    pub generation: u64,
    /// The database's name.
    pub database: String,
    /// The job's name.
    pub job: String,
    /// The shadow that the job feeds (`scry_backfill.shadow_id`).
    pub shadow_id: String,
    /// The database's encoding; text travels as UTF-8 all the same.
    pub encoding: String,
    /// Program and version, for logs.
    pub software: String,
}

impl Hello {
    /// The range of versions that this build offers.
    #[must_use]
    pub fn versions() -> (u16, u16) {
        (version::VERSION_MIN, version::VERSION_MAX)
    }
}

impl Message for Hello {
    const TAG: Tag = Tag::Hello;
    const NAME: &'static str = "hello";

    fn write(&self, w: &mut Writer<'_>) {
        w.u32(MAGIC);
        w.u16(self.version_min);
        w.u16(self.version_max);
        w.u8(self.role as u8);
        w.u64(self.system_identifier);
        w.u32(self.timeline);
        w.u32(self.database_oid);
        w.u32(self.server_version_num);
        w.u64(self.generation);
        w.name(&self.database);
        w.name(&self.job);
        w.name(&self.shadow_id);
        w.name(&self.encoding);
        w.name(&self.software);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, Error> {
        let magic = r.u32("hello magic")?;
        if magic != MAGIC {
            return Err(Error::Undefined { what: "hello magic", got: magic.into() });
        }
        let (version_min, version_max) = (r.u16("version_min")?, r.u16("version_max")?);
        version::negotiate(version_min, version_max)?;
        Ok(Hello {
            version_min,
            version_max,
            role: read_role(r)?,
            system_identifier: r.u64("system_identifier")?,
            timeline: r.u32("timeline")?,
            database_oid: r.u32("database_oid")?,
            server_version_num: r.u32("server_version_num")?,
            generation: r.u64("generation")?,
            database: r.name("database")?,
            job: r.name("job")?,
            shadow_id: r.name("shadow_id")?,
            encoding: r.name("encoding")?,
            software: r.name("software")?,
        })
    }
}

fn read_role(r: &mut Reader<'_>) -> Result<Role, Error> {
    match r.u8("role")? {
        b's' => Ok(Role::Stream),
        b'l' => Ok(Role::Lead),
        b'c' => Ok(Role::Copy),
        b'v' => Ok(Role::Verify),
        got => Err(Error::Undefined { what: "role", got: got.into() }),
    }
}
