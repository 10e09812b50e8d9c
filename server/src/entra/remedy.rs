//! Remedies against a refusal of Entra, by the person who must act.

use super::claims::SignIn;

/// Remedy against a refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Nobody must act: Entra is busy, and a retry may succeed.
    AskAgain,
    /// The user signs in again.
    SignIn(SignIn),
    /// An administrator consents to the permissions.
    Consent,
    /// An administrator removes what blocks the user: a Conditional Access policy, a disabled account or a missing
    /// assignment.
    Unblock,
    /// Somebody corrects the federated credential or the projected token. After a change, or after a key rotation, it
    /// takes some minutes.
    Credential,
    /// Somebody corrects the app registration or this server's configuration.
    Configuration,
}

impl Remedy {
    /// True if the same request would get the same answer for a while. False for things that an administrator may
    /// correct at any moment, such as consent or the federated credential.
    pub(super) fn is_lasting(&self) -> bool {
        match self {
            Self::SignIn(_) | Self::Unblock | Self::Configuration => true,
            Self::AskAgain | Self::Consent | Self::Credential => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::claims::ClaimsChallenge;
    use super::*;

    #[test]
    fn an_error_that_can_end_within_minutes_is_not_lasting() {
        for (remedy, lasting) in [
            (Remedy::Consent, false),
            (Remedy::Credential, false),
            (Remedy::AskAgain, false),
            (Remedy::SignIn(SignIn::Anew), true),
            (Remedy::Unblock, true),
            (Remedy::Configuration, true),
            (Remedy::SignIn(SignIn::Satisfying(ClaimsChallenge::authentication_context("c1"))), true),
        ] {
            assert_eq!(remedy.is_lasting(), lasting, "{remedy:?}");
        }
    }
}
