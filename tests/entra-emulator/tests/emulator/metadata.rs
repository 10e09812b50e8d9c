//! Tests of OpenID configuration and keys: present and absent members.

use serde_json::{Value, json};

use crate::world::{EMULATOR, World};

async fn get(world: &World, path: &str) -> (u16, Value) {
    let response = world.http.get(format!("{}{path}", EMULATOR.authority())).send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap_or_default())
}

#[tokio::test]
async fn the_configuration_has_exactly_entras_members() {
    let world = World::new();
    let (status, document) = get(&world, &format!("/{}/v2.0/.well-known/openid-configuration", world.tenant)).await;
    assert_eq!(status, 200);
    let mut names: Vec<&str> = document.as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    let expected = [
        "authorization_endpoint",
        "claims_supported",
        "cloud_graph_host_name",
        "cloud_instance_name",
        "device_authorization_endpoint",
        "end_session_endpoint",
        "frontchannel_logout_supported",
        "http_logout_supported",
        "id_token_signing_alg_values_supported",
        "issuer",
        "jwks_uri",
        "kerberos_endpoint",
        "msgraph_host",
        "rbac_url",
        "request_uri_parameter_supported",
        "response_modes_supported",
        "response_types_supported",
        "scopes_supported",
        "subject_types_supported",
        "tenant_region_scope",
        "token_endpoint",
        "token_endpoint_auth_methods_supported",
        "userinfo_endpoint",
    ];
    assert_eq!(names, expected, "no code_challenge_methods_supported, no registration_endpoint");
    let base = format!("{}/{}", EMULATOR.authority(), world.tenant);
    assert_eq!(document["issuer"], format!("{base}/v2.0"));
    assert_eq!(document["token_endpoint"], format!("{base}/oauth2/v2.0/token"));
    assert_eq!(document["authorization_endpoint"], format!("{base}/oauth2/v2.0/authorize"));
    assert_eq!(document["jwks_uri"], format!("{base}/discovery/v2.0/keys"));
    assert_eq!(
        document["token_endpoint_auth_methods_supported"],
        json!(["client_secret_post", "private_key_jwt", "client_secret_basic", "self_signed_tls_client_auth"])
    );
}

#[tokio::test]
async fn common_has_its_issuer_as_a_template() {
    let world = World::new();
    let template = format!("{}/{{tenantid}}/v2.0", EMULATOR.authority());
    for tenant in ["common", "organizations"] {
        let (_, document) = get(&world, &format!("/{tenant}/v2.0/.well-known/openid-configuration")).await;
        assert_eq!(document["issuer"], json!(template));
    }
}

#[tokio::test]
async fn version_1_has_its_own_issuer() {
    let world = World::new();
    let (_, document) = get(&world, &format!("/{}/.well-known/openid-configuration", world.tenant)).await;
    assert_eq!(document["issuer"], format!("https://sts.windows.net/{}/", world.tenant));
}

#[tokio::test]
async fn a_tenant_that_does_not_exist_is_invalid() {
    let world = World::new();
    for path in ["v2.0/.well-known/openid-configuration", "discovery/v2.0/keys"] {
        let (status, document) = get(&world, &format!("/{}/{path}", uuid::Uuid::new_v4())).await;
        assert_eq!((status, &document["error"]), (400, &json!("invalid_tenant")));
    }
}

#[tokio::test]
async fn registration_and_the_rfc_8414_document_do_not_exist() {
    let world = World::new();
    let tenant = world.tenant;
    for path in [
        format!("/.well-known/oauth-authorization-server/{tenant}/v2.0"),
        format!("/{tenant}/v2.0/.well-known/oauth-authorization-server"),
        format!("/.well-known/openid-configuration/{tenant}/v2.0"),
        format!("/{tenant}/oauth2/v2.0/register"),
    ] {
        assert_eq!(get(&world, &path).await.0, 404, "{path}");
    }
}

#[tokio::test]
async fn several_keys_are_published_without_alg_and_with_their_issuer() {
    let world = World::new();
    let (_, document) = get(&world, &format!("/{}/discovery/v2.0/keys", world.tenant)).await;
    let keys = document["keys"].as_array().unwrap();
    let template = json!(format!("{}/{{tenantid}}/v2.0", EMULATOR.authority()));
    assert_eq!(keys.iter().filter(|key| key["issuer"] == template).count(), 3);
    for key in keys {
        assert_eq!((&key["kty"], &key["use"]), (&json!("RSA"), &json!("sig")));
        assert_eq!(key["kid"], key["x5t"]);
        assert!(key.get("alg").is_none() && key["x5c"][0].is_string());
    }
    let foreign: Vec<_> = keys.iter().filter(|key| key["issuer"] != template).collect();
    assert_eq!(foreign.len(), 1, "the key of the tenant for personal accounts");

    let (_, document) = get(&world, &format!("/{}/discovery/keys", world.tenant)).await;
    assert!(document["keys"].as_array().unwrap().iter().all(|key| key.get("issuer").is_none()));
}

#[tokio::test]
async fn a_rolled_key_signs_at_once_while_the_old_ones_stay_published() {
    let world = World::new();
    let kids = async || {
        let (_, document) = get(&world, &format!("/{}/discovery/v2.0/keys", world.tenant)).await;
        let keys = document["keys"].as_array().unwrap().clone();
        keys.into_iter().map(|key| key["kid"].clone()).collect::<Vec<_>>()
    };
    let before = kids().await;
    world.control().roll_signing_key(world.tenant).unwrap();
    let after = kids().await;
    let used = crate::world::part(&world.user_token("alice"), 0)["kid"].clone();
    assert!(!before.contains(&used) && after.contains(&used));
    assert!(before.iter().all(|kid| after.contains(kid)));
}
