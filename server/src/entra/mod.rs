//! Microsoft Entra ID's token endpoint, with the projected service account token as the only credential.
//!
//! `federated_token` reads that credential, `sts` exchanges it (on behalf of a user, or as the application itself),
//! `error` keeps what Entra answers when it does not, `next_step` says what to do about it, `probe` tries the exchange
//! again and again. What tokens of callers must look like is not decided here but in `token`.

mod error;
mod federated_token;
mod next_step;
mod probe;
mod sts;

pub use error::{EntraRefusal, StsError};
pub use federated_token::{FederatedToken, FederatedTokenError, ProjectedToken};
pub use probe::Probe;
pub use sts::{GraphToken, Sts};
