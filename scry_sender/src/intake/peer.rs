//! Who may own the socket's directory, and who may connect.
//!
//! Invariant: our own user, root, and the one that the configuration names;
//! the kernel tells who it is (SO_PEERCRED), not the peer.

use nix::unistd::Uid;
use tokio::net::UnixStream;

/// The users that are trusted with the socket.
#[derive(Debug, Clone, Copy)]
pub struct Peers {
    own: u32,
    owner: Option<u32>,
}

impl Peers {
    /// Our own user, root, and `owner`.
    #[must_use]
    pub fn new(owner: Option<u32>) -> Self {
        Peers { own: Uid::effective().as_raw(), owner }
    }

    /// Whether a user is trusted.
    #[must_use]
    pub fn trusts(&self, uid: u32) -> bool {
        uid == 0 || uid == self.own || Some(uid) == self.owner
    }

    /// The user on the other end, if it may not connect.
    pub fn stranger(&self, stream: &UnixStream) -> Option<String> {
        match stream.peer_cred() {
            Ok(peer) if self.trusts(peer.uid()) => None,
            Ok(peer) => Some(format!("user {}", peer.uid())),
            Err(error) => Some(format!("a user that the system does not tell: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trusts_itself_root_and_the_named_owner_only() {
        let peers = Peers { own: 100, owner: Some(200) };
        assert!(peers.trusts(0) && peers.trusts(100) && peers.trusts(200));
        assert!(!peers.trusts(300));
        assert!(!Peers { own: 100, owner: None }.trusts(200));
    }
}
