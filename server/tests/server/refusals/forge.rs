//! Makes valid tokens, and tokens with one change, with a private key of the tests.

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use entra_emulator::TokenVersion;
use jsonwebtoken::{Algorithm, EncodingKey, jwk::Jwk};
use rcgen::{CertificateParams, KeyPair, PKCS_RSA_SHA256, PublicKeyData as _};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::case::{Base, Change, Parts, Signature};
use crate::tenant::{ALICE, AUDIENCE, SUBJECT, TestTenant, control, http, issuer};

/// Id of the forge's published key.
pub(super) const KEY_ID: &str = "forge";

/// End of the path in headers: Entra's keys for version 1.
pub(super) const EMBEDDED_PATH: &str = "/discovery/keys";

/// An RSA key pair.
pub(super) struct Key {
    private: EncodingKey,
    pub(super) public_pem: String,
    pub(super) public_der: Vec<u8>,
    certificate: String,
    jwk: Value,
}

/// Key that tenants publish for the forge.
pub(super) static PUBLISHED: LazyLock<Key> = LazyLock::new(Key::generate);
/// Unpublished key.
static STRANGER: LazyLock<Key> = LazyLock::new(Key::generate);

impl Key {
    fn generate() -> Self {
        let pair = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
        let private = EncodingKey::from_rsa_pem(pair.serialize_pem().as_bytes()).unwrap();
        let jwk = serde_json::to_value(Jwk::from_encoding_key(&private, Algorithm::RS256).unwrap()).unwrap();
        let certificate = CertificateParams::new(Vec::new()).unwrap().self_signed(&pair).unwrap();
        Self {
            public_pem: pair.public_key_pem(),
            public_der: pair.subject_public_key_info(),
            certificate: STANDARD.encode(certificate.der()),
            jwk: json!({ "kty": "RSA", "use": "sig", "n": jwk["n"], "e": jwk["e"] }),
            private,
        }
    }

    /// Returns the key as Entra publishes it, with this id and for these issuers.
    pub(super) fn published_as(&self, kid: &str, issuer: &str) -> Value {
        let mut jwk = self.jwk.clone();
        jwk["kid"] = json!(kid);
        jwk["issuer"] = json!(issuer);
        jwk
    }

    pub(super) fn modulus(&self) -> &str {
        self.jwk["n"].as_str().unwrap()
    }

    pub(super) fn exponent(&self) -> &str {
        self.jwk["e"].as_str().unwrap()
    }

    pub(super) fn sign(&self, message: &[u8], algorithm: Algorithm) -> String {
        jsonwebtoken::crypto::sign(message, &self.private, algorithm).unwrap()
    }
}

/// The tokens of one tenant.
pub(super) struct Forge {
    pub(super) tenant: Uuid,
    pub(super) server: Uuid,
    /// Time of the forge's creation, in seconds since 1970.
    pub(super) now: i64,
    client: Uuid,
    daemon: Uuid,
    /// The issuer of its tokens of version 2.
    pub(super) issuer: String,
    claims: [Value; 4],
    /// Tokens of other kinds: an ID token for the server's own app registration, one for Graph, a service account's.
    pub(super) id_token_claims: Value,
    pub(super) graph_token: String,
    pub(super) projected_token: String,
    /// Valid claims, signed with the key that the tenant publishes for another issuer.
    pub(super) signed_with_the_consumers_key: String,
    /// Keys that the tenant publishes by itself.
    pub(super) published: Value,
}

impl Forge {
    pub(super) async fn new(tenant: &TestTenant) -> Self {
        let version_2 = [tenant.claims(ALICE), tenant.application_claims(tenant.daemon)];
        set_version(tenant, TokenVersion::V1);
        let version_1 = [tenant.claims(ALICE), tenant.application_claims(tenant.daemon)];
        set_version(tenant, TokenVersion::V2);
        let [user, application] = version_2;
        let [user_of_version_1, application_of_version_1] = version_1;
        let entra = tenant.configuration().entra;
        let url = format!("{}/{}/discovery/v2.0/keys", entra.authority, entra.tenant_id);
        let published: Value = http().get(url).send().await.unwrap().json().await.unwrap();
        let keys = published["keys"].as_array().unwrap();
        let consumers_key = keys.iter().find(|key| !key["issuer"].as_str().unwrap().contains("{tenantid}")).unwrap();
        let graph_scope = "https://graph.microsoft.com/User.Read";
        Self {
            tenant: tenant.id,
            server: tenant.server,
            now: jiff::Timestamp::now().as_second(),
            client: tenant.client,
            daemon: tenant.daemon,
            issuer: format!("{}/{}/v2.0", entra.authority, entra.tenant_id),
            id_token_claims: control().id_token_claims(tenant.id, tenant.server, ALICE).unwrap().into(),
            graph_token: control().mint_user_access_token(tenant.id, tenant.client, ALICE, graph_scope).unwrap(),
            signed_with_the_consumers_key: tenant.sign(&json!({ "kid": consumers_key["kid"] }), &user),
            projected_token: issuer().token(SUBJECT, AUDIENCE).unwrap(),
            published,
            claims: [user, application, user_of_version_1, application_of_version_1],
        }
    }

    /// Clients of the valid tokens.
    pub(super) fn clients(&self) -> [Uuid; 2] {
        [self.client, self.daemon]
    }

