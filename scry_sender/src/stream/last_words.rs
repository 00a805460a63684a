//! What the platform said before it closed a connection that we were still writing to.
//!
//! ```text
//! write ─► broken pipe, reset ─► read what has come ─┬─ an error (a TLS alert) ─► the write's error
//!                                                    └─ bytes ─► kept for the reader; the write's own error
//! ```
//!
//! A server refuses a client's certificate after the client has finished its handshake (RFC 8446,
//! section 4.4.2.4), so that the alert that says why can stand unread in the socket while a write to it
//! already fails. Invariant: no byte that was received is lost.
//! What it does not do: wait for anything.

use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Read at most, once writing has failed: an alert, or the frames of a refusal.
const LAST_BYTES_MAX: usize = 64 << 10;
const STEP: usize = 4 << 10;

/// A connection whose last words are heard.
#[derive(Debug)]
pub struct LastWords<T> {
    io: T,
    kept: BytesMut,
}

impl<T: AsyncRead + AsyncWrite + Unpin> LastWords<T> {
    /// Listens to `io`.
    pub fn of(io: T) -> Self {
        LastWords { io, kept: BytesMut::new() }
    }

    /// The error to tell instead of `error`, if the peer has said more.
    fn listen(&mut self, cx: &mut Context<'_>, error: io::Error) -> io::Error {
        let is_cut = [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset, ErrorKind::ConnectionAborted]
            .contains(&error.kind());
        while is_cut && self.kept.len() < LAST_BYTES_MAX {
            let mut step = [0; STEP];
            let mut read = ReadBuf::new(&mut step);
            match Pin::new(&mut self.io).poll_read(cx, &mut read) {
                Poll::Ready(Ok(())) if !read.filled().is_empty() => {
                    self.kept.extend_from_slice(read.filled())
                }
                Poll::Ready(Err(said)) if said.kind() == ErrorKind::InvalidData => return said,
                _ => break,
            }
        }
        error
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for LastWords<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.kept.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        let len = self.kept.len().min(buf.remaining());
        buf.put_slice(self.kept.get(..len).unwrap_or_default());
        self.kept.advance(len);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for LastWords<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, buf));
        Poll::Ready(written.map_err(|error| self.listen(cx, error)))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, bufs));
        Poll::Ready(written.map_err(|error| self.listen(cx, error)))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = ready!(Pin::new(&mut self.io).poll_flush(cx));
        Poll::Ready(flushed.map_err(|error| self.listen(cx, error)))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// Writing fails; reading gives these in turn.
    struct Closed(Vec<io::Result<&'static [u8]>>);

    impl AsyncRead for Closed {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            if self.0.is_empty() {
                return Poll::Ready(Ok(()));
            }
            Poll::Ready(self.0.remove(0).map(|bytes| buf.put_slice(bytes)))
        }
    }

    impl AsyncWrite for Closed {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Err(ErrorKind::BrokenPipe.into()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn an_alert_explains_a_broken_pipe() {
        let alert = || io::Error::new(ErrorKind::InvalidData, "received fatal alert: CertificateUnknown");
        let mut io = LastWords::of(Closed(vec![Ok(b"frames"), Err(alert())]));
        let said = io.write(b"x").await.unwrap_err();
        assert!(said.to_string().contains("CertificateUnknown"), "{said}");
        let mut kept = [0; 6];
        io.read_exact(&mut kept).await.unwrap();
        assert_eq!(&kept, b"frames");
    }

    #[tokio::test]
    async fn without_last_words_the_error_is_its_own() {
        let mut io = LastWords::of(Closed(Vec::new()));
        assert_eq!(io.write(b"x").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
    }
}
