//! Status of a mapping: the servers that it binds, names that are probably misspelt, and its presence in the servers'
//! policies. Pure.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::jiff::Timestamp;
use mcp_entra_crds::{Allow, ConditionType, Deny, McpRoleMappingStatus, McpServer};
use mcp_entra_policy::{Operation, Pattern, operations_over};

use crate::{
    conditions::condition::{Reason, Verdict, conditions, named, with_ready},
    mcpserver::validate::named_tools,
    policy::{
        binding::{Bound, Mapping, Target},
        offered::Offered,
        written_policies::{Generations, ProgrammedPolicy},
    },
};

/// The most names that a status lists.
const NAMES: usize = 10;

/// The servers and names that a mapping meets in a cluster.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    /// The bound servers: their names as in the status, and their uids.
    pub(crate) bound: Vec<(String, String)>,
    /// Names in `spec.servers.names` without a server.
    missing: Vec<String>,
    /// Named servers that do not accept tokens of the mapping's app registration.
    of_another: Vec<String>,
    /// Names and prefixes that match nothing that a bound server offers.
    unmatched: Vec<String>,
}

/// Finds the servers that a mapping binds. `backends` returns the names that a server's backend offers, by the server's
/// uid, once they are known.
pub(crate) fn survey(
    mapping: &Mapping<'_>,
    servers: &[(&McpServer, Target<'_>)],
    backends: impl Fn(&str) -> Option<Arc<Offered>>,
) -> Survey {
    let mut survey = Survey::default();
    let mut of_backends = Vec::new();
    let mut found = BTreeSet::new();
    let mut offered = Vec::new();
    let chosen = servers.iter().filter(|(_, target)| mapping.selects(target) == Bound::Yes);
    for (server, target) in chosen {
        found.insert(target.name);
        let name = match mapping.metadata.namespace {
            Some(_) => target.name.to_owned(),
            None => format!("{}/{}", target.namespace, target.name),
        };
        let is_bound = match mapping.is_meant_for(target) {
            Bound::Yes => true,
            // An audience that proves no registration: denies apply to its tokens.
            Bound::Unknown => !mapping.deny.is_empty(),
            Bound::No => false,
        };
        if is_bound {
            let uid = server.metadata.uid.clone().unwrap_or_default();
            of_backends.extend(server.spec.backend.as_ref().map(|_| backends(&uid)));
            survey.bound.push((name, uid));
            // A tool without its scopes is not offered, but its name is correct.
            let there = operations_over(&Vec::from_iter(server.spec.graph.iter().flat_map(named_tools)));
            offered.extend(there.into_iter().filter(|operation| !offered.contains(operation)).collect::<Vec<_>>());
        } else if mapping.servers.names.is_some() {
            survey.of_another.push(name);
        }
    }
    survey.bound.sort();
    survey.of_another.sort();
    let names = mapping.servers.names.iter().flatten();
    survey.missing = names.filter(|name| !found.contains(name.as_str())).cloned().collect();
    // No name is reported as misspelt before the backends have been polled.
    if !survey.bound.is_empty() && of_backends.iter().all(Option::is_some) {
        offered.extend(of_backends.iter().flatten().flat_map(|offered| offered.operations()));
        survey.unmatched = unmatched(mapping, &offered);
    }
    survey
}

fn unmatched(mapping: &Mapping<'_>, offered: &[Operation<'_>]) -> Vec<String> {
    let of_kind = |kind: fn(&Operation<'_>) -> bool| Vec::from_iter(offered.iter().copied().filter(kind));
    let kinds = [
        of_kind(|operation| matches!(operation, Operation::Tool { .. })),
        of_kind(|operation| matches!(operation, Operation::Prompt(_))),
        of_kind(|operation| matches!(operation, Operation::Resource(_))),
    ];
    let find = |lists: [&[String]; 3], means: fn(&Pattern, Operation<'_>) -> bool| -> Vec<String> {
        let matches = |pattern: &String, offered: &[Operation<'_>]| {
            let pattern = Pattern(pattern.clone());
            offered.iter().any(|operation| means(&pattern, *operation))
        };
        let lists = lists.into_iter().zip(&kinds);
        lists.flat_map(|(list, kind)| list.iter().filter(|pattern| !matches(pattern, kind))).cloned().collect()
    };
    let granted = mapping.grants.iter().map(|grant| &grant.allow);
    let granted =
        granted.flat_map(|Allow { tools, prompts, resources }| find([tools, prompts, resources], Pattern::grants));
    let denied = mapping.deny.iter().flat_map(|Deny { tools, prompts, resources, .. }| {
        find([tools, prompts, resources], |pattern, operation| pattern.matches(operation.name()))
    });
    BTreeSet::from_iter(granted.chain(denied)).into_iter().collect()
}

/// The presence of a mapping in a server's policy ConfigMap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    Held,
    LeftOut,
    Pending,
    /// No pass over the server has ended since the start.
    Unknown,
}

/// Returns the presence of a mapping's generation in a policy.
pub(crate) fn presence(policy: Option<&ProgrammedPolicy>, mapping: &str, generation: i64) -> Presence {
    let Some(policy) = policy else { return Presence::Unknown };
    let holds = |mappings: &Generations| mappings.iter().any(|(uid, held)| **uid == *mapping && *held >= generation);
    if holds(&policy.held) {
        Presence::Held
    } else if holds(&policy.left_out) {
        Presence::LeftOut
    } else {
        Presence::Pending
    }
}

/// Builds the status.
pub(crate) fn status(
    mapping: &Mapping<'_>,
    survey: &Survey,
    presences: &[(String, Presence)],
    now: Timestamp,
) -> McpRoleMappingStatus {
    let generation = mapping.metadata.generation;
    let programmed = programmed(mapping, presences);
    // A mapping without servers is ready: servers that come later may depend on it.
    let ready = match presences {
        [] => programmed.clone(),
        _ => Verdict::yes(
            Reason::Ready,
            "every named server exists, and the policy of every bound server contains the mapping",
        ),
    };
    let verdicts = vec![(ConditionType::Accepted, accepted(mapping, survey)), (ConditionType::Programmed, programmed)];
    let count = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
    let previous = mapping.status.map(|status| status.conditions.as_slice()).unwrap_or_default();
    McpRoleMappingStatus {
        observed_generation: generation,
        servers: count(survey.bound.len()),
        server_names: survey.bound.iter().take(NAMES).map(|(name, _)| name.clone()).collect(),
        unmatched: count(survey.unmatched.len()),
        unmatched_names: survey.unmatched.iter().take(NAMES).cloned().collect(),
        conditions: conditions(previous, with_ready(verdicts, ready), generation, now),
    }
}

fn accepted(mapping: &Mapping<'_>, survey: &Survey) -> Verdict {
    if !survey.missing.is_empty() {
        let place =
            if mapping.metadata.namespace.is_some() { "in this namespace" } else { "in the selected namespaces" };
        return Verdict::no(
            Reason::ServerNotFound,
            format!(
                "there is no McpServer with this name {place}: {}; correct spec.servers.names, or create it",
                named(&survey.missing)
            ),
        );
    }
    if !survey.of_another.is_empty() {
        return Verdict::no(
            Reason::ClientIdMismatch,
            format!(
                "these servers do not accept tokens of the app registration spec.servers.clientId, so the mapping does not apply to them: {}; correct the client id, or name other servers",
                named(&survey.of_another)
            ),
        );
    }
    if !survey.unmatched.is_empty() {
        return Verdict::yes(
            Reason::Accepted,
            format!(
                "no bound server offers anything with these names: {}; correct misspelt names, grant a tool that writes by its full name, and offer the tools that a prompt or resource depends on",
                named(&survey.unmatched)
            ),
        );
    }
    Verdict::yes(Reason::Accepted, "every named server exists")
}

fn programmed(mapping: &Mapping<'_>, presences: &[(String, Presence)]) -> Verdict {
    let of = |wanted: Presence| -> Vec<String> {
        presences.iter().filter(|(_, presence)| *presence == wanted).map(|(name, _)| name.clone()).collect()
    };
    let left_out = of(Presence::LeftOut);
    if presences.is_empty() && mapping.servers.names.is_some() {
        Verdict::no(
            Reason::ServerNotFound,
            "no server is bound, so the mapping has no effect; see the condition Accepted for the cause",
        )
    } else if presences.is_empty() {
        Verdict::yes(
            Reason::NoServers,
            "no server is bound now, so the mapping has no effect; if you expect one, compare spec.servers with kubectl get mcpservers --show-labels",
        )
    } else if !left_out.is_empty() {
        Verdict::no(
            Reason::PolicyTooLarge,
            format!(
                "with this mapping the policy of {} would be larger than 900 KiB, so the mapping grants nothing there; merge or remove mappings",
                named(&left_out)
            ),
        )
    } else if presences.iter().any(|(_, presence)| *presence == Presence::Pending) {
        // The message names no servers: it would change, and be written, after every server.
        Verdict::no(
            Reason::Pending,
            "the policy of a bound server does not contain the mapping yet; if this lasts, see the condition Programmed of the bound servers",
        )
    } else {
        Verdict::yes(Reason::Applied, "the policy of every bound server contains the mapping")
    }
}

#[cfg(test)]
mod tests {
    use mcp_entra_crds::McpRoleMapping;
    use serde_json::json;

    use super::*;
    use crate::{
        conditions::condition::State,
        objects::fixtures::{mk_backend_server, mk_server},
        policy::{
            binding::{Labels, tests::mk_cluster_mapping},
            written_policies::ProgrammedPolicies,
        },
    };

    fn mk_servers(names: impl IntoIterator<Item = String>) -> Vec<McpServer> {
        let named = |name: String| {
            let mut server = mk_server();
            server.metadata.uid = Some(format!("uid-{name}"));
            server.metadata.name = Some(name);
            server
        };
        names.into_iter().map(named).collect()
    }

    fn surveyed<'a>(mapping: impl Into<Mapping<'a>>, servers: &[McpServer]) -> (McpRoleMappingStatus, Verdict) {
        let (mapping, labels) = (mapping.into(), Labels::new());
        let targets: Vec<_> = servers.iter().map(|server| (server, Target::of(server, Some(&labels)))).collect();
        let survey = survey(&mapping, &targets, |_| None);
        let presences: Vec<_> = survey.bound.iter().map(|(name, _)| (name.clone(), Presence::Held)).collect();
        (status(&mapping, &survey, &presences, Timestamp::UNIX_EPOCH), accepted(&mapping, &survey))
    }

    #[test]
    fn names_that_a_backend_lacks_are_reported_once_its_offer_is_known() {
        let mut server = mk_backend_server();
        let mapping = mk_mapping(json!({"names": ["graph"]}), &["add", "sub", "*"]);
        let unmatched = |server: &McpServer, offered: Option<&Offered>| {
            let (mapping, labels) = (Mapping::from(&mapping), Labels::new());
            let offered = || offered.cloned().map(Arc::new);
            survey(&mapping, &[(server, Target::of(server, Some(&labels)))], |_| offered()).unmatched
        };
        let mut offered = Offered { tools: ["add".to_owned()].into(), ..Offered::default() };
        assert!(unmatched(&server, None).is_empty());
        assert_eq!(unmatched(&server, Some(&offered)), ["*", "sub"], "a prefix grants no tool of a backend");
        offered.is_pinned = true;
        assert_eq!(unmatched(&server, Some(&offered)), ["sub"]);
        server.spec.backend = None;
        assert_eq!(unmatched(&server, None), ["*", "add", "sub"], "a server that offers nothing");
    }

    fn mk_mapping(servers: serde_json::Value, tools: &[&str]) -> McpRoleMapping {
        serde_json::from_value(json!({
            "apiVersion": "mcp-entra.dev/v1alpha1",
            "kind": "McpRoleMapping",
            "metadata": {"name": "readers", "namespace": "productivity", "uid": "uid-readers", "generation": 1},
            "spec": {
                "servers": servers,
                "grants": [{"name": "all", "to": [{"appRole": "A"}], "allow": {"tools": tools}}],
            },
        }))
        .unwrap()
    }

    #[test]
    fn all_bound_servers_are_counted_and_ten_of_them_named() {
        let servers = mk_servers((0..12).map(|number| format!("graph-{number:02}")));
        let (told, _) = surveyed(&mk_mapping(json!({"selector": {}}), &["*"]), &servers);
        assert_eq!((told.servers, told.server_names.len()), (12, 10));
        assert_eq!((told.server_names[0].as_str(), told.server_names[9].as_str()), ("graph-00", "graph-09"));
        let (told, _) = surveyed(&mk_cluster_mapping("m", json!({}), json!({"selector": {}})), &servers[..1]);
        assert_eq!(told.server_names, ["productivity/graph-00"]);
    }

    #[test]
    fn names_are_reported_only_if_no_bound_server_offers_them() {
        let servers = mk_servers(["graph".to_owned()]);
        let mapping = mk_mapping(json!({"names": ["graph"]}), &["get_user_detials", "list_*", "lsit_*"]);
        let (told, verdict) = surveyed(&mapping, &servers);
        assert_eq!((told.unmatched, told.unmatched_names), (2, vec!["get_user_detials".into(), "lsit_*".into()]));
        assert_eq!(verdict.state, State::True);
        assert!(verdict.message.contains("get_user_detials, lsit_*"), "{}", verdict.message);

        let mut narrow = servers;
        narrow[0].spec.graph.as_mut().unwrap().tools = vec!["get_user_details".into()];
        let (told, _) = surveyed(&mk_mapping(json!({"names": ["graph"]}), &["list_my_messages"]), &narrow);
        assert_eq!(told.unmatched_names, ["list_my_messages"], "built in, but not offered there");
        narrow[0].spec.graph.as_mut().unwrap().tools = vec!["*".into(), "send_mail".into()];
        let (told, verdict) = surveyed(&mk_mapping(json!({"names": ["graph"]}), &["send_*", "send_mail"]), &narrow);
        assert_eq!(told.unmatched_names, ["send_*"], "a prefix grants no tool that writes");
        assert!(verdict.message.contains("by its full name"), "{}", verdict.message);
        let (told, _) = surveyed(&mk_mapping(json!({"names": ["other"]}), &["nothing"]), &narrow);
        assert_eq!(told.unmatched, 0, "without a server nothing is misspelt yet");
    }

    #[test]
    fn prompts_and_resources_match_only_if_a_bound_server_has_their_tools() {
        let mut servers = mk_servers(["graph".to_owned()]);
        let mapping = |prompts: &[&str], resources: &[&str]| {
            let mut mapping = mk_mapping(json!({"names": ["graph"]}), &["*"]);
            mapping.spec.grants[0].allow.prompts = prompts.iter().map(|name| (*name).to_owned()).collect();
            mapping.spec.grants[0].allow.resources = resources.iter().map(|name| (*name).to_owned()).collect();
            mapping
        };
        let unmatched = |mapping: &McpRoleMapping, servers: &[McpServer]| surveyed(mapping, servers).0.unmatched_names;
        let right = mapping(&["summarize_inbox", "introduce_*", "*"], &["graph://me/profile", "graph://*", "*"]);
        assert!(unmatched(&right, &servers).is_empty());
        let wrong = mapping(&["get_user_details", "draft_reply"], &["graph://me/profiles", "summarize_inbox"]);
        let expected = ["draft_reply", "get_user_details", "graph://me/profiles", "summarize_inbox"];
        assert_eq!(unmatched(&wrong, &servers), expected, "a name of another kind is none, nor one without its tools");

        servers[0].spec.graph.as_mut().unwrap().tools = vec!["list_my_messages".into()];
        assert_eq!(unmatched(&mapping(&["*"], &["*"]), &servers), ["*"], "no tool, so no resource");
        let mut writer = mk_servers(["writer".to_owned()]);
        writer[0].spec.graph.as_mut().unwrap().tools = vec!["send_mail".into()];
        let mut both = mapping(&["draft_reply"], &[]);
        both.spec.servers = serde_json::from_value(json!({"names": ["graph", "writer"]})).unwrap();
        both.spec.grants[0].allow.tools = vec!["send_mail".into()];
        let servers = [servers, writer].concat();
        assert_eq!(unmatched(&both, &servers), ["draft_reply"], "no server has both of its tools");

        let guardrails = |prompts: &[&str]| {
            let mut mapping = mk_cluster_mapping("guardrails", json!({}), json!({"selector": {}}));
            let deny = json!([{"name": "none", "prompts": prompts, "resources": ["*", "file://*"]}]);
            mapping.spec.deny = serde_json::from_value(deny).unwrap();
            surveyed(&mapping, &mk_servers(["graph".to_owned()])).0.unmatched_names
        };
        assert_eq!(guardrails(&["*", "sumarize_*"]), ["file://*", "sumarize_*"]);
    }

    #[test]
    fn named_servers_that_do_not_exist_are_reported() {
        let servers = mk_servers(["graph".to_owned()]);
        let (_, verdict) = surveyed(&mk_mapping(json!({"names": ["graph", "grpah"]}), &["*"]), &servers);
        assert_eq!((verdict.state, verdict.reason.as_str()), (State::False, "ServerNotFound"));
        assert!(verdict.message.contains(": grpah;"), "{}", verdict.message);
    }

    #[test]
    fn a_named_server_of_another_app_registration_is_reported_and_not_bound() {
        let servers = mk_servers(["graph".to_owned()]);
        let pinned = |client_id: &str| mk_mapping(json!({"names": ["graph"], "clientId": client_id}), &["*"]);
        let (told, verdict) = surveyed(&pinned("77aa0000-0000-0000-0000-000000000000"), &servers);
        assert_eq!((told.servers, verdict.reason.as_str()), (0, "ClientIdMismatch"));
        let (told, verdict) = surveyed(&pinned(&servers[0].spec.entra.client_id), &servers);
        assert_eq!((told.servers, verdict.reason.as_str()), (1, "Accepted"));

        let mut servers = servers;
        let accepted = |audience: &str, servers: &mut [McpServer]| {
            servers[0].spec.entra.audiences = vec![audience.to_owned()];
            let grants = surveyed(&pinned("77aa0000-0000-0000-0000-000000000000"), servers).0.servers;
            let servers_of = json!({"names": ["graph"], "clientId": "77aa0000-0000-0000-0000-000000000000"});
            (grants, surveyed(&mk_cluster_mapping("m", json!({}), servers_of), servers).0.servers)
        };
        assert_eq!(accepted("api://77aa0000-0000-0000-0000-000000000000", &mut servers), (1, 1));
        assert_eq!(accepted("https://graph.mcp.contoso.com/mcp", &mut servers), (0, 1), "only denies hold");
        assert_eq!(accepted("api://77aa0000-0000-0000-0000-000000000001", &mut servers), (0, 0));
    }

    #[test]
    fn a_mapping_is_programmed_once_every_bound_server_holds_its_newest_generation() {
        let policy = ProgrammedPolicy { held: [("held".into(), 2)].into(), left_out: [("large".into(), 1)].into() };
        assert_eq!(presence(Some(&policy), "held", 2), Presence::Held);
        assert_eq!(presence(Some(&policy), "held", 3), Presence::Pending);
        assert_eq!(presence(Some(&policy), "large", 1), Presence::LeftOut);
        assert_eq!(presence(Some(&policy), "new", 1), Presence::Pending);
        assert_eq!(presence(None, "held", 2), Presence::Unknown);

        let mapping = mk_mapping(json!({"names": ["graph"]}), &["*"]);
        let verdict = |presences: &[Presence]| {
            let mapping = Mapping::from(&mapping);
            programmed(&mapping, &presences.iter().map(|presence| ("graph".to_owned(), *presence)).collect::<Vec<_>>())
        };
        assert_eq!(verdict(&[Presence::Held, Presence::Held]).state, State::True);
        assert_eq!(verdict(&[Presence::Held, Presence::Pending]).reason, "Pending");
        assert_eq!(verdict(&[Presence::Pending, Presence::LeftOut]).reason, "PolicyTooLarge");
        assert_eq!(verdict(&[]).reason, "ServerNotFound");
    }

    #[test]
    fn a_mapping_is_ready_if_its_other_conditions_are_true() {
        let servers = mk_servers(["graph".to_owned()]);
        let ready = |mapping: &McpRoleMapping, presence: Presence| {
            let (mapping, labels) = (Mapping::from(mapping), Labels::new());
            let targets: Vec<_> = servers.iter().map(|server| (server, Target::of(server, Some(&labels)))).collect();
            let survey = survey(&mapping, &targets, |_| None);
            let presences: Vec<_> = survey.bound.iter().map(|(name, _)| (name.clone(), presence)).collect();
            let conditions = status(&mapping, &survey, &presences, Timestamp::UNIX_EPOCH).conditions;
            let others_hold =
                conditions.iter().filter(|found| found.type_ != "Ready").all(|found| found.status == "True");
            let ready = conditions.into_iter().find(|found| found.type_ == "Ready").unwrap();
            assert_eq!(ready.status == "True", others_hold, "{ready:?}");
            ready.reason
        };
        let named = mk_mapping(json!({"names": ["graph"]}), &["*"]);
        assert_eq!(ready(&named, Presence::Held), "Ready");
        assert_eq!(ready(&named, Presence::Pending), "Pending");
        assert_eq!(ready(&named, Presence::LeftOut), "PolicyTooLarge");
        let partly = mk_mapping(json!({"names": ["graph", "grpah"]}), &["*"]);
        assert_eq!(ready(&partly, Presence::Held), "ServerNotFound");
        let another = json!({"names": ["graph"], "clientId": "77aa0000-0000-0000-0000-000000000000"});
        assert_eq!(ready(&mk_mapping(another, &["*"]), Presence::Held), "ClientIdMismatch");
        let selecting = |label: &str| mk_mapping(json!({"selector": {"matchLabels": {"team": label}}}), &["*"]);
        assert_eq!(ready(&selecting("other"), Presence::Held), "NoServers");
    }

    #[test]
    fn a_mapping_that_cannot_be_written_is_pending_for_any_number_of_servers() {
        let policies = ProgrammedPolicies::default();
        policies.not_written("server");
        assert_eq!(presence(policies.get("server").as_ref(), "new", 1), Presence::Pending);
        let mapping = mk_mapping(json!({"names": ["graph"]}), &["*"]);
        let waiting = |count: usize| {
            let presences = (0..3).map(|number| if number < count { Presence::Pending } else { Presence::Held });
            programmed(
                &Mapping::from(&mapping),
                &presences.map(|presence| ("graph".to_owned(), presence)).collect::<Vec<_>>(),
            )
        };
        assert_eq!((waiting(1).state, waiting(1).reason.as_str()), (State::False, "Pending"));
        assert_eq!(waiting(1), waiting(3));
        assert!(waiting(1).message.contains("condition Programmed of the bound servers"));
    }
}
