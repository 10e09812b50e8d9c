//! The sentences about clouds, configuration, patterns and decisions, each as a test.
#![cfg(test)] // clippy does not see otherwise that the functions tests share are of tests too

use std::collections::BTreeSet;

use mcp_entra_policy::*;

const READS: BuiltInTool = BuiltInTool { name: "get_user_details", writes: false, graph_scope: "User.Read" };
const WRITES: BuiltInTool = BuiltInTool { name: "send_mail", writes: true, graph_scope: "Mail.Send" };
const SALES: &str = "3f0c0000-0000-0000-0000-000000000001";

fn grant(name: &str, to: Subject, tools: &[&str]) -> Grant {
    Grant {
        mapping: MappingReference { namespace: "productivity".into(), name: "readers".into() },
        name: name.into(),
        to: vec![to],
        allow: Allow { tools: tools.iter().map(|tool| ToolPattern((*tool).into())).collect() },
    }
}

fn role(name: &str) -> Subject {
    Subject::AppRole(name.into())
}

fn sales() -> Subject {
    Subject::Group { id: SALES.into(), display_name: Some("Sales".into()) }
}

fn user(roles: &[&str], groups: Option<&[&str]>) -> Caller {
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    Caller {
        kind: CallerKind::User,
        roles: set(roles),
        groups: groups.map_or(Groups::Unknown, |groups| Groups::Known(set(groups))),
    }
}

fn decide(grants: Vec<Grant>, caller: &Caller) -> Decision {
    CompiledPolicy { grants }.decide(caller, Operation::Tool(&READS))
}

#[test]
fn no_mapping_means_no_tool() {
    let everything = user(&["Mcp.Reader", "Mcp.Admin"], Some(&[SALES]));
    let Decision::Refused(refusal) = decide(vec![], &everything) else { panic!("nothing was granted") };
    assert_eq!(refusal, Refusal { roles: BTreeSet::new(), groups: BTreeSet::new(), groups_unknown: false });
}

#[test]
fn a_role_grants_what_its_mapping_says_and_names_itself() {
    let grants = vec![grant("readers", role("Mcp.Reader"), &["get_user_details"])];
    let Decision::Allowed { mapping, grant } = decide(grants, &user(&["Mcp.Reader"], None)) else {
        panic!("the role is granted")
    };
    assert_eq!(
        (mapping.namespace.as_str(), mapping.name.as_str(), grant.as_str()),
        ("productivity", "readers", "readers")
    );
}

#[test]
fn another_role_is_refused_and_told_which_one_would_do() {
    let grants = vec![
        grant("readers", role("Mcp.Reader"), &["get_user_details"]),
        grant("writers", role("Mcp.Writer"), &["send_mail"]),
    ];
    let Decision::Refused(refusal) = decide(grants, &user(&["mcp.reader", "Mcp.Writer"], Some(&[]))) else {
        panic!("neither a role in other letters nor one for another tool may pass")
    };
    assert_eq!(refusal.roles, BTreeSet::from(["Mcp.Reader".to_owned()]));
    assert!(!refusal.groups_unknown);
}

#[test]
fn a_group_grants_to_its_members_alone() {
    let grants = || vec![grant("sales", sales(), &["get_*"])];
    assert!(decide(grants(), &user(&[], Some(&[SALES]))).is_allowed());
    let Decision::Refused(refusal) = decide(grants(), &user(&["Sales", SALES], Some(&["other"]))) else {
        panic!("a role of a group's name is no membership")
    };
    assert_eq!(refusal.groups, BTreeSet::from(["Sales".to_owned()]));
}

#[test]
fn unknown_groups_grant_nothing_and_the_refusal_says_that_they_were_unknown() {
    let Decision::Refused(refusal) = decide(vec![grant("sales", sales(), &["get_*"])], &user(&[], None)) else {
        panic!("an unknown membership must not grant")
    };
    assert!(refusal.groups_unknown);
}

#[test]
fn unknown_groups_do_not_stand_in_the_way_of_a_role() {
    let grants = vec![grant("sales", sales(), &["get_*"]), grant("readers", role("Mcp.Reader"), &["get_*"])];
    assert!(decide(grants, &user(&["Mcp.Reader"], None)).is_allowed());
}

#[test]
fn an_application_with_a_users_role_is_refused() {
    let application = Caller { kind: CallerKind::Application, ..user(&["Mcp.Reader"], Some(&[SALES])) };
    let grants = vec![grant("readers", role("Mcp.Reader"), &["get_*"]), grant("sales", sales(), &["get_*"])];
    assert!(!decide(grants, &application).is_allowed());
}

