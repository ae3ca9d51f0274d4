//! A real S3 server in this process.

use anyhow::Result;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use std::net::SocketAddr;
use std::path::Path;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub const BUCKET: &str = "backups";
pub const ACCESS_KEY: &str = "AKBENCH";
pub const SECRET_KEY: &str = "secret-of-the-bucket";

/// A bucket that is served until it is dropped.
pub struct Bucket {
    address: SocketAddr,
    serving: JoinHandle<()>,
}

impl Bucket {
    pub async fn serve(root: &Path) -> Result<Bucket> {
        std::fs::create_dir_all(root.join(BUCKET))?;
        let files = s3s_fs::FileSystem::new(root).map_err(|error| anyhow::anyhow!("{error:?}"))?;
        let mut builder = S3ServiceBuilder::new(files);
        builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let service = builder.build();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let serving = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let service = service.clone();
                tokio::spawn(async move {
                    let http = Builder::new(TokioExecutor::new());
                    // Whoever asked may be gone.
                    let _ = http.serve_connection(TokioIo::new(socket), service).await;
                });
            }
        });
        Ok(Bucket { address, serving })
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
