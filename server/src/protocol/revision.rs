//! Revisions of the protocol.

use serde_json::json;

use crate::authorize::Meta;
use crate::authorize::json_rpc::{ErrorValue, code};

/// A supported revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Revision {
    /// 2025-03-26, without batches.
    V2025_03_26,
    /// 2025-06-18.
    V2025_06_18,
    /// 2025-11-25.
    V2025_11_25,
    /// 2026-07-28: every request is independent.
    V2026_07_28,
}

impl Revision {
    /// All revisions, the newest first.
    pub const ALL: [Self; 4] = [Self::V2026_07_28, Self::V2025_11_25, Self::V2025_06_18, Self::V2025_03_26];

    /// The newest revision with a handshake.
    const NEWEST_WITH_HANDSHAKE: Self = Self::V2025_11_25;

    /// The revision of a request that names none.
    pub const UNNAMED: Self = Self::V2025_03_26;

    /// The revision of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|revision| revision.name() == name)
    }

    /// The revision of this name.
    ///
    /// # Errors
    /// If it is not served: the error names those that are.
    pub fn served(name: &str) -> Result<Self, ErrorValue> {
        Self::named(name).ok_or_else(|| {
            let supported = Self::ALL.map(Self::name);
            let text = format!("this server does not support revision {name:?}; use one of {}", supported.join(", "));
            let data = Some(json!({ "supported": supported, "requested": name }));
            ErrorValue { data, ..ErrorValue::new(code::UNSUPPORTED_VERSION, text) }
        })
    }

    /// Returns the revision that a request names by itself; `None` if it names none.
    ///
    /// # Errors
    /// If it is not supported, or the request lacks the capabilities of its client.
    pub fn of(meta: &Meta) -> Result<Option<Self>, ErrorValue> {
        let Some(named) = &meta.revision else { return Ok(None) };
        let revision = Self::served(named)?;
        if revision.is_modern() && meta.capabilities.is_none() {
            let text =
                "_meta must have io.modelcontextprotocol/clientCapabilities; add it, an empty object if there are none";
            return Err(ErrorValue::new(code::INVALID_PARAMS, text));
        }
        Ok(Some(revision))
    }

    /// Returns the revision of the answer to a handshake, from the name of the requested one.
    pub fn agreed(asked: &str) -> Self {
        Self::named(asked).filter(|revision| !revision.is_modern()).unwrap_or(Self::NEWEST_WITH_HANDSHAKE)
    }

    /// The name, a date.
    pub fn name(self) -> &'static str {
        match self {
            Self::V2025_03_26 => "2025-03-26",
            Self::V2025_06_18 => "2025-06-18",
            Self::V2025_11_25 => "2025-11-25",
            Self::V2026_07_28 => "2026-07-28",
        }
    }

    /// True if every request is independent: no handshake, results with their type and their cache hints.
    pub fn is_modern(self) -> bool {
        self >= Self::V2026_07_28
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handshake_agrees_on_the_requested_revision_if_it_is_known_and_has_handshakes() {
        for (asked, agreed) in [
            ("2025-03-26", "2025-03-26"),
            ("2025-06-18", "2025-06-18"),
            ("2025-11-25", "2025-11-25"),
            ("2026-07-28", "2025-11-25"),
            ("2024-11-05", "2025-11-25"),
            ("tomorrow", "2025-11-25"),
        ] {
            assert_eq!(Revision::agreed(asked).name(), agreed, "{asked}");
        }
    }
}
