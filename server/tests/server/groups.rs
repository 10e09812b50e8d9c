//! Tests of groups that the token does not list. The server asks Graph for them; otherwise grants do not apply, and
//! denies do.

use std::collections::BTreeMap;

use entra_emulator::{Fault, FaultKind, Host, Matcher, Tenant};
use mcp_entra_policy::{CompiledPolicy, Deny, Grant, GraphAccess, GroupsSource, Subject};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{Setup, Site, deny_to_everyone, grant, grant_to_readers, grant_to_sales};
use crate::tenant::{ALICE, BOB, TestTenant, control};

/// Claim that Entra writes above 200 groups. Its pointer has an address that must not be called.
fn overage(tenant: &TestTenant, user: &str) -> String {
    without_groups(
        tenant,
        user,
        json!({
            "_claim_names": { "groups": "src1" },
            "_claim_sources": { "src1": { "endpoint": "https://graph.windows.net/tenant/users/user/getMemberObjects" } },
        }),
    )
}

fn absent(tenant: &TestTenant, user: &str) -> String {
    without_groups(tenant, user, json!({}))
}

/// Claim that Entra writes if the app registration requests names of synchronised groups.
fn names(tenant: &TestTenant, user: &str) -> String {
    without_groups(tenant, user, json!({ "groups": [Uuid::new_v4(), "CONTOSO\\Sales"] }))
}

fn without_groups(tenant: &TestTenant, user: &str, added: Value) -> String {
    let mut claims = tenant.claims(user);
    let object = claims.as_object_mut().unwrap();
    object.remove("groups");
    object.extend(added.as_object().unwrap().clone());
    tenant.sign(&json!({}), &claims)
}

/// A server whose tools are granted to the group Sales, with bob as a member.
fn for_sales() -> Setup {
    let mut setup = Setup::new();
    setup.policy = CompiledPolicy {
        denies: vec![],
        grants: vec![grant_to_sales(&setup.tenant, &["*"])],
        ..CompiledPolicy::default()
    };
    setup
}

fn questions(site: &Site) -> usize {
    let requests = site.setup.tenant.requests();
    requests.iter().filter(|request| request.path.ends_with("/checkMemberGroups")).count()
}

fn break_graph(tenant: &TestTenant, times: u32) {
    let matcher = Matcher { tenant: Some(tenant.id), host: Some(Host::Graph), ..Matcher::default() };
    let kind = FaultKind::Status { status: 403, headers: BTreeMap::new(), body: String::new() };
    control().inject(Fault { matcher, times, kind }).unwrap();
}

/// Consents to the permission for hidden memberships.
fn consent_to_hidden(tenant: &TestTenant) {
    change(tenant, |directory| {
        let scopes = directory.apps.iter_mut().map(|app| &mut app.granted_graph_scopes);
        scopes.filter(|scopes| !scopes.is_empty()).for_each(|scopes| scopes.push("Member.Read.Hidden".to_owned()));
    });
}

fn change(tenant: &TestTenant, change: impl Fn(&mut Tenant)) {
    let changed = control().change_tenant(tenant.id, |directory| {
        change(directory);
        Ok(())
    });
    changed.unwrap();
}

async fn refusal(site: &Site, token: &str) -> String {
    refusal_of(site, token, "get_user_details").await
}

