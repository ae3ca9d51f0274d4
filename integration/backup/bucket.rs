//! A real S3 server in this process, which can be taken away for a while.

use crate::faulty::{Faulty, Mood, State};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s_fs::FileSystem;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub const BUCKET: &str = "backups";
pub const ACCESS_KEY: &str = "AKTEST";
pub const SECRET_KEY: &str = "secret-of-the-bucket";

pub struct Bucket {
    address: SocketAddr,
    service: S3Service,
    root: PathBuf,
    state: Arc<State>,
    serving: Option<JoinHandle<()>>,
}

impl Bucket {
    pub async fn start(root: &Path) -> Bucket {
        std::fs::create_dir_all(root.join(BUCKET)).unwrap();
        let state = Arc::new(State::new());
        let inner = FileSystem::new(root).unwrap();
        let mut builder = S3ServiceBuilder::new(Faulty { inner, state: state.clone() });
        builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let service = builder.build();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = Some(serve(listener, service.clone()));
        Bucket { address, service, root: root.to_owned(), state, serving }
    }

    /// From now on it answers like this.
    pub fn turn(&self, mood: Mood) {
        self.state.mood.send_replace(mood);
    }

    /// What it was asked for, and remembers.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Everything there, uploads included, was stored so long ago.
    pub fn age(&self, by: Duration) {
        self.state.age(by);
        for name in files_below(&self.root) {
            let path = self.root.join(name);
            let stored = std::fs::metadata(&path).unwrap().modified().unwrap();
            let file = std::fs::File::options().write(true).open(path).unwrap();
            file.set_modified(stored - by).unwrap();
        }
    }

    /// It tells no checksums of what is there, so that the files can be changed.
    pub fn forget_sums(&self) {
        for name in files_below(&self.root).iter().filter(|name| name.ends_with(".internal.json")) {
            std::fs::remove_file(self.root.join(name)).unwrap();
        }
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Nobody listens any more, and all connections are closed.
    pub async fn take_away(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
            let _ = serving.await;
        }
    }

    pub async fn bring_back(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.serving = Some(serve(listener, self.service.clone()));
    }

    /// The object's file.
    pub fn file(&self, object: &str) -> PathBuf {
        self.root.join(BUCKET).join(object)
    }

    /// Every object, and every piece of an upload that was not finished.
    pub fn everything(&self) -> Vec<String> {
        files_below(&self.root).into_iter().filter(|name| !is_note(name)).collect()
    }

    /// Waits until a part of an upload has arrived.
    pub async fn until_a_part_came(&self) {
        for _ in 0..600 {
            if self.everything().iter().any(|name| name.contains(".part-")) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("no part came: {:?}", self.everything());
    }
}

/// What the server notes about objects beside them, and what it holds of a request that it has not taken
/// whole: when one is broken off, it removes that a moment later by itself.
fn is_note(name: &str) -> bool {
    let ends = [".internal.json", ".metadata.json", ".internal.part"];
    ends.iter().any(|end| name.ends_with(end))
}

/// All files below a directory, by their path in it.
pub fn files_below(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        // A file may vanish while it is looked at.
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                open.push(entry.path());
            } else if let Ok(name) = entry.path().strip_prefix(root) {
                found.push(name.display().to_string());
            }
        }
    }
    found.sort();
    found
}

fn serve(listener: TcpListener, service: S3Service) -> JoinHandle<()> {
    tokio::spawn(async move {
        // Dropped with this task, they end too.
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let service = service.clone();
            connections.spawn(async move {
                let http = Builder::new(TokioExecutor::new());
                let _ = http.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    })
}
