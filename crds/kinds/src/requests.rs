//! Request limits and audit log settings of an McpServer.

use kube::{KubeSchema, core::Duration};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Limits on the number of requests of each caller. Defaults to 120 requests in 60 seconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RateLimit {
    /// Limit for each caller in each pod. A caller is a user, or an application that calls without a user. Requests
    /// above the limit get status 429.
    pub per_user: Rate,
}

/// Number of requests that are allowed in a period. A caller may send all of them at once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "duration(self.per) >= duration('1s') && duration(self.per) <= duration('1h')",
    "per must be between 1s and 1h, such as 60s"
))]
pub struct Rate {
    /// Number of requests that are allowed in the period. Must be between 1 and 1000000.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub requests: u32,
    /// Length of the period, such as `60s`. Must be between `1s` and `1h`.
    #[schemars(schema_with = "per")]
    pub per: Duration,
}

/// Optional settings of the audit log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Audit {
    /// Adds the hash of the previous line to each line, so that a changed or removed line can be detected. Defaults to
    /// false.
    #[serde(default)]
    pub hash_chain: bool,
}

fn per(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "string", "maxLength": 16, "pattern": "^([0-9]+(h|m|s))+$"})
}
