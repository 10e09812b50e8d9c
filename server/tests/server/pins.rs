//! Tests of grants and denies that are pinned to an app registration, on a server that accepts tokens of several.

use mcp_entra_policy::{TokenVersion, is_microsofts_own};
use serde_json::{Value, json};

use crate::harness::{Setup, Site, deny_to_everyone, grant_to_readers};
use crate::tenant::ALICE;

/// Another app registration, whose tokens the server accepts.
const OTHER: &str = "77aa0000-0000-4000-8000-000000000001";
/// An App ID URI that any registration may have. The server accepts it, too.
const CUSTOM: &str = "https://graph.mcp.contoso.com/mcp";

/// A server that accepts the tokens of its own registration, of [`OTHER`] and for [`CUSTOM`], in both versions.
fn setup() -> Setup {
    let mut setup = Setup::new();
    assert!(!is_microsofts_own(CUSTOM));
    setup.configuration.entra.audiences = vec![OTHER.into(), format!("api://{OTHER}"), CUSTOM.into()];
    setup.configuration.entra.token_versions = [TokenVersion::V1, TokenVersion::V2].into();
    setup
}

/// A user's token with this audience, of version 2 or 1.
fn token(site: &Site, audience: &str, version: TokenVersion) -> String {
    let tenant = &site.setup.tenant;
    let mut claims = tenant.claims(ALICE);
    claims["aud"] = json!(audience);
    if version == TokenVersion::V1 {
        claims["ver"] = json!("1.0");
        claims["iss"] = json!(format!("https://sts.windows.net/{}/", tenant.id));
        claims["appid"] = claims["azp"].clone();
    }
    tenant.sign(&json!({}), &claims)
}

async fn may_call(site: &Site, audience: &str, version: TokenVersion) -> bool {
    let response = site.call(&token(site, audience, version), "get_user_details", json!({})).await;
    let line = site.audit_of(&response).await;
    match line["rule"].get("grant") {
        Some(_) => true,
        None => {
            assert_eq!(response.status(), 403, "{line}");
            false
        }
    }
}

/// Returns whether the policy accepts tokens of: the server's own registration (GUID in versions 2 and 1, URI in
/// version 1), the other accepted one (likewise), and the custom URI in version 1.
async fn let_in(site: &Site) -> [bool; 7] {
    let own = site.setup.tenant.server.to_string();
    let (own_uri, other_uri) = (format!("api://{own}"), format!("api://{OTHER}"));
    [
        may_call(site, &own, TokenVersion::V2).await,
        may_call(site, &own, TokenVersion::V1).await,
        may_call(site, &own_uri, TokenVersion::V1).await,
        may_call(site, OTHER, TokenVersion::V2).await,
        may_call(site, OTHER, TokenVersion::V1).await,
        may_call(site, &other_uri, TokenVersion::V1).await,
        may_call(site, CUSTOM, TokenVersion::V1).await,
    ]
}

#[tokio::test]
async fn a_pinned_grant_applies_only_to_tokens_of_that_registration() {
    let mut unpinned = setup();
    unpinned.policy.grants = vec![grant_to_readers(&["*"])];
    assert_eq!(let_in(&unpinned.start().await).await, [true; 7], "the neighbour without a pin");

    let mut own = setup();
    own.policy.grants[0].registration = Some(own.configuration.entra.client_id.clone());
    let site = own.start().await;
    assert_eq!(let_in(&site).await, [true, true, true, false, false, false, false]);
    assert_eq!(site.tools(&token(&site, OTHER, TokenVersion::V2)).await, [""; 0]);
    let unproven = site.call(&token(&site, CUSTOM, TokenVersion::V1), "get_user_details", json!({})).await;
    let answer: Value = unproven.json().await.unwrap();
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(message.contains("does not prove which app registration"), "{message}");
    assert_eq!(answer["error"]["data"]["registrationUnknown"], json!(true));

    let mut other = setup();
    other.policy.grants[0].registration = Some(OTHER.into());
    assert_eq!(let_in(&other.start().await).await, [false, false, false, true, true, true, false]);
}

#[tokio::test]
async fn a_pinned_deny_applies_to_tokens_of_that_registration_and_to_tokens_that_prove_none() {
    let mut unpinned = setup();
    unpinned.policy.denies = vec![deny_to_everyone(&["*"])];
    assert_eq!(let_in(&unpinned.start().await).await, [false; 7], "the neighbour without a pin");

    let mut own = setup();
    own.policy.denies = vec![deny_to_everyone(&["get_*"])];
    own.policy.denies[0].registration = Some(own.configuration.entra.client_id.clone());
    assert_eq!(let_in(&own.start().await).await, [false, false, false, true, true, true, false]);

    let mut other = setup();
    other.policy.denies = vec![deny_to_everyone(&["get_*"])];
    other.policy.denies[0].registration = Some(OTHER.into());
    let site = other.start().await;
    assert_eq!(let_in(&site).await, [true, true, true, false, false, false, false]);
    let unproven = site.call(&token(&site, CUSTOM, TokenVersion::V1), "get_user_details", json!({})).await;
    assert_eq!(site.audit_of(&unproven).await["reason"], "denied");
    let text = unproven.text().await.unwrap();
    assert!(text.contains("The deny nobody") && text.contains("does not prove which app registration"), "{text}");
}
