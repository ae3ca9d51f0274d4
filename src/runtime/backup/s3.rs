//! Backups in S3, or in a server that speaks its protocol.
//!
//! Parts are sent from memory with their own SHA-256 checksums: that is what every such server takes, over
//! plain HTTP too.

use super::keys::Keys;
use super::target::{Listed, MOST_LISTED, Piece, TargetError};
use crate::clock::{Clock, WallTime};
use crate::config::backups::S3Place;
use crate::config::storing::{LockMode, ObjectLock};
use crate::decision::backup::manifest::Sha256;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{BehaviorVersion, Config, IdentityCache, Region, SharedHttpClient};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::{ByteStream, DateTime};
use aws_sdk_s3::types::{
    ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart, MultipartUpload, ObjectLockMode,
    StorageClass,
};
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
/// What a request without many bytes may take.
const SMALL_REQUEST: Duration = Duration::from_secs(30);
/// The limit of a request is for so many bytes.
const LIMITED: u64 = 16 << 20;
/// The codes of servers that ask for newer credentials.
const EXPIRED: [&str; 3] = ["ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"];
/// So many answers may break off one after the other.
const BROKEN_ANSWERS: u32 = 3;
/// An upload that no part came for so long is nobody's.
const FORGOTTEN: Duration = Duration::from_secs(24 * 3600);
/// No more pages of a list of parts, or of uploads, are looked at: a thousand are on each.
const MOST_PAGES: usize = 10;

/// A bucket, and what its objects' names begin with.
#[derive(Clone, Debug)]
pub(super) struct S3 {
    client: Client,
    keys: Keys,
    clock: Clock,
    bucket: String,
    /// Empty, or ending with a slash.
    prefix: String,
    storage_class: Option<String>,
    object_lock: Option<ObjectLock>,
    /// How long a request with [`LIMITED`] bytes may take.
    request_limit: Duration,
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
    pub(super) fn open(place: &S3Place, clock: Clock) -> S3 {
        let http = http();
        let keys = Keys::of(place, http.clone(), clock);
        let mut config = Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .http_client(http)
            .region(Region::new(place.region.clone()))
            .credentials_provider(keys.clone())
            .identity_cache(IdentityCache::no_cache())
            .retry_config(RetryConfig::standard().with_max_attempts(2))
            .timeout_config(TimeoutConfig::builder().connect_timeout(CONNECT_LIMIT).build());
        if let Some(endpoint) = &place.endpoint {
            // Other servers than Amazon's seldom have a host name for each bucket.
            config = config.endpoint_url(endpoint).force_path_style(true);
        }
        let prefix = match place.prefix.as_str() {
            "" => String::new(),
            prefix => format!("{prefix}/"),
        };
        S3 {
            client: Client::from_conf(config.build()),
            keys,
            clock,
            bucket: place.bucket.clone(),
            prefix,
            storage_class: place.storage_class.clone(),
            object_lock: place.object_lock,
            request_limit: place.request_limit,
        }
    }

    /// How long a request with so many bytes may take; one that hangs is not waited for for ever.
    fn limit(&self, bytes: u64) -> Duration {
        let times = u32::try_from(bytes.div_ceil(LIMITED)).unwrap_or(u32::MAX);
        match times {
            0 => self.request_limit.min(SMALL_REQUEST),
            times => self.request_limit.saturating_mul(times),
        }
    }

    /// A request within its limit, by somebody who is known.
    async fn limited<T>(
        &self,
        object: &str,
        bytes: u64,
        request: impl Future<Output = Result<T, TargetError>>,
    ) -> Result<T, TargetError> {
        self.keys.known(&self.place(object)).await?;
        let limit = self.limit(bytes);
        let answer = tokio::time::timeout(limit, request).await.unwrap_or_else(|_| {
            let what = format!("no answer within {} s", limit.as_secs());
            Err(TargetError::Passing { object: self.place(object), what })
        });
        if answer.as_ref().is_err_and(TargetError::has_expired) {
            self.keys.forget().await;
        }
        answer
    }

    /// Until when nobody may change or remove what is stored now.
    fn locked(&self) -> (Option<ObjectLockMode>, Option<DateTime>) {
        let Some(lock) = self.object_lock else { return (None, None) };
        let mode = match lock.mode {
            LockMode::Governance => ObjectLockMode::Governance,
            LockMode::Compliance => ObjectLockMode::Compliance,
        };
        let now = i64::try_from(self.clock.now().wall.0 / 1000).unwrap_or(i64::MAX);
        let until = now.saturating_add(i64::from(lock.days) * 24 * 3600);
        (Some(mode), Some(DateTime::from_secs(until)))
    }

    fn key(&self, object: &str) -> String {
        format!("{}{object}", self.prefix)
    }

    /// How people find the object.
    fn place(&self, object: &str) -> String {
        format!("s3://{}/{}{object}", self.bucket, self.prefix)
    }

