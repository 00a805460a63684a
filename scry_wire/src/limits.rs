//! Bounds on everything that a peer can make this side hold, with the reason
//! of each. Readers check them before they take memory.

/// Bytes of one frame's payload. Small enough that a queue of frames is a
/// bounded amount of memory, large enough that header and checksum cost nothing.
pub const FRAME_PAYLOAD_MAX: usize = 1 << 20;

/// Bytes of a frame's header.
pub const FRAME_HEADER_LEN: usize = 16;

/// Bytes of one message that goes on over several frames. PostgreSQL's own
/// bound on a row in memory is 1 GB (`MaxAllocSize`, memutils.h); one such row
/// as old and new tuple, and room for the framing.
pub const MESSAGE_BYTES_MAX: usize = (2 << 30) + (64 << 10);

/// Bytes of a name: `NAMEDATALEN` (63 bytes), four times for encodings that
/// grow when they become UTF-8.
pub const NAME_BYTES_MAX: usize = 256;

/// Bytes of a human-readable text in a refusal, notice or finding.
pub const TEXT_BYTES_MAX: usize = 64 << 10;

/// Columns of a relation: `MaxHeapAttributeNumber` is 1600 (htup_details.h),
/// rounded up to a power of two.
pub const COLUMNS_MAX: usize = 2048;

/// Relations named in one truncation.
pub const RELATIONS_MAX: usize = 1 << 20;

/// Tables of one job: their list fits one frame.
pub const JOB_TABLES_MAX: usize = 60_000;

/// Tables with changes in quarantine that one message lists.
pub const MARKS_MAX: usize = 1_000;

/// Bytes of the cause beside such a table.
pub const CAUSE_BYTES_MAX: usize = 900;

/// Chunks of one table's copy: 32 TB at the smallest chunk.
pub const CHUNKS_MAX: u32 = 1 << 24;

/// Bytes of a catalog document: 100,000 tables at 10 kB each.
pub const CATALOG_BYTES_MAX: usize = 1 << 30;

/// Bytes of a pack's header.
pub const PACK_HEADER_LEN: usize = 12;

/// Bytes of frames in one pack, and so all that inflating one can take: the
/// largest block of Zstandard (`Block_Maximum_Size`, RFC 8878), beyond which
/// packs that stand alone gain little.
pub const PACK_BYTES_MAX: usize = 128 << 10;

/// Bytes of frames for each byte of a compressed pack. Rows shrink to a third
/// or a tenth, runs of one byte by thousands: what is beyond this is filled up
/// by its writer, and costs a reader no more work than other bytes do.
pub const PACK_RATIO_MAX: usize = 256;

const _: () = assert!(FRAME_PAYLOAD_MAX <= u32::MAX as usize, "a payload's length fits its field");
const _: () = assert!(MESSAGE_BYTES_MAX <= u32::MAX as usize, "a message's length fits its field");
