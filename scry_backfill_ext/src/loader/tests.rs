//! Examples by hand; that the server agrees with all of it is `e2e::loader`'s to find out.

use super::array::{self, Element};
use super::form::{Column, Former, Layout, Refused, Server};
use super::jsonb::Validator;
use super::numeric;
use super::rows::Rows;
use super::value::{Fixed, Kind};

const VARLENA: Layout = Layout { len: -1, align: 4, packs: true };

/// Nobody is asked.
struct Silent;

impl Server for Silent {
    fn receive(&mut self, place: usize, _value: Option<&[u8]>, _out: &mut Vec<u8>) {
        panic!("the server was asked for column {place}");
    }
}

fn column(place: usize, kind: Kind, len: i16, align: usize) -> Column {
    let layout = Layout { len, align, packs: len == -1 };
    Column { place: Some(place), kind, layout, not_null: false, checks_null: false }
}

/// A row as it travels.
pub(super) fn row(values: &[Option<&[u8]>]) -> Vec<u8> {
    let mut out = (values.len() as i16).to_be_bytes().to_vec();
    for value in values {
        out.extend_from_slice(&value.map_or(-1, |v| v.len() as i32).to_be_bytes());
        out.extend_from_slice(value.unwrap_or_default());
    }
    out
}

#[test]
fn a_tuple_has_its_header_its_nulls_and_its_alignment() {
    let columns = vec![
        column(0, Kind::Fixed(Fixed::Word(2)), 2, 2),
        column(1, Kind::Text { max: usize::MAX }, -1, 4),
        column(2, Kind::Fixed(Fixed::Word(4)), 4, 4),
        column(3, Kind::Fixed(Fixed::Word(8)), 8, 8),
    ];
    let mut former = Former::new(columns, 0x0102_0304, true);
    let bytes = row(&[Some(&[0, 1]), Some(b"ab"), None, Some(&[0, 0, 0, 0, 0, 0, 0, 2])]);
    let mut tuple = Vec::new();
    Rows::new(4).push(&bytes, |row| tuple = former.form(row, &mut Silent).unwrap().to_vec()).unwrap();
    assert_eq!(tuple[..4], [4, 3, 2, 1]);
    // Four attributes; NULLs, varlenas, xmin frozen, xmax invalid; 24 bytes of header with bitmap.
    assert_eq!(tuple[18..24], [4, 0, 0x03, 0x0B, 24, 0b1011]);
    assert_eq!(tuple[24..], [1, 0, 7, b'a', b'b', 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn a_null_where_there_may_be_none_is_refused() {
    let mut strict = column(0, Kind::Fixed(Fixed::Word(4)), 4, 4);
    strict.not_null = true;
    let mut former = Former::new(vec![strict], 3, false);
    let mut found = None;
    Rows::new(1).push(&row(&[None]), |row| found = former.form(row, &mut Silent).err()).unwrap();
    assert_eq!(found, Some(Refused::Null(0)));
}

#[test]
fn numerics_are_short_where_they_can() {
    let stored = |binary: &[u8], typmod| {
        let mut out = Vec::new();
        numeric::from_binary(binary, typmod, VARLENA, &mut out).then_some(out)
    };
    // 12.50, with and without numeric(4,2); digits 12 and 5000.
    let binary = [0, 2, 0, 0, 0, 0, 0, 2, 0, 12, 0x13, 0x88];
    let want = [(6 + 1) << 1 | 1, 0, 0x81, 12, 0, 0x88, 0x13];
    assert_eq!(stored(&binary, -1).as_deref(), Some(&want[..]));
    assert_eq!(stored(&binary, (4 << 16 | 2) + 4).as_deref(), Some(&want[..]));
    for (typmod, why) in [((3 << 16 | 2) + 4, "too many digits"), ((5 << 16 | 1) + 4, "to be rounded")] {
        assert_eq!(stored(&binary, typmod), None, "{why}");
    }
    for (binary, why) in [
        (&[0, 0, 0, 0, 0xC0, 0, 0, 0][..], "NaN"),
        (&[0, 1, 0, 0, 0, 0, 0, 0, 0x27, 0x10], "a digit of 10000"),
        (&[0, 1, 0, 0, 0, 0, 0, 0, 0, 0], "a leading zero"),
        (&[0, 2, 0, 0, 0, 0, 0, 1, 0, 1, 0, 1], "a digit behind the scale"),
        (&[0, 2, 0, 0, 0, 0, 0, 0, 0, 1], "a digit missing"),
    ] {
        assert_eq!(stored(binary, -1), None, "{why}");
    }
}

#[test]
fn what_is_out_of_range_is_the_servers() {
    let taken = |fixed: Fixed, value: &[u8]| fixed.write(value, &mut Vec::new());
    assert!(taken(Fixed::Date, &i32::MAX.to_be_bytes()) && taken(Fixed::Date, &0_i32.to_be_bytes()));
    assert!(!taken(Fixed::Date, &(-2_451_546_i32).to_be_bytes()) && !taken(Fixed::Date, &[0]));
    assert!(taken(Fixed::Timestamp, &i64::MIN.to_be_bytes()));
    assert!(!taken(Fixed::Timestamp, &(i64::MAX - 1).to_be_bytes()));
    let text = Kind::Text { max: 3 };
    let mut out = Vec::new();
    for value in [&b"a\0"[..], b"\xFF", b"\xED\xA0\x80", b"long"] {
        assert!(!text.write(value, VARLENA, &mut Vec::new(), &mut out) && out.is_empty(), "{value:?}");
    }
}

#[test]
fn arrays_are_what_they_say() {
    let binary = |head: [i32; 5], elements: &[u8]| {
        let mut out: Vec<u8> = head.iter().flat_map(|word| word.to_be_bytes()).collect();
        out.extend_from_slice(elements);
        out
    };
    let mut out = Vec::new();
    let good = binary([1, 0, 25, 1, 1], &[0, 0, 0, 1, b'x']);
    assert!(array::from_binary(&good, Element::Text, 25, &mut out));
    assert_eq!(out[20..], [(4 + 1) << 2, 0, 0, 0, b'x', 0, 0, 0]);
    for (bytes, why) in [
        (binary([1, 0, 23, 1, 1], &[0, 0, 0, 1, b'x']), "another element type"),
        (binary([1, 0, 25, 2, 1], &[0, 0, 0, 1, b'x']), "an element missing"),
        (binary([1, 0, 25, 1, 1], &[0, 0, 0, 1, b'x', 0]), "bytes behind"),
        (binary([1, 0, 25, 1, i32::MAX], &[0, 0, 0, 1, b'x']), "a bound too high"),
        (binary([1, 0, 25, 0, 1], &[]), "a dimension of nothing"),
        (binary([2, 0, 25, 1, 1], &[0, 0, 0, 1, 0, 0, 0, 1]), "two dimensions"),
    ] {
        assert!(!array::from_binary(&bytes, Element::Text, 25, &mut out), "{why}");
    }
}

/// `{"a": 1, "b": [true, "x"]}`
const CONTAINER: [u32; 12] = [
    0x2000_0002,
    0x8000_0001,
    0x0000_0001,
    // 8 bytes of numeric behind two of padding; a container.
    0x1000_000A,
    0x5000_000D,
    0x0000_6261,
    // Eight bytes: header, short numeric 1.
    8 << 2,
    0x0001_8000,
    0x4000_0002,
    0xB000_0000,
    0x0000_0001,
    0x0000_0078,
];

#[test]
fn containers_are_checked_whole() {
    let mut bytes: Vec<u8> = CONTAINER.iter().flat_map(|word| word.to_le_bytes()).collect();
    bytes.truncate(45);
    let mut validator = Validator::default();
    assert!(validator.is_valid(&bytes));
    for len in 0..bytes.len() {
        assert!(!validator.is_valid(&bytes[..len]), "cut to {len}");
    }
    for (at, value, why) in [
        (0, 3, "a pair too many"),
        (3, 0x40, "an array of as many"),
        (4, 200, "a key that ends elsewhere"),
        (20, b'c', "keys out of order"),
        (24, 9 << 2, "a numeric of another length"),
        (28, 0xFF, "a digit too large"),
        (35, 0x50, "a scalar that is none"),
        (36, 1, "a true with bytes"),
        (44, 0xFF, "no UTF-8"),
    ] {
        let mut damaged = bytes.clone();
        damaged[at] = value;
        // A digit needs both of its bytes.
        if why == "a digit too large" {
            damaged[30..32].fill(0xFF);
        }
        assert!(!validator.is_valid(&damaged), "{why}");
    }
}
