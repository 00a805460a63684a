//! A page of a table, as the server lays it out (storage/bufpage.h).
//!
//! ```text
//! header │ line pointers ─► │ free │ ◄─ tuples
//! ```
//!
//! Only for little-endian machines, as everything of the loader.

use pgrx::pg_sys;

/// Bytes of a page.
pub const PAGE_BYTES: usize = pg_sys::BLCKSZ as usize;

/// A page that is being filled.
#[repr(C, align(4096))]
pub struct Page {
    bytes: [u8; PAGE_BYTES],
}

impl Page {
    /// An empty page, all of whose tuples everybody will see.
    pub fn new() -> Box<Page> {
        let mut page = Box::new(Page { bytes: [0; PAGE_BYTES] });
        page.clear();
        page
    }

    /// Its bytes.
    pub fn bytes(&mut self) -> &mut [u8; PAGE_BYTES] {
        &mut self.bytes
    }

    /// Takes everything out.
    pub fn clear(&mut self) {
        self.bytes.fill(0);
        self.put(FLAGS, PD_ALL_VISIBLE);
        self.put(LOWER, HEADER as u16);
        self.put(UPPER, PAGE_BYTES as u16);
        self.put(SPECIAL, PAGE_BYTES as u16);
        self.put(SIZE_AND_VERSION, PAGE_BYTES as u16 | LAYOUT_VERSION);
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.get(LOWER) == HEADER
    }

    /// Adds a tuple, the page's being number `block`; `false` if it would leave less than `spare`
    /// bytes free. The first tuple needs no spare room (access/heap/hio.c, `RelationGetBufferForTuple`).
    #[inline]
    pub fn add(&mut self, tuple: &[u8], block: u32, spare: usize) -> bool {
        let (lower, upper) = (self.get(LOWER), self.get(UPPER));
        let spare = if lower == HEADER { 0 } else { spare };
        let room = tuple.len().next_multiple_of(8);
        let items = (lower - HEADER) / LINE_POINTER;
        if lower + LINE_POINTER + room + spare > upper || items >= ITEMS_MAX {
            return false;
        }
        let at = upper - room;
        let Some(place) = self.bytes.get_mut(at..at + tuple.len()) else { return false };
        place.copy_from_slice(tuple);
        if let Some(ctid) = place.get_mut(CTID..CTID + 6) {
            ctid[..2].copy_from_slice(&((block >> 16) as u16).to_le_bytes());
            ctid[2..4].copy_from_slice(&(block as u16).to_le_bytes());
            ctid[4..].copy_from_slice(&(items as u16 + 1).to_le_bytes());
        }
        // ItemIdData (storage/itemid.h): offset, flags and length in 15, 2 and 15 bits.
        let pointer = at as u32 | LP_NORMAL << 15 | (tuple.len() as u32) << 17;
        self.bytes[lower..lower + LINE_POINTER].copy_from_slice(&pointer.to_le_bytes());
        self.put(LOWER, (lower + LINE_POINTER) as u16);
        self.put(UPPER, at as u16);
        true
    }

    fn get(&self, at: usize) -> usize {
        usize::from(u16::from_le_bytes([self.bytes[at], self.bytes[at + 1]]))
    }

    fn put(&mut self, at: usize, value: u16) {
        self.bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }
}

/// The pages of a visibility map that say of each of `blocks` pages that all of its tuples are
/// visible to everybody and frozen (access/heap/visibilitymap.c): two bits a page, after a header.
pub fn visibility_map(blocks: u32, mut each: impl FnMut(u32, &mut Page)) {
    let mut page = Page::new();
    for number in 0..blocks.div_ceil(MAPPED) {
        let mapped = (blocks - number * MAPPED).min(MAPPED) as usize;
        page.clear();
        page.put(FLAGS, 0);
        page.put(LOWER, HEADER as u16);
        let map = &mut page.bytes[HEADER..];
        map[..mapped / 4].fill(0xFF);
        if !mapped.is_multiple_of(4) {
            map[mapped / 4] = (1 << (2 * (mapped % 4))) - 1;
        }
        each(number, &mut page);
    }
}

// PageHeaderData
const FLAGS: usize = 10;
const LOWER: usize = 12;
const UPPER: usize = 14;
const SPECIAL: usize = 16;
const SIZE_AND_VERSION: usize = 18;
const HEADER: usize = 24;
const PD_ALL_VISIBLE: u16 = 0x0004;
const LAYOUT_VERSION: u16 = 4;
const LINE_POINTER: usize = 4;
const LP_NORMAL: u32 = 1;
/// `t_ctid` in `HeapTupleHeaderData` (access/htup_details.h).
const CTID: usize = 12;
/// `MaxHeapTuplesPerPage`.
const ITEMS_MAX: usize = (PAGE_BYTES - HEADER) / (24 + LINE_POINTER);
/// `HEAPBLOCKS_PER_PAGE`.
const MAPPED: u32 = ((PAGE_BYTES - HEADER) * 4) as u32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tuples_stand_behind_line_pointers() {
        let mut page = Page::new();
        assert!(page.is_empty());
        assert!(page.add(&[1; 30], 0x0001_0002, 0) && page.add(&[2; 24], 0x0001_0002, 0));
        assert!(!page.is_empty());
        assert_eq!((page.get(LOWER), page.get(UPPER)), (HEADER + 8, PAGE_BYTES - 32 - 24));
        let pointer = u32::from_le_bytes(page.bytes[HEADER + 4..HEADER + 8].try_into().unwrap());
        assert_eq!((pointer & 0x7FFF, pointer >> 15 & 3, pointer >> 17), (PAGE_BYTES as u32 - 56, 1, 24));
        assert_eq!(page.bytes[PAGE_BYTES - 56 + CTID..][..6], [1, 0, 2, 0, 2, 0]);
        page.clear();
        assert!(page.is_empty() && page.bytes[HEADER..].iter().all(|b| *b == 0));
    }

    #[test]
    fn a_full_page_takes_no_more() {
        let mut page = Page::new();
        let count = (0..).take_while(|_| page.add(&[9; 24], 0, 0)).count();
        assert_eq!(count, ITEMS_MAX);
        page.clear();
        assert!(page.add(&[9; 5000], 0, 7000) && !page.add(&[9; 500], 0, 7000) && page.add(&[9; 500], 0, 0));
        assert!(!page.add(&[9; PAGE_BYTES], 0, 0));
    }

    #[test]
    fn the_map_has_two_bits_a_page() {
        let mut pages = Vec::new();
        visibility_map(MAPPED + 5, |number, page| pages.push((number, page.bytes[HEADER..].to_vec())));
        assert_eq!(pages.len(), 2);
        assert!(pages[0].1.iter().all(|b| *b == 0xFF));
        assert_eq!(pages[1].1[..3], [0xFF, 0x03, 0]);
        visibility_map(0, |_, _| panic!("a page for nothing"));
    }
}
