//! State of calls that a backend gives to clients. It is sealed to the caller and the call, if the backend cannot
//! distinguish callers.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::RngExt;
use zeroize::Zeroizing;

use crate::aes_gcm;
use crate::offer::Operation;

/// The answer to a state that this pod did not seal for this caller and call.
pub(super) const FOREIGN: &str =
    "this pod did not issue requestState for this call; call again without requestState and inputResponses";

/// Seals states with a key of this process. A state is valid only in the pod that sealed it.
pub(super) struct Seal(Zeroizing<[u8; 32]>);

impl Seal {
    /// Returns a seal with a new key.
    pub(super) fn random() -> Self {
        Self(Zeroizing::new(rand::rng().random()))
    }

    /// Returns the sealed state, or `None` if it cannot be sealed.
    pub(super) fn seal(&self, caller: &str, operation: &Operation, state: &str) -> Option<String> {
        let sealed = aes_gcm::seal(&self.0, &bound(caller, operation), state.as_bytes()).ok()?;
        Some(URL_SAFE_NO_PAD.encode(sealed))
    }

    /// Returns the state, or `None` if this process did not seal it for this caller and call.
    pub(super) fn open(&self, caller: &str, operation: &Operation, sealed: &str) -> Option<String> {
        let sealed = URL_SAFE_NO_PAD.decode(sealed).ok()?;
        let state = aes_gcm::open(&self.0, &bound(caller, operation), &sealed).ok()?;
        String::from_utf8(state.to_vec()).ok()
    }
}

/// Returns everything that a state is bound to, each part with its length.
fn bound(caller: &str, operation: &Operation) -> Vec<u8> {
    let (kind, arguments) = match operation {
        Operation::Tool { arguments, .. } => ("tool", arguments.text()),
        Operation::Prompt { arguments, .. } => ("prompt", arguments.text()),
        Operation::Resource { .. } => ("resource", String::new()),
    };
    let parts = [caller, kind, operation.name(), &arguments];
    parts.iter().flat_map(|part| [part.len().to_string().as_bytes(), b":", part.as_bytes()].concat()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool(name: &str) -> Operation {
        Operation::Tool { name: name.into(), arguments: Default::default() }
    }

    #[test]
    fn a_state_opens_only_for_its_caller_and_its_call() {
        let seal = Seal::random();
        let sealed = seal.seal("alice", &tool("a"), "step 2").unwrap();
        assert_eq!(seal.open("alice", &tool("a"), &sealed).as_deref(), Some("step 2"));
        assert!(!sealed.contains("step"));
        for (caller, name) in [("bob", "a"), ("alice", "b"), ("alice1:a", "")] {
            assert_eq!(seal.open(caller, &tool(name), &sealed), None, "{caller} {name}");
        }
        assert_eq!(Seal::random().open("alice", &tool("a"), &sealed), None);
        assert_eq!(seal.open("alice", &tool("a"), "step 2"), None);
    }
}
