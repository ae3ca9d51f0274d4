//! Moves the bytes of one session, unchanged, in both directions.
//!
//! A direction has a buffer only while bytes arrive, so that idle sessions cost next to nothing,
//! and reads no more before the last chunk was taken, so that a slow reader slows its writer.

use bytes::{Buf, BytesMut};
use prometheus::IntCounter;
use std::io;
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};

/// The buffer that a direction begins with, in bytes.
const SMALL: usize = 16 * 1024;
/// The buffer of a direction that filled the small one.
const LARGE: usize = 64 * 1024;
/// Chunks after which other sessions of this thread get their turn.
const TURN: u32 = 32;

/// Copies until both directions have ended; one that ends is closed towards its reader only.
///
/// `permitted` is asked before each write to the server; once it says no, an error follows.
pub(super) async fn copy_both(
    client: &mut TcpStream,
    server: &mut TcpStream,
    permitted: impl Fn() -> bool,
    (to_server, to_client): (&IntCounter, &IntCounter),
) -> io::Result<()> {
    let (client_read, client_write) = client.split();
    let (server_read, server_write) = server.split();
    tokio::try_join!(
        copy(client_read, server_write, permitted, to_server),
        copy(server_read, client_write, || true, to_client),
    )?;
    Ok(())
}

async fn copy(
    from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    permitted: impl Fn() -> bool,
    count: &IntCounter,
) -> io::Result<()> {
    let mut size = SMALL;
    let mut chunks = 0;
    loop {
        from.readable().await?;
        let mut chunk = BytesMut::with_capacity(size);
        loop {
            match from.try_read_buf(&mut chunk) {
                Ok(0) => return tokio::io::AsyncWriteExt::shutdown(&mut to).await,
                Ok(read) => {
                    size = if read == chunk.capacity() { LARGE } else { size };
                    write(&to, &mut chunk, &permitted).await?;
                    count.inc_by(read as u64);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
            chunks += 1;
            if chunks % TURN == 0 {
                tokio::task::yield_now().await;
            }
            chunk.clear();
            chunk.reserve(size);
        }
    }
}

async fn write(
    to: &WriteHalf<'_>,
    chunk: &mut BytesMut,
    permitted: &impl Fn() -> bool,
) -> io::Result<()> {
    while chunk.has_remaining() {
        // Also after each wait: a process that was stopped for a while must not finish its chunk.
        if !permitted() {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        match to.try_write(chunk) {
            Ok(written) => chunk.advance(written),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => to.writable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
