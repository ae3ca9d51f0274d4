//! Backups in S3, or in a server that speaks its protocol.
//!
//! Parts are sent from memory with their own SHA-256 checksums: that is what every such server takes, over
//! plain HTTP too.

use super::target::{MOST_LISTED, Piece, TargetError};
use crate::clock::WallTime;
use crate::config::backups::S3Place;
use crate::decision::backup::manifest::Sha256;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{BehaviorVersion, Config, Credentials, Region, SharedHttpClient};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart, StorageClass};
use aws_smithy_http_client::tls::{self, rustls_provider::CryptoMode};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use sha2::Digest;
use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Mutex;
use std::time::Duration;

const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// What a request may take beside its bytes.
const REQUEST_LIMIT: Duration = Duration::from_secs(60);
/// The slowest line that is put up with, in bytes a second.
const SLOWEST: u64 = 128 << 10;
/// So many answers may break off one after the other.
const BROKEN_ANSWERS: u32 = 3;
/// What is left of an upload after so long is nobody's.
const FORGOTTEN: Duration = Duration::from_secs(24 * 3600);

/// A bucket, and what its objects' names begin with.
#[derive(Clone, Debug)]
pub(super) struct S3 {
    client: Client,
    bucket: String,
    /// Empty, or ending with a slash.
    prefix: String,
    storage_class: Option<String>,
    /// How long a part may take to be read.
    patience: Duration,
}

/// A multipart upload.
#[derive(Debug)]
pub(super) struct S3Upload {
    s3: S3,
    object: String,
    id: String,
    parts: Mutex<BTreeMap<u32, CompletedPart>>,
}

