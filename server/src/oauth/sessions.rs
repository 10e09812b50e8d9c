//! Sessions in the store: begun, refreshed, read and ended, by every replica alike.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use jsonwebtoken::Algorithm;
use moka::future::Cache;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::keys::KeyRing;
use super::records::{Kept, RecordError, Records};
use super::seal::{Purpose, Sealer};
use super::session::Session;
use super::store::StoreError;
use crate::entra::ClaimsChallenge;
use crate::policy::PolicyStore;
use crate::token::{SessionClaims, SessionError, Sessions};

/// Time in which a session that nobody refreshes ends.
const IDLE: Duration = Duration::from_secs(14 * 24 * 3600);
/// Time for which an ended session is remembered, so that what is under way on another replica does not open it again.
const ENDED: Duration = Duration::from_secs(720);
/// Time in which a refresh is taken for the answer to a demand for more scopes.
const STEP_UP: Duration = Duration::from_secs(30);
/// Time for which claims wait for the person's next sign-in.
const CHALLENGE: Duration = Duration::from_secs(900);
/// Time for which an answer of the store about a session is relied on. Revocation takes no longer than this.
const RELIED_ON: Duration = Duration::from_millis(2_500);
/// Most sessions that such an answer is kept of.
const KEPT: u64 = 10_000;
/// Most sessions of one person. Those that began first end.
const LISTED: usize = 50;
/// Most attempts to add to a list that other replicas change, too.
const ATTEMPTS: usize = 8;

/// A session's record.
#[derive(Serialize, Deserialize)]
enum Record {
    Open(Box<Session>),
    Ended,
}

/// Content of a refresh token.
#[derive(Serialize, Deserialize)]
pub(super) struct RefreshToken {
    /// The session.
    pub(super) id: String,
    /// The refresh that brought it.
    pub(super) generation: u32,
}

/// Sessions in the store.
pub struct SessionKeeper {
    records: Records,
    sealer: Sealer,
    ring: Arc<KeyRing>,
    policy: Arc<PolicyStore>,
    /// By id: sessions that were open a moment ago.
    open: Cache<String, Arc<Session>>,
    /// By id: sessions that have ended, for as long as one of their tokens may be valid.
    ended: Cache<String, ()>,
}

/// An open session, and its record as it was read.
pub(super) struct Read {
    /// The session.
    pub(super) session: Session,
    kept: Kept<Record>,
}

impl SessionKeeper {
    /// The sessions in these records, whose tokens this ring signs.
    pub(super) fn new(records: Records, sealer: Sealer, ring: Arc<KeyRing>, policy: Arc<PolicyStore>) -> Self {
        let open = Cache::builder().max_capacity(KEPT).time_to_live(RELIED_ON).build();
        let ended = Cache::builder().max_capacity(KEPT).time_to_live(ENDED).build();
        Self { records, sealer, ring, policy, open, ended }
    }

    /// A new id of a session.
    pub(super) fn new_id() -> String {
        Uuid::new_v4().to_string()
    }

    /// Begins a session. Returns it with its refresh token, or none if it has ended before it began.
    ///
    /// # Errors
    /// If the store does not answer.
    pub(super) async fn begin(&self, id: &str, session: Session) -> Result<Option<Session>, RecordError> {
        let session = self.with_refresh_token(id, session)?;
        let record = Record::Open(Box::new(session.clone()));
        let is_new = self.records.put_new(Purpose::Session, id, &record, IDLE).await?;
        if is_new {
            self.list(id, &session).await;
        }
        Ok(is_new.then_some(session))
    }

    /// The session with this id, if it is open.
    ///
    /// # Errors
    /// If the store does not answer.
    pub(super) async fn read(&self, id: &str) -> Result<Option<Read>, RecordError> {
        let Some(kept) = self.records.get::<Record>(Purpose::Session, id).await? else { return Ok(None) };
        match &kept.value {
            Record::Ended => Ok(None),
            Record::Open(session) if self.is_recent_enough(session.began) => {
                Ok(Some(Read { session: Session::clone(session), kept }))
            }
            // For good, whatever the policy says later.
            Record::Open(_) => self.end(id).await.map(|()| None),
        }
    }

    /// Replaces a session by its refreshed state, unless another replica was first: then none.
    ///
    /// # Errors
    /// If the store does not answer.
    pub(super) async fn replace(
        &self,
        id: &str,
        read: &Read,
        session: Session,
    ) -> Result<Option<Session>, RecordError> {
        let session = self.with_refresh_token(id, session)?;
        let record = Record::Open(Box::new(session.clone()));
        let replaced = self.records.replace(&read.kept, &record, IDLE).await?;
        Ok(replaced.then_some(session))
    }

