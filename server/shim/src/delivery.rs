//! Passes bytes between a connection and a process, unchanged and with back-pressure: each direction holds one chunk.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, Interest, copy_buf};
use tokio::net::UnixStream;

use crate::lines::Lines;

/// Maximum number of bytes that are read before they are written.
const CHUNK: usize = 64 * 1024;

/// Maximum number of bytes of standard error that are read before their lines are logged.
const ERRORS: usize = 8 * 1024;

/// Forwards everything until the end, then closes the receiver's side.
pub(crate) async fn pass(from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
    copy_buf(&mut BufReader::with_capacity(CHUNK, from), &mut to).await?;
    to.shutdown().await
}

/// Reads lines until the end, and passes each on.
pub(crate) async fn drain(mut from: impl AsyncRead + Unpin, mut take: impl FnMut(String)) {
    let (mut lines, mut chunk) = (Lines::default(), vec![0; ERRORS]);
    while let Ok(read @ 1..) = from.read(&mut chunk).await {
        lines.push(chunk.get(..read).unwrap_or_default(), &mut take);
    }
    lines.finish(take);
}

/// Waits until the other side has closed the connection, or its sending half, even while unread bytes remain. Takes a
/// duplicate of the connection, since it discards the runtime's state of arrivals.
///
/// # Errors
/// If the runtime cannot watch it.
pub(crate) async fn hung_up(connection: &UnixStream) -> io::Result<()> {
    while !connection.ready(Interest::READABLE).await?.is_read_closed() {
        // From here on the runtime waits for the next arrival, which the kernel reports.
        let _: io::Result<()> = connection.try_io(Interest::READABLE, || Err(io::ErrorKind::WouldBlock.into()));
    }
    Ok(())
}
