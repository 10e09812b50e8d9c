//! Compilation of the mappings that bind a server into one document with one revision. Pure.

use std::collections::BTreeSet;

use mcp_entra_crds as kinds;
use mcp_entra_crds::PolicySummary;
use mcp_entra_policy::{
    BUILT_IN_TOOLS, CallerKind, CompiledPolicy, Deny, Grant, Operation, Pattern, Primitives, Requirements, Subject,
    operations_over, revision,
};

use crate::policy::{
    binding::{Bound, Mapping, Target},
    written_policies::{Generations, ProgrammedPolicy},
};

/// The maximum size of a document, in bytes. A ConfigMap holds 1,048,576 bytes, of which its metadata needs some.
pub(crate) const LARGEST_DOCUMENT: usize = 900 * 1024;

/// The document of a policy that allows nothing.
pub(crate) const DENY_ALL: &str = r#"{"grants":[]}"#;

/// The compiled policy of a server.
#[derive(Clone, Debug)]
pub(crate) struct Compiled {
    /// The document that pods read.
    pub(crate) document: String,
    /// The rules of the document.
    pub(crate) policy: CompiledPolicy,
    pub(crate) summary: PolicySummary,
    /// The mappings in the document, and those that did not fit.
    pub(crate) programmed: ProgrammedPolicy,
    /// Names of the mappings that did not fit.
    pub(crate) left_out: Vec<String>,
}

impl Compiled {
    pub(crate) fn revision(&self) -> &str {
        &self.summary.revision
    }
}

/// Compiles the mappings that bind the server, denies before grants. If the grants do not fit, the newest are left out,
/// so that a new mapping cannot displace an older one. If the denies do not fit, the policy allows nothing.
pub(crate) fn compile<'a>(
    server: &Target<'_>,
    mappings: impl IntoIterator<Item = Mapping<'a>>,
) -> Result<Compiled, serde_json::Error> {
    compile_within(LARGEST_DOCUMENT, server, mappings)
}

