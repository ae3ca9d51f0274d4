//! What keeps the API standing: bounded requests, bounded time, bounded connections.

use super::answer::Answer;
use super::endpoints::Api;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;

/// The largest request body.
pub const MAX_BODY: usize = 64 << 10;
/// How many requests are worked on at once; the next one is answered 429.
pub const MAX_REQUESTS: usize = 64;
/// How many of them may be long polls.
pub const MAX_LONG_POLLS: usize = 16;
/// How many connections are open at once; further ones wait to be accepted.
const MAX_CONNECTIONS: usize = 256;
/// The largest sum of a request's header names and values.
const MAX_HEADERS: usize = 16 << 10;
/// How long one request may take, the longest long poll included.
const REQUEST_LIMIT: Duration = Duration::from_secs(40);
/// A connection on which nothing was answered for so long is closed, whatever trickles in.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);

/// Bounds every request and marks every answer.
pub async fn guard(State(api): State<Api>, request: Request, next: Next) -> Response {
    let size: usize =
        request.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    let mut response = if size > MAX_HEADERS {
        let text = format!("the headers take {size} bytes; at most {MAX_HEADERS} are read");
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        Answer::error(status, "too_large", text).into_response()
    } else if matches!(request.uri().path(), "/healthz" | "/readyz") {
        // Whoever restarts unhealthy processes must not be turned away by a crowd.
        next.run(request).await
    } else {
        bounded(&api, request, next).await
    };
    let headers = response.headers_mut();
    for (name, value) in MARKS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

const MARKS: [(HeaderName, &str); 5] = [
    (header::CACHE_CONTROL, "no-store"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
];

async fn bounded(api: &Api, request: Request, next: Next) -> Response {
    let Ok(_place) = api.requests.try_acquire() else {
        let text = format!("{MAX_REQUESTS} requests are being answered; try again shortly");
        return Answer::busy(text).into_response();
    };
    match tokio::time::timeout(REQUEST_LIMIT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let text = format!("the request took over {} s", REQUEST_LIMIT.as_secs());
            Answer::error(StatusCode::REQUEST_TIMEOUT, "timed_out", text).into_response()
        }
    }
}

/// Accepts a bounded number of connections, each of which must make progress.
#[derive(Debug)]
pub struct Gate {
    listener: TcpListener,
    places: Arc<Semaphore>,
}

impl Gate {
    /// In front of a bound listener.
    pub fn new(listener: TcpListener) -> Gate {
        Gate { listener, places: Arc::new(Semaphore::new(MAX_CONNECTIONS)) }
    }
}

impl axum::serve::Listener for Gate {
    type Io = Watched;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Watched, SocketAddr) {
        let places = Arc::clone(&self.places);
        let place = places.acquire_owned().await.expect("the semaphore is never closed");
        let (stream, address) = axum::serve::Listener::accept(&mut self.listener).await;
        let silence = Box::pin(tokio::time::sleep(SILENCE_LIMIT));
        (Watched { stream, silence, _place: place }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that ends when nothing could be written to it for too long.
#[derive(Debug)]
pub struct Watched {
    stream: TcpStream,
    silence: Pin<Box<Sleep>>,
    _place: OwnedSemaphorePermit,
}

impl Watched {
    fn too_silent(&mut self, cx: &mut Context<'_>) -> bool {
        self.silence.as_mut().poll(cx).is_ready()
    }

    fn wrote(&mut self) {
        let reset = Box::pin(tokio::time::sleep(SILENCE_LIMIT));
        self.silence = reset;
    }
}

impl AsyncRead for Watched {
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

impl AsyncWrite for Watched {
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
                self.wrote();
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
