//! Settings of local mode: validation, and conversion back to equivalent arguments.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use mcp_entra_policy::{BUILT_IN_TOOLS, BuiltInTool, Cloud, built_in_tool};
use uuid::Uuid;

use super::store::StoreKind;

/// Tenant of all personal Microsoft accounts: the GUID of `consumers`.
const CONSUMERS: &str = "9188040d-6c67-4c5b-b112-36a304b66dad";
/// Longest domain name.
const MAXIMUM_DOMAIN: usize = 253;
/// Longest label of a domain name.
const MAXIMUM_LABEL: usize = 63;

/// Clouds by their names in `--cloud`.
pub(super) const CLOUDS: [(&str, Cloud); 4] =
    [("public", Cloud::Public), ("usgov", Cloud::USGov), ("usgovdod", Cloud::USGovDoD), ("china", Cloud::China)];

/// Kinds of stores by their names in `--token-store`.
pub(super) const STORES: [(&str, StoreKind); 3] =
    [("os", StoreKind::Os), ("file", StoreKind::File), ("memory", StoreKind::Memory)];

/// Settings of local mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The tenant: a GUID or a domain, in lower case; never `common`, `organizations` or `consumers`.
    pub tenant: String,
    /// The app registration: a GUID in lower case.
    pub client_id: String,
    /// Entra's address without a trailing slash, such as `https://login.microsoftonline.com`.
    pub authority: String,
    /// Graph's address without a trailing slash, such as `https://graph.microsoft.com`.
    pub graph_url: String,
    /// Delegated permissions of Graph to request, by name.
    pub scopes: BTreeSet<String>,
    /// Tools to offer, by name: all that only read, and allowed ones that write.
    pub tools: BTreeSet<String>,
    /// Aliases with their tools.
    pub aliases: BTreeMap<String, String>,
    /// Storage of the tokens.
    pub store: StoreKind,
    /// True for sign-ins with a device code, on any device with a browser.
    pub device_code: bool,
    /// CA certificates (PEM) to trust besides the system's.
    pub trust_bundle: Option<PathBuf>,
    /// File for logs; absent means standard error.
    pub log_file: Option<PathBuf>,
    /// File for audit lines; absent means standard error.
    pub audit_file: Option<PathBuf>,
}

impl Settings {
    /// Returns the offered tools that write, by name. An unknown tool counts as writing.
    pub fn writing(&self) -> impl Iterator<Item = &str> {
        let writes = |name: &&str| built_in_tool(name).is_none_or(|tool| tool.writes);
        self.tools.iter().map(String::as_str).filter(writes)
    }

    /// Returns the arguments of the subcommand `local` for these settings, without defaults.
    pub fn arguments(&self) -> Vec<String> {
        // Destructured, so that a new field does not compile until it is handled here.
        let Self {
            tenant,
            client_id,
            authority,
            graph_url,
            scopes,
            tools: _, // reading tools follow from the scopes, `writing` returns the others
            aliases,
            store,
            device_code,
            trust_bundle,
            log_file,
            audit_file,
        } = self;
        let allowed: BTreeSet<&str> = self.writing().collect();
        let by_default =
            needed_scopes(BUILT_IN_TOOLS.iter().filter(|tool| !tool.writes || allowed.contains(tool.name)));
        let aliases: Vec<String> = aliases.iter().map(|(name, tool)| format!("{name}={tool}")).collect();
        let store = STORES.iter().filter(|(_, kind)| *kind != StoreKind::default() && kind == store);
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.to_string_lossy().into_owned());
        let given = [
            ("--tenant", Some(tenant.clone())),
            ("--client-id", Some(client_id.clone())),
            ("--authority", Some(authority.clone()).filter(|url| url != Cloud::default().authority())),
            ("--graph-url", Some(graph_url.clone()).filter(|url| url != Cloud::default().graph())),
            ("--scopes", Some(list(scopes)).filter(|_| *scopes != by_default)),
            ("--allow", Some(list(&allowed)).filter(|_| !allowed.is_empty())),
            ("--alias", Some(list(&aliases)).filter(|_| !aliases.is_empty())),
            ("--token-store", store.map(|(name, _)| (*name).to_owned()).next()),
            ("--device-code", device_code.then(|| "true".to_owned())),
            ("--trust-bundle", path(trust_bundle)),
            ("--log-file", path(log_file)),
            ("--audit-file", path(audit_file)),
        ];
        // As one word, because a value may begin with a hyphen.
        given.into_iter().filter_map(|(flag, value)| Some(format!("{flag}={}", value?))).collect()
    }
}