    /// Claims of a valid token.
    pub(super) fn claims(&self, base: Base) -> &Value {
        let [user, application, user_of_version_1, application_of_version_1] = &self.claims;
        match base {
            Base::User => user,
            Base::Application => application,
            Base::UserOfVersion1 => user_of_version_1,
            Base::ApplicationOfVersion1 => application_of_version_1,
        }
    }

    /// A valid token.
    pub(super) fn token(&self, base: Base) -> String {
        signed(header().to_string().as_bytes(), self.claims(base).to_string().as_bytes())
    }

    /// A valid token as it is sent.
    pub(super) fn bearer(&self, base: Base) -> Vec<String> {
        bearer(&self.token(base))
    }

    /// A valid user token except for this claim.
    pub(super) fn with_claim(&self, name: &'static str, value: Value) -> Vec<String> {
        self.apply(Base::User, &Change::Claim(name, Some(value)))
    }

    /// A valid user token except for this member of its header.
    pub(super) fn with_header(&self, name: &'static str, value: Value) -> Vec<String> {
        self.apply(Base::User, &Change::Header(name, Some(value)))
    }

    /// Address in headers: one of the tenant's own authority, with valid keys, that the server never requests.
    pub(super) fn embedded_url(&self) -> String {
        self.issuer.replace("/v2.0", EMBEDDED_PATH)
    }

    /// All ways in which a header can name a key, here the stranger's.
    pub(super) fn embedded_keys(&self) -> Vec<(&'static str, Value)> {
        let url = self.embedded_url();
        vec![
            ("jwk", STRANGER.published_as("stranger", &self.issuer)),
            ("jku", json!(url)),
            ("x5u", json!(url)),
            ("x5c", json!([STRANGER.certificate])),
            ("x5t", json!("stranger")),
            ("x5t#S256", json!("stranger")),
        ]
    }

    /// The Authorization headers of a valid token with this change.
    pub(super) fn apply(&self, base: Base, change: &Change) -> Vec<String> {
        let (header, claims) = (header(), self.claims(base).clone());
        let texts = |header: &Value, claims: &Value| (header.to_string().into_bytes(), claims.to_string().into_bytes());
        let (header_text, claims_text) = match change {
            Change::Claim(name, value) => texts(&header, &changed(claims, name, value.clone())),
            Change::Claims(claims) => texts(&header, claims),
            Change::Header(name, value) => texts(&changed(header, name, value.clone()), &claims),
            Change::Algorithm(name, _) => texts(&changed(header, "alg", name.clone()), &claims),
            Change::StrangersKey { kid, header: members } => {
                let mut header = changed(header, "kid", Some(json!(kid)));
                for (name, value) in members {
                    header = changed(header, name, Some(value.clone()));
                }
                texts(&header, &claims)
            }
            Change::ClaimsText(change) => (header.to_string().into_bytes(), change(&claims.to_string())),
            Change::HeaderText(change) => (change(&header.to_string()), claims.to_string().into_bytes()),
            _ => texts(&header, &claims),
        };
        let mut signed_part = encoded(&header_text, &claims_text);
        if let Change::SignedPart(change) = change {
            signed_part = change(&signed_part);
        }
        let signature = self.signature(&signed_part, change);
        let token = format!("{signed_part}.{signature}");
        match change {
            Change::Token(change) => bearer(&change(&token)),
            Change::Authorization(change) => change(&token),
            _ => bearer(&token),
        }
    }

    fn signature(&self, signed_part: &str, change: &Change) -> String {
        let message = signed_part.as_bytes();
        match change {
            Change::Algorithm(_, Signature::Rsa(algorithm)) => PUBLISHED.sign(message, *algorithm),
            Change::Algorithm(_, Signature::Hmac(algorithm, secret)) => {
                jsonwebtoken::crypto::sign(message, &EncodingKey::from_secret(secret), *algorithm).unwrap()
            }
            Change::Algorithm(_, Signature::None) => String::new(),
            Change::StrangersKey { .. } => STRANGER.sign(message, Algorithm::RS256),
            Change::Signature(change) => {
                change(self, Parts { signed_part, signature: &PUBLISHED.sign(message, Algorithm::RS256) })
            }
            _ => PUBLISHED.sign(message, Algorithm::RS256),
        }
    }
}

/// A valid token with this header and these claims.
pub(super) fn signed(header: &[u8], claims: &[u8]) -> String {
    let signed_part = encoded(header, claims);
    let signature = PUBLISHED.sign(signed_part.as_bytes(), Algorithm::RS256);
    format!("{signed_part}.{signature}")
}

/// The stranger's signature of this.
pub(super) fn signed_by_a_stranger(signed_part: &str) -> String {
    STRANGER.sign(signed_part.as_bytes(), Algorithm::RS256)
}

fn encoded(header: &[u8], claims: &[u8]) -> String {
    format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims))
}

fn header() -> Value {
    json!({ "typ": "JWT", "alg": "RS256", "x5t": KEY_ID, "kid": KEY_ID })
}

fn bearer(token: &str) -> Vec<String> {
    vec![format!("Bearer {token}")]
}

fn changed(mut object: Value, name: &str, value: Option<Value>) -> Value {
    let members: &mut Map<String, Value> = object.as_object_mut().unwrap();
    match value {
        Some(value) => members.insert(name.to_owned(), value),
        None => members.remove(name),
    };
    object
}

fn set_version(tenant: &TestTenant, version: TokenVersion) {
    control()
        .change_tenant(tenant.id, |directory| {
            for app in directory.apps.iter_mut().filter(|app| app.client_id == tenant.server) {
                app.requested_access_token_version = version;
            }
            Ok(())
        })
        .unwrap();
}
