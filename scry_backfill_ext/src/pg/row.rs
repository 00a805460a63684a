//! Rows into tuples on the wire ([`scry_wire::tuple`]).
//!
//! A [`RowEncoder`] knows a relation's columns: which of them travel, and how
//! each is written. Common types are copied from their in-memory form; the
//! others go through the type's send function (or output function, for
//! relations whose rows travel as text), looked up once.
//!
//! Invariant: nothing is allocated for a row of common types. What send
//! functions and detoasting allocate lives in the encoder's own memory
//! context, reset after each row that used it.

use std::ffi::CStr;

use pgrx::pg_sys::{self, Datum};
use pgrx::varlena;
use scry_wire::message::{Format, STORED_JSONB};
use scry_wire::tuple::{LEN_NULL, LEN_UNCHANGED};

use super::compat;
use super::relation::TupleRef;
use crate::batch::LargeValue;

/// OIDs below this are assigned by hand in the server's source and mean the
/// same on every server (access/transam.h, `FirstGenbkiObjectId`).
const FIRST_GENBKI_OID: u32 = 10_000;

/// How a column is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Write {
    Bool,
    Byte,
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    Uuid,
    Name,
    Interval,
    /// A varlena whose bytes are its binary form.
    Bytes,
    /// A jsonb as it is stored.
    StoredJsonb,
    Numeric,
    /// By the type's send function.
    Send,
    /// By the type's output function.
    Output,
}

/// What a value that stands in the TOAST table means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Toast {
    /// It is fetched: a table is being read.
    Fetch,
    /// It has not changed: a change is being decoded.
    Unchanged,
}

struct Attribute {
    /// Position in the tuple descriptor.
    index: usize,
    write: Write,
    toast: Toast,
    function: Box<pg_sys::FmgrInfo>,
}

/// Writes rows of one relation.
pub struct RowEncoder {
    attributes: Vec<Attribute>,
    values: Vec<Datum>,
    nulls: Vec<bool>,
    context: RowContext,
}

/// The memory of one row: what send and receive functions, detoasting and toasting leave.
pub(super) struct RowContext {
    context: pg_sys::MemoryContext,
    used: bool,
}

impl RowContext {
    /// Below `parent`, which must outlive it or be deleted with it.
    pub(super) fn new(parent: pg_sys::MemoryContext) -> Self {
        // SAFETY: the parent outlives the encoder, or is deleted with it after an error.
        let context = unsafe {
            pg_sys::AllocSetContextCreateInternal(
                parent,
                c"scry_backfill row".as_ptr(),
                pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
            )
        };
        RowContext { context, used: false }
    }

    /// Runs `work` with the context as the current one.
    pub(super) fn within<R>(&mut self, work: impl FnOnce() -> R) -> R {
        self.used = true;
        // SAFETY: the context is valid until drop; on an error the process ends.
        unsafe {
            let before = pg_sys::CurrentMemoryContext;
            pg_sys::CurrentMemoryContext = self.context;
            let result = work();
            pg_sys::CurrentMemoryContext = before;
            result
        }
    }

    /// Gives back what was allocated since the last time.
    #[inline]
    pub(super) fn reset(&mut self) {
        if self.used {
            // SAFETY: nothing that points into it outlives a row.
            unsafe { pg_sys::MemoryContextReset(self.context) }
            self.used = false;
        }
    }
}

impl Drop for RowContext {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: created by `new`, deleted once.
            unsafe { pg_sys::MemoryContextDelete(self.context) }
        }
    }
}

/// Whether a column stands in rows on the wire: neither dropped nor generated.
pub fn travels(attribute: &pg_sys::FormData_pg_attribute) -> bool {
    !attribute.attisdropped && attribute.attgenerated == 0
}

/// Binary if the type of every column that is `wanted` means the same on the shadow.
///
/// # Safety
/// `desc` must be valid, and catalog caches readable.
pub unsafe fn format_of(
    desc: pg_sys::TupleDesc,
    wanted: impl Fn(&pg_sys::FormData_pg_attribute) -> bool,
) -> Format {
    // SAFETY: by contract.
    let safe = unsafe {
        (0..(*desc).natts as usize)
            .map(|i| &*compat::attribute(desc, i))
            .filter(|a| wanted(a))
            .all(|a| binary_is_safe(a.atttypid))
    };
    if safe { Format::Binary } else { Format::Text }
}

