//! Leader election by a Lease: of several replicas that all watch, one reconciles.
//!
//! A holder renews the lease, and counts as leader only until its renew deadline, which is two thirds of the lease's
//! duration from the moment at which it sent what was answered. The others take the lease once they have seen no change
//! of it for its whole duration: by their own clocks, since nobody's clock is anybody else's. In the third that lies
//! between, whatever the old leader still had on its way has ended.
//!
//! The decision against a library is in `docs/adr/0001-leader-election.md`.

use std::time::{Duration, Instant};

use futures::{Stream, StreamExt};
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{Api, api::PostParams};
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;
use tokio_util::sync::CancellationToken;

use crate::{
    MANAGER,
    runtime::{errors::code, metrics::Metrics},
};

/// The lease's name.
pub(crate) const LEASE: &str = "mcp-entra-operator";

/// The state of the election, as this replica sees it.
#[derive(Clone, Debug)]
pub(crate) struct Leadership(watch::Receiver<bool>);

impl Leadership {
    /// A leadership that is nobody's yet, and the sender that changes that.
    pub(crate) fn vacant() -> (watch::Sender<bool>, Self) {
        let (sender, receiver) = watch::channel(false);
        (sender, Self(receiver))
    }

    /// Returns true if this replica leads now.
    pub(crate) fn is_held(&self) -> bool {
        *self.0.borrow()
    }

    /// A stream with an item each time this replica begins to lead.
    pub(crate) fn gained(&self) -> impl Stream<Item = ()> + Send + 'static {
        WatchStream::new(self.0.clone()).filter(|held| std::future::ready(*held)).map(drop)
    }
}

/// A reason for which this replica leads no longer. It can trust nothing that it knows after that, and has to start anew.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum LeaseLost {
    /// The API server took no renewal in time.
    #[error(
        "the lease could not be renewed within {} s, so another replica may lead by now; this one ends and starts anew",
        .0.as_secs()
    )]
    Expired(Duration),
    /// Somebody else holds it.
    #[error("the lease was taken by {0}; this replica ends and starts anew, to follow")]
    Taken(String),
}

/// The decisions about the lease. Pure: the time is an argument.
struct Election {
    identity: String,
    duration: Duration,
    /// The version of the lease that was seen last, and since when.
    seen: Option<(String, Instant)>,
}

/// The next step with the lease as it is.
#[derive(Debug, PartialEq)]
enum LeaseDecision {
    /// To be written: this replica holds it then.
    Take(Box<Lease>),
    /// It is this other replica's.
    Leave(String),
}

impl Election {
    /// Judges the lease as it is at the API server; `None` where there is none.
    fn decide(&mut self, lease: Option<Lease>, now: Instant, time: Timestamp) -> LeaseDecision {
        let mut lease = lease.unwrap_or_default();
        let before = lease.spec.take().unwrap_or_default();
        let holder = before.holder_identity.filter(|holder| !holder.is_empty());
        let unchanged_for = self.see(lease.metadata.resource_version.as_deref(), now);
        let is_renewal = holder.as_ref() == Some(&self.identity);
        if let Some(other) = holder.filter(|_| !is_renewal) {
            let duration = before.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
            if unchanged_for < duration.map_or(self.duration, Duration::from_secs) {
                return LeaseDecision::Leave(other);
            }
        }
        let transitions = before.lease_transitions.unwrap_or_default();
        lease.metadata.name = Some(LEASE.to_owned());
        lease.metadata.managed_fields = None;
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(i32::try_from(self.duration.as_secs()).unwrap_or(i32::MAX)),
            acquire_time: before.acquire_time.filter(|_| is_renewal).or(Some(MicroTime(time))),
            renew_time: Some(MicroTime(time)),
            lease_transitions: Some(if is_renewal { transitions } else { transitions.saturating_add(1) }),
            ..LeaseSpec::default()
        });
        LeaseDecision::Take(Box::new(lease))
    }

    /// Notes a version of the lease, and says for how long it has been the same.
    fn see(&mut self, version: Option<&str>, now: Instant) -> Duration {
        let version = version.unwrap_or_default();
        match &self.seen {
            Some((seen, since)) if seen == version => now.duration_since(*since),
            _ => {
                self.seen = Some((version.to_owned(), now));
                Duration::ZERO
            }
        }
    }

    fn is_holder(&self, lease: &Lease) -> bool {
        lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_ref()) == Some(&self.identity)
    }

    /// Time from a renewal's sending to the moment from which another replica may lead.
    fn renew_deadline(&self) -> Duration {
        self.duration * 2 / 3
    }

    /// Time between two looks, and, twice over, between two renewals.
    fn pause(&self) -> Duration {
        self.duration / 15
    }
}

