//! Limits of callers' requests, and the audit log.

use kube::{KubeSchema, core::Duration};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Limits of a caller's requests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RateLimit {
    /// Each user, and each application by itself, in each pod. Beyond it requests are answered 429.
    pub per_user: Rate,
}

/// So many requests in so much time; as many may come at once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "duration(self.per) >= duration('1s') && duration(self.per) <= duration('1h')",
    "per is a time from 1s to 1h, such as 60s"
))]
pub struct Rate {
    /// Number of requests.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub requests: u32,
    /// In this time, such as `60s`.
    #[schemars(schema_with = "per")]
    pub per: Duration,
}

/// Additions to the audit log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Audit {
    /// True if each line carries the hash of the one before it, so that a line that was changed or taken out shows.
    #[serde(default)]
    pub hash_chain: bool,
}

fn per(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "string", "maxLength": 16, "pattern": "^([0-9]+(h|m|s))+$"})
}
