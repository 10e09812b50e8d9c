//! A double of cert-manager's controller: it issues the Certificates of one issuer, and writes their status in cert-manager's
//! own words. A test may have it fail, wait, or issue a certificate that has expired or soon will.
//!
//! Differences from cert-manager: there are no CertificateRequests, Issuers need not exist, it reads only `secretName`,
//! `dnsNames` and `issuerRef` of a Certificate's spec, and it renews nothing: an expired certificate stays until the Secret is
//! deleted or the behaviour changes.
//!
//! The real controller (v1.21.2) is not used. The module of its main package is not published, and a main package of our own
//! around its controllers takes 215 s of processor time to build. It never issues a certificate that has expired.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use futures::StreamExt;
use futures::stream::select_all;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::reflector::Store;
use kube::runtime::watcher;
use kube::{Client, CustomResource, ResourceExt};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::certificates::CertificateAuthority;
use crate::controller::{Statuses, Verdict, conditions, follow, is_synced};

const MANAGER: &str = "cert-manager-certificates-issuing";
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest delay until it notices an expired certificate.
const TICK: Duration = Duration::from_millis(500);
const NINETY_DAYS: Duration = Duration::from_secs(90 * 24 * 60 * 60);
/// Label of cert-manager's Secrets.
const LABEL: &str = "controller.cert-manager.io/fao";
const ALT_NAMES: &str = "cert-manager.io/alt-names";
/// Annotation with the request that the certificate in a Secret was issued for, which shows later changes.
const ISSUED_AS: &str = "testbed.mcp-entra.dev/issued-as";
const NOT_BEFORE: &str = "testbed.mcp-entra.dev/not-before";
const NOT_AFTER: &str = "testbed.mcp-entra.dev/not-after";

#[derive(CustomResource, Debug, Clone, Serialize, Deserialize)]
#[kube(group = "cert-manager.io", version = "v1", kind = "Certificate", plural = "certificates")]
#[kube(namespaced, schema = "disabled", status = "Value")]
#[serde(rename_all = "camelCase")]
struct CertificateSpec {
    secret_name: String,
    #[serde(default)]
    dns_names: Vec<String>,
    issuer_ref: IssuerRef,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct IssuerRef {
    kind: Option<String>,
    name: String,
}

/// Behaviour for the Certificates of a namespace.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Behaviour {
    /// Issues certificates that are valid for 90 days.
    #[default]
    Issue,
    /// Issues certificates that are valid for this time from now.
    IssueFor(Duration),
    /// Issues certificates that expired an hour ago.
    IssueExpired,
    /// Keeps the issuer unready, so that Certificates wait.
    Wait,
    /// Fails the order with this message.
    Fail(String),
}

/// Running manager; it ends when dropped.
pub struct CertificateManager {
    behaviours: watch::Sender<HashMap<String, Behaviour>>,
    _task: AbortOnDropHandle<()>,
}

impl CertificateManager {
    /// Issues Certificates of all namespaces from `authority`, if their issuer has this kind (`Issuer` or
    /// `ClusterIssuer`) and name. Runs on the current tokio runtime. The definition of Certificate may be added later.
    pub fn start(client: Client, kind: &str, name: &str, authority: Arc<CertificateAuthority>) -> Self {
        let behaviours = watch::Sender::new(HashMap::new());
        let issuer = Issuer {
            client,
            kind: kind.to_owned(),
            name: name.to_owned(),
            authority,
            behaviours: behaviours.subscribe(),
        };
        Self { behaviours, _task: AbortOnDropHandle::new(tokio::spawn(issuer.run())) }
    }

    /// Sets the behaviour for the Certificates of a namespace from now on.
    pub fn behave(&self, namespace: &str, behaviour: Behaviour) {
        self.behaviours.send_modify(|behaviours| {
            behaviours.insert(namespace.to_owned(), behaviour);
        });
    }
}

struct Issuer {
    client: Client,
    kind: String,
    name: String,
    authority: Arc<CertificateAuthority>,
    behaviours: watch::Receiver<HashMap<String, Behaviour>>,
}

