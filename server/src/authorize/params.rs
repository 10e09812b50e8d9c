//! Typed access to the params of a message.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use crate::offer::{JsonObject, LogLevel, Wanted};

/// The parts of a request's `_meta` that this server reads.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Meta {
    /// The revision of the protocol that the request names. All requests name one since 2026-07-28.
    pub revision: Option<String>,
    /// Capabilities of the client for this request.
    pub capabilities: Option<Arc<JsonObject>>,
    /// The token for progress notifications of the request: a string or an integer.
    pub progress_token: Option<Value>,
    /// The lowest severity of log messages that the client accepts.
    pub log_level: Option<LogLevel>,
}

/// The first revision without sessions: every request is self-contained.
const FIRST_MODERN: &str = "2026-07-28";

impl Meta {
    /// True if the request names a revision without sessions. Revision names are dates, so they compare as text.
    pub(super) fn is_modern(&self) -> bool {
        self.revision.as_deref().is_some_and(|revision| revision >= FIRST_MODERN)
    }

    /// Returns the notices that the client requests.
    pub fn wanted(&self) -> Wanted {
        Wanted { progress: self.progress_token.is_some(), log: self.log_level }
    }
}

/// Params that do not match the method, with a message.
pub(super) struct Misfit(pub(super) String);

impl Misfit {
    fn new(name: &str, expected: &str) -> Self {
        Self(format!("the params do not fit the method: {name} must be {expected}"))
    }
}

/// The params of a message.
pub(super) struct Params(JsonObject);

impl From<JsonObject> for Params {
    fn from(members: JsonObject) -> Self {
        Self(members)
    }
}

impl Params {
    /// Returns these params, or `None` if the value is not an object.
    pub(super) fn new(value: Option<Value>) -> Option<Self> {
        match value {
            None => Some(Self(JsonObject::new())),
            Some(Value::Object(members)) => Some(Self(members)),
            Some(_) => None,
        }
    }

    /// Removes and reads `_meta`.
    pub(super) fn meta(&mut self) -> Result<Meta, Misfit> {
        const PREFIX: &str = "io.modelcontextprotocol/";
        let Some(meta) = self.object("_meta")? else { return Ok(Meta::default()) };
        let mut meta = Self(meta);
        let progress_token = meta.0.remove("progressToken").filter(|token| !token.is_null());
        if progress_token.as_ref().is_some_and(|token| !(token.is_string() || token.is_i64() || token.is_u64())) {
            return Err(Misfit::new("_meta.progressToken", "a string or an integer"));
        }
        Ok(Meta {
            progress_token,
            revision: meta.text(&format!("{PREFIX}protocolVersion"))?,
            capabilities: meta.object(&format!("{PREFIX}clientCapabilities"))?.map(Arc::new),
            log_level: meta.level(&format!("{PREFIX}logLevel"))?,
        })
    }

    /// Removes and returns any value.
    pub(super) fn any(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name)
    }

    /// Removes and returns a required string.
    pub(super) fn required_text(&mut self, name: &str) -> Result<String, Misfit> {
        self.text(name)?.ok_or_else(|| Misfit::new(name, "a string"))
    }

    /// Removes and returns a string.
    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>, Misfit> {
        match self.0.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(Misfit::new(name, "a string")),
        }
    }

    /// Removes and returns an object.
    pub(super) fn object(&mut self, name: &str) -> Result<Option<JsonObject>, Misfit> {
        match self.0.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Object(members)) => Ok(Some(members)),
            Some(_) => Err(Misfit::new(name, "an object")),
        }
    }

    /// Removes and returns a required object.
    pub(super) fn required_object(&mut self, name: &str) -> Result<Self, Misfit> {
        self.object(name)?.map(Self).ok_or_else(|| Misfit::new(name, "an object"))
    }

    /// Removes and returns an object of strings.
    pub(super) fn texts(&mut self, name: &str) -> Result<BTreeMap<String, String>, Misfit> {
        let members = self.object(name)?.unwrap_or_default().into_iter();
        let text = |(member, value)| match value {
            Value::String(text) => Ok((member, text)),
            _ => Err(Misfit::new(name, "an object of strings")),
        };
        members.map(text).collect()
    }

    /// Removes and returns an array of strings, or none if it is absent.
    pub(super) fn list(&mut self, name: &str) -> Result<Option<Vec<String>>, Misfit> {
        let items = match self.0.remove(name) {
            None => return Ok(None),
            Some(Value::Array(items)) => items,
            Some(_) => return Err(Misfit::new(name, "an array of strings")),
        };
        let text = |item| match item {
            Value::String(text) => Ok(text),
            _ => Err(Misfit::new(name, "an array of strings")),
        };
        items.into_iter().map(text).collect::<Result<_, _>>().map(Some)
    }

    /// Removes and returns a boolean; absent means false.
    pub(super) fn flag(&mut self, name: &str) -> Result<bool, Misfit> {
        match self.0.remove(name) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(_) => Err(Misfit::new(name, "true or false")),
        }
    }

    /// Removes and returns the severity of log messages.
    pub(super) fn level(&mut self, name: &str) -> Result<Option<LogLevel>, Misfit> {
        let expected = || Misfit::new(name, "a level of RFC 5424, such as \"warning\"");
        self.0.remove(name).map(|level| serde_json::from_value(level).map_err(|_| expected())).transpose()
    }

    /// Removes and checks the required severity of log messages.
    pub(super) fn required_level(&mut self, name: &str) -> Result<(), Misfit> {
        self.level(name)?.map(drop).ok_or_else(|| Misfit::new(name, "a level of RFC 5424, such as \"warning\""))
    }

    /// Returns the remaining params.
    pub(super) fn into_object(self) -> JsonObject {
        self.0
    }
}
