//! Leader election by a Lease: several replicas watch, one of them reconciles.
//!
//! The leader renews the lease. It leads until its renew deadline: two thirds of the lease's duration after it sent the
//! last renewal that the API server confirmed. Another replica takes the lease once it has seen no change for the whole
//! duration. Each replica measures by its own clock only, so clocks may differ. The last third of the duration is time
//! for the old leader's running writes to end.
//!
//! `docs/adr/0001-leader-election.md` says why no library is used.

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

/// The name of the lease.
pub(crate) const LEASE: &str = "mcp-entra-operator";

/// The state of the election, as this replica knows it.
#[derive(Clone, Debug)]
pub(crate) struct Leadership(watch::Receiver<bool>);

impl Leadership {
    /// Returns a leadership that this replica does not hold, and the sender that changes it.
    pub(crate) fn vacant() -> (watch::Sender<bool>, Self) {
        let (sender, receiver) = watch::channel(false);
        (sender, Self(receiver))
    }

    /// Returns true if this replica leads now.
    pub(crate) fn is_held(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns a stream with an item each time this replica becomes the leader.
    pub(crate) fn gained(&self) -> impl Stream<Item = ()> + Send + 'static {
        WatchStream::new(self.0.clone()).filter(|held| std::future::ready(*held)).map(drop)
    }
}

/// The reason why this replica is no longer the leader. Its caches and memory may be stale, so it must restart.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum LeaseLost {
    /// The API server confirmed no renewal in time.
    #[error(
        "the lease could not be renewed within {} s, so another replica may lead by now; this replica restarts",
        .0.as_secs()
    )]
    Expired(Duration),
    /// Another replica holds the lease.
    #[error("{0} took the lease; this replica restarts as a follower")]
    Taken(String),
}

/// Decisions about the lease. Pure: the time is an argument.
struct Election {
    identity: String,
    duration: Duration,
    /// The last seen version of the lease, and when it was first seen.
    seen: Option<(String, Instant)>,
}

/// The next step for the current lease.
#[derive(Debug, PartialEq)]
enum LeaseDecision {
    /// Write this lease to hold it.
    Take(Box<Lease>),
    /// Another replica, of this name, holds the lease.
    Leave(String),
}

impl Election {
    /// Decides the next step. `lease` is the lease at the API server, if there is one.
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

    /// Records the version of the lease, and returns for how long it is unchanged.
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

    /// Returns the time from sending a renewal until this replica must no longer lead.
    fn renew_deadline(&self) -> Duration {
        self.duration * 2 / 3
    }

    /// Returns the pause between two looks at the lease. Renewals wait twice as long.
    fn pause(&self) -> Duration {
        self.duration / 15
    }
}

/// Returns the lease as it is given back: any replica can take it at once.
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
    /// The lease as this replica last wrote it; none after any other answer.
    written: Option<Box<Lease>>,
    /// The moment until which this replica leads.
    expires: Option<Instant>,
    /// True if the last attempt failed. A series of failures is logged once.
    is_failing: bool,
}

impl Candidate {
    /// Creates a candidate. No other replica may have the same identity.
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

    /// Takes the lease as soon as it is free, and keeps it until `give_back` is cancelled or the lease is lost.
    ///
    /// # Errors
    /// [`LeaseLost`], before another replica can lead.
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
            // A hanging attempt must leave time for another one.
            let limit = began + self.election.duration / 3;
            let limit = self.expires.map_or(limit, |expires| limit.min(expires));
            match tokio::time::timeout_at(limit.into(), self.attempt()).await {
                Ok(Ok(LeaseDecision::Take(lease))) => self.won(lease, began),
                Ok(Ok(LeaseDecision::Leave(other))) if self.expires.is_some() => return LeaseLost::Taken(other),
                Ok(Ok(LeaseDecision::Leave(_))) => self.is_failing = false,
                // Another replica was faster. The next look shows which.
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

    /// Reads the lease, unless it is known, and takes or renews it if possible.
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
            tracing::info!(identity = self.election.identity, "this replica is the leader and starts to reconcile");
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
                "cannot read or write the lease, retrying; the operator needs get, create and update on leases in its own \
                namespace"
            );
        }
    }

    /// Gives the lease back, if this replica holds it, so that another replica can take it at once.
    async fn release(&mut self) {
        let Some(expires) = self.expires else { return };
        let release = async {
            let lease = match self.written.take() {
                Some(lease) => Some(*lease),
                None => self.api.get_opt(LEASE).await?,
            };
            if let Some(lease) = lease.filter(|lease| self.election.is_holder(lease)) {
                self.api.replace(LEASE, &PostParams::default(), &released(lease)).await?;
                tracing::info!("released the lease");
            }
            Ok::<_, kube::Error>(())
        };
        match tokio::time::timeout_at(expires.into(), release).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, "cannot release the lease; the next replica waits until it expires")
            }
            Err(_) => tracing::warn!("cannot release the lease in time; the next replica waits until it expires"),
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
    fn a_free_lease_is_taken_and_a_held_one_is_not() {
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
    fn a_lease_is_taken_after_it_stays_unchanged_for_its_duration() {
        let (start, ancient) = (Instant::now(), Timestamp::UNIX_EPOCH);
        let mut election = mk_election("b");
        let mut at = |version: &str, seconds: u32| {
            let claim = election.decide(mk_held_by("a", version), start + SECOND * seconds, ancient);
            matches!(claim, LeaseDecision::Take(_))
        };
        assert!(!at("1", 0), "the first look decides nothing, even if the renewal is old");
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