/// The format of a chunk for a platform that takes stored values. Not where the shadow computes a
/// column from others: that takes the server's COPY.
///
/// # Safety
/// `desc` must be valid.
pub unsafe fn stored_format(desc: pg_sys::TupleDesc, format: Format) -> Format {
    // SAFETY: by contract.
    let attributes = unsafe { (0..(*desc).natts as usize).map(|i| &*compat::attribute(desc, i)) };
    let mut has_jsonb = false;
    for attribute in attributes.filter(|a| !a.attisdropped) {
        if attribute.attgenerated != 0 {
            return format;
        }
        has_jsonb |= attribute.atttypid == pg_sys::JSONBOID;
    }
    let is_little_endian = cfg!(target_endian = "little");
    if format == Format::Binary && has_jsonb && is_little_endian { Format::Stored } else { format }
}

/// Whether a type's binary form can be read on another server: built in with
/// send and receive functions, or an enum or domain or built-in array over such a type. Types
/// of [`TEXT_ONLY`] cannot, nor can composites, nor arrays and ranges of user
/// types, whose binary forms carry OIDs.
unsafe fn binary_is_safe(type_oid: pg_sys::Oid) -> bool {
    // SAFETY: catalog caches are readable by contract.
    unsafe {
        let base = pg_sys::getBaseType(type_oid);
        if pg_sys::get_typtype(base) as u8 == pg_sys::TYPTYPE_ENUM {
            return true;
        }
        let oid = base.to_u32();
        if oid >= FIRST_GENBKI_OID || TEXT_ONLY.contains(&oid) {
            return false;
        }
        let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::TYPEOID as i32, base.into());
        if tuple.is_null() {
            return false;
        }
        let form = &*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_type>();
        let (send, receive) = (form.typsend, form.typreceive);
        // An array is sent by its elements' function, which there may not be (aclitem).
        let element = if form.typlen == -1 { form.typelem } else { pg_sys::InvalidOid };
        let carries_oids =
            [pg_sys::TYPTYPE_PSEUDO, pg_sys::TYPTYPE_COMPOSITE].contains(&(form.typtype as u8));
        pg_sys::ReleaseSysCache(tuple);
        let has_functions = send != pg_sys::InvalidOid && receive != pg_sys::InvalidOid;
        !carries_oids && has_functions && (element == pg_sys::InvalidOid || binary_is_safe(element))
    }
}

/// Built-in types whose binary form another server does not read as the same
/// value. Those that hold OIDs of local objects, and their arrays:
/// `regproc`, `regprocedure`, `regoper`, `regoperator`, `regclass`, `regtype`,
/// `regrole`, `regnamespace`, `regconfig`, `regdictionary`, `regcollation`
/// (pg_type.dat). `int2vector`, `oidvector` and their arrays, whose receive
/// functions refuse an empty vector.
const TEXT_ONLY: [u32; 26] = [
    24, 2202, 2203, 2204, 2205, 2206, 4096, 4089, 3734, 3769, 4191, 1008, 2207, 2208, 2209, 2210, 2211, 4097,
    4090, 3735, 3770, 4192, 22, 30, 1006, 1013,
];

impl RowEncoder {
    /// # Safety
    /// `desc` must be valid, and catalog caches readable.
    pub unsafe fn new(desc: pg_sys::TupleDesc, format: Format, toast: Toast) -> Self {
        // SAFETY: by contract.
        unsafe {
            let memory = pg_sys::TopMemoryContext;
            let attributes = (0..(*desc).natts as usize)
                .map(|i| (i, &*compat::attribute(desc, i)))
                .filter(|(_, a)| travels(a))
                .map(|(i, a)| Attribute::new(i, a, format, toast, memory))
                .collect();
            Self::of(desc, attributes, memory)
        }
    }

    /// Of these columns (numbers, from 1) in this order, for as long as the
    /// transaction: in a user's session an error must leave nothing behind.
    ///
    /// # Safety
    /// As [`new`](Self::new); the columns must be there.
    pub unsafe fn of_columns(
        desc: pg_sys::TupleDesc,
        columns: impl Iterator<Item = i16>,
        format: Format,
    ) -> Self {
        // SAFETY: by contract.
        unsafe {
            let memory = pg_sys::CurTransactionContext;
            let attributes = columns
                .map(|attnum| usize::try_from(attnum - 1).unwrap_or(0))
                .map(|i| Attribute::new(i, &*compat::attribute(desc, i), format, Toast::Fetch, memory))
                .collect();
            Self::of(desc, attributes, memory)
        }
    }

    unsafe fn of(desc: pg_sys::TupleDesc, attributes: Vec<Attribute>, memory: pg_sys::MemoryContext) -> Self {
        // SAFETY: by contract.
        let natts = unsafe { (*desc).natts as usize };
        RowEncoder {
            attributes,
            values: vec![Datum::from(0); natts],
            nulls: vec![true; natts],
            context: RowContext::new(memory),
        }
    }