impl Issuer {
    async fn run(mut self) {
        let mut changes = Vec::new();
        let certificates: Store<Certificate> = follow(&self.client, watcher::Config::default(), &mut changes);
        let ours = watcher::Config::default().labels(&format!("{LABEL}=true"));
        let secrets: Store<Secret> = follow(&self.client, ours, &mut changes);
        let mut changes = select_all(changes);
        let mut statuses = Statuses::new(self.client.clone(), MANAGER);
        let mut ticks = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                _ = changes.next() => {}
                _ = ticks.tick() => {}
                // An error means that the manager has ended, and this task ends with it.
                _ = self.behaviours.changed() => {}
            }
            if !(is_synced(&certificates) && is_synced(&secrets)) {
                continue;
            }
            let (certificates, secrets) = (certificates.state(), secrets.state());
            statuses.retain(|uid| certificates.iter().any(|known| known.uid().as_deref() == Some(uid)));
            for certificate in certificates.iter().filter(|certificate| self.is_ours(certificate)) {
                let namespace = certificate.namespace().unwrap_or_default();
                let behaviour = self.behaviours.borrow().get(&namespace).cloned().unwrap_or_default();
                let name = &certificate.spec.secret_name;
                let mut all = secrets.iter();
                let secret =
                    all.find(|secret| secret.namespace().as_ref() == Some(&namespace) && secret.name_any() == *name);
                let step = step(certificate, secret.map(|secret| &**secret), &behaviour, Timestamp::now());
                match step {
                    Step::Say(status) => statuses.put(&**certificate, certificate.status.as_ref(), status).await,
                    // The change of the Secret triggers the next status.
                    Step::Issue(valid) => {
                        match tokio::time::timeout(PATIENCE, self.issue(certificate, &behaviour, valid)).await {
                            Ok(Ok(())) => {}
                            Ok(Err(error)) => tracing::warn!("issue {namespace}/{name}: {error:#}"),
                            Err(_) => tracing::warn!("issue {namespace}/{name}: timeout"),
                        }
                    }
                }
            }
        }
    }

    fn is_ours(&self, certificate: &Certificate) -> bool {
        let issuer = &certificate.spec.issuer_ref;
        issuer.name == self.name && issuer.kind.as_deref().unwrap_or("Issuer") == self.kind
    }

    async fn issue(
        &self,
        certificate: &Certificate,
        behaviour: &Behaviour,
        valid: Range<SystemTime>,
    ) -> anyhow::Result<()> {
        let spec = &certificate.spec;
        let names: Vec<&str> = spec.dns_names.iter().map(String::as_str).collect();
        let issued = self.authority.issue_for(&names, valid.clone())?;
        let [not_before, not_after] = [valid.start, valid.end].map(Timestamp::try_from);
        let secret = json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "kubernetes.io/tls",
            "metadata": {
                "name": spec.secret_name,
                "labels": { LABEL: "true" },
                "annotations": {
                    "cert-manager.io/certificate-name": certificate.name_any(),
                    "cert-manager.io/issuer-kind": self.kind,
                    "cert-manager.io/issuer-name": self.name,
                    ALT_NAMES: spec.dns_names.join(","),
                    ISSUED_AS: issued_as(behaviour),
                    NOT_BEFORE: not_before?.to_string(),
                    NOT_AFTER: not_after?.to_string(),
                },
            },
            "stringData": {
                "tls.crt": issued.certificate_pem, "tls.key": issued.key_pem, "ca.crt": self.authority.pem(),
            },
        });
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &certificate.namespace().unwrap_or_default());
        let parameters = PatchParams::apply(MANAGER).force();
        secrets.patch(&spec.secret_name, &parameters, &Patch::Apply(secret)).await.context("write the Secret")?;
        Ok(())
    }
}

/// Next step for a Certificate.
enum Step {
    Say(Value),
    Issue(Range<SystemTime>),
}

