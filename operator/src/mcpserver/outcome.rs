//! The outcome of a reconcile's steps, from which its status follows.

use std::{collections::BTreeSet, mem};

use crate::{
    fleet,
    mcpserver::{
        apply::{Conflict, Failure},
        take_away::Taken,
        validate::{Validated, refusal::Refusal},
    },
    objects::{child::ChildKind, config_map_edition::Mounted},
    ownership::Standing,
    runtime::errors::Error,
};

/// The results of a reconcile's steps, as far as it got.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// True if the policy's ConfigMap holds what was compiled.
    pub(crate) policy_is_written: bool,
    /// The verdict on the spec, once everything that decides it could be read.
    pub(crate) validated: Option<Result<Validated, Refusal>>,
    /// Its standing among the servers that name the same host or client id.
    pub(crate) standing: Standing,
    /// Kinds that the spec asks for and this cluster lacks.
    pub(crate) missing: BTreeSet<ChildKind>,
    /// The reason why the pods as built are not rolled out yet.
    pub(crate) upgrade: Option<fleet::Waits>,
    /// The ConfigMaps that the pods are to mount.
    pub(crate) mounted: Mounted,
    /// The failure that stopped the reconcile, if one did.
    pub(crate) failure: Option<Failure>,
}

/// The outcome of a reconcile that a failure stopped.
#[derive(Debug)]
pub(crate) struct Stopped(Box<Outcome>);

impl Outcome {
    /// The outcome of taking away, after which the other steps follow.
    pub(crate) fn after(taken: &Taken) -> Self {
        let in_force = taken.in_force.as_ref().ok();
        Self {
            policy_is_written: in_force.is_some_and(|policy| policy.is_written),
            mounted: in_force.map_or_else(Mounted::default, |policy| Mounted {
                policy: policy.edition,
                is_moving: policy.is_moving,
                ..Mounted::default()
            }),
            standing: taken.standing.clone(),
            ..Self::default()
        }
    }

    /// The outcome of a reconcile that only takes away.
    pub(crate) fn of_taking_away(taken: Taken) -> Result<Self, Stopped> {
        let mut outcome = Self::after(&taken);
        taken.in_force.map_err(|failure| outcome.stopped(failure))?;
        outcome.done(taken.hidden)
    }

    /// The outcome of the steps, whether they came to their end or were stopped.
    ///
    /// # Errors
    /// If the failure is nobody's fault and soon over: no condition tells it.
    pub(crate) fn of_steps(ended: Result<Self, Stopped>) -> Result<Self, Error> {
        let mut outcome = ended.unwrap_or_else(|Stopped(outcome)| *outcome);
        match outcome.failure.take() {
            Some(Failure::Error(error @ (Error::Contended { .. } | Error::Immutable(_)))) => Err(error),
            failure => Ok(Self { failure, ..outcome }),
        }
    }

    /// The end of all steps. A route that could not be deleted is told last.
    pub(crate) fn done(mut self, hidden: Result<(), Error>) -> Result<Self, Stopped> {
        match hidden {
            Ok(()) => Ok(self),
            Err(error) => Err(self.stopped(error)),
        }
    }

    /// Stops here: everything that was reached moves into the result.
    #[must_use]
    pub(crate) fn stopped(&mut self, failure: impl Into<Failure>) -> Stopped {
        Stopped(Box::new(Self { failure: Some(failure.into()), ..mem::take(self) }))
    }

    /// The spec as validated, if it is accepted.
    pub(crate) fn accepted(&self) -> Option<&Validated> {
        self.validated.as_ref()?.as_ref().ok()
    }

    /// Notes the server's standing, on which its configuration depends.
    pub(crate) fn stand(&mut self, standing: Standing) {
        if let (Some(Ok(validated)), Standing::Held(held)) = (&mut self.validated, &standing) {
            validated.hold(held);
        }
        self.standing = standing;
    }

    /// The refusal of the spec, if it is refused.
    pub(crate) fn refusal(&self) -> Option<&Refusal> {
        self.validated.as_ref()?.as_ref().err()
    }

    /// The names of children that other objects have, if that stopped the reconcile.
    pub(crate) fn conflict(&self) -> Option<&Conflict> {
        match &self.failure {
            Some(Failure::Conflict(conflict)) => Some(conflict),
            _ => None,
        }
    }

    /// The error that stopped the reconcile, if one did.
    pub(crate) fn error(&self) -> Option<&Error> {
        match &self.failure {
            Some(Failure::Error(error)) => Some(error),
            _ => None,
        }
    }

    /// Returns the error that stopped the reconcile, or this value.
    pub(crate) fn error_or<T>(self, value: T) -> Result<T, Error> {
        match self.failure {
            Some(Failure::Error(error)) => Err(error),
            _ => Ok(value),
        }
    }
}
