//! Reports of pods: answers of their admin ports, in a form that is safe in a status. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use mcp_entra_policy::{BackendStatus, ServerStatus, SessionStoreStatus};

use crate::objects::untrusted_text::{Foreign, bounded, value};

/// The maximum length of a version, in characters.
const LONGEST_VERSION: usize = 64;
/// The maximum length of an issuer's URL, in characters.
const LONGEST_ISSUER: usize = 1024;
/// The maximum length of a Graph permission, and the maximum number of them.
const LONGEST_PERMISSION: usize = 128;
const MOST_PERMISSIONS: usize = 64;
/// The maximum lengths of names and URIs of a backend, and the maximum number of each kind.
const LONGEST_NAME: usize = 128;
const LONGEST_URI: usize = 512;
const MOST_NAMES: usize = 1024;
/// The maximum number of listening addresses.
const MOST_LISTENERS: usize = 8;

/// The parts of a pod's answer that the operator uses. An invalid or too long part is absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) version: Option<String>,
    /// The revision of the enforced policy. It is only compared, never shown.
    pub(crate) revision: Option<Foreign>,
    pub(crate) policy_error: Option<Foreign>,
    pub(crate) issuer: Option<String>,
    pub(crate) works: Option<bool>,
    pub(crate) federation_message: Option<Foreign>,
    pub(crate) keys: usize,
    pub(crate) keys_error: Option<Foreign>,
    /// Permissions are only compared with the spec. Others are never shown.
    pub(crate) missing_permissions: BTreeSet<String>,
    /// The session store, if the pod uses one.
    pub(crate) session_store: Option<SessionStoreReport>,
    /// The backend, if the pod has one.
    pub(crate) backend: Option<BackendReport>,
}

/// The state of a backend, as its pod reports it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct BackendReport {
    pub(crate) works: Option<bool>,
    pub(crate) message: Option<Foreign>,
    pub(crate) name: Option<String>,
    pub(crate) version: Option<String>,
    pub(crate) protocol: Option<String>,
    /// Digests of the tools' definitions, by name.
    pub(crate) tools: BTreeMap<String, String>,
    pub(crate) prompts: BTreeSet<String>,
    pub(crate) resources: BTreeSet<String>,
    /// Tools that are not offered, because they differ from the pin.
    pub(crate) hidden: BTreeSet<String>,
    /// Addresses on which other processes than the server listen, without loopback addresses. None if the pod cannot
    /// see them.
    pub(crate) listens: Option<BTreeSet<SocketAddr>>,
}

impl From<BackendStatus> for BackendReport {
    fn from(status: BackendStatus) -> Self {
        let text = |text: Option<String>| text.map(|text| bounded(&text, LONGEST_NAME)).filter(|text| !text.is_empty());
        let names = |names: BTreeSet<String>, longest| {
            BTreeSet::from_iter(names.into_iter().filter_map(|name| value(name, longest)).take(MOST_NAMES))
        };
        let tools = status.tools.into_iter();
        let tools = tools.filter_map(|(name, digest)| Some((value(name, LONGEST_NAME)?, value(digest, LONGEST_NAME)?)));
        Self {
            works: status.works,
            message: status.message.map(Foreign::from),
            name: text(status.name),
            version: text(status.version),
            protocol: status.protocol.and_then(|protocol| value(protocol, LONGEST_VERSION)),
            tools: tools.take(MOST_NAMES).collect(),
            prompts: names(status.prompts, LONGEST_NAME),
            resources: names(status.resources, LONGEST_URI),
            hidden: names(status.hidden, LONGEST_NAME),
            // An invalid address makes the list unknown, because it cannot be tried.
            listens: status.listens.and_then(|listens| {
                listens.into_iter().take(MOST_LISTENERS).map(|address| address.parse().ok()).collect()
            }),
        }
    }
}

/// The state of the session store, as a pod reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SessionStoreReport {
    pub(crate) works: Option<bool>,
    pub(crate) message: Option<Foreign>,
}

