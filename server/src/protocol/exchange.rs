//! The facts about a request that the way in tells the protocol, and the sign-in that the protocol tells back.

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
    /// The slot for a sign-in that the answer takes.
    pub sign_in: SignInNeeded,
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

/// A slot through which the protocol says that the user must sign in again. The transport may know a better way to ask
/// for that than the answer.
#[derive(Clone, Debug, Default)]
pub struct SignInNeeded(Arc<OnceLock<SignIn>>);

impl SignInNeeded {
    /// Says that this sign-in is needed. A second one changes nothing.
    pub(super) fn tell(&self, sign_in: SignIn) {
        _ = self.0.set(sign_in);
    }

    /// The sign-in that is needed, if one is.
    pub fn told(&self) -> Option<&SignIn> {
        self.0.get()
    }
}