    /// Appends a tuple.
    ///
    /// # Safety
    /// `desc` must be the descriptor that the tuple was made with.
    pub unsafe fn encode_tuple<'t>(
        &mut self,
        desc: pg_sys::TupleDesc,
        tuple: TupleRef<'t>,
        out: &mut Vec<u8>,
        large: &mut Vec<LargeValue<'t>>,
    ) {
        // SAFETY: by contract; the arrays have `natts` places.
        unsafe {
            if (*desc).natts as usize > self.values.len() {
                pgrx::error!("relation changed its columns while a row of it was decoded");
            }
            pg_sys::heap_deform_tuple(
                tuple.as_ptr(),
                desc,
                self.values.as_mut_ptr(),
                self.nulls.as_mut_ptr(),
            );
        }
        let (values, nulls) = (std::mem::take(&mut self.values), std::mem::take(&mut self.nulls));
        // SAFETY: the values belong to the tuple, valid during the call.
        unsafe { self.encode(&values, &nulls, out, Some(large)) }
        (self.values, self.nulls) = (values, nulls);
    }

    /// Appends a row given as values and nulls, in the descriptor's order.
    ///
    /// # Safety
    /// The values must be valid for the columns' types.
    pub unsafe fn encode<'t>(
        &mut self,
        values: &[Datum],
        nulls: &[bool],
        out: &mut Vec<u8>,
        mut large: Option<&mut Vec<LargeValue<'t>>>,
    ) {
        out.extend_from_slice(&(self.attributes.len() as i16).to_be_bytes());
        for attribute in &mut self.attributes {
            if nulls[attribute.index] {
                out.extend_from_slice(&LEN_NULL.to_be_bytes());
                continue;
            }
            let value = values[attribute.index];
            // SAFETY: by contract.
            unsafe {
                if let Some(large) = large.as_deref_mut()
                    && let Some(bytes) = attribute.large(value)
                {
                    out.extend_from_slice(&(bytes.len() as i32).to_be_bytes());
                    large.push(LargeValue { at: out.len(), bytes });
                    continue;
                }
                attribute.write(value, out, &mut self.context);
            }
        }
        self.context.reset();
    }
}

impl Attribute {
    unsafe fn new(
        index: usize,
        form: &pg_sys::FormData_pg_attribute,
        format: Format,
        toast: Toast,
        memory: pg_sys::MemoryContext,
    ) -> Self {
        // SAFETY: catalog caches are readable by contract; the FmgrInfo is
        // boxed, so that it stays where fmgr_info put it together.
        unsafe {
            let base = pg_sys::getBaseType(form.atttypid);
            let mut function: Box<pg_sys::FmgrInfo> = Box::new(std::mem::zeroed());
            let (mut id, mut is_varlena) = (pg_sys::InvalidOid, false);
            let write = match format {
                Format::Binary | Format::Stored => {
                    pg_sys::getTypeBinaryOutputInfo(form.atttypid, &mut id, &mut is_varlena);
                    match form.atttypid {
                        pg_sys::JSONBOID if format == Format::Stored => Write::StoredJsonb,
                        _ => Write::of(base.to_u32()),
                    }
                }
                Format::Text => {
                    pg_sys::getTypeOutputInfo(form.atttypid, &mut id, &mut is_varlena);
                    if base == pg_sys::TEXTOID { Write::of(base.to_u32()) } else { Write::Output }
                }
            };
            pg_sys::fmgr_info_cxt(id, &mut *function, memory);
            let toast = if form.attlen == -1 { toast } else { Toast::Fetch };
            Attribute { index, write, toast, function }
        }
    }

    /// The bytes of a large value whose binary form is its stored form, where
    /// they are: they live as long as the tuple. `None` for all others.
    unsafe fn large<'t>(&self, value: Datum) -> Option<&'t [u8]> {
        if self.write != Write::Bytes {
            return None;
        }
        // SAFETY: the value is a varlena of the tuple's.
        unsafe {
            let value = without_indirection(value.value() as *mut pg_sys::varlena);
            if !varlena::varatt_is_4b_u(value) {
                return None;
            }
            let len = varlena::varsize_any_exhdr(value);
            (len > LARGE_VALUE).then(|| std::slice::from_raw_parts(varlena::vardata_any(value).cast(), len))
        }
    }

