//! Tuples as they stand in a table (access/htup_details.h), out of rows as they travel.

use scry_wire::message::STORED_JSONB;

use super::jsonb;
use super::rows::Row;
use super::value::{Kind, align};

/// How a column's values stand in a tuple (`pg_attribute`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Bytes of a value; -1: as many as its header says.
    pub len: i16,
    /// To what it is aligned.
    pub align: usize,
    /// Whether short values may have a short header.
    pub packs: bool,
}

impl Layout {
    /// Begins a value whose `len` bytes follow: its header, of one byte where it fits in that
    /// (access/common/heaptuple.c, `fill_val`).
    #[inline]
    pub fn begin_varlena(self, out: &mut Vec<u8>, len: usize) {
        if self.packs && len < SHORT_MAX {
            out.push((len as u8 + 1) << 1 | 1);
        } else {
            align(out, self.align);
            out.extend_from_slice(&((len as u32 + 4) << 2).to_le_bytes());
        }
    }

    /// Appends a value of any length; `true`, for its callers' sake, unless it is too long.
    #[inline]
    pub fn varlena(self, value: &[u8], out: &mut Vec<u8>) -> bool {
        if value.len() > VALUE_MAX {
            return false;
        }
        self.begin_varlena(out, value.len());
        out.extend_from_slice(value);
        true
    }

    /// Appends a value that the server has received.
    fn received(self, value: &[u8], out: &mut Vec<u8>) {
        if self.len == -1 {
            self.begin_varlena(out, value.len());
        } else {
            align(out, self.align);
        }
        out.extend_from_slice(value);
    }
}

/// A column of the table.
#[derive(Debug, Clone)]
pub struct Column {
    /// Its place in the rows; `None` if it has been dropped.
    pub place: Option<usize>,
    /// How its values are written.
    pub kind: Kind,
    /// How they stand in a tuple.
    pub layout: Layout,
    /// It takes no NULL.
    pub not_null: bool,
    /// Its type has something to say of NULLs: a domain.
    pub checks_null: bool,
}

/// Who knows the types that are not written here.
pub trait Server {
    /// Calls the receive function of the column at this place of the rows and leaves the bytes of its
    /// result in `out`, without a header. Raises the type's own error.
    fn receive(&mut self, place: usize, value: Option<&[u8]>, out: &mut Vec<u8>);
}

/// Why a row cannot stand in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The column at this place of the table takes no NULL.
    Null(usize),
    /// … has a stored jsonb that is none.
    Jsonb(usize),
}

/// Forms tuples of one table.
pub struct Former {
    columns: Vec<Column>,
    head: [u8; HEAD_LEN],
    infomask: u16,
    tuple: Vec<u8>,
    scratch: Vec<u8>,
    jsonb: jsonb::Validator,
}

impl Former {
    /// Of a table with these columns, dropped ones too. `xmin`: who inserts; `frozen`: for everybody,
    /// as soon as that is committed.
    pub fn new(columns: Vec<Column>, xmin: u32, frozen: bool) -> Self {
        let mut head = [0; HEAD_LEN];
        head[..4].copy_from_slice(&xmin.to_le_bytes());
        head[INFOMASK2..INFOMASK2 + 2].copy_from_slice(&(columns.len() as u16).to_le_bytes());
        let infomask = XMAX_INVALID | if frozen { XMIN_FROZEN } else { 0 };
        let (tuple, scratch) = (Vec::with_capacity(8 << 10), Vec::new());
        Former { columns, head, infomask, tuple, scratch, jsonb: jsonb::Validator::default() }
    }

    /// The row's tuple, valid until the next.
    #[inline]
    pub fn form(&mut self, row: Row<'_>, server: &mut impl Server) -> Result<&[u8], Refused> {
        let Former { columns, tuple, scratch, .. } = self;
        let has_nulls = columns.iter().any(|c| c.place.is_none_or(|place| row.field(place).is_none()));
        let bitmap = if has_nulls { columns.len().div_ceil(8) } else { 0 };
        let begin = (HEAD_LEN + bitmap).next_multiple_of(8);
        tuple.clear();
        tuple.shrink_to(KEEP);
        tuple.extend_from_slice(&self.head);
        tuple.resize(begin, 0);
        let mut infomask = self.infomask | if has_nulls { HAS_NULLS } else { 0 };
        for (index, column) in columns.iter().enumerate() {
            let value = column.place.and_then(|place| row.field(place));
            let Some(value) = value else {
                if let Some(place) = column.place {
                    if column.checks_null {
                        server.receive(place, None, scratch);
                    }
                    if column.not_null {
                        return Err(Refused::Null(index));
                    }
                }
                continue;
            };
            if has_nulls {
                tuple[HEAD_LEN + index / 8] |= 1 << (index % 8);
            }
            if column.layout.len < 0 {
                infomask |= HAS_VARLENA;
            }
            if let (Kind::Jsonb, Some((&STORED_JSONB, container))) = (column.kind, value.split_first()) {
                if !self.jsonb.is_valid(container) || !column.layout.varlena(container, tuple) {
                    return Err(Refused::Jsonb(index));
                }
            } else if !column.kind.write(value, column.layout, scratch, tuple)
                && let Some(place) = column.place
            {
                scratch.clear();
                server.receive(place, Some(value), scratch);
                column.layout.received(scratch, tuple);
            }
        }
        tuple[INFOMASK..INFOMASK + 2].copy_from_slice(&infomask.to_le_bytes());
        tuple[HEADER_SIZE] = begin as u8;
        Ok(tuple)
    }
}

/// `SizeofHeapTupleHeader`.
const HEAD_LEN: usize = 23;
const INFOMASK2: usize = 18;
const INFOMASK: usize = 20;
const HEADER_SIZE: usize = 22;
const HAS_NULLS: u16 = 0x0001;
const HAS_VARLENA: u16 = 0x0002;
const XMIN_FROZEN: u16 = 0x0300;
const XMAX_INVALID: u16 = 0x0800;
/// `VARATT_SHORT_MAX`: with their header, shorter values have one of one byte.
const SHORT_MAX: usize = 0x7F;
/// The most that a header of four bytes can tell.
const VALUE_MAX: usize = 0x3FFF_FFFF - 4;
/// Room that is kept from row to row.
const KEEP: usize = 1 << 20;
