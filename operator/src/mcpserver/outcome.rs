//! Outcome of a reconcile's steps, which its status depends on.

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

/// The results of the steps that a reconcile reached.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// True if the policy's ConfigMap contains the compiled policy.
    pub(crate) policy_is_written: bool,
    /// The result of the validation; none until all references could be read.
    pub(crate) validated: Option<Result<Validated, Refusal>>,
    /// The standing among the servers that name the same host or client id.
    pub(crate) standing: Standing,
    /// Kinds that the spec needs and the cluster does not serve.
    pub(crate) missing: BTreeSet<ChildKind>,
    /// The reason why the built pods are not rolled out yet.
    pub(crate) upgrade: Option<fleet::Waits>,
    /// The ConfigMaps that the pods should mount.
    pub(crate) mounted: Mounted,
    /// The failure that stopped the reconcile, if there is one.
    pub(crate) failure: Option<Failure>,
}

/// The outcome of a reconcile that a failure stopped.
#[derive(Debug)]
pub(crate) struct Stopped(Box<Outcome>);

impl Outcome {
    /// Returns the outcome after the step that takes away.
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

    /// Returns the outcome of a reconcile that only takes away.
    pub(crate) fn of_taking_away(taken: Taken) -> Result<Self, Stopped> {
        let mut outcome = Self::after(&taken);
        taken.in_force.map_err(|failure| outcome.stopped(failure))?;
        outcome.done(taken.hidden)
    }

    /// Returns the outcome of the steps, complete or stopped.
    ///
    /// # Errors
    /// A temporary failure that needs no condition.
    pub(crate) fn of_steps(ended: Result<Self, Stopped>) -> Result<Self, Error> {
        let mut outcome = ended.unwrap_or_else(|Stopped(outcome)| *outcome);
        match outcome.failure.take() {
            Some(Failure::Error(error @ (Error::Contended { .. } | Error::Immutable(_)))) => Err(error),
            failure => Ok(Self { failure, ..outcome }),
        }
    }

    /// Ends all steps. A route that could not be deleted is the last failure to report.
    pub(crate) fn done(mut self, hidden: Result<(), Error>) -> Result<Self, Stopped> {
        match hidden {
            Ok(()) => Ok(self),
            Err(error) => Err(self.stopped(error)),
        }
    }

    /// Stops with a failure. All results so far move into the returned value.
    #[must_use]
    pub(crate) fn stopped(&mut self, failure: impl Into<Failure>) -> Stopped {
        Stopped(Box::new(Self { failure: Some(failure.into()), ..mem::take(self) }))
    }

    /// Returns the validated spec, if it is accepted.
    pub(crate) fn accepted(&self) -> Option<&Validated> {
        self.validated.as_ref()?.as_ref().ok()
    }

    /// Sets the server's standing, which its configuration depends on.
    pub(crate) fn stand(&mut self, standing: Standing) {
        if let (Some(Ok(validated)), Standing::Held(held)) = (&mut self.validated, &standing) {
            validated.hold(held);
        }
        self.standing = standing;
    }

    /// Returns the refusal of the spec, if there is one.
    pub(crate) fn refusal(&self) -> Option<&Refusal> {
        self.validated.as_ref()?.as_ref().err()
    }

    /// Returns the conflict that stopped the reconcile, if there is one.
    pub(crate) fn conflict(&self) -> Option<&Conflict> {
        match &self.failure {
            Some(Failure::Conflict(conflict)) => Some(conflict),
            _ => None,
        }
    }

    /// Returns the error that stopped the reconcile, if there is one.
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