    /// Writes length and bytes of one value.
    unsafe fn write(&mut self, value: Datum, out: &mut Vec<u8>, context: &mut RowContext) {
        let raw = value.value();
        // SAFETY: the value is valid for the column's type; pointers of
        // by-reference types point to at least their fixed size.
        unsafe {
            if self.toast == Toast::Unchanged && is_unchanged_toast(raw as *const pg_sys::varlena) {
                out.extend_from_slice(&LEN_UNCHANGED.to_be_bytes());
                return;
            }
            match self.write {
                Write::Bool => fixed(out, [u8::from(raw as u8 != 0)]),
                Write::Byte => fixed(out, [raw as u8]),
                Write::Int2 => fixed(out, (raw as u16).to_be_bytes()),
                Write::Int4 | Write::Float4 => fixed(out, (raw as u32).to_be_bytes()),
                Write::Int8 | Write::Float8 => fixed(out, (raw as u64).to_be_bytes()),
                Write::Uuid => fixed(out, *(raw as *const [u8; 16])),
                Write::Name => bytes(out, CStr::from_ptr(raw as *const _).to_bytes()),
                Write::Interval => interval(out, raw as *const pg_sys::Interval),
                Write::Bytes => plain(raw, out, context),
                Write::StoredJsonb => stored_jsonb(raw, out, context),
                Write::Numeric => self.numeric(raw, out, context),
                Write::Send => self.send(value, out, context),
                Write::Output => {
                    let function = &mut *self.function;
                    let text = context.within(|| pg_sys::OutputFunctionCall(function, value));
                    bytes(out, CStr::from_ptr(text).to_bytes());
                }
            }
        }
    }

    unsafe fn send(&mut self, value: Datum, out: &mut Vec<u8>, context: &mut RowContext) {
        // SAFETY: as `write`; the result is a detoasted bytea in the row's context.
        unsafe {
            let function = &mut *self.function;
            let sent = context.within(|| pg_sys::SendFunctionCall(function, value));
            let len = varlena::varsize_any_exhdr(sent);
            bytes(out, std::slice::from_raw_parts(varlena::vardata_any(sent).cast(), len));
        }
    }

    /// `numeric_send` (numeric.c) without its allocations: the digits stand in
    /// the stored form as they stand in the binary form, in host byte order.
    unsafe fn numeric(&mut self, raw: usize, out: &mut Vec<u8>, context: &mut RowContext) {
        // SAFETY: as `write`.
        let stored = unsafe { detoasted(raw, context) };
        if !numeric_binary(stored, out) {
            // SAFETY: as `write`.
            unsafe { self.send(Datum::from(raw), out, context) }
        }
    }
}

impl Write {
    /// How a built-in type's binary form is written (the types' send functions).
    fn of(type_oid: u32) -> Write {
        match pg_sys::Oid::from(type_oid) {
            pg_sys::BOOLOID => Write::Bool,
            pg_sys::CHAROID => Write::Byte,
            pg_sys::INT2OID => Write::Int2,
            pg_sys::INT4OID | pg_sys::DATEOID | pg_sys::OIDOID | pg_sys::XIDOID | pg_sys::CIDOID => {
                Write::Int4
            }
            pg_sys::INT8OID
            | pg_sys::TIMESTAMPOID
            | pg_sys::TIMESTAMPTZOID
            | pg_sys::TIMEOID
            | pg_sys::MONEYOID
            | pg_sys::XID8OID
            | pg_sys::PG_LSNOID => Write::Int8,
            pg_sys::FLOAT4OID => Write::Float4,
            pg_sys::FLOAT8OID => Write::Float8,
            pg_sys::UUIDOID => Write::Uuid,
            pg_sys::NAMEOID => Write::Name,
            pg_sys::INTERVALOID => Write::Interval,
            // Their send functions convert to the client's encoding, which is
            // UTF8; `start` refuses databases in any other.
            pg_sys::TEXTOID | pg_sys::VARCHAROID | pg_sys::BPCHAROID | pg_sys::JSONOID | pg_sys::BYTEAOID => {
                Write::Bytes
            }
            pg_sys::NUMERICOID => Write::Numeric,
            _ => Write::Send,
        }
    }
}

/// A TOAST pointer that logical decoding left in place: the value is not in
/// the WAL because this change did not touch it (as pgoutput's proto.c).
unsafe fn is_unchanged_toast(value: *const pg_sys::varlena) -> bool {
    // SAFETY: points to a varlena.
    unsafe {
        varlena::varatt_is_1b_e(value)
            && u32::from(varlena::vartag_1b_e(value)) == pg_sys::vartag_external::VARTAG_ONDISK
    }
}

