//! Reading and writing of single fields: big-endian, checked.
//!
//! [`Reader`] walks over borrowed bytes and returns an [`Error`] where they do
//! not hold what is asked for. [`Writer`] appends to a buffer that its caller
//! reuses. Text is UTF-8 with a 32-bit length in front.

use crate::{Error, Lsn, limits};

/// Appends fields to a buffer.
pub struct Writer<'a> {
    buf: &'a mut Vec<u8>,
}

impl<'a> Writer<'a> {
    /// A writer that appends to `buf`.
    pub fn new(buf: &'a mut Vec<u8>) -> Self {
        Writer { buf }
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) {
        self.buf.push(value);
    }

    /// A truth value, as 0 or 1.
    pub fn bool(&mut self, value: bool) {
        self.buf.push(u8::from(value));
    }

    /// Two bytes.
    pub fn u16(&mut self, value: u16) {
        self.buf.extend_from_slice(&value.to_be_bytes());
    }

    /// Two bytes, signed.
    pub fn i16(&mut self, value: i16) {
        self.buf.extend_from_slice(&value.to_be_bytes());
    }

    /// Four bytes.
    pub fn u32(&mut self, value: u32) {
        self.buf.extend_from_slice(&value.to_be_bytes());
    }

    /// Four bytes, signed.
    pub fn i32(&mut self, value: i32) {
        self.buf.extend_from_slice(&value.to_be_bytes());
    }

    /// Eight bytes.
    pub fn u64(&mut self, value: u64) {
        self.buf.extend_from_slice(&value.to_be_bytes());
    }

    /// Sixteen bytes.
    pub fn u128(&mut self, value: u128) {
        self.buf.extend_from_slice(&value.to_be_bytes());
    }

    /// Eight bytes, signed.
    pub fn i64(&mut self, value: i64) {
        self.buf.extend_from_slice(&value.to_be_bytes());
    }

    /// A WAL position.
    pub fn lsn(&mut self, value: Lsn) {
        self.u64(value.0);
    }

    /// Text with its length in front. Texts that are too long are cut at a
    /// character border: the fields that use this are for people or names,
    /// whose bounds lie far above what PostgreSQL makes. A zero byte, which the
    /// reader refuses and no name of PostgreSQL's holds, becomes a space.
    pub fn text(&mut self, value: &str, max: usize) {
        let mut end = value.len().min(max);
        while !value.is_char_boundary(end) {
            end -= 1;
        }
        let cut = value.get(..end).unwrap_or_default();
        self.u32(u32::try_from(cut.len()).unwrap_or(0));
        self.buf.extend(cut.bytes().map(|byte| if byte == 0 { b' ' } else { byte }));
    }

    /// A name: at most [`limits::NAME_BYTES_MAX`] bytes.
    pub fn name(&mut self, value: &str) {
        self.text(value, limits::NAME_BYTES_MAX);
    }
}

/// Reads fields from borrowed bytes.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader over all of `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Reader { bytes }
    }

    /// The next `len` bytes.
    pub fn bytes(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], Error> {
        match self.bytes.split_at_checked(len) {
            Some((head, tail)) => {
                self.bytes = tail;
                Ok(head)
            }
            None => Err(Error::Truncated { what, need: len - self.bytes.len() }),
        }
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Error> {
        match self.bytes.split_first_chunk::<N>() {
            Some((head, tail)) => {
                self.bytes = tail;
                Ok(*head)
            }
            None => Err(Error::Truncated { what, need: N - self.bytes.len() }),
        }
    }

    /// One byte.
    pub fn u8(&mut self, what: &'static str) -> Result<u8, Error> {
        Ok(u8::from_be_bytes(self.array(what)?))
    }

    /// A truth value; anything but 0 and 1 is an error.
    pub fn bool(&mut self, what: &'static str) -> Result<bool, Error> {
        match self.u8(what)? {
            0 => Ok(false),
            1 => Ok(true),
            got => Err(Error::Undefined { what, got: got.into() }),
        }
    }

    /// Two bytes.
    pub fn u16(&mut self, what: &'static str) -> Result<u16, Error> {
        Ok(u16::from_be_bytes(self.array(what)?))
    }

    /// Two bytes, signed.
    pub fn i16(&mut self, what: &'static str) -> Result<i16, Error> {
        Ok(i16::from_be_bytes(self.array(what)?))
    }

    /// Four bytes.
    pub fn u32(&mut self, what: &'static str) -> Result<u32, Error> {
        Ok(u32::from_be_bytes(self.array(what)?))
    }

    /// Four bytes, signed.
    pub fn i32(&mut self, what: &'static str) -> Result<i32, Error> {
        Ok(i32::from_be_bytes(self.array(what)?))
    }

    /// Eight bytes.
    pub fn u64(&mut self, what: &'static str) -> Result<u64, Error> {
        Ok(u64::from_be_bytes(self.array(what)?))
    }

    /// Sixteen bytes.
    pub fn u128(&mut self, what: &'static str) -> Result<u128, Error> {
        Ok(u128::from_be_bytes(self.array(what)?))
    }

    /// Eight bytes, signed.
    pub fn i64(&mut self, what: &'static str) -> Result<i64, Error> {
        Ok(i64::from_be_bytes(self.array(what)?))
    }

    /// A WAL position.
    pub fn lsn(&mut self, what: &'static str) -> Result<Lsn, Error> {
        Ok(Lsn(self.u64(what)?))
    }

    /// Text of at most `max` bytes, without a zero byte.
    pub fn text(&mut self, max: usize, what: &'static str) -> Result<String, Error> {
        let len = self.count(max, what)?;
        let bytes = self.bytes(len, what)?;
        match std::str::from_utf8(bytes) {
            Ok(text) if !text.contains('\0') => Ok(text.to_owned()),
            _ => Err(Error::BadText { what }),
        }
    }

    /// A name: text of at most [`limits::NAME_BYTES_MAX`] bytes.
    pub fn name(&mut self, what: &'static str) -> Result<String, Error> {
        self.text(limits::NAME_BYTES_MAX, what)
    }

    /// A 32-bit count or length of at most `max`.
    pub fn count(&mut self, max: usize, what: &'static str) -> Result<usize, Error> {
        let got = self.u32(what)?;
        let too_large = Error::TooLarge { what, got: got.into(), max: max as u64 };
        usize::try_from(got).ok().filter(|n| *n <= max).ok_or(too_large)
    }

    /// How many bytes are left.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.bytes.len()
    }

    /// All bytes that are left.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.bytes
    }

    /// Ends the reading of `what`: nothing may be left.
    pub fn finish(self, what: &'static str) -> Result<(), Error> {
        match self.bytes.len() {
            0 => Ok(()),
            count => Err(Error::LeftOver { what, count }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejects_text_above_its_bound_before_reading_it() {
        let mut buf = Vec::new();
        Writer::new(&mut buf).u32(u32::MAX);
        let err = Reader::new(&buf).name("name").unwrap_err();
        assert!(matches!(err, Error::TooLarge { .. }));
    }

    #[test]
    fn rejects_zero_bytes_and_bad_utf8_in_text() {
        for bad in [&b"\0\0\0\x01\0"[..], &b"\0\0\0\x01\xff"[..]] {
            assert_eq!(Reader::new(bad).name("n"), Err(Error::BadText { what: "n" }));
        }
    }

    #[test]
    fn writes_long_text_cut_at_a_character() {
        let mut buf = Vec::new();
        Writer::new(&mut buf).text("aé", 2);
        assert_eq!(Reader::new(&buf).text(10, "t").unwrap(), "a");
    }
}
