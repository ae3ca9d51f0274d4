//! The form of a sketched situation: what may be written, before anything is filled in.

use crate::decision::durability::Protection;
use crate::decision::report::StorageFault;
use crate::decision::rules::{Preference, Rule, spans};
use crate::decision::topology::{AcknowledgedIn, Endpoint, OnQuorumLoss, Promotion, Version};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, SeqAccess, Visitor, value::SeqAccessDeserializer};
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

/// A whole sketch.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sketch {
    pub cluster: Option<String>,
    pub flavor: Option<Product>,
    pub durability: Option<OneOf<Mode, DurabilityForm>>,
    pub rules: Option<RulesForm>,
    pub candidates: Option<Preference>,
    pub max_replica_lag: Option<Span>,
    pub watchers: Option<Vec<String>>,
    pub epoch: Option<u64>,
    pub primary: Option<String>,
    pub former: Option<String>,
    pub promoted_with: Option<String>,
    pub protection: Option<ProtectionForm>,
    #[serde(default)]
    pub rebuilding: Vec<String>,
    pub servers: Vec<ServerForm>,
    pub lasting: Option<Span>,
    pub canary_stalled: Option<Span>,
    pub canary_refused: Option<StorageFault>,
    #[serde(default)]
    pub maintenance: Vec<MaintenanceForm>,
    #[serde(default)]
    pub past: Vec<PastForm>,
    pub without: Option<String>,
    pub asked: Option<AskedForm>,
}

/// A server, or the whole cluster, that is left alone.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MaintenanceForm {
    pub server: Option<String>,
    pub reason: String,
}

/// A product as people write it.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Product {
    Mysql,
    Mariadb,
}

/// A durability in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Mode {
    Lossless,
    BestEffort,
}

/// A durability as in regent.yaml.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DurabilityForm {
    pub mode: Mode,
    pub acknowledged_in: Option<AcknowledgedIn>,
    pub on_quorum_loss: Option<OnQuorumLoss>,
}

/// What protects the commits of the primary; all in force when left out.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ProtectionForm {
    pub may_acknowledge: Option<Vec<String>>,
    pub acks: Option<u32>,
    pub in_force: Option<bool>,
    #[serde(default)]
    pub degraded: bool,
}

/// One server.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ServerForm {
    pub name: String,
    pub address: Option<Endpoint>,
    pub data_center: Option<String>,
    #[serde(default)]
    pub promotion: Promotion,
    pub may_follow: Option<String>,
    #[serde(default)]
    pub fence: bool,
    pub seen: Option<OneOf<Seen, ViewForm>>,
    #[serde(default)]
    pub seen_by: BTreeMap<String, OneOf<Seen, ViewForm>>,
    pub writable: Option<WritableForm>,
    pub executed: Option<String>,
    pub replicated: Option<String>,
    pub received: Option<String>,
    pub follows: Option<String>,
    pub receiver: Option<ReceiverForm>,
    pub applying: Option<bool>,
    pub lag: Option<Span>,
    pub delay: Option<Span>,
    pub error: Option<u32>,
    pub turned_away: Option<u32>,
    #[serde(default)]
    pub crowded: bool,
    pub heard: Option<OneOf<Never, Span>>,
    pub following: Option<Span>,
    #[serde(default)]
    pub semi_sync: SemiSyncForm,
    pub version: Option<Dotted>,
    pub uuid: Option<String>,
    pub server_id: Option<u32>,
    #[serde(default)]
    pub settings: SettingsForm,
}

/// What probes see of a server, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Seen {
    Alive,
    Refused,
    Unreachable,
    Hung,
    TooManyConnections,
    NoRoom,
    NotReady,
    Denied,
    /// Not probed by this watcher, or its reports do not arrive.
    Nothing,
}