#[inline]
fn fixed<const N: usize>(out: &mut Vec<u8>, value: [u8; N]) {
    out.extend_from_slice(&(N as i32).to_be_bytes());
    out.extend_from_slice(&value);
}

#[inline]
fn bytes(out: &mut Vec<u8>, value: &[u8]) {
    // A large value gets its room exactly: doubling would double its cost.
    if value.len() > LARGE_VALUE {
        out.reserve_exact(value.len() + 64);
    }
    out.extend_from_slice(&(value.len() as i32).to_be_bytes());
    out.extend_from_slice(value);
}

const LARGE_VALUE: usize = 1 << 20;

unsafe fn interval(out: &mut Vec<u8>, value: *const pg_sys::Interval) {
    // SAFETY: points to an Interval.
    let value = unsafe { &*value };
    out.extend_from_slice(&16i32.to_be_bytes());
    out.extend_from_slice(&value.time.to_be_bytes());
    out.extend_from_slice(&value.day.to_be_bytes());
    out.extend_from_slice(&value.month.to_be_bytes());
}

unsafe fn plain(raw: usize, out: &mut Vec<u8>, context: &mut RowContext) {
    // SAFETY: points to a varlena.
    bytes(out, unsafe { detoasted(raw, context) });
}

unsafe fn stored_jsonb(raw: usize, out: &mut Vec<u8>, context: &mut RowContext) {
    // SAFETY: points to a varlena.
    let container = unsafe { detoasted(raw, context) };
    out.reserve(container.len() + 5);
    out.extend_from_slice(&(container.len() as i32 + 1).to_be_bytes());
    out.push(STORED_JSONB);
    out.extend_from_slice(container);
}

/// Logical decoding puts a TOASTed value together and leaves a pointer to it
/// (`ReorderBufferToastReplace`): where the value itself is.
unsafe fn without_indirection(value: *mut pg_sys::varlena) -> *mut pg_sys::varlena {
    // SAFETY: points to a varlena; an indirect one holds a pointer to another.
    unsafe {
        if varlena::varatt_is_1b_e(value)
            && u32::from(varlena::vartag_1b_e(value)) == pg_sys::vartag_external::VARTAG_INDIRECT
        {
            varlena::vardata_1b_e(value).cast::<pg_sys::varatt_indirect>().read_unaligned().pointer
        } else {
            value
        }
    }
}

/// A varlena's bytes; fetched and decompressed into the row's context if need be.
unsafe fn detoasted<'a>(raw: usize, context: &mut RowContext) -> &'a [u8] {
    // SAFETY: points to a varlena; the result points into it or into the
    // row's context, both valid until the row is written.
    unsafe {
        let mut value = without_indirection(raw as *mut pg_sys::varlena);
        let inline = varlena::varatt_is_4b_u(value)
            || (varlena::varatt_is_1b(value) && !varlena::varatt_is_1b_e(value));
        if !inline {
            value = context.within(|| pg_sys::pg_detoast_datum_packed(value));
        }
        let len = varlena::varsize_any_exhdr(value);
        std::slice::from_raw_parts(varlena::vardata_any(value).cast(), len)
    }
}

/// Writes a stored numeric in its binary form; `false` for NaN and infinities.
/// The layouts are `NumericShort` and `NumericLong` (utils/adt/numeric.c).
fn numeric_binary(stored: &[u8], out: &mut Vec<u8>) -> bool {
    let Some((head, rest)) = stored.split_first_chunk::<2>() else { return false };
    let head = u16::from_ne_bytes(*head);
    let (sign, dscale, weight, digits) = match head & 0xC000 {
        0xC000 => return false,
        0x8000 => {
            let sign = if head & 0x2000 != 0 { 0x4000 } else { 0 };
            let weight = (head & 0x3F) as i16 | if head & 0x40 != 0 { !0x3F } else { 0 };
            (sign, (head & 0x1F80) >> 7, weight, rest)
        }
        sign => {
            let Some((weight, digits)) = rest.split_first_chunk::<2>() else { return false };
            (sign, head & 0x3FFF, i16::from_ne_bytes(*weight), digits)
        }
    };
    let count = digits.len() / 2;
    out.extend_from_slice(&((8 + 2 * count) as i32).to_be_bytes());
    out.extend_from_slice(&(count as i16).to_be_bytes());
    out.extend_from_slice(&weight.to_be_bytes());
    out.extend_from_slice(&sign.to_be_bytes());
    out.extend_from_slice(&dscale.to_be_bytes());
    for digit in digits.chunks_exact(2) {
        out.extend_from_slice(&[digit[1], digit[0]]);
    }
    true
}