    /// Ends a session. It cannot be opened again.
    ///
    /// # Errors
    /// If the store does not answer.
    pub(super) async fn end(&self, id: &str) -> Result<(), RecordError> {
        self.ended.insert(id.to_owned(), ()).await;
        // One that begins at this moment may come between.
        for _ in 0..ATTEMPTS {
            let _: Option<Record> = self.records.take(Purpose::Session, id).await?;
            if self.records.put_new(Purpose::Session, id, &Record::Ended, ENDED).await? {
                return Ok(());
            }
        }
        Err(RecordError::Unavailable(StoreError::Unavailable("a session changes all the time".to_owned())))
    }

    /// Keeps the claims that the person's next sign-in through this client is to satisfy.
    ///
    /// # Errors
    /// If the store does not answer.
    pub(super) async fn keep_claims(
        &self,
        tenant_id: &str,
        object_id: &str,
        client: &str,
        claims: &ClaimsChallenge,
    ) -> Result<(), RecordError> {
        let id = challenged(tenant_id, object_id, client);
        let _: Option<String> = self.records.take(Purpose::Challenge, &id).await?;
        self.records.put_new(Purpose::Challenge, &id, &claims.as_json(), CHALLENGE).await?;
        Ok(())
    }

    /// True if the client of the session was asked a moment ago for more scopes. Some clients refresh then, which brings none.
    ///
    /// # Errors
    /// If the store does not answer.
    pub(super) async fn take_step_up(&self, id: &str) -> Result<bool, RecordError> {
        let asked: Option<()> = self.records.take(Purpose::Challenge, id).await?;
        Ok(asked.is_some())
    }

    /// Takes the claims that were kept for this sign-in.
    ///
    /// # Errors
    /// If the store does not answer.
    pub(super) async fn take_claims(
        &self,
        tenant_id: &str,
        object_id: &str,
        client: &str,
    ) -> Result<Option<ClaimsChallenge>, RecordError> {
        let id = challenged(tenant_id, object_id, client);
        let claims: Option<String> = self.records.take(Purpose::Challenge, &id).await?;
        Ok(claims.and_then(|claims| ClaimsChallenge::parse(&claims)))
    }

    /// The session and the refresh of this refresh token, if this server issued it.
    pub(super) fn open_refresh_token(&self, token: &str) -> Option<RefreshToken> {
        self.sealer.open_value(Purpose::RefreshToken, token)
    }

    /// The open sessions of this person, the newest first, with their ids.
    ///
    /// # Errors
    /// If the store does not answer.
    pub(super) async fn of_person(
        &self,
        tenant_id: &str,
        object_id: &str,
    ) -> Result<Vec<(String, Session)>, RecordError> {
        let owner = owner(tenant_id, object_id);
        let ids = self.records.get::<Vec<String>>(Purpose::Owner, &owner).await?.map(|kept| kept.value);
        let mut sessions = Vec::new();
        for id in ids.unwrap_or_default().into_iter().rev() {
            if let Some(read) = self.read(&id).await? {
                sessions.push((id, read.session));
            }
        }
        Ok(sessions)
    }

    fn with_refresh_token(&self, id: &str, session: Session) -> Result<Session, RecordError> {
        let token = RefreshToken { id: id.to_owned(), generation: session.generation };
        let sealed = self.sealer.seal_value(Purpose::RefreshToken, &token).map_err(|_| RecordError::Unwritable)?;
        Ok(session.with_refresh_token(sealed))
    }

