//! What can be wrong with bytes that came from outside.

/// Why bytes are not what the format says. None of these is worth a retry on
/// the same connection: the peer that sent them is broken or hostile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The bytes end before the field does.
    #[error("{what} is truncated: {need} more bytes needed")]
    Truncated {
        /// The field that was being read.
        what: &'static str,
        /// How many bytes are missing.
        need: usize,
    },
    /// A length or count is above its bound in [`crate::limits`].
    #[error("{what} is too large: {got}, at most {max} allowed")]
    TooLarge {
        /// The field that was being read.
        what: &'static str,
        /// The value that was sent.
        got: u64,
        /// The bound.
        max: u64,
    },
    /// A field holds a value that the format does not define.
    #[error("{what} has an undefined value {got}")]
    Undefined {
        /// The field that was being read.
        what: &'static str,
        /// The value that was sent.
        got: u64,
    },
    /// A text field is not UTF-8 or holds a zero byte.
    #[error("{what} is not valid text")]
    BadText {
        /// The field that was being read.
        what: &'static str,
    },
    /// Bytes are left after the last field of a message.
    #[error("{count} bytes left over after {what}")]
    LeftOver {
        /// The message that was being read.
        what: &'static str,
        /// How many bytes are left.
        count: usize,
    },
    /// The checksum of a frame does not match its bytes.
    #[error("frame checksum mismatch: sent {sent:#010x}, computed {computed:#010x}")]
    Checksum {
        /// The checksum in the frame's header.
        sent: u32,
        /// The checksum of the bytes that arrived.
        computed: u32,
    },
    /// A frame arrived that its reader does not expect here.
    #[error("unexpected frame {tag:?} while waiting for {expected}")]
    Unexpected {
        /// The tag that arrived.
        tag: char,
        /// What would have been right.
        expected: &'static str,
    },
    /// The peers share no version of the format.
    #[error(
        "no common version: this side speaks {ours_min} to {ours_max}, the peer {theirs_min} to {theirs_max}"
    )]
    Version {
        /// Lowest version of this side.
        ours_min: u16,
        /// Highest version of this side.
        ours_max: u16,
        /// Lowest version of the peer.
        theirs_min: u16,
        /// Highest version of the peer.
        theirs_max: u16,
    },
}
