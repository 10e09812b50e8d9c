//! Microsoft Entra ID's token endpoint. The credential is the projected service account token; a public client, through
//! which the person of a laptop signs in, has none.
//!
//! `federated_token` reads that token, `credential` makes it the application's, `token_endpoint` presents it, `sts` keeps
//! the tokens that are exchanged on behalf of users, and `application` for the application itself. `error` is an answer that issues nothing, `codes` the one table
//! of AADSTS codes, `diagnosis` the way from an answer to its `remedy` and next step, `claims` what a user's next sign-in
//! must satisfy, and `claims_challenge` how a resource asks for that. `public_client` has the grants of the person of a laptop, `confidential_client` those of the people that this server signs in, and `id_token` their account. `probe` tries the exchange again and again. `token` decides which tokens of callers are accepted.

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
