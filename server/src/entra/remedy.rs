//! Remedies against a refusal of Entra, by who has to act.

use super::claims::SignIn;

/// Remedy against a refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Nothing: Entra is busy, and asking again may do.
    AskAgain,
    /// The user signs in again.
    SignIn(SignIn),
    /// An administrator consents to the permissions.
    Consent,
    /// An administrator lifts what blocks the user: a policy of Conditional Access, a disabled account, an assignment that
    /// is missing.
    Unblock,
    /// The federated credential, or the projected token, is put right. It may be new, or a key may have been rolled: then
    /// it takes some minutes.
    Credential,
    /// The app registration or this server's configuration is put right.
    Configuration,
}

impl Remedy {
    /// True if the same question would get the same answer for a while. What an administrator may be putting right at
    /// this moment (consent, the federated credential) is asked anew each time.
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
    fn what_somebody_may_be_putting_right_at_this_moment_is_not_lasting() {
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
