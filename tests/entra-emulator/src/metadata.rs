//! OpenID configuration and keys, with the same members as in Entra. Members that Entra leaves out are left out here,
//! too, such as `code_challenge_methods_supported` and `registration_endpoint`.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, Query, State},
    http::{HeaderMap, header},
    response::{IntoResponse as _, Response},
};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    authorize::client_request_id,
    claims::v1_issuer,
    errors::{Aadsts, Trace},
    state::{Shared, TenantState},
};

/// Microsoft's tenant for personal accounts.
const CONSUMERS: Uuid = Uuid::from_u128(0x9188040d_6c67_4c5b_b112_36a304b66dad);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

/// Application whose keys are requested. It may have some besides the tenant's.
#[derive(Deserialize)]
pub(crate) struct KeysQuery {
    appid: Option<Uuid>,
}

/// `GET /{tenant}/v2.0/.well-known/openid-configuration`
pub(crate) async fn configuration_v2(
    State(shared): State<Arc<Shared>>,
    Path(tenant): Path<String>,
    Query(query): Query<KeysQuery>,
    headers: HeaderMap,
) -> Response {
    published(&shared, &tenant, &headers, |known| configuration(&shared, known, &query, Version::V2))
}

/// `GET /{tenant}/.well-known/openid-configuration`
pub(crate) async fn configuration_v1(
    State(shared): State<Arc<Shared>>,
    Path(tenant): Path<String>,
    Query(query): Query<KeysQuery>,
    headers: HeaderMap,
) -> Response {
    published(&shared, &tenant, &headers, |known| configuration(&shared, known, &query, Version::V1))
}

/// `GET /{tenant}/discovery/v2.0/keys`
pub(crate) async fn keys_v2(
    State(shared): State<Arc<Shared>>,
    Path(tenant): Path<String>,
    Query(query): Query<KeysQuery>,
    headers: HeaderMap,
) -> Response {
    published(&shared, &tenant, &headers, |known| keys(&shared, known, &query, Version::V2))
}

/// `GET /{tenant}/discovery/keys`
pub(crate) async fn keys_v1(
    State(shared): State<Arc<Shared>>,
    Path(tenant): Path<String>,
    Query(query): Query<KeysQuery>,
    headers: HeaderMap,
) -> Response {
    published(&shared, &tenant, &headers, |known| keys(&shared, known, &query, Version::V1))
}

