//! What the rows of a relation look like.
//!
//! Stands in a chunk's start and, in the stream, before a relation's first
//! change and again whenever its descriptor changes.

use crate::codec::{Reader, Writer};
use crate::{Error, limits};

/// How the fields of a relation's rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Format {
    /// Send functions' output: every column's type is built in, or a user's
    /// enum or domain over one, so that the bytes mean the same on the shadow.
    Binary = b'b',
    /// Output functions' text.
    Text = b't',
    /// As [`Binary`](Self::Binary), but for the columns of type `jsonb`: version
    /// [`STORED_JSONB`], then the container as the server stores it (utils/jsonb.h),
    /// little-endian. In chunks only, for a platform that offers it.
    Stored = b's',
}

/// The first byte of a stored `jsonb`, where the send function writes a 1 in front of text
/// (utils/adt/jsonb.c, `jsonb_send`).
pub const STORED_JSONB: u8 = 2;

/// `pg_class.relreplident`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ReplicaIdentity {
    /// The primary key, if there is one.
    Default = b'd',
    /// A chosen unique index.
    Index = b'i',
    /// The whole row.
    Full = b'f',
    /// None: updates and deletes cannot be followed.
    Nothing = b'n',
}

/// A column that travels: neither dropped nor generated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// `pg_attribute.attnum`.
    pub attnum: i16,
    /// Part of the replica identity.
    pub key: bool,
    /// `GENERATED ALWAYS AS IDENTITY`: writing it needs OVERRIDING on the shadow.
    pub identity_always: bool,
    /// The type's oid on the source; for built-in types also on the shadow.
    pub type_oid: u32,
    /// The type's modifier.
    pub type_mod: i32,
    /// The column's name.
    pub name: String,
}

/// A relation, as its rows are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation {
    /// The relation's oid on the source: how changes name it.
    pub relid: u32,
    /// How fields are written.
    pub format: Format,
    /// What old rows hold.
    pub replica_identity: ReplicaIdentity,
    /// The relation's schema.
    pub schema: String,
    /// The relation's name.
    pub name: String,
    /// The columns of a tuple, in its order.
    pub columns: Vec<Column>,
}

impl Relation {
    /// Appends the relation.
    pub fn write(&self, w: &mut Writer<'_>) {
        w.u32(self.relid);
        w.u8(self.format as u8);
        w.u8(self.replica_identity as u8);
        w.name(&self.schema);
        w.name(&self.name);
        w.u32(u32::try_from(self.columns.len()).unwrap_or(u32::MAX));
        for column in &self.columns {
            w.i16(column.attnum);
            w.u8(u8::from(column.key) | u8::from(column.identity_always) << 1);
            w.u32(column.type_oid);
            w.i32(column.type_mod);
            w.name(&column.name);
        }
    }

    /// Reads a relation whose rows are one by one, so that they are not of format
    /// [`Format::Stored`].
    pub fn read(r: &mut Reader<'_>) -> Result<Self, Error> {
        let relation = Self::read_of_chunk(r)?;
        match relation.format {
            Format::Stored => Err(Error::Undefined { what: "format", got: u64::from(Format::Stored as u8) }),
            Format::Binary | Format::Text => Ok(relation),
        }
    }

    /// Reads a relation whose rows may be of any format.
    pub fn read_of_chunk(r: &mut Reader<'_>) -> Result<Self, Error> {
        Ok(Relation {
            relid: r.u32("relid")?,
            format: match r.u8("format")? {
                b'b' => Format::Binary,
                b't' => Format::Text,
                b's' => Format::Stored,
                got => return Err(Error::Undefined { what: "format", got: got.into() }),
            },
            replica_identity: match r.u8("replica_identity")? {
                b'd' => ReplicaIdentity::Default,
                b'i' => ReplicaIdentity::Index,
                b'f' => ReplicaIdentity::Full,
                b'n' => ReplicaIdentity::Nothing,
                got => return Err(Error::Undefined { what: "replica_identity", got: got.into() }),
            },
            schema: r.name("schema")?,
            name: r.name("relation name")?,
            columns: (0..r.count(limits::COLUMNS_MAX, "columns")?)
                .map(|_| read_column(r))
                .collect::<Result<_, _>>()?,
        })
    }
}

fn read_column(r: &mut Reader<'_>) -> Result<Column, Error> {
    let attnum = r.i16("attnum")?;
    let flags = r.u8("column flags")?;
    if flags & !0b11 != 0 {
        return Err(Error::Undefined { what: "column flags", got: flags.into() });
    }
    Ok(Column {
        attnum,
        key: flags & 1 != 0,
        identity_always: flags & 2 != 0,
        type_oid: r.u32("type_oid")?,
        type_mod: r.i32("type_mod")?,
        name: r.name("column name")?,
    })
}
