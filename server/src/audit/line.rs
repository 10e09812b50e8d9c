//! The format of an audit line. The schema `crds/schemas/audit-line.schema.json` is generated from here.

use std::time::Duration;

use jiff::Timestamp;
use mcp_entra_policy::MappingReference;
use schemars::{JsonSchema, Schema, schema_for};
use serde::Serialize;

use super::reasons;
use crate::token::{Membership, Principal};

/// Name and version of the format. Adding a member keeps the version; changing the meaning of a member or removing it
/// does not.
pub(super) const SCHEMA: &str = "mcp-entra-audit/1";

/// Returns the JSON schema of a line, without the chain.
pub fn schema() -> Schema {
    schema_for!(Line<'_>)
}

/// A line of the audit log: one judged request to the MCP endpoint, and its end. With `audit.hashChain` a line has
/// two more members at the end, `chain` and `hash`.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "AuditLine")]
pub(super) struct Line<'a> {
    /// `mcp-entra-audit/1`.
    pub(super) schema: &'static str,
    /// The end of the request (RFC 3339, UTC).
    pub(super) time: String,
    /// The `x-request-id` of the answer.
    pub(super) request_id: &'a str,
    /// Namespace and name of the McpServer.
    pub(super) server: &'a str,
    /// `tid` of the verified token; null without one.
    pub(super) tenant_id: Option<&'a str>,
    /// `oid` of the verified token: the user, or the application's service principal.
    pub(super) object_id: Option<&'a str>,
    /// `azp` or `appid` of the verified token: the client.
    pub(super) client_id: Option<&'a str>,
    /// The kind of the caller: user, guest or application.
    pub(super) caller: Option<Caller>,
    /// The method of the message; null if it was not read or not understood.
    pub(super) method: Option<&'a str>,
    /// The requested tool, cut to 64 characters.
    pub(super) tool: Option<&'a str>,
    /// The requested prompt, cut to 64 characters. Absent if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) prompt: Option<&'a str>,
    /// The URI of the requested resource, cut to 256 characters. Absent if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) resource: Option<&'a str>,
    /// The decision.
    pub(super) decision: Decision,
    /// The reason, a stable name.
    #[schemars(schema_with = "reasons::schema")]
    pub(super) reason: &'static str,
    /// The grant or deny that decided, if any.
    pub(super) rule: Option<&'a Rule>,
    /// The HTTP status; null if the client hung up before the answer, and in local mode.
    pub(super) status: Option<u16>,
    /// Milliseconds from the request to the end of its answer.
    pub(super) latency_ms: u64,
    /// Number of requests that this line summarises: those of this reason without a verified token and without their
    /// own line. Absent for a single request. The other members describe the latest request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) count: Option<u64>,
    /// Number of addresses that those requests came from, at most 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) addresses: Option<u64>,
    /// Number of requests from the most frequent address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) most_of_one_address: Option<u64>,
}

impl<'a> Line<'a> {
    /// Returns the line of a request that ends now, refused before its caller is known.
    pub(super) fn refused(
        request_id: &'a str,
        server: &'a str,
        reason: &'static str,
        status: Option<u16>,
        latency: Duration,
    ) -> Self {
        Self {
            schema: SCHEMA,
            time: Timestamp::now().to_string(),
            request_id,
            server,
            tenant_id: None,
            object_id: None,
            client_id: None,
            caller: None,
            method: None,
            tool: None,
            prompt: None,
            resource: None,
            decision: Decision::Refused,
            reason,
            rule: None,
            status,
            latency_ms: u64::try_from(latency.as_millis()).unwrap_or(u64::MAX),
            count: None,
            addresses: None,
            most_of_one_address: None,
        }
    }
}

/// The kind of a caller.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
pub(super) enum Caller {
    /// A person of the tenant, through a client.
    User,
    /// A guest of the tenant, through a client.
    Guest,
    /// An application, without a person.
    Application,
}

impl Caller {
    pub(super) fn of(principal: &Principal) -> Self {
        match principal {
            Principal::User(user) if user.membership == Membership::Guest => Self::Guest,
            Principal::User(_) | Principal::LocalUser(_) => Self::User,
            Principal::Application(_) => Self::Application,
        }
    }
}

/// The decision about a request.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) enum Decision {
    /// The request was allowed.
    Allowed,
    /// The request was refused.
    Refused,
}

impl Decision {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Refused => "refused",
        }
    }
}

/// The rule that decided: a grant or a deny of a mapping.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Rule {
    /// Namespace and name of an McpRoleMapping, or the name of a ClusterMcpRoleMapping.
    mapping: String,
    #[serde(flatten)]
    part: Part,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
enum Part {
    /// Name of the grant in the mapping.
    Grant(String),
    /// Name of the deny in the mapping.
    Deny(String),
}

impl Rule {
    /// Returns the rule for a grant of a mapping.
    pub fn grant(mapping: &MappingReference, grant: &str) -> Self {
        Self { mapping: mapping.to_string(), part: Part::Grant(grant.to_owned()) }
    }

    /// Returns the rule for a deny of a mapping.
    pub fn deny(mapping: &MappingReference, deny: &str) -> Self {
        Self { mapping: mapping.to_string(), part: Part::Deny(deny.to_owned()) }
    }
}
