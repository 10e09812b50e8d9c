//! The outcome of a reconcile's steps, from which its status follows.

use std::collections::BTreeSet;

use crate::{
    fleet,
    mcpserver::{
        apply::Failure,
        take_away::Taken,
        validate::{Validated, refusal::Refusal},
    },
    objects::{child::ChildKind, config_map_edition::Mounted},
    ownership::Standing,
    runtime::errors::Error,
};

/// The results of a reconcile's steps, as far as it got.
#[derive(Clone, Default)]
pub(crate) struct Outcome {
    /// True if the policy's ConfigMap holds what was compiled.
    pub(crate) policy: bool,
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
}

/// A reconcile that stopped early.
pub(crate) struct Stopped {
    pub(crate) reached: Outcome,
    pub(crate) failure: Failure,
}

impl Outcome {
    /// The outcome of taking away.
    pub(crate) fn after(taken: &Taken) -> Self {
        let policy = taken.in_force.as_ref().is_ok_and(|policy| policy.is_written);
        Self { policy, standing: taken.standing.clone(), ..Self::default() }
    }

    /// The end of all steps; what could not be hidden is told last.
    pub(crate) fn done(self, hidden: Result<(), Error>) -> Result<Self, Box<Stopped>> {
        match hidden {
            Ok(()) => Ok(self),
            Err(error) => Err(self.stopped(error)),
        }
    }

    /// Stops here.
    pub(crate) fn stopped(&self, failure: impl Into<Failure>) -> Box<Stopped> {
        Box::new(Stopped { reached: self.clone(), failure: failure.into() })
    }
}