    /// Puts a session into the list of its person's, and ends what the list has no room for. The session goes on whether or
    /// not this works.
    pub(super) async fn list(&self, id: &str, session: &Session) {
        let owner = owner(&session.person.tenant_id, &session.person.object_id);
        for _ in 0..ATTEMPTS {
            match self.try_to_list(&owner, id).await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(%error, "a session is missing in the list of its person's");
                    return;
                }
            }
        }
        tracing::warn!("a session is missing in the list of its person's: too many change it at the same moment");
    }

    async fn try_to_list(&self, owner: &str, id: &str) -> Result<bool, RecordError> {
        let Some(kept) = self.records.get::<Vec<String>>(Purpose::Owner, owner).await? else {
            let listed = self.records.put_new(Purpose::Owner, owner, &vec![id], IDLE).await?;
            if !listed {
                // One that nobody can read any longer, most likely.
                let _: Option<Vec<String>> = self.records.take(Purpose::Owner, owner).await?;
            }
            return Ok(listed);
        };
        let mut ids = Vec::new();
        for listed in kept.value.iter().filter(|listed| *listed != id) {
            if self.read(listed).await?.is_some() {
                ids.push(listed.clone());
            }
        }
        ids.push(id.to_owned());
        let surplus: Vec<String> = ids.drain(..ids.len().saturating_sub(LISTED)).collect();
        let listed = self.records.replace(&kept, &ids, IDLE).await?;
        for id in surplus.iter().filter(|_| listed) {
            self.end(id).await?;
        }
        Ok(listed)
    }

    /// False once the policy names a compromise that this replica's keys are of before.
    pub(super) fn keys_are_sound(&self) -> bool {
        self.ring.are_sound(self.policy.compromised_keys().as_deref())
    }

    /// False for what began before the time that the policy ends sessions by.
    pub(super) fn is_recent_enough(&self, began: i64) -> bool {
        self.policy.revoke_sessions_before().is_none_or(|instant| began >= instant)
    }
}

/// True if these claims are of this session. A key that others have come to know makes no token for another person.
fn is_of(session: &Session, claims: &SessionClaims) -> bool {
    let person = &session.person;
    (&*claims.tid, &*claims.oid, &*claims.client_id, claims.auth_time)
        == (&*person.tenant_id, &*person.object_id, &*session.client.reference, session.began)
}

fn challenged(tenant_id: &str, object_id: &str, client: &str) -> String {
    format!("{tenant_id}/{object_id}/{client}")
}

fn owner(tenant_id: &str, object_id: &str) -> String {
    format!("{tenant_id}/{object_id}")
}

#[async_trait]
impl Sessions for SessionKeeper {
    fn has_signed(&self, key_id: &str, message: &[u8], signature: &str) -> bool {
        let verifies = |key| jsonwebtoken::crypto::verify(signature, message, key, Algorithm::ES256).unwrap_or(false);
        self.ring.verifying(key_id).is_some_and(verifies)
    }

    /// Of a store that does not answer nothing is known: what was signed counts until its end.
    async fn is_open(&self, claims: &SessionClaims) -> bool {
        let id = claims.sid.as_str();
        if !self.keys_are_sound() || !self.is_recent_enough(claims.auth_time) || self.ended.contains_key(id) {
            return false;
        }
        if let Some(open) = self.open.get(id).await {
            return is_of(&open, claims);
        }
        let asked = Instant::now();
        match self.read(id).await {
            Ok(Some(read)) => {
                let open = Arc::new(read.session);
                let is_of = is_of(&open, claims);
                if asked.elapsed() < RELIED_ON {
                    self.open.insert(id.to_owned(), open).await;
                }
                is_of
            }
            Ok(None) => {
                self.ended.insert(id.to_owned(), ()).await;
                false
            }
            Err(error) => {
                tracing::warn!(%error, "not known if a session is open; its token counts until its end");
                true
            }
        }
    }

    async fn entra_token(&self, id: &str) -> Result<SecretString, SessionError> {
        match self.read(id).await {
            Ok(Some(read)) => Ok(read.session.entra_access_token()),
            Ok(None) => Err(SessionError::Ended),
            Err(error) => {
                tracing::warn!(%error, "Entra's token of a session cannot be read");
                Err(SessionError::Unavailable)
            }
        }
    }

    async fn expect_step_up(&self, id: &str) {
        if let Err(error) = self.records.put_new(Purpose::Challenge, id, &(), STEP_UP).await {
            tracing::warn!(%error, "a session does not know that its client is asked for more scopes");
        }
    }

    async fn end_until_sign_in(&self, id: &str, claims: Option<&str>) -> Result<(), SessionError> {
        let ended = async {
            if let Some(claims) = claims.and_then(ClaimsChallenge::parse)
                && let Some(read) = self.read(id).await?
            {
                let Session { person, client, .. } = &read.session;
                self.keep_claims(&person.tenant_id, &person.object_id, &client.reference, &claims).await?;
            }
            self.end(id).await
        };
        ended.await.map_err(|error: RecordError| {
            tracing::warn!(%error, "a session is not ended, although its person has to sign in again");
            SessionError::Unavailable
        })
    }
}

#[cfg(test)]
mod tests;
