//! Microsoft Entra ID's token endpoint. The credential is the projected service account token. A public client, for
//! sign-ins on a laptop, has none.
//!
//! `federated_token` reads the projected token, `credential` presents it as the application's, and `token_endpoint`
//! sends requests. `sts` caches tokens on behalf of users, and `application` the application's own.
//!
//! `error` is an answer without a token. `codes` is the table of AADSTS codes, and `diagnosis` finds the `remedy` and
//! the next step. `claims` are requirements for a user's next sign-in; `claims_challenge` parses them from a
//! resource's answer.
//!
//! `public_client` has the grants for a laptop, `confidential_client` those of this server's sign-ins, and `id_token`
//! their account. `probe` repeats the exchange to test the credential. The module `token` decides which callers'
//! tokens are accepted.

mod application;
mod claims;
mod claims_challenge;
mod codes;
mod confidential_client;
mod credential;
mod diagnosis;
mod error;
mod federated_token;
mod id_token;
mod probe;
mod public_client;
mod remedy;
mod sts;
mod token_endpoint;

pub use application::ApplicationCredential;
pub use claims::{ClaimsChallenge, SignIn};
pub(crate) use claims_challenge::claims_challenge;
pub use confidential_client::{Asked, ConfidentialClient, EntraTokens, Proof, SignInError};
pub(crate) use error::word;
pub use error::{EntraRefusal, StsError};
pub use federated_token::{FederatedToken, FederatedTokenError, ProjectedToken};
pub use id_token::IdTokenError;
pub use probe::Probe;
pub(crate) use public_client::random;
pub use public_client::{AuthorizationRequest, DeviceCode, PublicClient, PublicClientError, SignedIn};
pub use remedy::Remedy;
pub use sts::{OnBehalfOf, Sts};
pub use token_endpoint::{GraphToken, Registration};
