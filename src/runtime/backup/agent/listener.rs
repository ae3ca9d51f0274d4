//! Where an agent listens: few connections, encrypted where there are certificates, none of which may hang.

use crate::config::{Security, SecurityFiles};
use crate::decision::topology::Endpoint;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use socket2::{SockRef, TcpKeepalive};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;

/// So many connections are open at once; further ones wait to be accepted.
const MOST_CONNECTIONS: usize = 16;
/// How long a client may take to begin encryption.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// A connection on which nothing could be written for so long is closed. Whoever stores a copy may wait for
/// its target meanwhile.
const SILENCE: Duration = Duration::from_secs(300);
/// An idle peer is asked whether it is still there.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// Accepts connections that have become what they are meant to be.
#[derive(Debug)]
pub(super) struct Listener {
    ready: mpsc::Receiver<(Connection, SocketAddr)>,
    address: SocketAddr,
}

/// One connection.
pub(super) struct Connection {
    stream: Box<dyn Stream>,
    silence: Pin<Box<Sleep>>,
    _place: OwnedSemaphorePermit,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connection")
    }
}

/// What connections are encrypted with; nothing where there are no certificates.
pub(super) fn encryption(security: Option<&Security>) -> Result<Option<TlsAcceptor>, String> {
    let Some(Security::Files(files)) = security else {
        return Ok(None);
    };
    // Fails when one is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let SecurityFiles { certificate, key, .. } = files;
    let unreadable = |file: &std::path::Path, error: String| format!("{}: {error}", file.display());
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(|found| found.collect::<Result<Vec<_>, _>>())
        .map_err(|error| unreadable(certificate, error.to_string()))?;
    if chain.is_empty() {
        return Err(unreadable(certificate, "it holds no certificate (PEM)".to_owned()));
    }
    let secret =
        PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable(key, error.to_string()))?;
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .map_err(|error| unreadable(certificate, error.to_string()))?;
    Ok(Some(TlsAcceptor::from(Arc::new(config))))
}

impl Listener {
    /// Listens there.
    pub(super) async fn open(
        address: &Endpoint,
        encryption: Option<TlsAcceptor>,
    ) -> io::Result<Listener> {
        let listener = TcpListener::bind((address.host.as_str(), address.port)).await?;
        let address = listener.local_addr()?;
        let (sender, ready) = mpsc::channel(1);
        tokio::spawn(accept(listener, encryption, sender));
        Ok(Listener { ready, address })
    }
}

/// Accepts until nobody takes connections any more. Slow handshakes hold up no other client.
async fn accept(
    listener: TcpListener,
    encryption: Option<TlsAcceptor>,
    ready: mpsc::Sender<(Connection, SocketAddr)>,
) {
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = ready.closed() => return,
        };
        let Ok((stream, address)) = accepted else {
            // Too many open files, most likely: others must close theirs first.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (encryption, ready) = (encryption.clone(), ready.clone());
        tokio::spawn(async move {
            if let Some(stream) = prepared(stream, encryption).await {
                let silence = Box::pin(tokio::time::sleep(SILENCE));
                let connection = Connection { stream, silence, _place: place };
                let _ = ready.send((connection, address)).await;
            }
        });
    }
}

async fn prepared(stream: TcpStream, encryption: Option<TlsAcceptor>) -> Option<Box<dyn Stream>> {
    let _ = stream.set_nodelay(true);
    let alive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE);
    let _ = SockRef::from(&stream).set_tcp_keepalive(&alive);
    match encryption {
        None => Some(Box::new(stream)),
        Some(encryption) => {
            let shaking = tokio::time::timeout(HANDSHAKE, encryption.accept(stream)).await;
            match shaking.ok()? {
                Ok(stream) => Some(Box::new(stream)),
                Err(error) => {
                    tracing::debug!(%error, "a client could not begin encryption");
                    None
                }
            }
        }
    }
}

impl axum::serve::Listener for Listener {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        match self.ready.recv().await {
            Some(accepted) => accepted,
            // The task that accepts ends only after this is dropped.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

impl Connection {
    fn too_silent(&mut self, cx: &mut Context<'_>) -> bool {
        self.silence.as_mut().poll(cx).is_ready()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.too_silent(cx) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_write(cx, bytes) {
            Poll::Pending if self.too_silent(cx) => {
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            Poll::Ready(Ok(written)) => {
                // Once in a while is enough, and cheaper than at each write.
                self.silence = Box::pin(tokio::time::sleep(SILENCE));
                Poll::Ready(Ok(written))
            }
            other => other,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
