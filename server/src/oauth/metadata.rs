//! The metadata document of the authorization server (RFC 8414).

use serde_json::{Value, json};

use super::addresses::{Addresses, Endpoint};
use super::clients::Clients;

/// Returns the metadata for these clients at these addresses.
pub(super) fn document(addresses: &Addresses, clients: &Clients, scopes: &[String]) -> Value {
    let mut document = json!({
        "issuer": addresses.issuer(),
        "authorization_endpoint": addresses.url(Endpoint::Authorize),
        "token_endpoint": addresses.url(Endpoint::Token),
        "revocation_endpoint": addresses.url(Endpoint::Revoke),
        "jwks_uri": addresses.url(Endpoint::Keys),
        "scopes_supported": scopes,
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": ["authorization_code", "refresh_token"],
        "token_endpoint_auth_methods_supported": ["none"],
        "revocation_endpoint_auth_methods_supported": ["none"],
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": true,
        "service_documentation": addresses.url(Endpoint::Connect),
        "ui_locales_supported": ["en", "sv"],
    });
    if let Some(members) = document.as_object_mut() {
        if clients.may_register() {
            members.insert("registration_endpoint".to_owned(), json!(addresses.url(Endpoint::Register)));
        }
        // A client that supports documents would otherwise not register.
        if clients.take_documents() {
            members.insert("client_id_metadata_document_supported".to_owned(), json!(true));
        }
    }
    document
}
