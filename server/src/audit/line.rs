//! A line of the audit log. `crds/schemas/audit-line.schema.json` describes it to programs, and is generated from here.

use std::time::Duration;

use jiff::Timestamp;
use mcp_entra_policy::MappingReference;
use schemars::{JsonSchema, Schema, schema_for};
use serde::Serialize;

use super::reasons;
use crate::token::{Membership, Principal};

/// Name and version of what stands in a line. A member that is added leaves it as it is; one that changes its meaning,
/// or goes, does not.
pub(super) const SCHEMA: &str = "mcp-entra-audit/1";

/// The JSON schema of a line, without its chain.
pub fn schema() -> Schema {
    schema_for!(Line<'_>)
}

/// A line of the audit log: one request to the MCP endpoint that was judged, and how it ended. With `audit.hashChain`
/// two members more stand at its end, `chain` and `hash`.
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
    /// `tid` of the verified token; null where there was none.
    pub(super) tenant_id: Option<&'a str>,
    /// `oid` of the verified token: the user, or the application's service principal.
    pub(super) object_id: Option<&'a str>,
    /// `azp` or `appid` of the verified token: the client.
    pub(super) client_id: Option<&'a str>,
    /// The kind of the token: a user's or an application's.
    pub(super) caller: Option<Caller>,
    /// The method of the message; null where it was not understood, or not read.
    pub(super) method: Option<&'a str>,
    /// The tool that was asked for, cut to 64 characters.
    pub(super) tool: Option<&'a str>,
    /// The prompt that was asked for, cut to 64 characters. Absent where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) prompt: Option<&'a str>,
    /// The URI of the resource that was asked for, cut to 256 characters. Absent where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) resource: Option<&'a str>,
    /// The decision.
    pub(super) decision: Decision,
    /// The reason, a stable name.
    #[schemars(schema_with = "reasons::schema")]
    pub(super) reason: &'static str,
    /// The grant or deny that decided, where one did.
    pub(super) rule: Option<&'a Rule>,
    /// The HTTP status; null where the client hung up before there was one, and in local mode.
    pub(super) status: Option<u16>,
    /// From the request to its answer, in milliseconds.
    pub(super) latency_ms: u64,
    /// Requests that the line stands for: those of this reason without a verified token that have no line of their own.
    /// Absent where it is one. The other members are the latest one's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) count: Option<u64>,
    /// Addresses that those requests came from, 1000 at the most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) addresses: Option<u64>,
    /// Requests among them that came from the address with the most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) most_of_one_address: Option<u64>,
}

impl<'a> Line<'a> {
    /// The line of a request that is refused before anything is known of its caller, and that ends now.
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

/// The owner of the token.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
pub(super) enum Caller {
    /// A person's of the tenant, through a client.
    User,
    /// A person's who is a guest in the tenant, through a client.
    Guest,
    /// An application's, without a person.
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
    /// It was let in.
    Allowed,
    /// It was kept out.
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
    /// The grant's name in it.
    Grant(String),
    /// The deny's name in it.
    Deny(String),
}

impl Rule {
    /// A grant of a mapping.
    pub fn grant(mapping: &MappingReference, grant: &str) -> Self {
        Self { mapping: mapping.to_string(), part: Part::Grant(grant.to_owned()) }
    }

    /// A deny of a mapping.
    pub fn deny(mapping: &MappingReference, deny: &str) -> Self {
        Self { mapping: mapping.to_string(), part: Part::Deny(deny.to_owned()) }
    }
}