    pub(super) async fn begin(&self, object: &str) -> Result<S3Upload, TargetError> {
        let (mode, until) = self.locked();
        let asked = self
            .client
            .create_multipart_upload()
            .bucket(&self.bucket)
            .key(self.key(object))
            .checksum_algorithm(ChecksumAlgorithm::Sha256)
            .set_storage_class(self.storage_class.as_deref().map(StorageClass::from))
            .set_object_lock_mode(mode)
            .set_object_lock_retain_until_date(until);
        let begun = self.limited(object, 0, async {
            asked.send().await.map_err(|error| failed(self.place(object), &error))
        });
        let Some(id) = begun.await?.upload_id else {
            let what = "the upload that was begun has no id".to_owned();
            return Err(TargetError::Refused { object: self.place(object), what });
        };
        let (s3, object) = (self.clone(), object.to_owned());
        Ok(S3Upload { s3, object, id, parts: Mutex::default() })
    }

    pub(super) async fn put(&self, object: &str, bytes: Bytes) -> Result<(), TargetError> {
        let sum = STANDARD.encode(sha2::Sha256::digest(&bytes));
        let length = bytes.len() as u64;
        let (mode, until) = self.locked();
        let asked = self
            .client
            .put_object()
            .bucket(&self.bucket)
            .key(self.key(object))
            .content_type("application/json")
            .checksum_algorithm(ChecksumAlgorithm::Sha256)
            .checksum_sha256(sum)
            .set_object_lock_mode(mode)
            .set_object_lock_retain_until_date(until)
            .body(ByteStream::from(bytes));
        let put = async { asked.send().await.map_err(|error| failed(self.place(object), &error)) };
        self.limited(object, length, put).await.map(|_| ())
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
            match self.limited(object, most, reading).await? {
                Ok(bytes) => return Ok(bytes),
                Err(what) if tries == BROKEN_ANSWERS => {
                    return Err(TargetError::Refused { object: self.place(object), what });
                }
                Err(_) => tries += 1,
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

    pub(super) async fn length(&self, object: &str) -> Result<u64, TargetError> {
        let asked = self.client.head_object().bucket(&self.bucket).key(self.key(object));
        let looked = self.limited(object, 0, async {
            asked.send().await.map_err(|error| failed(self.place(object), &error))
        });
        let length = looked.await?.content_length().and_then(|length| u64::try_from(length).ok());
        Ok(length.unwrap_or_default())
    }

    /// Objects of a folder that come after that name, in the order of their names.
    pub(super) async fn list(&self, folder: &str, after: &str) -> Result<Vec<Listed>, TargetError> {
        let after = Some(after).filter(|it| !it.is_empty()).map(|it| self.key(it));
        let mut listed = Vec::new();
        let mut from: Option<String> = None;
        loop {
            let asked = self
                .client
                .list_objects_v2()
                .bucket(&self.bucket)
                .prefix(self.key(folder))
                .set_start_after(after.clone())
                .set_continuation_token(from.take());
            let page = self.limited(folder, 0, async {
                asked.send().await.map_err(|error| failed(self.place(folder), &error))
            });
            let page = page.await?;
            for object in page.contents() {
                let name = object.key().and_then(|key| key.strip_prefix(&self.prefix));
                let stored = WallTime(millis(object.last_modified()).unwrap_or(u64::MAX));
                listed.extend(name.map(|name| Listed { object: name.to_owned(), stored }));
            }
            from = page.next_continuation_token().map(str::to_owned);
            if page.is_truncated() != Some(true) || from.is_none() || listed.len() >= MOST_LISTED {
                return Ok(listed);
            }
        }
    }

    pub(super) async fn remove(&self, object: &str) -> Result<(), TargetError> {
        let asked = self.client.delete_object().bucket(&self.bucket).key(self.key(object));
        let removed = self.limited(object, 0, async {
            asked.send().await.map_err(|error| failed(self.place(object), &error))
        });
        match removed.await {
            Ok(_) | Err(TargetError::Missing(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Aborts uploads of this folder that nothing came for since a day, and that were never finished.
    pub(super) async fn sweep(&self, folder: &str, now: WallTime) -> Result<(), TargetError> {
        let (mut key_from, mut id_from) = (None, None);
        for _ in 0..MOST_PAGES {
            let asked = self
                .client
                .list_multipart_uploads()
                .bucket(&self.bucket)
                .prefix(self.key(folder))
                .set_key_marker(key_from.take())
                .set_upload_id_marker(id_from.take());
            let listed = self.limited(folder, 0, async {
                asked.send().await.map_err(|error| failed(self.place(folder), &error))
            });
            let listed = listed.await?;
            for upload in listed.uploads() {
                self.sweep_one(folder, upload, now).await?;
            }
            key_from = listed.next_key_marker().map(str::to_owned);
            id_from = listed.next_upload_id_marker().map(str::to_owned);
            if listed.is_truncated() != Some(true) || key_from.is_none() {
                break;
            }
        }
        Ok(())
    }

    async fn sweep_one(
        &self,
        folder: &str,
        upload: &MultipartUpload,
        now: WallTime,
    ) -> Result<(), TargetError> {
        let (Some(key), Some(id)) = (upload.key(), upload.upload_id()) else { return Ok(()) };
        let forgotten = |at: Option<u64>| {
            let age = now.0.saturating_sub(at.unwrap_or(u64::MAX));
            Duration::from_millis(age) > FORGOTTEN
        };
        // A large backup may well take more than a day.
        if !forgotten(millis(upload.initiated()))
            || !forgotten(self.last_part(folder, key, id).await?.or(Some(0)))
        {
            return Ok(());
        }
        let aborting = self.client.abort_multipart_upload().bucket(&self.bucket);
        let aborting = aborting.key(key).upload_id(id);
        let aborted = self.limited(folder, 0, async {
            aborting.send().await.map_err(|error| failed(self.place(folder), &error))
        });
        aborted.await?;
        tracing::info!(key, "aborted an upload that was never finished");
        Ok(())
    }

    /// When the last part of an upload came; none before the first one did.
    async fn last_part(
        &self,
        folder: &str,
        key: &str,
        id: &str,
    ) -> Result<Option<u64>, TargetError> {
        let (mut last, mut from) = (None, None);
        for _ in 0..MOST_PAGES {
            let asked = self
                .client
                .list_parts()
                .bucket(&self.bucket)
                .key(key)
                .upload_id(id)
                .set_part_number_marker(from.take());
            let listed = self.limited(folder, 0, async {
                asked.send().await.map_err(|error| failed(self.place(folder), &error))
            });
            let listed = listed.await?;
            last =
                last.max(listed.parts().iter().filter_map(|it| millis(it.last_modified())).max());
            from = listed.next_part_number_marker().map(str::to_owned);
            if listed.is_truncated() != Some(true) || from.is_none() {
                break;
            }
        }
        Ok(last)
    }
}

fn millis(at: Option<&DateTime>) -> Option<u64> {
    at.and_then(|at| at.to_millis().ok()).and_then(|millis| u64::try_from(millis).ok())
}

impl S3Upload {
    pub(super) async fn part(&self, piece: &Piece) -> Result<(), TargetError> {
        let sum = STANDARD.encode(piece.sha256.0);
        let number = i32::try_from(piece.number).unwrap_or(i32::MAX);
        let asked = self
            .s3
            .client
            .upload_part()
            .bucket(&self.s3.bucket)
            .key(self.s3.key(&self.object))
            .upload_id(&self.id)
            .part_number(number)
            .checksum_algorithm(ChecksumAlgorithm::Sha256)
            .checksum_sha256(&sum)
            .body(ByteStream::from(piece.bytes.clone()));
        let stored = self.s3.limited(&self.object, piece.bytes.len() as u64, async {
            asked.send().await.map_err(|error| failed(self.s3.place(&self.object), &error))
        });
        let part = CompletedPart::builder()
            .part_number(number)
            .set_e_tag(stored.await?.e_tag)
            .checksum_sha256(sum)
            .build();
        self.completed().insert(piece.number, part);
        Ok(())
    }

    /// The server compares every part with its sum and tag, and refuses when one is not there.
    pub(super) async fn finish(&self) -> Result<(), TargetError> {
        let parts = self.completed().values().cloned().collect();
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let asked = self
            .s3
            .client
            .complete_multipart_upload()
            .bucket(&self.s3.bucket)
            .key(self.s3.key(&self.object))
            .upload_id(&self.id)
            .multipart_upload(parts);
        let finished = self.s3.limited(&self.object, 5 * LIMITED, async {
            match asked.send().await {
                Ok(_) => Ok(()),
                // An earlier attempt may have done it, and its answer been lost; what is there is looked at
                // in any case.
                Err(error) if error.code() == Some("NoSuchUpload") => Ok(()),
                Err(error) => Err(failed(self.s3.place(&self.object), &error)),
            }
        });
        finished.await
    }

    pub(super) async fn abort(&self) -> Result<(), TargetError> {
        let aborting = self.s3.client.abort_multipart_upload().bucket(&self.s3.bucket);
        let aborting = aborting.key(self.s3.key(&self.object)).upload_id(&self.id);
        let aborted = self.s3.limited(&self.object, 0, async {
            match aborting.send().await {
                Ok(_) => Ok(()),
                Err(error) if error.code() == Some("NoSuchUpload") => Ok(()),
                Err(error) => Err(failed(self.s3.place(&self.object), &error)),
            }
        });
        aborted.await
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
            if EXPIRED.contains(&code) {
                TargetError::Expired { object, what }
            } else if status >= 500 || matches!(status, 408 | 425 | 429) {
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
pub(super) fn chain(error: &dyn Error) -> String {
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
