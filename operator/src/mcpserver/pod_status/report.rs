//! Reports of pods: the answers of their admin ports, read into a form that can do no harm in a status. Pure.

use std::collections::BTreeSet;

use mcp_entra_policy::{ServerStatus, SessionStoreStatus};

use crate::objects::untrusted_text::{Foreign, value};

/// The most characters of a version.
const LONGEST_VERSION: usize = 64;
/// The most characters of an issuer's URL.
const LONGEST_ISSUER: usize = 1024;
/// The most characters of a Graph permission, and the most of them.
const LONGEST_PERMISSION: usize = 128;
const MOST_PERMISSIONS: usize = 64;

/// The part of a pod's answer that the operator uses. A member that says more than it may is absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) version: Option<String>,
    /// Revision of the policy in force. It is compared, and shown nowhere.
    pub(crate) revision: Option<Foreign>,
    pub(crate) policy_error: Option<Foreign>,
    pub(crate) issuer: Option<String>,
    pub(crate) works: Option<bool>,
    pub(crate) federation_message: Option<Foreign>,
    pub(crate) keys: usize,
    pub(crate) keys_error: Option<Foreign>,
    /// It is compared with the spec, and what the spec does not name is shown nowhere.
    pub(crate) missing_permissions: BTreeSet<String>,
    /// The session store, where the pod keeps sessions.
    pub(crate) session_store: Option<SessionStoreReport>,
}

/// The session store, as a pod finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SessionStoreReport {
    pub(crate) works: Option<bool>,
    pub(crate) message: Option<Foreign>,
}

impl From<ServerStatus> for Report {
    fn from(status: ServerStatus) -> Self {
        let ServerStatus { version, policy, federation, keys, graph, session_store, backend: _ } = status;
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
        }
    }
}

/// An issuer, if it can be one.
pub(crate) fn issuer(text: String) -> Option<String> {
    value(text, LONGEST_ISSUER).filter(|issuer| issuer.starts_with("https://"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::objects::untrusted_text::tests::hostile;

    #[test]
    fn what_a_pod_may_say_is_taken_over_and_values_that_are_none_are_absent() {
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
}