fn compile_within<'a>(
    largest: usize,
    server: &Target<'_>,
    mappings: impl IntoIterator<Item = Mapping<'a>>,
) -> Result<Compiled, serde_json::Error> {
    let bound = mappings.into_iter().map(|mapping| (mapping, mapping.binds(server)));
    let mut bound: Vec<(Mapping<'a>, Bound)> = bound.filter(|(_, bound)| *bound != Bound::No).collect();
    bound.sort_by_key(|(mapping, _)| mapping.reference());
    let mut policy = CompiledPolicy {
        denies: bound.iter().flat_map(|(mapping, _)| denies(mapping)).collect(),
        grants: vec![],
        revoke_sessions_before: server.revoke_sessions_before,
        compromised_keys: server.compromised_keys.clone(),
    };
    let mut size = serde_json::to_string(&policy)?.len();
    let mut is_full = size > largest;
    if is_full {
        policy.denies.clear();
    }

    let (mut held, mut left_out) = (Vec::new(), Vec::new());
    bound.sort_by(|(one, _), (other, _)| one.age().cmp(&other.age()));
    let no_deny_fits = is_full;
    for (mapping, bound) in bound {
        let grants = if bound == Bound::Yes { grants(&mapping) } else { Vec::new() };
        for grant in &grants {
            size += serde_json::to_string(grant)?.len() + ",".len();
        }
        is_full |= size > largest && !grants.is_empty();
        if no_deny_fits || (is_full && !grants.is_empty()) {
            left_out.push(mapping);
        } else {
            policy.grants.extend(grants);
            held.push(mapping);
        }
    }
    // Sorted by mapping, and in the mapping's order within it.
    policy.grants.sort_by(|one, other| one.mapping.cmp(&other.mapping));
    let document = serde_json::to_string(&policy)?;
    Ok(Compiled {
        summary: summarise(&policy, held.len(), revision(document.as_bytes())),
        document,
        policy,
        left_out: left_out.iter().map(Mapping::title).collect(),
        programmed: ProgrammedPolicy { held: generations(&held), left_out: generations(&left_out) },
    })
}

fn grants(mapping: &Mapping<'_>) -> Vec<Grant> {
    let compiled = |grant: &kinds::Grant| Grant {
        mapping: mapping.reference(),
        name: grant.name.clone(),
        registration: mapping.registration().map(str::to_owned),
        to: grant.to.iter().filter_map(|to| subject(to, &[CallerKind::User])).collect(),
        require: grant.require.as_ref().map(requirements).unwrap_or_default(),
        graph: grant.graph,
        allow: primitives(&grant.allow.tools, &grant.allow.prompts, &grant.allow.resources),
    };
    mapping.grants.iter().map(compiled).collect()
}

/// Compiles denies. A deny with a subject that this version does not know applies to everyone.
fn denies(mapping: &Mapping<'_>) -> Vec<Deny> {
    let everyone = [CallerKind::User, CallerKind::Application];
    let compiled = |deny: &kinds::Deny| Deny {
        mapping: mapping.reference(),
        name: deny.name.clone(),
        registration: mapping.registration().map(str::to_owned),
        to: deny.to.as_ref().and_then(|to| to.iter().map(|to| subject(to, &everyone)).collect()),
        forbid: primitives(&deny.tools, &deny.prompts, &deny.resources),
    };
    mapping.deny.iter().map(compiled).collect()
}

fn subject(subject: &kinds::Subject, callers: &[CallerKind]) -> Option<Subject> {
    let kinds::Subject { app_role, callers: given, group, application } = subject;
    let callers = given.as_deref().unwrap_or(callers);
    let role = app_role.clone().map(|role| Subject::AppRole { role, callers: callers.iter().copied().collect() });
    let group = group.clone().map(|group| Subject::Group { id: group.id, display_name: group.display_name });
    let application = application.clone().map(|given| Subject::Application { client_id: given.client_id });
    role.or(group).or(application)
}

fn requirements(require: &kinds::Requirements) -> Requirements {
    Requirements {
        scopes: require.scopes.iter().cloned().collect(),
        authentication_context: require.authentication_context.clone(),
    }
}

fn primitives(tools: &[String], prompts: &[String], resources: &[String]) -> Primitives {
    let patterns = |names: &[String]| names.iter().cloned().map(Pattern).collect();
    Primitives { tools: patterns(tools), prompts: patterns(prompts), resources: patterns(resources) }
}

fn summarise(policy: &CompiledPolicy, mappings: usize, revision: String) -> PolicySummary {
    let subjects = policy.grants.iter().flat_map(|grant| &grant.to);
    let roles: BTreeSet<&String> = subjects
        .filter_map(|subject| match subject {
            Subject::AppRole { role, .. } => Some(role),
            Subject::Group { .. } | Subject::Application { .. } => None,
        })
        .collect();
    let mut granted = operations_over(&Vec::from_iter(BUILT_IN_TOOLS));
    granted.retain(|operation| policy.grants.iter().any(|grant| grant.allow.grant(*operation)));
    let of_kind = |kind: fn(&&Operation<'_>) -> bool| count(granted.iter().filter(kind).count());
    PolicySummary {
        revision,
        mappings: count(mappings),
        roles: count(roles.len()),
        tools: of_kind(|operation| matches!(operation, Operation::Tool { .. })),
        prompts: of_kind(|operation| matches!(operation, Operation::Prompt(_))),
        resources: of_kind(|operation| matches!(operation, Operation::Resource(_))),
    }
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn generations(mappings: &[Mapping<'_>]) -> Generations {
    let generation = |mapping: &Mapping<'_>| {
        let generation = mapping.metadata.generation.unwrap_or_default();
        Some((mapping.metadata.uid.as_deref()?.into(), generation))
    };
    let mut generations: Generations = mappings.iter().filter_map(generation).collect();
    generations.sort_unstable();
    generations
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
    use serde_json::json;

    use super::*;
    use crate::{
        objects::fixtures::mk_server,
        policy::binding::{Labels, tests::mk_cluster_mapping},
    };
    use kinds::{ClusterMcpRoleMapping, McpRoleMapping};

    fn compile_in(
        largest: usize,
        namespace_labels: Option<&Labels>,
        mappings: &[McpRoleMapping],
        cluster_mappings: &[ClusterMcpRoleMapping],
    ) -> Compiled {
        let server = mk_server();
        let all = mappings.iter().map(Mapping::from).chain(cluster_mappings.iter().map(Mapping::from));
        compile_within(largest, &Target::of(&server, namespace_labels), all).unwrap()
    }

    fn compile(mappings: &[McpRoleMapping]) -> Compiled {
        compile_in(LARGEST_DOCUMENT, Some(&Labels::new()), mappings, &[])
    }

    fn mk_mapping(name: &str, servers: &[&str], role: &str, age: i64) -> McpRoleMapping {
        let mut mapping: McpRoleMapping = serde_json::from_value(json!({
            "apiVersion": "mcp-entra.dev/v1alpha1",
            "kind": "McpRoleMapping",
            "metadata": {"name": name, "namespace": "productivity", "uid": format!("uid-{name}"), "generation": 3},
            "spec": {
                "servers": {"names": servers},
                "grants": [{"name": "grant", "to": [{"appRole": role}], "allow": {"tools": ["get_*"]}}],
            },
        }))
        .unwrap();
        mapping.metadata.creation_timestamp = Some(Time(Timestamp::from_second(1_000_000 - age).unwrap()));
        mapping
    }

    #[test]
    fn a_revocation_of_sessions_is_compiled_for_any_policy_and_for_an_unreadable_server() {
        let mut server = mk_server();
        let before = ("mcp-entra.dev/revoke-sessions-before".to_owned(), "1970-01-02T00:00:00Z".to_owned());
        let compromised = ("mcp-entra.dev/compromised-keys".to_owned(), "1".to_owned());
        server.metadata.annotations = Some([before, compromised].into());
        // A server without an authorization server has no sessions, and its version may not know the field.
        let without = compile_within(LARGEST_DOCUMENT, &Target::of(&server, None), []).unwrap();
        assert_eq!(without.document, DENY_ALL);
        server.spec.authorization_server =
            Some(serde_json::from_value(json!({"sessionStore": {"memory": {}}})).unwrap());
        for target in [Target::of(&server, None), Target::unreadable(&server.metadata, None)] {
            for largest in [0, LARGEST_DOCUMENT] {
                let compiled = compile_within(largest, &target, []).unwrap();
                let policy = CompiledPolicy::parse(compiled.document.as_bytes()).unwrap();
                assert_eq!(policy.revoke_sessions_before, Some(86_400));
                assert_eq!(policy.compromised_keys.as_deref(), Some("1"));
            }
        }
        let other = compile(&[]);
        assert_eq!(other.document, DENY_ALL);
    }

    #[test]
    fn only_mappings_that_name_the_server_are_compiled() {
        let mappings = [mk_mapping("ours", &["other", "graph"], "A", 1), mk_mapping("theirs", &["graphs"], "B", 1)];
        let compiled = compile(&mappings);
        let policy = CompiledPolicy::parse(compiled.document.as_bytes()).unwrap();
        assert_eq!(policy.grants.len(), 1);
        assert_eq!(policy.grants[0].mapping.name, "ours");
        assert_eq!(policy.grants[0].to, [Subject::AppRole { role: "A".into(), callers: [CallerKind::User].into() }]);
        assert_eq!(policy, compiled.policy);
        assert_eq!(*compiled.programmed.held, [("uid-ours".into(), 3)]);
    }

    #[test]
    fn a_mapping_that_is_being_deleted_grants_nothing() {
        let mut mapping = mk_mapping("ours", &["graph"], "A", 1);
        mapping.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        assert_eq!(compile(&[mapping]).document, r#"{"grants":[]}"#);
    }

    #[test]
    fn the_document_does_not_depend_on_the_order_in_which_mappings_were_seen() {
        let (a, b) = (mk_mapping("a", &["graph"], "A", 1), mk_mapping("b", &["graph"], "B", 2));
        let forth = compile(&[a.clone(), b.clone()]);
        let back = compile(&[b, a]);
        assert_eq!(forth.document, back.document);
        assert!(forth.document.find(r#""name":"a""#) < forth.document.find(r#""name":"b""#));
    }

    #[test]
    fn the_summary_counts_mappings_distinct_roles_tools_prompts_and_resources() {
        let mut mappings = [mk_mapping("a", &["graph"], "A", 1), mk_mapping("b", &["graph"], "A", 2)];
        let compiled = compile(&mappings);
        assert_eq!((compiled.summary.mappings, compiled.summary.roles, compiled.summary.tools), (2, 1, 1));
        assert_eq!((compiled.summary.prompts, compiled.summary.resources), (0, 0));
        for mapping in &mut mappings {
            mapping.spec.grants[0].allow.prompts = vec!["introduce_me".into(), "d*".into(), "nothing".into()];
            mapping.spec.grants[0].allow.resources = vec!["graph://*".into()];
        }
        let compiled = compile(&mappings);
        assert_eq!((compiled.summary.tools, compiled.summary.prompts, compiled.summary.resources), (1, 2, 1));
        assert_eq!(compiled.revision(), revision(compiled.document.as_bytes()));
    }

    #[test]
    fn the_newest_mappings_are_left_out_and_named_if_the_policy_is_too_large() {
        let mappings = [
            mk_mapping("new", &["graph"], "A", 1),
            mk_mapping("old", &["graph"], "B", 3),
            mk_mapping("middle", &["graph"], "C", 2),
        ];
        let whole = compile(&mappings).document.len();
        let compiled = compile_in(whole - 1, None, &mappings, &[]);
        assert!(compiled.document.len() < whole);
        assert_eq!(compiled.left_out, ["new"]);
        assert_eq!(*compiled.programmed.left_out, [("uid-new".into(), 3)]);
        let held: Vec<&str> = compiled.programmed.held.iter().map(|(uid, _)| &**uid).collect();
        assert_eq!(held, ["uid-middle", "uid-old"]);

        let nothing_fits = compile_in(20, None, &mappings, &[]);
        assert_eq!(nothing_fits.document, DENY_ALL);
        assert_eq!(serde_json::to_string(&CompiledPolicy::default()).unwrap(), DENY_ALL);
        assert_eq!(nothing_fits.left_out, ["old", "middle", "new"]);
    }

    fn no_mail() -> ClusterMcpRoleMapping {
        mk_cluster_mapping("guardrails", json!({"matchLabels": {"stage": "production"}}), json!({"selector": {}}))
    }

    #[test]
    fn the_policy_contains_denies_that_select_the_namespace_of_its_server() {
        let denies = |stage: &str| {
            let labels = Labels::from([("stage".to_owned(), stage.to_owned())]);
            compile_in(LARGEST_DOCUMENT, Some(&labels), &[], &[no_mail()]).policy.denies
        };
        let production = denies("production");
        assert_eq!((production.len(), production[0].name.as_str(), &production[0].to), (1, "no-mail", &None));
        assert_eq!(production[0].mapping.to_string(), "guardrails");
        assert_eq!(denies("test"), []);
    }

    #[test]
    fn a_mapping_with_unknown_namespaces_denies_and_does_not_grant() {
        let mut mapping = no_mail();
        mapping.spec.grants = mk_mapping("x", &["graph"], "A", 1).spec.grants;
        let compiled = compile_in(LARGEST_DOCUMENT, None, &[], &[mapping]);
        assert_eq!((compiled.policy.denies.len(), compiled.policy.grants.len()), (1, 0));
    }

    #[test]
    fn each_grant_and_deny_has_the_pin_of_its_mapping_and_another_registration_gets_only_denies() {
        let own = mk_server().spec.entra.client_id;
        let compiled = |pin: Option<&str>| {
            let mut mapping = mk_cluster_mapping("m", json!({}), json!({"selector": {}}));
            mapping.spec.servers.client_id = pin.map(str::to_owned);
            mapping.spec.grants = mk_mapping("x", &["graph"], "A", 1).spec.grants;
            let policy = compile_in(LARGEST_DOCUMENT, None, &[], &[mapping]).policy;
            let pins = |pins: Vec<&Option<String>>| pins.into_iter().cloned().collect::<Vec<_>>();
            (
                pins(policy.grants.iter().map(|grant| &grant.registration).collect()),
                pins(policy.denies.iter().map(|deny| &deny.registration).collect()),
            )
        };
        assert_eq!(compiled(None), (vec![None], vec![None]));
        assert_eq!(compiled(Some(&own)), (vec![Some(own.clone())], vec![Some(own.clone())]));
        let other = "77aa0000-0000-0000-0000-000000000000";
        assert_eq!(compiled(Some(other)), (vec![], vec![Some(other.to_owned())]));
    }

    #[test]
    fn denies_stay_even_if_grants_do_not_fit() {
        let old = mk_mapping("old", &["graph"], "A", 5);
        let mut young = no_mail();
        young.metadata.creation_timestamp = Some(Time(Timestamp::from_second(1_000_000).unwrap()));
        let labels = Labels::from([("stage".to_owned(), "production".to_owned())]);
        let (grants, denies) = (&[old], &[young]);
        let whole = compile_in(LARGEST_DOCUMENT, Some(&labels), grants, denies).document.len();
        let compiled = compile_in(whole - 1, Some(&labels), grants, denies);
        assert_eq!((compiled.policy.denies.len(), compiled.policy.grants.len()), (1, 0));
        assert_eq!((compiled.left_out, compiled.programmed.held.len()), (vec!["old".to_owned()], 1));
    }

    #[test]
    fn nothing_is_allowed_if_the_denies_do_not_fit() {
        let labels = Labels::from([("stage".to_owned(), "production".to_owned())]);
        let compiled = compile_in(60, Some(&labels), &[mk_mapping("old", &["graph"], "A", 5)], &[no_mail()]);
        assert_eq!(compiled.document, r#"{"grants":[]}"#);
        assert_eq!(compiled.left_out.len(), 2);
        assert!(compiled.left_out.contains(&"ClusterMcpRoleMapping guardrails".to_owned()));
    }

    #[test]
    fn a_role_without_callers_grants_only_users_and_denies_users_and_applications() {
        let role = |callers: Option<Vec<CallerKind>>| kinds::Subject {
            app_role: Some("A".into()),
            callers,
            ..kinds::Subject::default()
        };
        let meant = |given: Option<Vec<CallerKind>>| {
            let mut mapping = mk_cluster_mapping("m", json!({}), json!({"selector": {}}));
            mapping.spec.grants = mk_mapping("x", &["graph"], "A", 1).spec.grants;
            mapping.spec.grants[0].to = vec![role(given.clone())];
            mapping.spec.deny[0].to = Some(vec![role(given)]);
            let policy = compile_in(LARGEST_DOCUMENT, None, &[], &[mapping]).policy;
            [policy.grants[0].to[0].clone(), policy.denies[0].to.clone().unwrap()[0].clone()].map(|subject| {
                match subject {
                    Subject::AppRole { callers, .. } => callers.len(),
                    other => panic!("{other:?}"),
                }
            })
        };
        assert_eq!(meant(None), [1, 2]);
        assert_eq!(meant(Some(vec![CallerKind::User])), [1, 1]);
        assert_eq!(meant(Some(vec![CallerKind::User, CallerKind::Application])), [2, 2]);
    }

    #[test]
    fn a_deny_to_a_subject_that_this_version_does_not_know_is_one_to_everyone() {
        let mut mapping = mk_cluster_mapping("m", json!({}), json!({"selector": {}}));
        mapping.spec.deny[0].to = Some(vec![kinds::Subject::default()]);
        assert_eq!(compile_in(LARGEST_DOCUMENT, None, &[], &[mapping]).policy.denies[0].to, None);
    }
}