/// A document for a tenant, or for `common` and `organizations` (no tenant); `invalid_tenant` for any other name.
fn published(
    shared: &Shared,
    tenant: &str,
    headers: &HeaderMap,
    document: impl FnOnce(Option<&TenantState>) -> Value,
) -> Response {
    let known = shared.find_tenant(tenant);
    if known.is_none() && !matches!(tenant, "common" | "organizations") {
        let trace = Trace::new(client_request_id(headers), shared.now());
        return Aadsts::TenantUnknown(tenant.to_owned()).into_metadata_response(&shared.authority, &trace);
    }
    let headers = [(header::CACHE_CONTROL, "max-age=86400, private"), (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*")];
    (headers, Json(document(known.as_deref()))).into_response()
}

fn configuration(shared: &Shared, known: Option<&TenantState>, query: &KeysQuery, version: Version) -> Value {
    let authority = &shared.authority;
    let tid = known.map(|known| known.directory.id);
    // Without a tenant, the issuer is this literal template.
    let tenant = tid.map_or_else(|| "{tenantid}".to_owned(), |tid| tid.to_string());
    let path = tid.map_or_else(|| "common".to_owned(), |tid| tid.to_string());
    let (issuer, oauth2, keys) = match version {
        Version::V2 => (format!("{authority}/{tenant}/v2.0"), "oauth2/v2.0", "discovery/v2.0/keys"),
        Version::V1 => {
            let template = "https://sts.windows.net/{tenantid}/".to_owned();
            (tid.map_or(template, v1_issuer), "oauth2", "discovery/keys")
        }
    };
    let asked_for = query.appid.map(|appid| format!("?appid={appid}")).unwrap_or_default();
    json!({
        "token_endpoint": format!("{authority}/{path}/{oauth2}/token"),
        "token_endpoint_auth_methods_supported":
            ["client_secret_post", "private_key_jwt", "client_secret_basic", "self_signed_tls_client_auth"],
        "jwks_uri": format!("{authority}/{path}/{keys}{asked_for}"),
        "response_modes_supported": ["query", "fragment", "form_post"],
        "subject_types_supported": ["pairwise"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "response_types_supported": ["code", "id_token", "code id_token", "id_token token"],
        "scopes_supported": ["openid", "profile", "email", "offline_access"],
        "issuer": issuer,
        "request_uri_parameter_supported": false,
        "userinfo_endpoint": format!("{}/oidc/userinfo", shared.graph),
        "authorization_endpoint": format!("{authority}/{path}/{oauth2}/authorize"),
        "device_authorization_endpoint": format!("{authority}/{path}/{oauth2}/devicecode"),
        "http_logout_supported": true,
        "frontchannel_logout_supported": true,
        "end_session_endpoint": format!("{authority}/{path}/{oauth2}/logout"),
        "claims_supported": [
            "sub", "iss", "cloud_instance_name", "cloud_instance_host_name", "cloud_graph_host_name",
            "msgraph_host", "aud", "exp", "iat", "auth_time", "acr", "nonce", "preferred_username",
            "name", "tid", "ver", "at_hash", "c_hash", "email",
        ],
        "kerberos_endpoint": format!("{authority}/{path}/kerberos"),
        "tenant_region_scope": tid.map(|_| "EU"),
        "cloud_instance_name": "microsoftonline.com",
        "cloud_graph_host_name": "graph.windows.net",
        "msgraph_host": shared.graph.trim_start_matches("https://"),
        "rbac_url": "https://pas.windows.net",
    })
}

fn keys(shared: &Shared, known: Option<&TenantState>, query: &KeysQuery, version: Version) -> Value {
    let issuer = |tenant: &str| format!("{}/{tenant}/v2.0", shared.authority);
    let consumers = (&shared.consumers_key, issuer(&CONSUMERS.to_string()));
    let own = known.into_iter().flat_map(|known| &known.keys);
    let app = known.and_then(|known| known.directory.app(query.appid?).filter(|app| app.own_signing_key));
    let of_app = known.filter(|_| app.is_some()).map(|known| &known.applications_key);
    let all = own.chain(of_app).map(|key| (key, issuer("{tenantid}"))).chain([consumers]);
    let keys: Vec<Value> = all
        .map(|(key, issuer)| {
            let mut jwk = key.jwk();
            if let (Version::V2, Value::Object(members)) = (version, &mut jwk) {
                members.insert("issuer".to_owned(), issuer.into());
            }
            jwk
        })
        .collect();
    json!({"keys": keys})
}

#[derive(Deserialize)]
pub(crate) struct InstanceQuery {
    authorization_endpoint: Option<String>,
}

/// `GET /common/discovery/instance`: MSAL's check whether an authority is one of Microsoft's.
pub(crate) async fn instance(State(shared): State<Arc<Shared>>, Query(query): Query<InstanceQuery>) -> Response {
    let host = shared.authority.trim_start_matches("https://");
    let endpoint = query.authorization_endpoint.unwrap_or_default();
    let tenant = url::Url::parse(&endpoint)
        .ok()
        .and_then(|url| url.path_segments().and_then(|mut path| path.next().map(ToOwned::to_owned)))
        .unwrap_or_else(|| "common".to_owned());
    Json(json!({
        "tenant_discovery_endpoint": format!("{}/{tenant}/v2.0/.well-known/openid-configuration", shared.authority),
        "api-version": "1.1",
        "metadata": [{"preferred_network": host, "preferred_cache": host, "aliases": [host]}],
    }))
    .into_response()
}
