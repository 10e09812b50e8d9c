//! Federated credentials: checks an external token with its issuer's current keys, and decides whether it may act as an
//! application.
//!
//! The checks run in this order: the token's format, its time, then issuer, subject and audience against the
//! credentials. Only if a credential names the issuer, its discovery document and keys are fetched, and the signature
//! is checked.

use http_body_util::{BodyExt as _, Limited};
use jsonwebtoken::DecodingKey;
use serde::Deserialize;

use crate::{
    configuration::FederatedCredential,
    errors::{Aadsts, time_text},
    keys::Unverified,
    log::FederatedIdentity,
};

/// Maximum lifetime of an external token, in seconds.
const LIFETIME_LIMIT: i64 = 25 * 3600;
/// Allowed clock skew of an issuer, in seconds.
const SKEW: i64 = 300;
/// Maximum number of an issuer's keys, as in Entra.
const KEY_LIMIT: usize = 100;
const DOCUMENT_LIMIT: usize = 1 << 20;

/// Reads the parts of an external token that credentials match.
///
/// # Errors
/// If the token is malformed, or does not have exactly one audience.
pub(crate) fn identity(assertion: &Unverified) -> Result<FederatedIdentity, Aadsts> {
    let claim = |name| assertion.claim(name).map(ToOwned::to_owned);
    let audience = match assertion.claims.get("aud") {
        Some(serde_json::Value::Array(all)) => match all.as_slice() {
            [serde_json::Value::String(one)] => one.clone(),
            several => return Err(Aadsts::ClientAssertionAudiences(several.len())),
        },
        Some(serde_json::Value::String(one)) => one.clone(),
        _ => return Err(Aadsts::ClientAssertionAudiences(0)),
    };
    Ok(FederatedIdentity {
        issuer: claim("iss").ok_or(Aadsts::MalformedToken("The issuer is missing."))?,
        subject: claim("sub").ok_or(Aadsts::MalformedToken("The subject is missing."))?,
        audience,
    })
}

/// Returns whether `assertion`, which speaks for `identity`, may now act as the app with these credentials.
pub(crate) async fn check(
    credentials: &[FederatedCredential],
    assertion: &Unverified,
    identity: &FederatedIdentity,
    now: i64,
    client: &reqwest::Client,
) -> Result<(), Aadsts> {
    let algorithm = assertion.header.get("alg").and_then(serde_json::Value::as_str);
    if algorithm != Some("RS256") {
        return Err(Aadsts::ClientAssertionAlgorithm(algorithm.unwrap_or_default().to_owned()));
    }
    check_time(assertion, now)?;
    match_credential(credentials, identity)?;
    let key = fetch_key(client, &identity.issuer, assertion.kid().unwrap_or_default()).await?;
    if assertion.is_signed_by(&key) { Ok(()) } else { Err(Aadsts::ClientAssertionSignature) }
}

fn check_time(assertion: &Unverified, now: i64) -> Result<(), Aadsts> {
    let until = assertion.number("exp").ok_or(Aadsts::MalformedToken("The expiry is missing."))?;
    let issued = assertion.number("iat");
    let from = assertion.number("nbf").or(issued).unwrap_or(now);
    if until <= now || from > now + SKEW {
        return Err(Aadsts::ClientAssertionTime {
            now: time_text(now),
            from: time_text(from),
            until: time_text(until),
        });
    }
    if until.saturating_sub(issued.unwrap_or(from)) > LIFETIME_LIMIT {
        return Err(Aadsts::ClientAssertionLifetime);
    }
    Ok(())
}

/// Compares exactly, with upper and lower case, and reports the most similar credential as Entra does.
fn match_credential(all: &[FederatedCredential], identity: &FederatedIdentity) -> Result<(), Aadsts> {
    let FederatedIdentity { issuer, subject, audience } = identity;
    if !all.iter().any(|known| &known.issuer == issuer) {
        return Err(Aadsts::FederatedIssuer(issuer.clone()));
    }
    let mut of_issuer = all.iter().filter(|known| &known.issuer == issuer);
    match of_issuer.clone().find(|known| &known.subject == subject) {
        Some(known) if &known.audience == audience => Ok(()),
        Some(_) => Err(Aadsts::FederatedAudience(audience.clone())),
        None if of_issuer.any(|known| known.subject.eq_ignore_ascii_case(subject)) => {
            Err(Aadsts::FederatedSubjectCase(subject.clone()))
        }
        None => Err(Aadsts::FederatedSubject(subject.clone())),
    }
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<Key>,
}

#[derive(Deserialize)]
struct Key {
    #[serde(default)]
    kid: String,
    n: Option<String>,
    e: Option<String>,
}

/// Fetches for every exchange, so that a new key of an issuer works at once, and a withdrawn one fails at once.
async fn fetch_key(client: &reqwest::Client, issuer: &str, kid: &str) -> Result<DecodingKey, Aadsts> {
    let document = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
    let discovery: Discovery = fetch(client, &document).await?;
    if discovery.issuer != issuer {
        let found = discovery.issuer;
        return Err(Aadsts::IssuerUnusable(format!("{document} is about the issuer {found}")));
    }
    let set: KeySet = fetch(client, &discovery.jwks_uri).await?;
    let key = set.keys.into_iter().take(KEY_LIMIT).find(|key| key.kid == kid);
    let Some(Key { n: Some(n), e: Some(e), .. }) = key else {
        return Err(Aadsts::ClientAssertionKey { kid: kid.to_owned(), issuer: issuer.to_owned() });
    };
    DecodingKey::from_rsa_components(&n, &e).map_err(|error| Aadsts::IssuerUnusable(format!("the key {kid}: {error}")))
}

async fn fetch<T: serde::de::DeserializeOwned>(client: &reqwest::Client, url: &str) -> Result<T, Aadsts> {
    let unreachable = |error: reqwest::Error| Aadsts::IssuerUnreachable(chain(&error));
    let response = match client.get(url).send().await {
        // The server may have closed a pooled connection a moment ago. Entra avoids this with a cache of keys. A second
        // request does not reach an unreachable issuer either.
        Err(error) if error.is_request() && !error.is_connect() => client.get(url).send().await,
        answer => answer,
    };
    let response = response.map_err(unreachable)?;
    let response = response.error_for_status().map_err(unreachable)?;
    // The size is limited, since the other side is not ours.
    let body = Limited::new(reqwest::Body::from(response), DOCUMENT_LIMIT)
        .collect()
        .await
        .map_err(|error| Aadsts::IssuerUnreachable(format!("{url}: {error}")))?;
    serde_json::from_slice(&body.to_bytes()).map_err(|error| Aadsts::IssuerUnusable(format!("{url}: {error}")))
}

/// An error with its causes, which include TLS and DNS failures.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