#[test]
fn a_star_means_a_prefix_only_at_the_end_and_never_a_tool_that_writes() {
    let matches = |pattern: &str, tool: &BuiltInTool| ToolPattern(pattern.into()).matches(tool);
    assert!(matches("*", &READS) && matches("get_*", &READS) && matches("get_user_details", &READS));
    assert!(!matches("*_details", &READS) && !matches("get_user", &READS) && !matches("list_*", &READS));
    assert!(matches("send_mail", &WRITES));
    assert!(!matches("*", &WRITES) && !matches("send_*", &WRITES) && !matches("send_mail*", &WRITES));
}

#[test]
fn a_policy_survives_writing_and_reading_and_its_revision_follows_its_bytes() {
    let policy = CompiledPolicy { grants: vec![grant("sales", sales(), &["get_*"])] };
    let document = serde_json::to_vec(&policy).unwrap();
    assert_eq!(CompiledPolicy::parse(&document).unwrap(), policy);
    assert_eq!(revision(&document).len(), 32);
    assert_ne!(revision(&document), revision(&serde_json::to_vec(&CompiledPolicy::default()).unwrap()));
}

#[test]
fn a_policy_with_a_member_that_this_version_does_not_know_is_refused() {
    // A deny that an older server skipped would be a hole.
    assert!(CompiledPolicy::parse(br#"{"grants":[],"deny":[]}"#).is_err());
    assert!(CompiledPolicy::parse(br#"{"grants":[{"mapping":{"namespace":"a","name":"b"},"name":"c","to":[],"allow":{"tools":[]},"require":{}}]}"#).is_err());
}

fn configuration() -> ServerConfiguration {
    ServerConfiguration {
        server: ServerReference { namespace: "productivity".into(), name: "graph".into() },
        public_url: Some("https://graph.mcp.contoso.com/mcp".into()),
        path: "/mcp".into(),
        entra: EntraConfiguration {
            tenant_id: "8f6b0000-0000-0000-0000-00000000000a".into(),
            client_id: "1c2d0000-0000-0000-0000-00000000000b".into(),
            authority: Cloud::Public.authority().into(),
            audiences: vec![],
            required_scopes: vec!["mcp.access".into()],
        },
        graph: GraphConfiguration {
            base_url: Cloud::Public.graph().into(),
            scopes: vec!["User.Read".into()],
            tools: vec!["get_user_details".into()],
        },
        probe: ProbeConfiguration { interval_seconds: 300 },
    }
}

#[test]
fn a_sound_configuration_is_accepted_and_qualifies_its_scopes() {
    configuration().validate().unwrap();
    assert_eq!(configuration().qualified_scopes(), ["api://1c2d0000-0000-0000-0000-00000000000b/mcp.access"]);
}

#[test]
fn each_unsound_configuration_is_refused_with_the_field_named() {
    type Change = fn(&mut ServerConfiguration);
    let cases: [(&str, Change); 11] = [
        ("entra.tenantId", |c| c.entra.tenant_id = "contoso.com".into()),
        ("entra.tenantId", |c| c.entra.tenant_id = c.entra.tenant_id.to_uppercase()),
        ("entra.clientId", |c| c.entra.client_id = String::new()),
        ("entra.authority", |c| c.entra.authority = "http://login.example.com".into()),
        ("entra.authority", |c| c.entra.authority = "https://login.example.com/".into()),
        ("graph.baseUrl", |c| c.graph.base_url = "https://user@graph.example.com".into()),
        ("publicUrl", |c| c.public_url = Some("http://graph.mcp.contoso.com/mcp".into())),
        ("publicUrl", |c| c.path = "/other".into()),
        ("entra.requiredScopes", |c| c.entra.required_scopes.clear()),
        ("graph.scopes", |c| c.graph.scopes.clear()),
        ("graph.tools", |c| c.graph.tools.push("drop_database".into())),
    ];
    for (field, change) in cases {
        let mut changed = configuration();
        change(&mut changed);
        let error = changed.validate().expect_err(field).to_string();
        assert!(error.starts_with(field), "{error} should name {field}");
    }
}

#[test]
fn each_cloud_has_an_authority_a_graph_and_an_audience_of_its_own_kind() {
    let facts: Vec<_> = [Cloud::Public, Cloud::USGov, Cloud::USGovDoD, Cloud::China]
        .map(|cloud| (cloud.authority(), cloud.graph(), cloud.federation_audience()))
        .to_vec();
    assert_eq!(
        facts[0],
        ("https://login.microsoftonline.com", "https://graph.microsoft.com", "api://AzureADTokenExchange")
    );
    assert_eq!(
        facts[1],
        ("https://login.microsoftonline.us", "https://graph.microsoft.us", "api://AzureADTokenExchangeUSGov")
    );
    assert_eq!(
        facts[2],
        ("https://login.microsoftonline.us", "https://dod-graph.microsoft.us", "api://AzureADTokenExchangeUSGov")
    );
    assert_eq!(
        facts[3],
        (
            "https://login.partner.microsoftonline.cn",
            "https://microsoftgraph.chinacloudapi.cn",
            "api://AzureADTokenExchangeChina"
        )
    );
}
