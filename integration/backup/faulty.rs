//! The S3 server with faults that can be switched on, and with the list of unfinished uploads that it
//! lacks.

use regent::clock::Clock;
use s3s::dto::*;
use s3s::{S3, S3Request, S3Response, S3Result, s3_error};
use s3s_fs::FileSystem;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;

/// How it answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mood {
    Fine,
    /// Status 503.
    Busy,
    /// Never.
    Hanging,
    /// That those who ask with this token may do so no longer.
    Expired(String),
    /// It loses the last part of every upload.
    Forgetful,
}

pub struct State {
    pub mood: watch::Sender<Mood>,
    uploads: Mutex<BTreeMap<String, (String, SystemTime)>>,
    /// By key, what each object was to be kept as: its class, the mode of its lock and the lock's end.
    pub kept_as: Mutex<BTreeMap<String, [Option<String>; 3]>>,
}

impl State {
    pub fn new() -> State {
        let mood = watch::Sender::new(Mood::Fine);
        State { mood, uploads: Mutex::default(), kept_as: Mutex::default() }
    }

    pub fn age(&self, by: Duration) {
        self.uploads.lock().unwrap().values_mut().for_each(|(_, begun)| *begun -= by);
    }

    /// How many uploads were begun and neither finished nor aborted.
    pub fn unfinished(&self) -> usize {
        self.uploads.lock().unwrap().len()
    }
}

pub struct Faulty {
    pub inner: FileSystem,
    pub state: std::sync::Arc<State>,
}

impl Faulty {
    async fn pass<T>(&self, request: &S3Request<T>) -> S3Result<()> {
        let mood = self.state.mood.borrow().clone();
        match mood {
            Mood::Fine | Mood::Forgetful => Ok(()),
            Mood::Busy => Err(s3_error!(ServiceUnavailable, "Please reduce your request rate.")),
            Mood::Hanging => std::future::pending().await,
            Mood::Expired(token) => {
                let given = request.headers.get("x-amz-security-token");
                match given.is_some_and(|given| given.as_bytes() == token.as_bytes()) {
                    true => Err(s3_error!(ExpiredToken, "The provided token has expired.")),
                    false => Ok(()),
                }
            }
        }
    }

    fn keep(&self, key: &str, kept_as: [Option<String>; 3]) {
        self.state.kept_as.lock().unwrap().insert(key.to_owned(), kept_as);
    }
}

macro_rules! faulty {
    ($($name:ident: $input:ident => $output:ident,)*) => {
        #[async_trait::async_trait]
        impl S3 for Faulty {
            $(
                async fn $name(
                    &self,
                    request: S3Request<$input>,
                ) -> S3Result<S3Response<$output>> {
                    self.pass(&request).await?;
                    self.inner.$name(request).await
                }
            )*

            async fn put_object(
                &self,
                request: S3Request<PutObjectInput>,
            ) -> S3Result<S3Response<PutObjectOutput>> {
                self.pass(&request).await?;
                let input = &request.input;
                let class = input.storage_class.as_ref().map(|it| it.as_str().to_owned());
                let mode = input.object_lock_mode.as_ref().map(|it| it.as_str().to_owned());
                let until = input.object_lock_retain_until_date.as_ref().map(day);
                self.keep(&input.key, [class, mode, until]);
                self.inner.put_object(request).await
            }

            async fn create_multipart_upload(
                &self,
                request: S3Request<CreateMultipartUploadInput>,
            ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
                self.pass(&request).await?;
                let input = &request.input;
                let class = input.storage_class.as_ref().map(|it| it.as_str().to_owned());
                let mode = input.object_lock_mode.as_ref().map(|it| it.as_str().to_owned());
                let until = input.object_lock_retain_until_date.as_ref().map(day);
                self.keep(&input.key, [class, mode, until]);
                let key = input.key.clone();
                let begun = self.inner.create_multipart_upload(request).await?;
                let now = UNIX_EPOCH + Duration::from_millis(Clock::start().now().wall.0);
                let id = begun.output.upload_id.clone().unwrap();
                self.state.uploads.lock().unwrap().insert(id, (key, now));
                Ok(begun)
            }

            async fn complete_multipart_upload(
                &self,
                mut request: S3Request<CompleteMultipartUploadInput>,
            ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
                self.pass(&request).await?;
                if *self.state.mood.borrow() == Mood::Forgetful {
                    let parts = request.input.multipart_upload.as_mut().unwrap();
                    parts.parts.as_mut().unwrap().pop();
                }
                let id = request.input.upload_id.clone();
                let completed = self.inner.complete_multipart_upload(request).await?;
                self.state.uploads.lock().unwrap().remove(&id);
                Ok(completed)
            }

            async fn abort_multipart_upload(
                &self,
                request: S3Request<AbortMultipartUploadInput>,
            ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
                self.pass(&request).await?;
                let id = request.input.upload_id.clone();
                let aborted = self.inner.abort_multipart_upload(request).await?;
                self.state.uploads.lock().unwrap().remove(&id);
                Ok(aborted)
            }

            async fn list_multipart_uploads(
                &self,
                request: S3Request<ListMultipartUploadsInput>,
            ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
                self.pass(&request).await?;
                let prefix = request.input.prefix.clone().unwrap_or_default();
                let known = self.state.uploads.lock().unwrap();
                let below = known.iter().filter(|(_, (key, _))| key.starts_with(&prefix));
                let uploads = below.map(|(id, (key, begun))| MultipartUpload {
                    key: Some(key.clone()),
                    upload_id: Some(id.clone()),
                    initiated: Some(Timestamp::from(*begun)),
                    ..MultipartUpload::default()
                });
                let uploads = Some(uploads.collect());
                let output = ListMultipartUploadsOutput {
                    uploads,
                    is_truncated: Some(false),
                    ..ListMultipartUploadsOutput::default()
                };
                Ok(S3Response::new(output))
            }
        }
    };
}

faulty! {
    get_object: GetObjectInput => GetObjectOutput,
    head_object: HeadObjectInput => HeadObjectOutput,
    delete_object: DeleteObjectInput => DeleteObjectOutput,
    list_objects_v2: ListObjectsV2Input => ListObjectsV2Output,
    upload_part: UploadPartInput => UploadPartOutput,
    list_parts: ListPartsInput => ListPartsOutput,
}

/// The day of a time, counted from 1970.
fn day(at: &Timestamp) -> String {
    let mut seconds = Vec::new();
    at.format(TimestampFormat::EpochSeconds, &mut seconds).unwrap();
    let seconds: f64 = String::from_utf8(seconds).unwrap().parse().unwrap();
    ((seconds / 86_400.0) as u64).to_string()
}
