//! Sessions in the store. Every replica can start, refresh, read and end them.

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

/// Time without a refresh after which a session ends.
const IDLE: Duration = Duration::from_secs(14 * 24 * 3600);
/// Time for which an ended session is remembered, so that a running request on another replica cannot reopen it.
const ENDED: Duration = Duration::from_secs(720);
/// Time in which a refresh counts as the answer to a request for more scopes.
const STEP_UP: Duration = Duration::from_secs(30);
/// Time for which claims wait for the person's next sign-in.
const CHALLENGE: Duration = Duration::from_secs(900);
/// Time for which the state of a session is cached. A revocation takes effect within this time.
const RELIED_ON: Duration = Duration::from_millis(2_500);
/// Most sessions in the cache.
const KEPT: u64 = 10_000;
/// Most sessions of one person. The oldest ones end.
const LISTED: usize = 50;
/// Most attempts to change a list that other replicas also change.
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
    /// Number of the refresh that issued it.
    pub(super) generation: u32,
}

/// Sessions in the store.
pub struct SessionKeeper {
    records: Records,
    sealer: Sealer,
    ring: Arc<KeyRing>,
    policy: Arc<PolicyStore>,
    /// Recently open sessions, by id.
    open: Cache<String, Arc<Session>>,
    /// Ended sessions by id, for as long as one of their tokens may be valid.
    ended: Cache<String, ()>,
}

/// An open session with its stored record.
pub(super) struct Read {
    /// The session.
    pub(super) session: Session,
    kept: Kept<Record>,
}

impl SessionKeeper {
    /// Returns the sessions in these records, with tokens signed by this ring.
    pub(super) fn new(records: Records, sealer: Sealer, ring: Arc<KeyRing>, policy: Arc<PolicyStore>) -> Self {
        let open = Cache::builder().max_capacity(KEPT).time_to_live(RELIED_ON).build();
        let ended = Cache::builder().max_capacity(KEPT).time_to_live(ENDED).build();
        Self { records, sealer, ring, policy, open, ended }
    }

    /// Returns a new session id.
    pub(super) fn new_id() -> String {
        Uuid::new_v4().to_string()
    }

    /// Starts a session. Returns it with its refresh token, or none if it was already ended.
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

    /// Returns the session with this id, if it is open.
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
            // Ended permanently, even if the policy changes back.
            Record::Open(_) => self.end(id).await.map(|()| None),
        }
    }

    /// Replaces a session with its refreshed state. Returns none if another replica was first.
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
        // A concurrent start of the session may come between.
        for _ in 0..ATTEMPTS {
            let _: Option<Record> = self.records.take(Purpose::Session, id).await?;
            if self.records.put_new(Purpose::Session, id, &Record::Ended, ENDED).await? {
                return Ok(());
            }
        }
        Err(RecordError::Unavailable(StoreError::Unavailable("a session keeps changing".to_owned())))
    }

    /// Stores the claims that the person's next sign-in through this client must satisfy.
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

    /// True if the session's client was just asked for more scopes. Some clients then refresh, which brings none.
    ///
    /// # Errors
    /// If the store does not answer.
    pub(super) async fn take_step_up(&self, id: &str) -> Result<bool, RecordError> {
        let asked: Option<()> = self.records.take(Purpose::Challenge, id).await?;
        Ok(asked.is_some())
    }

    /// Removes and returns the stored claims for this sign-in.
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

    /// Returns session and generation of this refresh token, if this server issued it.
    pub(super) fn open_refresh_token(&self, token: &str) -> Option<RefreshToken> {
        self.sealer.open_value(Purpose::RefreshToken, token)
    }

    /// Returns the open sessions of this person with their ids, newest first.
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

    /// Adds a session to its person's list, and ends the oldest beyond the limit. A failure does not affect the
    /// session.
    pub(super) async fn list(&self, id: &str, session: &Session) {
        let owner = owner(&session.person.tenant_id, &session.person.object_id);
        for _ in 0..ATTEMPTS {
            match self.try_to_list(&owner, id).await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot add a session to the list of its person");
                    return;
                }
            }
        }
        tracing::warn!("cannot add a session to the list of its person: too many concurrent changes");
    }

    async fn try_to_list(&self, owner: &str, id: &str) -> Result<bool, RecordError> {
        let Some(kept) = self.records.get::<Vec<String>>(Purpose::Owner, owner).await? else {
            let listed = self.records.put_new(Purpose::Owner, owner, &vec![id], IDLE).await?;
            if !listed {
                // Probably a list whose key epoch is gone.
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

    /// False if the keys of this replica are older than a compromise in the policy.
    pub(super) fn keys_are_sound(&self) -> bool {
        self.ring.are_sound(self.policy.compromised_keys().as_deref())
    }

    /// False if the session began before the policy's time of revocation.
    pub(super) fn is_recent_enough(&self, began: i64) -> bool {
        self.policy.revoke_sessions_before().is_none_or(|instant| began >= instant)
    }
}

/// True if these claims belong to this session. So a leaked signing key makes no token for another person.
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

    /// A signed token stays valid until its end while the store does not answer.
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
                tracing::warn!(%error, "cannot look up a session; accepting its token until it expires");
                true
            }
        }
    }

    async fn entra_token(&self, id: &str) -> Result<SecretString, SessionError> {
        match self.read(id).await {
            Ok(Some(read)) => Ok(read.session.entra_access_token()),
            Ok(None) => Err(SessionError::Ended),
            Err(error) => {
                tracing::warn!(%error, "cannot read Entra's token of a session");
                Err(SessionError::Unavailable)
            }
        }
    }

    async fn expect_step_up(&self, id: &str) {
        if let Err(error) = self.records.put_new(Purpose::Challenge, id, &(), STEP_UP).await {
            tracing::warn!(%error, "cannot record that a session's client is asked for more scopes");
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
            tracing::warn!(%error, "cannot end a session whose person must sign in again");
            SessionError::Unavailable
        })
    }
}

#[cfg(test)]
mod tests;