/// The lease as given back, for anybody to take at once.
fn released(mut lease: Lease) -> Lease {
    let spec = lease.spec.get_or_insert_default();
    spec.holder_identity = None;
    spec.acquire_time = None;
    spec.lease_duration_seconds = Some(1);
    lease
}

/// A candidate for the lease.
pub(crate) struct Candidate {
    api: Api<Lease>,
    election: Election,
    leads: watch::Sender<bool>,
    metrics: Metrics,
    /// The lease as this replica wrote it; none after anything else was answered.
    written: Option<Box<Lease>>,
    /// The moment until which this replica may lead.
    expires: Option<Instant>,
    /// True if the last attempt failed, which is told once.
    is_failing: bool,
}

impl Candidate {
    /// A candidate of that name, which is nobody else's.
    pub(crate) fn new(
        api: Api<Lease>,
        identity: String,
        duration: Duration,
        leads: watch::Sender<bool>,
        metrics: Metrics,
    ) -> Self {
        let election = Election { identity, duration, seen: None };
        Self { api, election, leads, metrics, written: None, expires: None, is_failing: false }
    }

    /// Takes the lease as soon as it is free and keeps it, until told to give it back or it is lost.
    ///
    /// # Errors
    /// [`LeaseLost`], at the very latest when another replica may lead.
    pub(crate) async fn campaign(mut self, give_back: CancellationToken) -> Result<(), LeaseLost> {
        let lost = give_back.run_until_cancelled(self.hold()).await;
        self.metrics.leads(false);
        self.leads.send_replace(false);
        match lost {
            Some(lost) => Err(lost),
            None => {
                self.release().await;
                Ok(())
            }
        }
    }

    async fn hold(&mut self) -> LeaseLost {
        loop {
            let began = Instant::now();
            // One that hangs must leave time for another.
            let limit = began + self.election.duration / 3;
            let limit = self.expires.map_or(limit, |expires| limit.min(expires));
            match tokio::time::timeout_at(limit.into(), self.attempt()).await {
                Ok(Ok(LeaseDecision::Take(lease))) => self.won(lease, began),
                Ok(Ok(LeaseDecision::Leave(other))) if self.expires.is_some() => return LeaseLost::Taken(other),
                Ok(Ok(LeaseDecision::Leave(_))) => self.is_failing = false,
                // Somebody was quicker: who it was is seen at the next look.
                Ok(Err(error)) if code(&error) == Some(409) => {}
                Ok(Err(error)) => self.failed(&error.to_string()),
                Err(_) => self.failed("the API server did not answer in time"),
            }
            let renewed = self.written.is_some();
            let next = Instant::now() + self.election.pause() * if renewed { 2 } else { 1 };
            tokio::time::sleep_until(self.expires.map_or(next, |expires| next.min(expires)).into()).await;
            if self.expires.is_some_and(|expires| expires <= Instant::now()) {
                return LeaseLost::Expired(self.election.renew_deadline());
            }
        }
    }

    /// Looks at the lease, unless it is known, and takes or renews it where that may be.
    async fn attempt(&mut self) -> kube::Result<LeaseDecision> {
        let lease = match self.written.take() {
            Some(lease) => Some(*lease),
            None => self.api.get_opt(LEASE).await?,
        };
        let parameters = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        Ok(match self.election.decide(lease, Instant::now(), Timestamp::now()) {
            LeaseDecision::Take(lease) => LeaseDecision::Take(Box::new(match lease.metadata.resource_version {
                Some(_) => self.api.replace(LEASE, &parameters, &lease).await?,
                None => self.api.create(&parameters, &lease).await?,
            })),
            leave @ LeaseDecision::Leave(_) => leave,
        })
    }

    fn won(&mut self, lease: Box<Lease>, began: Instant) {
        self.is_failing = false;
        self.written = Some(lease);
        if self.expires.replace(began + self.election.renew_deadline()).is_none() {
            tracing::info!(identity = self.election.identity, "leading: this replica reconciles from now on");
            self.metrics.leads(true);
            self.leads.send_replace(true);
        }
    }

    fn failed(&mut self, error: &str) {
        if !std::mem::replace(&mut self.is_failing, true) {
            tracing::warn!(
                error,
                lease = LEASE,
                leads = self.expires.is_some(),
                "the lease cannot be read or written, and is tried again; the operator needs get, create and update on \
                 leases of its own namespace"
            );
        }
    }

