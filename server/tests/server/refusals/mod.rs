//! Tests of refused tokens. Each case is a valid token with one change, sent over HTTP. The refusal must have the
//! reason of this change on its audit line, not only the status.
//!
//! `forge` makes the tokens, and `case` is one of them. Each other file contains the cases of one category.
//! `configuration` also covers Entra's documents.

mod algorithm;
mod audience;
mod authorization;
mod case;
mod configuration;
mod duplicates;
mod forge;
mod form;
mod issuer;
mod key;
mod library_defaults;
mod lifetime;
mod signature;
mod token_type;

use std::collections::{BTreeMap, BTreeSet};

use futures::stream::{self, StreamExt as _};
use mcp_entra_policy::TokenVersion;
use serde_json::json;

use case::{Base, Case, Category};
use configuration::{Document, publish};
use forge::{EMBEDDED_PATH, Forge};

use crate::harness::{Setup, Site, eventually};
use crate::tenant::{ALICE, BOB, http};

/// Number of concurrent requests.
const TOGETHER: usize = 8;
const PING: &str = r#"{"jsonrpc":"2.0","id":7,"method":"ping"}"#;

fn all(forge: &Forge) -> Vec<Case> {
    [
        algorithm::cases(),
        signature::cases(),
        audience::cases(forge),
        issuer::cases(forge),
        key::cases(forge),
        lifetime::cases(forge),
        token_type::cases(forge),
        form::cases(),
        duplicates::cases(forge),
        configuration::cases(),
        authorization::cases(forge),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A server whose tenant publishes the forge's keys besides its own.
async fn start(versions: &[TokenVersion]) -> (Site, Forge) {
    let mut setup = Setup::new();
    let forge = Forge::new(&setup.tenant).await;
    publish(&setup.tenant, &forge);
    setup.configuration.entra.token_versions = versions.iter().copied().collect();
    setup.configuration.entra.allowed_clients = forge.clients().map(|client| client.to_string()).to_vec();
    (setup.start().await, forge)
}

/// Returns the status and the reason of a request with these Authorization headers, while this site has no other
/// request.
async fn judged(site: &Site, authorization: Vec<String>) -> (u16, String) {
    // As through an unlisted proxy: the many invalid tokens of these tests would use up one address's budget.
    let mut request = site.request().header("x-forwarded-for", "192.0.2.7");
    for value in authorization {
        request = request.header("authorization", value);
    }
    let before = counted(site).await;
    let response = request.body(PING).send().await.unwrap();
    let after = counted(site).await;
    let changed: Vec<String> = after.difference(&before).map(|(reason, _)| reason.clone()).collect();
    (response.status().as_u16(), changed.join(" and "))
}

/// Returns the number of decisions for each reason. The audit log has no separate lines for so many refusals.
async fn counted(site: &Site) -> BTreeSet<(String, String)> {
    let metrics = site.admin("/metrics").await.text().await.unwrap();
    let requests = metrics.lines().filter_map(|line| line.strip_prefix("mcp_entra_server_requests_total{"));
    let counted = requests.filter_map(|line| line.split_once("reason=\"")?.1.split_once("\"} "));
    counted.map(|(reason, number)| (reason.to_owned(), number.to_owned())).collect()
}

#[tokio::test]
async fn each_case_is_refused_for_the_reason_of_its_one_change() {
    let (strict, strict_forge) = start(&[TokenVersion::V2]).await;
    let (both, both_forge) = start(&[TokenVersion::V1, TokenVersion::V2]).await;
    let at = |base: Base| if base.is_version_1() { (&both, &both_forge) } else { (&strict, &strict_forge) };
    for base in Base::ALL {
        let (site, forge) = at(base);
        let accepted = judged(site, forge.bearer(base)).await;
        assert_eq!(accepted, (200, "authenticated".to_owned()), "{base:?}: what the cases are made of");
    }

    let cases = all(&strict_forge).into_iter().filter(|case| !case.base.is_version_1());
    let cases = cases.chain(all(&both_forge).into_iter().filter(|case| case.base.is_version_1()));
    let mut wrong = Vec::new();
    for case in cases {
        let (site, forge) = at(case.base);
        let (status, reason) = judged(site, case.authorization(forge)).await;
        let expected = (case.status(), case.reason);
        if (status, reason.as_str()) != expected {
            wrong.push(format!("{:?}: {}: {status} {reason} instead of {expected:?}", case.category, case.what));
        }
    }
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
    for base in Base::ALL {
        let (site, forge) = at(base);
        assert_eq!(judged(site, forge.bearer(base)).await.0, 200, "{base:?}: still valid after all of these");
    }
    let asked = || strict.setup.tenant.requests().iter().filter(|asked| asked.path.ends_with(EMBEDDED_PATH)).count();
    assert_eq!(asked(), 0, "a key is never requested from an address in a header");
    _ = http().get(strict_forge.embedded_url()).send().await.unwrap();
    assert_eq!(asked(), 1, "it would have been seen");
}

#[tokio::test]
async fn unusable_documents_of_entra_give_no_access() {
    // Boxed, since the stack of a test is small and these run concurrently.
    let refused = stream::iter(Document::ALL.map(|document| {
        Box::pin(async move {
            let setup = Setup::new();
            document.answer(&setup.tenant);
            let token = setup.tenant.token(ALICE);
            let site = setup.start_unready().await;
            eventually("the keys are not usable", async || site.status().await.keys.error).await;
            let judgement = judged(&site, vec![format!("Bearer {token}")]).await;
            assert_eq!(judgement, (503, "keys_unavailable".to_owned()), "{document:?}");
        })
    }));
    refused.buffer_unordered(TOGETHER).collect::<()>().await;
}

#[tokio::test]
async fn every_category_of_the_most_trusted_validators_has_its_cases_and_there_are_two_hundred_in_all() {
    let mut counts: BTreeMap<Category, usize> = BTreeMap::new();
    for case in all(&Forge::new(&Setup::new().tenant).await) {
        *counts.entry(case.category).or_default() += 1;
    }
    *counts.entry(Category::Configuration).or_default() += Document::ALL.len();
    let total: usize = counts.values().sum();
    println!("{total} cases: {counts:?}");
    for category in Category::ALL {
        let count = counts.get(&category).copied().unwrap_or(0);
        assert!(count >= 10, "{category:?} has {count} cases");
    }
    assert!(total >= 200, "{total} cases");
}

#[tokio::test]
async fn valid_tokens_similar_to_the_cases_are_accepted() {
    let (site, forge) = start(&[TokenVersion::V2]).await;
    let tenant = &site.setup.tenant;
    let good = [
        ("the tenant's own signature", vec![format!("Bearer {}", tenant.token(ALICE))]),
        ("another user", vec![format!("Bearer {}", tenant.token(BOB))]),
        ("an audience by its URI", forge.with_claim("aud", json!(format!("api://{}", tenant.server)))),
        ("an expiry within the skew", forge.with_claim("exp", json!(forge.now - 30))),
        ("a start within the skew", forge.with_claim("nbf", json!(forge.now + 30))),
        ("another scope besides", forge.with_claim("scp", json!("profile mcp.access other.scope"))),
        ("an id in upper case", forge.with_claim("azp", json!(tenant.client.to_string().to_uppercase()))),
        ("a claim of no meaning", forge.with_claim("xms_something", json!([{ "a": [null] }]))),
        ("a header of no meaning", forge.with_header("nonce", json!("abc"))),
        ("the scheme in lower case", vec![format!("bearer {}", forge.token(Base::User))]),
    ];
    for (what, authorization) in good {
        assert_eq!(judged(&site, authorization).await, (200, "authenticated".to_owned()), "{what}");
    }
    // Keys in the header change nothing, neither for a valid signature nor (among the cases) for an invalid one.
    for (member, value) in forge.embedded_keys() {
        let judgement = judged(&site, forge.with_header(member, value)).await;
        assert_eq!(judgement, (200, "authenticated".to_owned()), "{member}");
    }
}