fn step(certificate: &Certificate, secret: Option<&Secret>, behaviour: &Behaviour, now: Timestamp) -> Step {
    let names = certificate.spec.dns_names.join(",");
    let of = |secret: &Secret, name: &str| secret.annotations().get(name).cloned().unwrap_or_default();
    let current = secret.filter(|secret| of(secret, ALT_NAMES) == names);
    let from_now = |valid: Duration| SystemTime::now()..SystemTime::now() + valid;
    let valid = match behaviour {
        Behaviour::Issue => from_now(NINETY_DAYS),
        Behaviour::IssueFor(valid) => from_now(*valid),
        Behaviour::IssueExpired => {
            let over = SystemTime::now() - Duration::from_secs(3600);
            over - NINETY_DAYS..over
        }
        Behaviour::Wait | Behaviour::Fail(_) => return Step::Say(status(certificate, current, behaviour, now)),
    };
    match current {
        Some(secret) if of(secret, ISSUED_AS) == issued_as(behaviour) => {
            Step::Say(status(certificate, Some(secret), behaviour, now))
        }
        _ => Step::Issue(valid),
    }
}

fn issued_as(behaviour: &Behaviour) -> String {
    format!("{behaviour:?}")
}

/// Returns the status of a Certificate. Its Secret either holds the requested certificate, or does not yet.
fn status(certificate: &Certificate, secret: Option<&Secret>, behaviour: &Behaviour, now: Timestamp) -> Value {
    let before = certificate.status.as_ref();
    let known = |name: &str| before.and_then(|status| status.get(name)).cloned();
    let time = |secret: &Secret, name: &str| secret.annotations().get(name)?.parse::<Timestamp>().ok();
    let period = secret.and_then(|secret| Some((time(secret, NOT_BEFORE)?, time(secret, NOT_AFTER)?)));
    let expired = period.filter(|(_, end)| *end <= now).map(|(_, end)| {
        // RFC 1123, in Go's format.
        format!("Certificate expired on {}", end.strftime("%a, %d %b %Y %H:%M:%S UTC"))
    });
    let missing = "Issuing certificate as Secret does not exist";
    let ready = |holds, reason, message| Verdict { kind: "Ready", holds, reason, message };
    let mut verdicts = vec![match (&period, &expired) {
        (None, _) => ready(false, "DoesNotExist", missing),
        (Some(_), Some(expired)) => ready(false, "Expired", expired),
        (Some(_), None) => ready(true, "Ready", "Certificate is up to date and has not expired"),
    }];
    let mut failed = String::new();
    if period.is_none() {
        verdicts.push(match behaviour {
            Behaviour::Fail(why) => {
                failed = format!("The certificate request has failed to complete and will be retried: {why}");
                Verdict { kind: "Issuing", holds: false, reason: "Failed", message: &failed }
            }
            _ => Verdict { kind: "Issuing", holds: true, reason: "DoesNotExist", message: missing },
        });
    }
    let mut status = json!({ "conditions": conditions(certificate.metadata.generation, before, &verdicts) });
    let Some(fields) = status.as_object_mut() else { return status };
    if !failed.is_empty() {
        fields.insert("failedIssuanceAttempts".to_owned(), known("failedIssuanceAttempts").unwrap_or_else(|| json!(1)));
        fields.insert(
            "lastFailureTime".to_owned(),
            known("lastFailureTime").unwrap_or_else(|| json!(whole_seconds(now))),
        );
    }
    if let Some((start, end)) = period {
        // After two thirds of the lifetime, the default.
        let renewal = end - SignedDuration::from_secs(end.duration_since(start).as_secs() / 3);
        let [start, end, renewal] = [start, end, renewal].map(whole_seconds).map(|time| json!(time));
        let is_new = known("notBefore").as_ref() != Some(&start);
        let revision = known("revision").and_then(|revision| revision.as_i64()).unwrap_or_default();
        fields.insert("revision".to_owned(), json!(revision + i64::from(is_new)));
        for (name, time) in [("notBefore", start), ("notAfter", end), ("renewalTime", renewal)] {
            fields.insert(name.to_owned(), time);
        }
    }
    status
}

fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}