    /// Gives the lease back, if this replica has it: the next takes it at once.
    async fn release(&mut self) {
        let Some(expires) = self.expires else { return };
        let release = async {
            let lease = match self.written.take() {
                Some(lease) => Some(*lease),
                None => self.api.get_opt(LEASE).await?,
            };
            if let Some(lease) = lease.filter(|lease| self.election.is_holder(lease)) {
                self.api.replace(LEASE, &PostParams::default(), &released(lease)).await?;
                tracing::info!("the lease is given back");
            }
            Ok::<_, kube::Error>(())
        };
        match tokio::time::timeout_at(expires.into(), release).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, "the lease is not given back; the next replica waits until it ends")
            }
            Err(_) => tracing::warn!("the lease is not given back in time; the next replica waits until it ends"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn mk_election(identity: &str) -> Election {
        Election { identity: identity.into(), duration: SECOND * 15, seen: None }
    }

    /// A lease as the API server stores it.
    fn mk_stored(claim: LeaseDecision, version: &str) -> Option<Lease> {
        let LeaseDecision::Take(lease) = claim else { panic!("{claim:?}") };
        let mut lease = *lease;
        lease.metadata.resource_version = Some(version.into());
        Some(lease)
    }

    fn mk_held_by(identity: &str, version: &str) -> Option<Lease> {
        mk_stored(mk_election(identity).decide(None, Instant::now(), Timestamp::UNIX_EPOCH), version)
    }

    fn spec(lease: &Option<Lease>) -> LeaseSpec {
        lease.clone().unwrap().spec.unwrap()
    }

    #[test]
    fn a_lease_that_nobody_holds_is_taken_and_a_held_one_is_left() {
        let (now, time) = (Instant::now(), Timestamp::UNIX_EPOCH);
        assert!(matches!(mk_election("a").decide(None, now, time), LeaseDecision::Take(_)));
        assert_eq!(mk_election("b").decide(mk_held_by("a", "1"), now, time), LeaseDecision::Leave("a".into()));
        let free = released(mk_held_by("a", "1").unwrap());
        let taken = mk_stored(mk_election("b").decide(Some(free), now, time), "2");
        assert_eq!(spec(&taken).holder_identity.as_deref(), Some("b"));
        assert_eq!(spec(&taken).lease_transitions, Some(2));
        assert_eq!(spec(&taken).lease_duration_seconds, Some(15));
    }

    #[test]
    fn the_version_that_was_judged_is_the_version_that_is_replaced() {
        let claim = mk_election("a").decide(mk_held_by("a", "7"), Instant::now(), Timestamp::UNIX_EPOCH);
        let LeaseDecision::Take(lease) = claim else { panic!("{claim:?}") };
        assert_eq!(lease.metadata.resource_version.as_deref(), Some("7"));
    }

    #[test]
    fn a_renewal_keeps_the_time_of_the_acquisition_and_counts_no_transition() {
        let later = Timestamp::from_second(60).unwrap();
        let renewed = mk_stored(mk_election("a").decide(mk_held_by("a", "1"), Instant::now(), later), "2");
        let (before, after) = (spec(&mk_held_by("a", "1")), spec(&renewed));
        assert_eq!((after.acquire_time, after.lease_transitions), (before.acquire_time, before.lease_transitions));
        assert_eq!(after.renew_time, Some(MicroTime(later)));
    }

    #[test]
    fn a_lease_is_taken_once_it_was_seen_unchanged_for_its_duration_whatever_its_times_say() {
        let (start, ancient) = (Instant::now(), Timestamp::UNIX_EPOCH);
        let mut election = mk_election("b");
        let mut at = |version: &str, seconds: u32| {
            let claim = election.decide(mk_held_by("a", version), start + SECOND * seconds, ancient);
            matches!(claim, LeaseDecision::Take(_))
        };
        assert!(!at("1", 0), "the first look tells nothing, however old the renewal");
        assert!(!at("1", 14));
        assert!(!at("2", 15), "it was renewed");
        assert!(!at("2", 29));
        assert!(at("2", 30));
    }

    #[test]
    fn another_leads_only_after_the_old_leader_has_stopped() {
        let election = mk_election("a");
        assert_eq!(election.renew_deadline(), SECOND * 10);
        assert!(election.renew_deadline() < election.duration);
        assert!(election.pause() * 2 < election.renew_deadline() / 4, "several renewals fit before the deadline");
    }
}
