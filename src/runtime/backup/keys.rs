//! Who asks S3: the keys of the configuration, else what the environment, a shared profile, the container
//! or the instance says, which is asked for again before it expires.

use super::target::TargetError;
use crate::clock::Clock;
use crate::config::backups::S3Place;
use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::provider_config::ProviderConfig;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, Result as Provided, future};
use aws_sdk_s3::config::{Credentials, Region, SharedHttpClient};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};
use tokio::sync::Mutex;

/// Credentials are renewed so long before they expire.
const BEFORE_EXPIRY: Duration = Duration::from_secs(60);

/// Whoever asks.
#[derive(Clone, Debug)]
pub(super) struct Keys(Arc<Asker>);

#[derive(Debug)]
struct Asker {
    origin: Origin,
    clock: Clock,
    known: Mutex<Option<Credentials>>,
}

#[derive(Debug)]
enum Origin {
    Configuration(Credentials),
    Surroundings { profile: Option<String>, region: Region, http: SharedHttpClient },
}

impl Keys {
    pub(super) fn of(place: &S3Place, http: SharedHttpClient, clock: Clock) -> Keys {
        let origin = match &place.keys {
            Some(keys) => {
                let secret = keys.secret_key.reveal();
                let said = Credentials::new(&keys.access_key, secret, None, None, "regent.yaml");
                Origin::Configuration(said)
            }
            None => Origin::Surroundings {
                profile: place.profile.clone(),
                region: Region::new(place.region.clone()),
                http,
            },
        };
        Keys(Arc::new(Asker { origin, clock, known: Mutex::default() }))
    }

    /// Makes sure that somebody is named, so that it is not found out in the middle of a request.
    pub(super) async fn known(&self, place: &str) -> Result<(), TargetError> {
        let object = place.to_owned();
        match self.current().await {
            Ok(_) => Ok(()),
            Err(CredentialsError::CredentialsNotLoaded(_)) => {
                let what = "nobody is named to ask as; set AWS_ACCESS_KEY_ID and \
                            AWS_SECRET_ACCESS_KEY, name a profile, give this machine a role, or \
                            write access_key and secret_key_file";
                Err(TargetError::Refused { object, what: what.to_owned() })
            }
            Err(error @ CredentialsError::InvalidConfiguration(_)) => {
                Err(TargetError::Refused { object, what: said(&error) })
            }
            Err(error) => Err(TargetError::Passing { object, what: said(&error) }),
        }
    }

    /// What was known has expired, whatever it says about itself.
    pub(super) async fn forget(&self) {
        *self.0.known.lock().await = None;
    }

    async fn current(&self) -> Provided {
        let (profile, region, http) = match &self.0.origin {
            Origin::Configuration(said) => return Ok(said.clone()),
            Origin::Surroundings { profile, region, http } => (profile, region, http),
        };
        let mut known = self.0.known.lock().await;
        if let Some(found) = known.as_ref().filter(|found| self.lasts(found, BEFORE_EXPIRY)) {
            return Ok(found.clone());
        }
        let config = ProviderConfig::without_region().with_http_client(http.clone());
        let mut chain = DefaultCredentialsChain::builder().configure(config).region(region.clone());
        if let Some(profile) = profile {
            chain = chain.profile_name(profile);
        }
        match chain.build().await.provide_credentials().await {
            Ok(found) => Ok(known.insert(found).clone()),
            // Those at hand may serve until their end.
            Err(error) => match known.as_ref() {
                Some(found) if self.lasts(found, Duration::ZERO) => Ok(found.clone()),
                _ => Err(error),
            },
        }
    }

    fn lasts(&self, found: &Credentials, longer: Duration) -> bool {
        let Some(expiry) = found.expiry() else { return true };
        let now = Duration::from_millis(self.0.clock.now().wall.0);
        expiry.duration_since(UNIX_EPOCH).is_ok_and(|expiry| expiry > now + longer)
    }
}

impl ProvideCredentials for Keys {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.current())
    }
}

fn said(error: &CredentialsError) -> String {
    format!("who asks cannot be found out: {}", super::s3::chain(error))
}
