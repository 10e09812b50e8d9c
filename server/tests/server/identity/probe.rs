//! Tests of the probe, which reports whether the federated credential works now, since it has just used it.

use std::time::Duration;

use mcp_entra_policy::{FederatedIdentity, FederationStatus};
use mcp_entra_server::entra::Probe;
use tokio_util::sync::CancellationToken;

use super::sts;
use crate::tenant::{AUDIENCE, CREDENTIAL, SUBJECT, TestTenant, control, issuer};

fn probe(tenant: &TestTenant, stop: &CancellationToken) -> Probe {
    Probe::spawn(sts(tenant), &tenant.configuration().graph.base_url, Duration::from_secs(1), stop.clone())
}

async fn once(probe: &Probe, works: bool) -> FederationStatus {
    let mut status = probe.subscribe();
    let waited = status.wait_for(|status| status.works == Some(works));
    tokio::time::timeout(Duration::from_secs(60), waited).await.unwrap().unwrap().clone()
}

#[tokio::test]
async fn the_probe_follows_the_credential_in_entra() {
    let tenant = TestTenant::new();
    let stop = CancellationToken::new();
    control().remove_federated_credential(tenant.id, tenant.server, CREDENTIAL).unwrap();
    let probe = probe(&tenant, &stop);
    let identity =
        FederatedIdentity { issuer: issuer().url.clone(), subject: SUBJECT.to_owned(), audience: AUDIENCE.to_owned() };

    let fails = once(&probe, false).await;
    assert_eq!(fails.identity.as_ref(), Some(&identity));
    let message = fails.message.unwrap();
    assert!(message.contains("AADSTS70025") && message.contains(SUBJECT), "{message}");
    assert!(fails.last_probe.unwrap().parse::<jiff::Timestamp>().is_ok());

    control().add_federated_credential(tenant.id, tenant.server, tenant.credential()).unwrap();
    let works = once(&probe, true).await;
    assert_eq!((works.identity, works.message), (Some(identity), None));

    control().remove_federated_credential(tenant.id, tenant.server, CREDENTIAL).unwrap();
    let again = once(&probe, false).await;
    assert_eq!(again.message, Some(message), "the text changes only with the answer");
    stop.cancel();
}

#[tokio::test]
async fn every_probe_is_an_exchange_until_the_server_stops() {
    let tenant = TestTenant::new();
    let stop = CancellationToken::new();
    let probe = probe(&tenant, &stop);
    let mut status = probe.subscribe();
    let three = async {
        for _ in 0..3 {
            status.changed().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(60), three).await.unwrap();
    assert!(tenant.grants("client_credentials") >= 3);
    stop.cancel();
    let ended = async { while status.changed().await.is_ok() {} };
    tokio::time::timeout(Duration::from_secs(60), ended).await.unwrap();
    assert_eq!(probe.status().works, Some(true));
}

#[tokio::test]
async fn without_a_projected_token_the_probe_says_what_to_mount() {
    let tenant = TestTenant::new();
    let stop = CancellationToken::new();
    std::fs::remove_file(tenant.token_file()).unwrap();
    let probe = probe(&tenant, &stop);
    let fails = once(&probe, false).await;
    assert_eq!(fails.identity, None);
    assert!(fails.message.unwrap().contains("mount a serviceAccountToken volume"));
    tenant.project(SUBJECT, AUDIENCE);
    once(&probe, true).await;
    stop.cancel();
}