impl S3 {
    pub(super) fn open(place: &S3Place, part_size: u64) -> Result<S3, TargetError> {
        let patience = REQUEST_LIMIT + Duration::from_secs(part_size / SLOWEST);
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT_LIMIT)
            .operation_attempt_timeout(patience)
            .build();
        let mut config = Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .http_client(http())
            .region(Region::new(place.region.clone()))
            .credentials_provider(credentials(place)?)
            .retry_config(RetryConfig::standard().with_max_attempts(2))
            .timeout_config(timeouts);
        if let Some(endpoint) = &place.endpoint {
            // Other servers than Amazon's seldom have a host name for each bucket.
            config = config.endpoint_url(endpoint).force_path_style(true);
        }
        let prefix = match place.prefix.as_str() {
            "" => String::new(),
            prefix => format!("{prefix}/"),
        };
        Ok(S3 {
            client: Client::from_conf(config.build()),
            bucket: place.bucket.clone(),
            prefix,
            storage_class: place.storage_class.clone(),
            patience,
        })
    }

    fn key(&self, object: &str) -> String {
        format!("{}{object}", self.prefix)
    }

    /// How people find the object.
    fn place(&self, object: &str) -> String {
        format!("s3://{}/{}{object}", self.bucket, self.prefix)
    }

    pub(super) async fn begin(&self, object: &str) -> Result<S3Upload, TargetError> {
        let begun = self
            .client
            .create_multipart_upload()
            .bucket(&self.bucket)
            .key(self.key(object))
            .checksum_algorithm(ChecksumAlgorithm::Sha256)
            .set_storage_class(self.storage_class.as_deref().map(StorageClass::from))
            .send()
            .await
            .map_err(|error| failed(self.place(object), &error))?;
        let Some(id) = begun.upload_id else {
            let what = "the upload that was begun has no id".to_owned();
            return Err(TargetError::Refused { object: self.place(object), what });
        };
        let (s3, object) = (self.clone(), object.to_owned());
        Ok(S3Upload { s3, object, id, parts: Mutex::default() })
    }

    pub(super) async fn put(&self, object: &str, bytes: Bytes) -> Result<(), TargetError> {
        let sum = STANDARD.encode(sha2::Sha256::digest(&bytes));
        self.client
            .put_object()
            .bucket(&self.bucket)
            .key(self.key(object))
            .content_type("application/json")
            .checksum_algorithm(ChecksumAlgorithm::Sha256)
            .checksum_sha256(sum)
            .body(ByteStream::from(bytes))
            .send()
            .await
            .map_err(|error| failed(self.place(object), &error))?;
        Ok(())
    }

    pub(super) async fn read(
        &self,
        object: &str,
        offset: u64,
        length: u64,
    ) -> Result<Bytes, TargetError> {
        let last = (offset + length).saturating_sub(1);
        let range = format!("bytes={offset}-{last}");
        let bytes = self.get(object, Some(range), length).await?;
        if bytes.len() as u64 == length {
            return Ok(bytes);
        }
        // A transfer that breaks off fails; one that ends well is all there is.
        let what = format!("ends too early: {} bytes came instead of {length}", bytes.len());
        Err(TargetError::Refused { object: self.place(object), what })
    }

    pub(super) async fn read_small(&self, object: &str, most: u64) -> Result<Bytes, TargetError> {
        self.get(object, None, most).await
    }

    /// At most so many bytes of what is asked for. An answer that breaks off, or is not what the server's own
    /// checksum says, is asked for again at once; a server that is gone fails otherwise then.
    async fn get(
        &self,
        object: &str,
        range: Option<String>,
        most: u64,
    ) -> Result<Bytes, TargetError> {
        let mut tries = 1;
        loop {
            let reading = self.get_once(object, range.clone(), most);
            match tokio::time::timeout(self.patience, reading).await {
                Ok(Ok(Ok(bytes))) => return Ok(bytes),
                Ok(Ok(Err(what))) if tries == BROKEN_ANSWERS => {
                    return Err(TargetError::Refused { object: self.place(object), what });
                }
                Ok(Ok(Err(_))) => tries += 1,
                Ok(Err(error)) => return Err(error),
                Err(_) => {
                    let what = format!("no answer within {} s", self.patience.as_secs());
                    return Err(TargetError::Passing { object: self.place(object), what });
                }
            }
        }
    }

    /// The inner error says how an answer broke off.
    async fn get_once(
        &self,
        object: &str,
        range: Option<String>,
        most: u64,
    ) -> Result<Result<Bytes, String>, TargetError> {
        let asked = self.client.get_object().bucket(&self.bucket).key(self.key(object));
        let answer = asked.set_range(range).send().await;
        let mut answer = answer.map_err(|error| failed(self.place(object), &error))?;
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let mut bytes = BytesMut::new();
        while bytes.len() < most {
            match answer.body.try_next().await {
                Ok(Some(chunk)) => {
                    bytes.extend_from_slice(chunk.get(..most - bytes.len()).unwrap_or(&chunk));
                }
                Ok(None) => break,
                Err(error) => return Ok(Err(chain(&error))),
            }
        }
        Ok(Ok(bytes.freeze()))
    }

    pub(super) async fn list(&self, folder: &str) -> Result<Vec<String>, TargetError> {
        let mut names = Vec::new();
        let mut from: Option<String> = None;
        loop {
            let page = self
                .client
                .list_objects_v2()
                .bucket(&self.bucket)
                .prefix(self.key(folder))
                .set_continuation_token(from.take())
                .send()
                .await
                .map_err(|error| failed(self.place(folder), &error))?;
            for object in page.contents() {
                let name = object.key().and_then(|key| key.strip_prefix(&self.prefix));
                names.extend(name.map(str::to_owned));
            }
            from = page.next_continuation_token().map(str::to_owned);
            if page.is_truncated() != Some(true) || from.is_none() || names.len() >= MOST_LISTED {
                return Ok(names);
            }
        }
    }

    pub(super) async fn remove(&self, object: &str) -> Result<(), TargetError> {
        let asked = self.client.delete_object().bucket(&self.bucket).key(self.key(object));
        match asked.send().await.map_err(|error| failed(self.place(object), &error)) {
            Err(TargetError::Missing(_)) => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// Aborts uploads of this folder that were begun a day ago and never finished.
    pub(super) async fn sweep(&self, folder: &str, now: WallTime) -> Result<(), TargetError> {
        let listed = self
            .client
            .list_multipart_uploads()
            .bucket(&self.bucket)
            .prefix(self.key(folder))
            .send()
            .await
            .map_err(|error| failed(self.place(folder), &error))?;
        for upload in listed.uploads() {
            let begun = upload.initiated().and_then(|at| at.to_millis().ok()).unwrap_or(i64::MAX);
            let age = i64::try_from(now.0).unwrap_or_default().saturating_sub(begun);
            let (Some(key), Some(id)) = (upload.key(), upload.upload_id()) else { continue };
            if age > i64::try_from(FORGOTTEN.as_millis()).unwrap_or(i64::MAX) {
                let aborting = self.client.abort_multipart_upload().bucket(&self.bucket);
                let aborted = aborting.key(key).upload_id(id).send().await;
                aborted.map_err(|error| failed(self.place(folder), &error))?;
                tracing::info!(key, "aborted an upload that was never finished");
            }
        }
        Ok(())
    }
}

impl S3Upload {
    pub(super) async fn part(&self, piece: &Piece) -> Result<(), TargetError> {
        let sum = STANDARD.encode(piece.sha256.0);
        let number = i32::try_from(piece.number).unwrap_or(i32::MAX);
        let stored = self
            .s3
            .client
            .upload_part()
            .bucket(&self.s3.bucket)
            .key(self.s3.key(&self.object))
            .upload_id(&self.id)
            .part_number(number)
            .checksum_algorithm(ChecksumAlgorithm::Sha256)
            .checksum_sha256(&sum)
            .body(ByteStream::from(piece.bytes.clone()))
            .send()
            .await
            .map_err(|error| failed(self.s3.place(&self.object), &error))?;
        let part = CompletedPart::builder()
            .part_number(number)
            .set_e_tag(stored.e_tag)
            .checksum_sha256(sum)
            .build();
        self.completed().insert(piece.number, part);
        Ok(())
    }

    pub(super) async fn finish(&self, bytes: u64) -> Result<(), TargetError> {
        let parts = self.completed().values().cloned().collect();
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let finished = self
            .s3
            .client
            .complete_multipart_upload()
            .bucket(&self.s3.bucket)
            .key(self.s3.key(&self.object))
            .upload_id(&self.id)
            .multipart_upload(parts)
            .send()
            .await;
        match finished {
            Ok(_) => Ok(()),
            // An earlier attempt may have done it, and its answer been lost.
            Err(error) if error.code() == Some("NoSuchUpload") => self.is_whole(bytes).await,
            Err(error) => Err(failed(self.s3.place(&self.object), &error)),
        }
    }

    async fn is_whole(&self, bytes: u64) -> Result<(), TargetError> {
        let place = self.s3.place(&self.object);
        let looked = self
            .s3
            .client
            .head_object()
            .bucket(&self.s3.bucket)
            .key(self.s3.key(&self.object))
            .send()
            .await
            .map_err(|error| failed(place.clone(), &error))?;
        if looked.content_length().and_then(|length| u64::try_from(length).ok()) == Some(bytes) {
            return Ok(());
        }
        let what = "the upload is gone, and the object is not what was sent".to_owned();
        Err(TargetError::Refused { object: place, what })
    }

    pub(super) async fn abort(&self) -> Result<(), TargetError> {
        let aborting = self.s3.client.abort_multipart_upload().bucket(&self.s3.bucket);
        let aborted = aborting.key(self.s3.key(&self.object)).upload_id(&self.id).send().await;
        match aborted {
            Ok(_) => Ok(()),
            Err(error) if error.code() == Some("NoSuchUpload") => Ok(()),
            Err(error) => Err(failed(self.s3.place(&self.object), &error)),
        }
    }

    fn completed(&self) -> std::sync::MutexGuard<'_, BTreeMap<u32, CompletedPart>> {
        // Nobody panics while holding it, and a map is whole at any time.
        self.parts.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn http() -> SharedHttpClient {
    aws_smithy_http_client::Builder::new()
        .tls_provider(tls::Provider::Rustls(CryptoMode::Ring))
        .build_https()
}

/// The keys of the configuration, else those of the environment.
fn credentials(place: &S3Place) -> Result<Credentials, TargetError> {
    if let Some(keys) = &place.keys {
        let secret = keys.secret_key.reveal();
        return Ok(Credentials::new(&keys.access_key, secret, None, None, "regent.yaml"));
    }
    let said = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    match (said("AWS_ACCESS_KEY_ID"), said("AWS_SECRET_ACCESS_KEY")) {
        (Some(key), Some(secret)) => {
            let token = said("AWS_SESSION_TOKEN");
            Ok(Credentials::new(key, secret, token, None, "environment"))
        }
        _ => Err(TargetError::Refused {
            object: format!("s3://{}", place.bucket),
            what: "nobody is named to ask as; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or \
                   write access_key and secret_key_file"
                .to_owned(),
        }),
    }
}

/// What a failed request means; the server's own code, never its text, says whether trying helps.
fn failed<E>(object: String, error: &SdkError<E>) -> TargetError
where
    E: ProvideErrorMetadata + Error + 'static,
{
    match error {
        SdkError::ServiceError(service) => {
            let status = service.raw().status().as_u16();
            let code = error.code().unwrap_or("no code");
            if matches!(code, "NoSuchKey" | "NotFound") {
                return TargetError::Missing(object);
            }
            let text: String = error.message().unwrap_or_default().chars().take(200).collect();
            let what = format!("status {status}, {code}: {text}");
            if status >= 500 || matches!(status, 408 | 425 | 429) {
                TargetError::Passing { object, what }
            } else {
                TargetError::Refused { object, what }
            }
        }
        SdkError::ConstructionFailure(_) => TargetError::Refused { object, what: chain(error) },
        _ => TargetError::Passing { object, what: chain(error) },
    }
}

/// An error with all that caused it.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text.chars().take(300).collect()
}

/// The checksum of bytes.
pub(super) fn sha256(bytes: &[u8]) -> Sha256 {
    Sha256(sha2::Sha256::digest(bytes).into())
}
