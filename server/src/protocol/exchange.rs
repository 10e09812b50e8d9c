//! The facts about a request that the way in tells the protocol, and the need that the protocol tells back.

use std::sync::{Arc, OnceLock};

use mcp_entra_policy::GraphAccess;

use crate::authorize::Permissions;
use crate::entra::SignIn;
use crate::offer::{Offered, Operation};
use crate::token::Principal;

/// A request that has been let in. It travels with the message; nothing else does.
#[derive(Clone)]
pub struct Exchange {
    /// The caller.
    pub principal: Arc<Principal>,
    /// The caller's permissions, which lists show.
    pub permissions: Permissions,
    /// The snapshot of the offer that the request was decided by. Empty for a request that depends on none.
    pub offered: Arc<Offered>,
    /// The call that a grant allows. Absent for any other request.
    pub granted: Option<Granted>,
    /// The slot for what the answer takes.
    pub needs: Needs,
}

/// A call that a grant allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    /// The target that was decided about. A call of any other is not granted.
    pub target: Target,
    /// The access to Microsoft Graph that the grant gives.
    pub access: GraphAccess,
}

/// The target of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The tool of this name.
    Tool(String),
    /// The prompt of this name.
    Prompt(String),
    /// The resource of this URI.
    Resource(String),
}

impl Target {
    /// True if this operation uses the target.
    pub(super) fn is_of(&self, operation: &Operation) -> bool {
        match (self, operation) {
            (Self::Tool(target), Operation::Tool { name, .. })
            | (Self::Prompt(target), Operation::Prompt { name, .. }) => target == name,
            (Self::Resource(target), Operation::Resource { uri }) => target == uri,
            (Self::Tool(_) | Self::Prompt(_) | Self::Resource(_), _) => false,
        }
    }
}

/// The condition under which a call could be answered. The transport may know a better way to ask for it than the answer.
#[derive(Clone, Debug)]
pub enum Need {
    /// The user signs in again.
    SignIn(SignIn),
    /// The same call comes again later, for the reason that the text says.
    Patience(String),
}

/// A slot through which the protocol says what a call needs.
#[derive(Clone, Debug, Default)]
pub struct Needs(Arc<OnceLock<Need>>);

impl Needs {
    /// Says that this is needed. A second need changes nothing.
    pub(super) fn tell(&self, need: Need) {
        _ = self.0.set(need);
    }

    /// The need, if there is one.
    pub fn told(&self) -> Option<&Need> {
        self.0.get()
    }
}
