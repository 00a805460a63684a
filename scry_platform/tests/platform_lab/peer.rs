//! A worker by hand: one HTTP/2 request, frames both ways.

use super::batch::{Batch, frames};
use bytes::{Bytes, BytesMut};
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use scry_wire::Lsn;
use scry_wire::frame::{Frame, Tag};
use scry_wire::message::{
    CatalogApplied, ChunkDone, ChunkEnd, ChunkStart, Confirm, CopiedTable, CopyFinish, CopyFinished,
    LateCopy, Message, Notice, Refuse, Relation, TableMark, TableMarks, Welcome,
};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

pub struct Peer {
    _request: SendRequest<Bytes>,
    up: SendStream<Bytes>,
    down: RecvStream,
    buf: BytesMut,
    pub status: u16,
    pub headers: http::HeaderMap,
    /// The notices so far.
    pub notices: Vec<Notice>,
    /// The marks told last.
    pub marks: Option<Vec<TableMark>>,
}

impl Peer {
    /// Opens a stream over plain HTTP/2.
    pub async fn connect(port: u16, token: Option<&str>) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        Self::over(stream, token).await
    }

    /// As [`connect`](Self::connect), for a platform that may not be there.
    pub async fn try_connect(port: u16) -> Option<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
        Self::try_over(stream, None).await
    }

    pub async fn over<S>(stream: S, token: Option<&str>) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        Self::try_over(stream, token).await.expect("an HTTP/2 stream")
    }

    async fn try_over<S>(stream: S, token: Option<&str>) -> Option<Self>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (mut request, connection) =
            h2::client::Builder::new().initial_window_size(1 << 20).handshake(stream).await.ok()?;
        tokio::spawn(connection);
        let mut head = http::Request::post("http://platform/api/v1/stream");
        if let Some(token) = token {
            head = head.header("authorization", format!("Bearer {token}"));
        }
        request = request.ready().await.ok()?;
        let (answer, up) = request.send_request(head.body(()).unwrap(), false).ok()?;
        let answer = answer.await.ok()?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let (down, buf) = (answer.into_body(), BytesMut::new());
        Some(Peer { _request: request, up, down, buf, status, headers, notices: Vec::new(), marks: None })
    }

    /// Sends bytes as they are; false when the platform no longer reads.
    pub async fn send_bytes(&mut self, bytes: impl Into<Bytes>) -> bool {
        let mut rest: Bytes = bytes.into();
        while !rest.is_empty() {
            self.up.reserve_capacity(rest.len().min(1 << 20));
            let room = match std::future::poll_fn(|cx| self.up.poll_capacity(cx)).await {
                Some(Ok(room)) => room,
                _ => return false,
            };
            if self.up.send_data(rest.split_to(room.min(rest.len())), false).is_err() {
                return false;
            }
        }
        true
    }

    pub async fn send(&mut self, message: &impl Message) {
        self.send_bytes(message.to_frame()).await;
    }

    pub async fn send_batch(&mut self, batch: &Batch) {
        for frame in batch.frames() {
            self.send_bytes(frame).await;
        }
    }

    /// Ends the request in order.
    pub fn end(&mut self) {
        let _ = self.up.send_data(Bytes::new(), true);
    }

    /// The next frame; `None` at the end of the answer. Notices and marks are put
    /// aside.
    pub async fn next(&mut self) -> Option<Frame> {
        let read = self.try_next();
        tokio::time::timeout(Duration::from_secs(60), read).await.expect("an answer within a minute")
    }

    /// As [`next`](Self::next), however long it takes. May be dropped.
    pub async fn try_next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = Frame::take(&mut self.buf).unwrap() {
                match frame.tag() {
                    Tag::Notice => self.notices.push(Notice::from_frame(&frame).unwrap()),
                    Tag::TableMarks => self.marks = Some(TableMarks::from_frame(&frame).unwrap().tables),
                    Tag::CopyProgress => {}
                    _ => return Some(frame),
                }
                continue;
            }
            let data = self.down.data().await?.ok()?;
            let _ = self.down.flow_control().release_capacity(data.len());
            self.buf.extend_from_slice(&data);
        }
    }

    pub async fn expect<M: Message>(&mut self) -> M {
        let frame = self.next().await.expect("a frame");
        if frame.tag() == Tag::Refuse && M::TAG != Tag::Refuse {
            panic!("refused: {:?}", Refuse::from_frame(&frame).unwrap());
        }
        M::from_frame(&frame).unwrap()
    }

    pub async fn welcome(&mut self) -> Welcome {
        self.expect().await
    }

    /// The refusal, past confirmations that may stand before it.
    pub async fn refused(&mut self) -> Refuse {
        loop {
            let frame = self.next().await.expect("a refusal");
            if frame.tag() == Tag::Refuse {
                return Refuse::from_frame(&frame).unwrap();
            }
        }
    }

    pub async fn send_catalog(&mut self, document: &[u8]) {
        for frame in frames(Tag::Catalog, document, 0) {
            self.send_bytes(frame).await;
        }
    }

    pub async fn catalog_applied(&mut self) -> CatalogApplied {
        self.expect().await
    }

    /// Sends a chunk of table rows and returns the receipt.
    pub async fn chunk(
        &mut self,
        chunk: u32,
        chunks: u32,
        relation: &Relation,
        rows: &[Vec<u8>],
    ) -> ChunkDone {
        self.chunk_of(super::COPY_ID, chunk, chunks, relation, rows).await;
        self.expect().await
    }

    pub async fn chunk_of(
        &mut self,
        copy_id: u64,
        chunk: u32,
        chunks: u32,
        relation: &Relation,
        rows: &[Vec<u8>],
    ) {
        self.send(&ChunkStart { copy_id, chunk, chunks, relation: relation.clone() }).await;
        for frame in frames(Tag::Rows, &rows.concat(), u32::try_from(rows.len()).unwrap()) {
            self.send_bytes(frame).await;
        }
        self.send(&ChunkEnd { rows: rows.len() as u64 }).await;
    }

    /// Begins a late copy of tables: a snapshot taken between two positions.
    pub async fn late(&mut self, copy_id: u64, from: u64, until: u64, snapshot: &str, relids: &[u32]) {
        let late = LateCopy {
            copy_id,
            from_lsn: Lsn(from),
            until_lsn: Lsn(until),
            snapshot: snapshot.to_owned(),
            relids: relids.to_vec(),
        };
        self.send(&late).await;
    }

    /// Asks for the end of a copy; the answer is the caller's to await.
    pub async fn send_finish(&mut self, tables: &[(u32, u32, u64)]) {
        let tables = tables.iter().map(|(relid, chunks, rows)| CopiedTable {
            relid: *relid,
            chunks: *chunks,
            rows: *rows,
        });
        self.send(&CopyFinish { tables: tables.collect() }).await;
    }

    pub async fn finish(&mut self, tables: &[(u32, u32, u64)]) -> CopyFinished {
        self.send_finish(tables).await;
        self.expect().await
    }

    /// Reads on until the marks are these: table and number of changes.
    pub async fn marked(&mut self, wanted: &[(u32, u64)]) -> Vec<TableMark> {
        let start = std::time::Instant::now();
        loop {
            let marks = self.marks.clone().unwrap_or_default();
            if self.marks.is_some() && marks.iter().map(|m| (m.relid, m.changes)).eq(wanted.iter().copied()) {
                return marks;
            }
            assert!(start.elapsed() < Duration::from_secs(10), "wanted {wanted:?}, told {marks:?}");
            let _ = tokio::time::timeout(Duration::from_millis(200), self.try_next()).await;
        }
    }

    /// Reads confirmations until this position is applied.
    pub async fn confirmed(&mut self, lsn: u64) {
        loop {
            let confirm: Confirm = self.expect().await;
            assert!(confirm.applied_lsn <= confirm.flushed_lsn, "what is applied is safe: {confirm:?}");
            assert!(confirm.flushed_lsn <= Lsn(lsn), "{} is beyond what was sent", confirm.flushed_lsn);
            if confirm.applied_lsn == Lsn(lsn) {
                return;
            }
        }
    }
}