fn list<T: AsRef<str>>(names: impl IntoIterator<Item = T>) -> String {
    let mut list = String::new();
    for name in names {
        let separator = if list.is_empty() { "" } else { "," };
        list.extend([separator, name.as_ref()]);
    }
    list
}

/// Returns the delegated permissions that these tools need.
pub(super) fn needed_scopes<'a>(tools: impl Iterator<Item = &'a BuiltInTool>) -> BTreeSet<String> {
    tools.flat_map(|tool| tool.permissions.delegated).map(|scope| (*scope).to_owned()).collect()
}

/// The reason why a text is not a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TenantError {
    /// The name means many tenants.
    #[error("means many tenants: use the GUID or a verified domain of your tenant")]
    Many,
    /// The text is neither a GUID nor a domain.
    #[error("is neither a GUID nor a domain; copy the tenant ID from the Overview of Microsoft Entra ID in the portal")]
    Form,
}

/// Returns the tenant in lower case.
pub(super) fn tenant(text: &str) -> Result<String, TenantError> {
    let name = text.to_ascii_lowercase();
    match name.as_str() {
        "common" | "organizations" | "consumers" | CONSUMERS => Err(TenantError::Many),
        _ if guid(&name).is_some() || is_domain(&name) => Ok(name),
        _ => Err(TenantError::Form),
    }
}

/// Returns the GUID in lower case with hyphens. The all-zero GUID is not accepted.
pub(super) fn guid(text: &str) -> Option<String> {
    let name = text.to_ascii_lowercase();
    let guid = Uuid::try_parse(&name).ok().filter(|guid| !guid.is_nil())?;
    // Uuid also accepts braces, `urn:uuid:` and digits without hyphens.
    (guid.hyphenated().to_string() == name).then_some(name)
}

/// True for a name in lower case that has a dot and is not an IPv4 address. Names in other scripts use the `xn--`
/// form.
fn is_domain(name: &str) -> bool {
    let is_label = |label: &str| {
        let legal = label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        legal && (1..=MAXIMUM_LABEL).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-')
    };
    let last = name.rsplit_once('.').map(|(_, last)| last);
    let is_top = last.is_some_and(|last| last.bytes().any(|byte| byte.is_ascii_lowercase()));
    is_top && name.len() <= MAXIMUM_DOMAIN && name.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_is_a_guid_or_a_domain_of_one_tenant() {
        let long = format!("{}.com", "a".repeat(64));
        for (text, tenant_named) in [
            ("8F6B1C52-0D4E-4C0A-9B7F-2A1D3E4F5A6B", Ok("8f6b1c52-0d4e-4c0a-9b7f-2a1d3e4f5a6b")),
            ("Contoso.OnMicrosoft.com", Ok("contoso.onmicrosoft.com")),
            ("xn--bcher-kva.example", Ok("xn--bcher-kva.example")),
            ("common", Err(TenantError::Many)),
            ("Organizations", Err(TenantError::Many)),
            ("consumers", Err(TenantError::Many)),
            ("9188040D-6c67-4c5b-b112-36a304b66dad", Err(TenantError::Many)),
            ("", Err(TenantError::Form)),
            ("contoso", Err(TenantError::Form)),
            ("contoso.com.", Err(TenantError::Form)),
            ("contoso..com", Err(TenantError::Form)),
            ("-contoso.com", Err(TenantError::Form)),
            ("contoso.com/v2.0", Err(TenantError::Form)),
            ("contoso.com?x", Err(TenantError::Form)),
            ("bücher.example", Err(TenantError::Form)),
            ("192.168.0.1", Err(TenantError::Form)),
            (&long, Err(TenantError::Form)),
            ("{8f6b1c52-0d4e-4c0a-9b7f-2a1d3e4f5a6b}", Err(TenantError::Form)),
            ("8f6b1c520d4e4c0a9b7f2a1d3e4f5a6b", Err(TenantError::Form)),
            ("00000000-0000-0000-0000-000000000000", Err(TenantError::Form)),
        ] {
            assert_eq!(tenant(text).as_deref(), tenant_named.as_ref().copied(), "{text}");
        }
    }
}
