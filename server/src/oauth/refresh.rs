//! Refreshes of a session: its next tokens, after a request to Entra.
//!
//! A refresh token is valid once. For half a minute, its successor is given out again to a client whose answer was
//! lost. A later reuse ends the session. Each refresh also refreshes at Entra, so that a sign-in that Entra revoked
//! ends here, too.

use secrecy::ExposeSecret;

use super::AuthorizationServer;
use super::answer::ClientError;
use super::grants::user;
use super::session::{Person, Presented, Session};
use super::sessions::{Read, RefreshToken};
use crate::audit::{Outcome, Trail};
use crate::entra::{ClaimsChallenge, EntraTokens, Remedy, SignIn, SignInError, StsError};
use crate::token::Remedy as TokenRemedy;

/// Seconds of a day.
const DAY: i64 = 24 * 3600;

/// Entra's answer about a session.
enum Renewed {
    /// New tokens, and the person according to them.
    Tokens(EntraTokens, Box<Person>),
    /// The sign-in is no longer valid. The next one must satisfy these claims, if any.
    Over(Option<ClaimsChallenge>),
    /// The result is unknown and nothing was used up. The client may retry.
    Later,
}

impl AuthorizationServer {
    /// Returns the session of this refresh token with its next tokens, and its id.
    pub(super) async fn refresh(
        &self,
        trail: &Trail,
        client_id: &str,
        token: &str,
    ) -> Result<(String, Session), ClientError> {
        let ended = || ClientError::grant("the session has ended; sign in again", "session_ended");
        let Some(RefreshToken { id, generation }) = self.sessions.open_refresh_token(token) else {
            return Err(ended());
        };
        let _turn = self.limits.turn(&id).await;
        let mut was_current = false;
        // The second round is for the case that another replica was first.
        for _ in 0..2 {
            let Some(read) = self.sessions.read(&id).await? else { return Err(ended()) };
            self.check_client(trail, client_id, &id, &read.session).await?;
            match read.session.standing(generation, super::now()) {
                // Other replicas may have refreshed more than once meanwhile.
                _ if was_current => return Ok((id, read.session)),
                Presented::Current => {
                    was_current = true;
                    if let Some(session) = self.refresh_at_entra(&id, &read).await? {
                        trail.decided(Outcome::Done("session_refreshed"));
                        return Ok((id, session));
                    }
                }
                Presented::JustUsed => {
                    trail.decided(Outcome::Done("session_refreshed_again"));
                    return Ok((id, read.session));
                }
                Presented::Reused => {
                    self.sessions.end(&id).await?;
                    let text = "the refresh token was used before, so the session was ended; sign in again";
                    return Err(ClientError::grant(text, "refresh_token_reused"));
                }
            }
        }
        let text = "the session is being changed by another request; try again";
        Err(ClientError::later(text, "session_store_unavailable"))
    }

    /// Refuses a wrong client, a client that is no longer allowed, and one that needs more scopes than a refresh
    /// brings.
    async fn check_client(
        &self,
        trail: &Trail,
        client_id: &str,
        id: &str,
        session: &Session,
    ) -> Result<(), ClientError> {
        let Session { client, person, .. } = session;
        trail.concerns(&person.tenant_id, &person.object_id, &client.reference);
        if client.id != client_id {
            let text = "the refresh token belongs to another client; sign in";
            return Err(ClientError::grant(text, "token_of_another_client"));
        }
        if !self.clients.admit(&client.id, &client.kind) {
            self.sessions.end(id).await?;
            return Err(ClientError::client());
        }
        if self.sessions.take_step_up(id).await? {
            self.sessions.end(id).await?;
            let text = "the request needs more scopes than this session has; sign in again with these scopes";
            return Err(ClientError::grant(text, "insufficient_scope"));
        }
        Ok(())
    }

    /// Refreshes the session at Entra. Returns none if another replica was first.
    async fn refresh_at_entra(&self, id: &str, read: &Read) -> Result<Option<Session>, ClientError> {
        let session = &read.session;
        let too_often = "this session is refreshed too often; use the access token until it expires";
        self.limits.refresh(id).map_err(|_| ClientError::too_many(too_often))?;
        let (tokens, person) = match self.renew(session).await {
            Renewed::Tokens(tokens, person) => (tokens, *person),
            Renewed::Later => {
                return Err(ClientError::later("Entra does not answer; try again in a minute", "entra_unavailable"));
            }
            Renewed::Over(claims) => {
                if let Some(claims) = claims {
                    let Person { tenant_id, object_id, .. } = &session.person;
                    self.sessions.keep_claims(tenant_id, object_id, &session.client.reference, &claims).await?;
                }
                self.sessions.end(id).await?;
                return Err(ClientError::grant("Entra has ended this sign-in; sign in again", "sign_in_needed"));
            }
        };
        let now = super::now();
        let replaced = self.sessions.replace(id, read, session.refreshed(person, &tokens, now)).await?;
        // The list is renewed once a day and with each new key, so that it lives as long as the session.
        let key = |time| self.ring.sealing(time).number();
        let is_due = session.refreshed / DAY != now / DAY || key(session.refreshed) != key(now);
        if let Some(refreshed) = replaced.as_ref().filter(|_| is_due) {
            self.sessions.list(id, refreshed).await;
        }
        Ok(replaced)
    }

    /// Asks Entra about this session.
    async fn renew(&self, session: &Session) -> Renewed {
        let Some(refresh_token) = session.entra_refresh_token() else { return Renewed::Over(None) };
        let tokens = match self.entra.refresh(&refresh_token, session.asked.claims().as_ref()).await {
            Ok(tokens) => tokens,
            Err(SignInError::Entra(error)) => return refused(&error),
            Err(SignInError::IdToken(error)) => {
                tracing::warn!(%error, "cannot refresh a session");
                return Renewed::Over(None);
            }
        };
        let principal = match self.entra_tokens.validate(tokens.access_token.expose_secret()).await {
            Ok(principal) => principal,
            Err(error) => {
                tracing::warn!(reason = error.reason(), "refusing Entra's new token of a session: {error}");
                let is_passing = error.remedy() == TokenRemedy::Patience;
                return if is_passing { Renewed::Later } else { Renewed::Over(None) };
            }
        };
        match user(&principal).filter(|user| session.person.is(user)) {
            Some(user) => Renewed::Tokens(tokens, Box::new(Person::of(user, session.person.username.clone()))),
            None => Renewed::Over(None),
        }
    }
}

fn refused(error: &StsError) -> Renewed {
    tracing::info!(%error, correlation_id = error.correlation_id(), "cannot refresh a session");
    match error.remedy() {
        Remedy::AskAgain | Remedy::Credential | Remedy::Configuration => Renewed::Later,
        Remedy::SignIn(SignIn::Satisfying(claims)) => Renewed::Over(Some(claims)),
        Remedy::SignIn(_) | Remedy::Consent | Remedy::Unblock => Renewed::Over(None),
    }
}