async fn refusal_of(site: &Site, token: &str, tool: &str) -> String {
    let answer = site.call(token, tool, json!({})).await;
    assert_eq!(answer.status(), 403);
    let answer: Value = answer.json().await.unwrap();
    answer["error"]["message"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn only_a_member_whose_token_does_not_list_groups_has_access() {
    let site = for_sales().start().await;
    let tenant = &site.setup.tenant;
    for form in [overage, absent, names] {
        let (alice, bob) = (form(tenant, ALICE), form(tenant, BOB));
        assert_eq!(site.call(&bob, "get_user_details", json!({})).await.status(), 200);
        assert_eq!(site.tools(&bob).await.len(), 2);
        assert!(!refusal(&site, &alice).await.contains("could not be looked up"));
        assert_eq!(site.tools(&alice).await, [""; 0]);
    }
}

#[tokio::test]
async fn graph_is_asked_once_for_each_token_about_the_groups_in_the_policy() {
    let site = for_sales().start().await;
    let bob = overage(&site.setup.tenant, BOB);
    let calls = std::iter::repeat_with(|| site.call(&bob, "get_user_details", json!({}))).take(8);
    for answer in futures::future::join_all(calls).await {
        assert_eq!(answer.status(), 200);
    }
    assert_eq!(questions(&site), 1);
    // The next token is a new question, as its groups claim would be read again.
    let mut claims = site.setup.tenant.claims(BOB);
    claims.as_object_mut().unwrap().remove("groups");
    claims["uti"] = json!("another");
    let next = site.setup.tenant.sign(&json!({}), &claims);
    assert_eq!(site.call(&next, "get_user_details", json!({})).await.status(), 200);
    assert_eq!(questions(&site), 2);
}

#[tokio::test]
async fn graph_is_not_asked_if_no_decision_depends_on_it() {
    let mut setup = for_sales();
    setup.policy.grants.push(grant_to_readers(&["*"]));
    let site = setup.start().await;
    // alice has access by her role, independent of her groups.
    assert_eq!(site.call(&overage(&site.setup.tenant, ALICE), "get_user_details", json!({})).await.status(), 200);
    // bob's token lists his groups.
    assert_eq!(site.call(&site.setup.tenant.token(BOB), "get_user_details", json!({})).await.status(), 200);
    assert_eq!(questions(&site), 0);
}

#[tokio::test]
async fn graph_is_not_asked_about_tools_that_are_denied_to_everyone() {
    let mut setup = for_sales();
    setup.policy.denies.push(deny_to_everyone(&["*"]));
    let site = setup.start().await;
    refusal(&site, &overage(&site.setup.tenant, BOB)).await;
    assert_eq!(questions(&site), 0);
}

#[tokio::test]
async fn without_an_answer_of_graph_a_group_grants_nothing_and_the_refusal_has_the_reason() {
    let setup = for_sales();
    break_graph(&setup.tenant, 20);
    let site = setup.start().await;
    let bob = overage(&site.setup.tenant, BOB);
    let text = refusal(&site, &bob).await;
    assert!(text.contains("could not be looked up") && text.contains("403"), "{text}");
    assert_eq!(site.tools(&bob).await, [""; 0]);
}

#[tokio::test]
async fn without_an_answer_of_graph_every_deny_to_a_group_matches() {
    let mut setup = Setup::new();
    setup.policy.denies.push(Deny {
        to: Some(vec![Subject::Group { id: Uuid::new_v4().to_string(), display_name: None }]),
        ..deny_to_everyone(&["*"])
    });
    let tenant = &setup.tenant;
    let (first, second) = (overage(tenant, ALICE), absent(tenant, ALICE));
    consent_to_hidden(tenant);
    break_graph(tenant, 1);
    let site = setup.start().await;
    assert!(refusal(&site, &first).await.contains("could not be looked up"));
    // If it can, she is not in that group.
    assert_eq!(site.call(&second, "get_user_details", json!({})).await.status(), 200);
}

/// A token that lists one group, which has every grant, while a deny for the group Sales covers everything. bob is in
/// Sales, although his token does not list it.
fn listing_another(setup: &mut Setup, user: &str) -> String {
    let listed = Uuid::new_v4().to_string();
    let group = |id: &str| Subject::Group { id: id.to_owned(), display_name: None };
    setup.policy.grants.push(grant("listed", group(&listed), &["*"]));
    setup.policy.denies =
        vec![Deny { to: Some(vec![group(&setup.tenant.sales.to_string())]), ..deny_to_everyone(&["*"]) }];
    without_groups(&setup.tenant, user, json!({ "groups": [listed] }))
}

#[tokio::test]
async fn a_deny_to_a_group_applies_to_a_member_whose_token_lists_only_other_groups() {
    for (user, status) in [(BOB, 403), (ALICE, 200)] {
        let mut setup = Setup::new();
        let token = listing_another(&mut setup, user);
        consent_to_hidden(&setup.tenant);
        let site = setup.start().await;
        assert_eq!(site.call(&token, "get_user_details", json!({})).await.status(), status, "{user}");
        assert_eq!(site.tools(&token).await.is_empty(), status == 403, "{user}");
        assert_eq!(questions(&site), 1, "{user}");
    }
}

#[tokio::test]
async fn a_deny_to_a_group_applies_unless_graph_shows_that_the_user_is_no_member() {
    for hidden in [false, true] {
        for consent in [false, true] {
            // A deny for Sales covers everything. It applies to bob, who is in it, and to alice only while her groups
            // are unknown.
            for (user, status) in [(BOB, 403), (ALICE, if consent { 200 } else { 403 })] {
                let mut setup = Setup::new();
                let token = listing_another(&mut setup, user);
                change(&setup.tenant, |directory| directory.groups[0].hidden_membership = hidden);
                if consent {
                    consent_to_hidden(&setup.tenant);
                }
                let site = setup.start().await;
                let case = format!("{user}, hidden: {hidden}, consent: {consent}");
                let answer = site.call(&token, "get_user_details", json!({})).await;
                assert_eq!(answer.status(), status, "{case}");
                let unknown = !consent && (hidden || user == ALICE);
                assert_eq!(answer.text().await.unwrap().contains("Member.Read.Hidden"), unknown, "{case}");
                assert_eq!(site.tools(&token).await.is_empty(), status == 403, "{case}");
                assert_eq!(questions(&site), 1, "{case}");
            }
        }
    }
}

#[tokio::test]
async fn a_group_with_hidden_membership_grants_only_if_graph_shows_it() {
    for (consent, status) in [(false, 403), (true, 200)] {
        let setup = for_sales();
        change(&setup.tenant, |directory| directory.groups[0].hidden_membership = true);
        if consent {
            consent_to_hidden(&setup.tenant);
        }
        let site = setup.start().await;
        let answer = site.call(&overage(&site.setup.tenant, BOB), "get_user_details", json!({})).await;
        assert_eq!(answer.status(), status);
        let text = answer.text().await.unwrap();
        assert_eq!(
            text.contains("does not count here if its membership is hidden") && text.contains("\"groupsUnknown\":true"),
            !consent,
            "{text}"
        );
        assert!(!text.contains("Member.Read.Hidden"), "an administrator's matter, which no grant depends on: {text}");
    }
}

#[tokio::test]
async fn a_deny_of_other_tools_neither_asks_graph_nor_removes_grants_of_a_listed_group() {
    let mut setup = Setup::new();
    let token = listing_another(&mut setup, ALICE);
    setup.policy.denies[0].forbid = deny_to_everyone(&["list_*"]).forbid;
    break_graph(&setup.tenant, 20);
    let site = setup.start().await;
    refusal_of(&site, &token, "list_my_messages").await;
    assert_eq!(questions(&site), 1);
    assert_eq!(site.tools(&token).await, ["get_user_details"]);
    let before = questions(&site);
    assert_ne!(site.call(&token, "get_user_details", json!({})).await.status(), 403);
    assert_eq!(questions(&site), before);
}

#[tokio::test]
async fn without_an_answer_of_graph_a_deny_to_a_group_applies_to_everyone_whose_token_does_not_list_it() {
    let mut setup = Setup::new();
    let token = listing_another(&mut setup, ALICE);
    break_graph(&setup.tenant, 20);
    let site = setup.start().await;
    assert!(refusal(&site, &token).await.contains("could not be looked up"));
}

/// Everything is granted to [`ROLE`](crate::tenant::ROLE), and to the group Sales with Graph as the application. alice
/// has the role and is in the group; bob is in the group.
async fn wider_for_sales(configured: GraphAccess) -> Site {
    let mut setup = Setup::new();
    setup.configuration.graph.access = configured;
    let wider = Grant { graph: GraphAccess::Application, ..grant_to_sales(&setup.tenant, &["*"]) };
    setup.policy.grants = vec![grant_to_readers(&["*"]), wider];
    let server = setup.tenant.server;
    control()
        .change_tenant(setup.tenant.id, |directory| {
            let alice = directory.find_user(ALICE).unwrap().oid;
            directory.groups.iter_mut().for_each(|group| group.members.push(alice));
            let app = directory.apps.iter_mut().find(|app| app.client_id == server).unwrap();
            app.granted_graph_roles = vec!["User.Read.All".to_owned()];
            Ok(())
        })
        .unwrap();
    setup.start().await
}

#[tokio::test]
async fn the_applications_access_to_graph_can_be_granted_to_a_group_from_token_or_graph() {
    let listed: fn(&TestTenant, &str) -> String = |tenant, user| tenant.token(user);
    for (user, name) in [(ALICE, "Alice Adams"), (BOB, "Bob Brown")] {
        for form in [listed, overage, absent, names] {
            let site = wider_for_sales(GraphAccess::Application).await;
            let answer = site.call(&form(&site.setup.tenant, user), "get_user_details", json!({})).await;
            let answer: Value = answer.json().await.unwrap();
            assert_eq!(answer["result"]["structuredContent"]["displayName"], name, "{answer}");
            let requests = site.setup.tenant.requests();
            let profile = requests.iter().rfind(|request| request.host == Host::Graph).unwrap();
            assert!(profile.path.starts_with("/v1.0/users/") && profile.user.is_none(), "{user}: {profile:?}");
        }
    }
}

#[tokio::test]
async fn graph_is_not_asked_about_the_applications_access_if_it_is_forbidden_or_unused() {
    let site = wider_for_sales(GraphAccess::OnBehalfOf).await;
    let alice = overage(&site.setup.tenant, ALICE);
    assert_eq!(site.call(&alice, "get_user_details", json!({})).await.status(), 200);
    assert_eq!(questions(&site), 0);
    let site = wider_for_sales(GraphAccess::Application).await;
    assert_eq!(site.tools(&overage(&site.setup.tenant, ALICE)).await.len(), 2);
    assert_eq!(questions(&site), 0);
}

#[tokio::test]
async fn with_token_only_groups_an_absent_claim_means_no_groups_and_an_overage_unknown_ones() {
    let mut setup = for_sales();
    setup.configuration.entra.groups = GroupsSource::InToken;
    let site = setup.start().await;
    let tenant = &site.setup.tenant;
    assert!(!refusal(&site, &absent(tenant, BOB)).await.contains("groupMembershipClaims"));
    assert!(refusal(&site, &overage(tenant, BOB)).await.contains("groupMembershipClaims"));
    assert!(refusal(&site, &names(tenant, BOB)).await.contains("lists names instead of object ids"));
    assert_eq!(site.call(&tenant.token(BOB), "get_user_details", json!({})).await.status(), 200);
    assert_eq!(questions(&site), 0);
}