impl From<ServerStatus> for Report {
    fn from(status: ServerStatus) -> Self {
        let ServerStatus { version, policy, federation, keys, graph, session_store, backend } = status;
        Self {
            version: value(version, LONGEST_VERSION),
            revision: policy.revision.map(Foreign::from),
            policy_error: policy.error.map(Foreign::from),
            issuer: federation.identity.and_then(|identity| issuer(identity.issuer)),
            works: federation.works,
            federation_message: federation.message.map(Foreign::from),
            keys: keys.count,
            keys_error: keys.error.map(Foreign::from),
            missing_permissions: graph
                .missing_permissions
                .into_iter()
                .filter_map(|permission| value(permission, LONGEST_PERMISSION))
                .take(MOST_PERMISSIONS)
                .collect(),
            session_store: session_store.map(|SessionStoreStatus { works, message }| SessionStoreReport {
                works,
                message: message.map(Foreign::from),
            }),
            backend: backend.map(BackendReport::from),
        }
    }
}

/// Returns an issuer, if the text can be one.
pub(crate) fn issuer(text: String) -> Option<String> {
    value(text, LONGEST_ISSUER).filter(|issuer| issuer.starts_with("https://"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::objects::untrusted_text::tests::hostile;

    #[test]
    fn valid_values_of_a_pods_report_are_kept_and_invalid_ones_are_absent() {
        let report = |version: &str, issuer: &str| {
            let status = json!({
                "version": version,
                "policy": {"revision": "r", "error": "unreadable"},
                "federation": {"identity": {"issuer": issuer, "subject": "s", "audience": "a"},
                               "works": true, "message": "m", "lastProbe": null},
                "keys": {"count": 1, "ageSeconds": 1, "error": "e"},
            });
            Report::from(serde_json::from_value::<ServerStatus>(status).unwrap())
        };
        let good = report("0.10.0-rc.1", "https://issuer.example/");
        assert_eq!(good.version.as_deref(), Some("0.10.0-rc.1"));
        assert_eq!(good.issuer.as_deref(), Some("https://issuer.example/"));
        assert_eq!(good.policy_error, Some(Foreign::from("unreadable")));
        for bad in [hostile().as_str(), "", "x\ny"] {
            let report = report(bad, bad);
            assert_eq!((report.version, report.issuer), (None, None), "{bad:?}");
        }
        assert_eq!(report("1", "http://issuer.example").issuer, None);
    }

    #[test]
    fn a_backends_report_is_bounded_and_its_invalid_values_are_absent() {
        let report =
            |status: serde_json::Value| BackendReport::from(serde_json::from_value::<BackendStatus>(status).unwrap());
        let good = report(json!({
            "works": true, "name": "Time of day", "version": "1.2", "protocol": "2025-11-25", "tools": {"now": "0af1"},
            "prompts": ["p"], "resources": ["time://now"], "hidden": ["now"], "listens": ["0.0.0.0:3001", "[::]:3001"],
        }));
        assert_eq!((good.name.as_deref(), good.protocol.as_deref()), (Some("Time of day"), Some("2025-11-25")));
        assert_eq!((good.tools["now"].as_str(), good.hidden.len(), good.listens.unwrap().len()), ("0af1", 1, 2));
        let bad = report(json!({
            "name": hostile(), "protocol": hostile(), "tools": {hostile(): "0", "now": hostile()},
            "prompts": [hostile()], "resources": [hostile()], "hidden": [hostile()], "listens": ["everywhere"],
        }));
        assert_eq!(bad.name.unwrap().chars().count(), LONGEST_NAME);
        assert_eq!((bad.tools.len(), bad.prompts.len(), bad.resources.len(), bad.hidden.len()), (0, 0, 0, 0));
        assert_eq!((bad.protocol, bad.listens), (None, None));
        let many: BTreeMap<String, &str> = (0..2000).map(|number| (number.to_string(), "0")).collect();
        assert_eq!(report(json!({"tools": many})).tools.len(), MOST_NAMES);
    }
}