/// What probes see of a server, with how old that is.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ViewForm {
    pub seen: Seen,
    pub age: Option<Span>,
    pub probes: Option<u32>,
    #[serde(default)]
    pub falls: u32,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum WritableForm {
    Open,
    ReadOnly,
    Closed,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ReceiverForm {
    Connected,
    Connecting,
    Stopped,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Never {
    Never,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SemiSyncForm {
    pub available: Option<bool>,
    pub source: Option<bool>,
    pub replica: Option<bool>,
    pub acks: Option<u32>,
    pub clients: Option<u32>,
    pub waiting: Option<u32>,
    pub timeout: Option<Span>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SettingsForm {
    pub binlog: Option<bool>,
    pub logs_replica_updates: Option<bool>,
    pub gtids: Option<bool>,
    pub relay_log_recovery: Option<bool>,
    pub durable: Option<bool>,
    pub gtid_mode: Option<String>,
    pub restarts_open: Option<bool>,
    pub relay_log_synced: Option<bool>,
}

/// A procedure that ended some time ago.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PastForm {
    pub finding: crate::decision::diagnosis::FindingKind,
    pub ago: Span,
    pub times: Option<u32>,
}

/// What an operator asks for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AskedForm {
    pub procedure: AskedKind,
    pub to: Option<String>,
    #[serde(default)]
    pub accept_loss: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum AskedKind {
    Switchover,
    Failover,
    Adopt,
}

/// A span of time such as `200ms`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(transparent)]
pub(super) struct Span(#[serde(deserialize_with = "spans::required")] pub Duration);

/// A version such as `8.4.6`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dotted(pub Version);

impl<'de> Deserialize<'de> for Dotted {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Dotted, D::Error> {
        let text = String::deserialize(from)?;
        let mut numbers = text.splitn(3, '.').map(|number| number.parse::<u16>().ok());
        match (numbers.next(), numbers.next(), numbers.next()) {
            (Some(Some(major)), Some(Some(minor)), Some(Some(patch))) => {
                Ok(Dotted(Version { major, minor, patch }))
            }
            _ => Err(Error::custom(format!("{text:?} is no version; write one like 8.4.6"))),
        }
    }
}

/// Rules by the name of a shipped set, or written out.
#[derive(Debug)]
pub(super) enum RulesForm {
    Named(String),
    Own(Vec<Rule>),
}

impl<'de> Deserialize<'de> for RulesForm {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<RulesForm, D::Error> {
        struct Rules;
        impl<'de> Visitor<'de> for Rules {
            type Value = RulesForm;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a shipped rule set, or a list of rules")
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<RulesForm, E> {
                Ok(RulesForm::Named(name.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<RulesForm, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(list)).map(RulesForm::Own)
            }
        }
        from.deserialize_any(Rules)
    }
}

/// One word, or a longer form; unlike an untagged enum it keeps the place of a mistake.
#[derive(Clone, Debug)]
pub(super) enum OneOf<W, M> {
    Word(W),
    More(M),
}

impl<'de, W: Deserialize<'de>> Deserialize<'de> for OneOf<W, Span> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        if let Some(span) = spans::parse(&text) {
            return Ok(OneOf::More(Span(span)));
        }
        let word = serde::de::value::StrDeserializer::<D::Error>::new(&text);
        let wrong = || Error::custom(format!("{text:?} will not do; write never, 300ms or 2s"));
        W::deserialize(word).map(OneOf::Word).map_err(|_| wrong())
    }
}

macro_rules! word_or_mapping {
    ($($word:ty, $mapping:ty, $expected:literal;)*) => {$(
        impl<'de> Deserialize<'de> for OneOf<$word, $mapping> {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                from.deserialize_any(Either::<$word, $mapping>($expected, PhantomData))
            }
        }
    )*};
}

word_or_mapping! {
    Mode, DurabilityForm, "lossless, best_effort, or a mapping with mode";
    Seen, ViewForm, "a word such as alive or refused, or a mapping with seen, age, probes";
}

struct Either<W, M>(&'static str, PhantomData<(W, M)>);

impl<'de, W: Deserialize<'de>, M: Deserialize<'de>> Visitor<'de> for Either<W, M> {
    type Value = OneOf<W, M>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E: Error>(self, word: &str) -> Result<OneOf<W, M>, E> {
        W::deserialize(serde::de::value::StrDeserializer::new(word)).map(OneOf::Word)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<OneOf<W, M>, A::Error> {
        M::deserialize(MapAccessDeserializer::new(map)).map(OneOf::More)
    }
}

impl ProtectionForm {
    /// With what was left out taken from `usual`.
    pub(super) fn fill(&self, usual: Protection) -> Protection {
        let named = self.may_acknowledge.as_ref();
        Protection {
            may_acknowledge: named.map_or(usual.may_acknowledge, |names| {
                names.iter().map(|name| name.as_str().into()).collect()
            }),
            acks: self.acks.unwrap_or(usual.acks),
            in_force: self.in_force.unwrap_or(usual.in_force && !self.degraded),
            degraded: self.degraded,
            floor: None,
        }
    }
}
