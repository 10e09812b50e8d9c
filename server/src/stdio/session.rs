//! The session of the person who runs this program: their tokens, renewed without interaction as long as Entra allows
//! it.
//!
//! A token comes from memory, then from the store (another process may have renewed it), then from a refresh. A
//! sign-in is necessary only if Entra says so, not if the network is down or Entra is busy. The account is fixed:
//! once known, it does not change while the program runs.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use mcp_entra_policy::CompactSet;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Mutex;

use super::store::{KeptAccess, KeptTokens, Lock, LockPurpose, StoreError, StoreKind, TokenStore};
use crate::entra::{ClaimsChallenge, GraphToken, PublicClient, PublicClientError, SignIn, SignedIn, StsError};
use crate::graph::OwnTokens;
use crate::token::Account;

/// Time before the end of a token from which it is not used.
const MARGIN: Duration = Duration::from_secs(300);
/// The error if a task of the session panics.
const DEFECT: &str = "the session ended in a panic; report this defect to the developers of this program";
/// Longest wait for a refresh by another process of the same person.
const PATIENCE: Duration = Duration::from_secs(30);

/// The session of one person.
#[derive(Clone)]
pub(super) struct Session(Arc<Inner>);

struct Inner {
    client: PublicClient,
    store: TokenStore,
    /// The requested delegated permissions, by name.
    scopes: BTreeSet<String>,
    account: Arc<OnceLock<Account>>,
    held: Mutex<Held>,
}

/// The tokens in memory.
#[derive(Default)]
struct Held {
    tokens: Option<Tokens>,
    /// True if these tokens were in the store. If they are no longer there, the person has signed out.
    is_kept: bool,
    /// True after a request for all permissions. Entra refuses those that its answer omits.
    is_asked_for_all: bool,
    /// True after the warning that tokens cannot be stored.
    is_told: bool,
}

struct Tokens {
    refresh_token: SecretString,
    token: Arc<GraphToken>,
    issued_at: Timestamp,
    usable_until: Timestamp,
}

/// The reason why a successful sign-in is not used.
#[derive(Debug, thiserror::Error)]
pub(super) enum TakeOverError {
    /// Another account signed in.
    #[error(
        "{now} signed in, but this program uses the account {before}; sign in as {before}, or run --sign-out first"
    )]
    OtherAccount {
        /// The account of the session.
        before: String,
        /// The account that signed in.
        now: String,
    },
    /// Entra issued no refresh token.
    #[error(
        "Entra issued no refresh token; ask an administrator to consent to offline_access for this app registration"
    )]
    NoRefreshToken,
    /// The person requested storage, but the store failed.
    #[error("cannot store the tokens of the sign-in: {0}")]
    NotKept(StoreError),
}

impl Session {
    /// Returns the session of this client with these permissions and this store. Nothing is requested yet.
    pub(super) fn new(client: PublicClient, scopes: BTreeSet<String>, store: TokenStore) -> Self {
        Self(Arc::new(Inner { client, store, scopes, account: Arc::default(), held: Mutex::default() }))
    }

    /// Returns the account, once it is known.
    pub(super) fn account(&self) -> &Arc<OnceLock<Account>> {
        &self.0.account
    }

    /// Returns the client for sign-ins.
    pub(super) fn client(&self) -> &PublicClient {
        &self.0.client
    }

    /// Returns the store.
    pub(super) fn store(&self) -> &TokenStore {
        &self.0.store
    }

    /// Uses the tokens of a sign-in. With `replaces`, they must be stored, even in place of a file that cannot be
    /// opened.
    ///
    /// # Errors
    /// If another account signed in than the session's, or the tokens must be stored but cannot.
    pub(super) async fn take_over(
        &self,
        signed_in: SignedIn,
        account: &Account,
        replaces: bool,
    ) -> Result<(), TakeOverError> {
        let inner = &self.0;
        let refresh_token = signed_in.refresh_token.ok_or(TakeOverError::NoRefreshToken)?;
        let mut held = inner.held.lock().await;
        let _lock = inner.lock().await;
        // The stored tokens name the account, even if they are no longer valid.
        if let Ok(Some(kept)) = inner.store.read().await {
            inner.account.get_or_init(|| kept.account);
        }
        let pinned = inner.account.get_or_init(|| account.clone());
        if !pinned.is_of(account) {
            let (before, now) = (pinned.username.clone(), account.username.clone());
            return Err(TakeOverError::OtherAccount { before, now });
        }
        held.issued(Tokens::new(refresh_token, signed_in.token, signed_in.life));
        match inner.keep(&mut held, replaces).await {
            Ok(()) => Ok(()),
            Err(error) if replaces => Err(TakeOverError::NotKept(error)),
            Err(error) => {
                inner.tell(&mut held, &error);
                Ok(())
            }
        }
    }

    /// True if another process stored newer tokens, after a sign-in there. They then replace those in memory.
    pub(super) async fn has_subscriptions(&self) -> bool {
        let mut held = self.0.held.lock().await;
        let Ok(Some(kept)) = self.0.store.read().await else { return false };
        let is_news = held.is_older_than(&kept) && self.0.pin(&kept.account).is_ok();
        if is_news {
            held.adopt(&kept);
        }
        is_news
    }

    /// Ends the session, in memory and in the store. Returns true if the store had tokens.
    ///
    /// # Errors
    /// If the store fails, or another process uses it for longer than `patience`.
    pub(super) async fn end(&self, patience: Duration) -> Result<bool, StoreError> {
        self.0.held.lock().await.tokens = None;
        let _lock = self.0.store.lock(LockPurpose::Tokens, patience).await?.ok_or(StoreError::Busy)?;
        self.0.store.delete().await
    }

    /// Renews the tokens without a sign-in and returns the account. Returns none if nobody is signed in.
    ///
    /// # Errors
    /// If the stored tokens are not usable.
    pub(super) async fn prove(&self) -> Result<Option<Account>, StsError> {
        let renewed = self.uncancelled(|inner| async move {
            let mut held = inner.held.lock().await;
            inner.renew(&mut held, Renewal::Forced).await
        });
        match renewed.await {
            Ok(_) => Ok(self.0.account.get().cloned()),
            Err(StsError::SignInNeeded { refusal: None, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns the granted permissions of the token in memory.
    ///
    /// # Errors
    /// A text with the missing permissions.
    pub(super) async fn granted(&self) -> Result<String, String> {
        let held = self.0.held.lock().await;
        let granted = held.tokens.as_ref().map(|tokens| &tokens.token.granted);
        let is_granted = |scope: &&String| granted.is_some_and(|all| all.contains(&*scope.to_ascii_lowercase()));
        let (granted, missing): (Vec<&String>, Vec<&String>) = self.0.scopes.iter().partition(is_granted);
        let list = |scopes: Vec<&String>| Vec::from_iter(scopes.into_iter().map(String::as_str)).join(", ");
        match missing.is_empty() {
            true => Ok(format!("{} granted", list(granted))),
            false => Err(format!(
                "{} not granted: ask an administrator to add them to the app registration's API permissions and to consent",
                list(missing)
            )),
        }
    }

    /// Runs a future to its end even if its caller is cancelled, so that no refresh is lost.
    async fn uncancelled<F, T>(&self, work: impl FnOnce(Arc<Inner>) -> F) -> Result<T, StsError>
    where
        F: Future<Output = Result<T, StsError>> + Send + 'static,
        T: Send + 'static,
    {
        let working = tokio::spawn(work(Arc::clone(&self.0)));
        working.await.unwrap_or_else(|_| Err(StsError::NotUsable(DEFECT.to_owned())))
    }
}

/// The reason for a renewal.
#[derive(Clone)]
enum Renewal {
    /// There is no usable token.
    Needed,
    /// Graph rejected the token. The new one must satisfy the challenge, if any.
    Rejected(Option<ClaimsChallenge>),
    /// A test.
    Forced,
}

impl Inner {
    async fn token(&self) -> Result<Arc<GraphToken>, StsError> {
        let mut held = self.held.lock().await;
        match held.usable(&self.scopes) {
            Some(token) => Ok(token),
            None => self.renew(&mut held, Renewal::Needed).await,
        }
    }

    async fn instead_of(
        &self,
        rejected: &Arc<GraphToken>,
        challenge: Option<ClaimsChallenge>,
    ) -> Result<Arc<GraphToken>, StsError> {
        let mut held = self.held.lock().await;
        if let Some(token) = held.usable(&self.scopes).filter(|token| !Arc::ptr_eq(token, rejected)) {
            return Ok(token);
        }
        held.spoil();
        self.renew(&mut held, Renewal::Rejected(challenge)).await
    }

    /// Renews the tokens, or returns those that another process stored meanwhile.
    async fn renew(&self, held: &mut Held, renewal: Renewal) -> Result<Arc<GraphToken>, StsError> {
        let _lock = self.lock().await;
        let kept = self.store.read().await;
        match &kept {
            Ok(Some(kept)) => {
                self.pin(&kept.account)?;
                if held.is_older_than(kept) {
                    held.adopt(kept);
                    let is_enough = matches!(renewal, Renewal::Needed | Renewal::Rejected(None));
                    if let Some(token) = held.usable(&self.scopes).filter(|_| is_enough) {
                        return Ok(token);
                    }
                }
            }
            // The person has signed out in a terminal.
            Ok(None) if held.is_kept => *held = Held::default(),
            Ok(None) => {}
            Err(error) => self.tell(held, error),
        }
        let challenge = match &renewal {
            Renewal::Rejected(challenge) => challenge.as_ref(),
            Renewal::Needed | Renewal::Forced => None,
        };
        match (self.refresh(held, challenge).await, kept) {
            // The stored tokens may be newer even if their time is older: the clock may have been set back.
            (Err(error), Ok(Some(kept))) if is_refused(&error) && !held.has(&kept) => {
                held.adopt(&kept);
                self.refresh(held, challenge).await
            }
            (refreshed, _) => refreshed,
        }
    }

    async fn refresh(&self, held: &mut Held, challenge: Option<&ClaimsChallenge>) -> Result<Arc<GraphToken>, StsError> {
        let Some(tokens) = &held.tokens else {
            return Err(StsError::SignInNeeded { sign_in: sign_in_for(challenge), refusal: None });
        };
        let signed_in = self.client.refresh(&tokens.refresh_token, challenge).await;
        let signed_in = signed_in.map_err(|error| sign_in_needed(error, challenge))?;
        if let Some(account) = &signed_in.account {
            self.pin(account)?;
        }
        let refresh_token = signed_in.refresh_token.unwrap_or_else(|| tokens.refresh_token.clone());
        let token = held.issued(Tokens::new(refresh_token, signed_in.token, signed_in.life));
        tracing::info!("tokens refreshed");
        if let Err(error) = self.keep(held, false).await {
            self.tell(held, &error);
        }
        Ok(token)
    }

    /// Refuses another account than the session's.
    fn pin(&self, account: &Account) -> Result<(), StsError> {
        let pinned = self.account.get_or_init(|| account.clone());
        if pinned.is_of(account) { Ok(()) } else { Err(StsError::OtherAccount) }
    }

    /// Takes the lock between the person's processes. If that fails, logs it and continues.
    async fn lock(&self) -> Option<Lock> {
        let lock = self.store.lock(LockPurpose::Tokens, PATIENCE).await;
        let lock = lock.and_then(|lock| lock.ok_or(StoreError::Busy));
        lock.inspect_err(
            |error| tracing::warn!(%error, "cannot lock the tokens: two processes may renew them at the same time"),
        )
        .ok()
    }

    /// Stores the tokens in memory.
    async fn keep(&self, held: &mut Held, replaces: bool) -> Result<(), StoreError> {
        let (Some(tokens), Some(account)) = (&held.tokens, self.account.get()) else { return Ok(()) };
        let kept = KeptTokens {
            account: account.clone(),
            issued_at: tokens.issued_at,
            refresh_token: tokens.refresh_token.clone(),
            access: Some(KeptAccess {
                token: tokens.token.access_token.clone(),
                granted: tokens.token.granted.iter().map(ToString::to_string).collect(),
                usable_until: tokens.usable_until,
            }),
        };
        match replaces {
            true => self.store.replace(&kept).await?,
            false => self.store.write(&kept).await?,
        }
        held.is_kept = self.store.kind() != StoreKind::Memory;
        Ok(())
    }

    /// Warns once that the tokens exist only in memory.
    fn tell(&self, held: &mut Held, error: &StoreError) {
        if !std::mem::replace(&mut held.is_told, true) {
            tracing::warn!(%error, "cannot store the sign-in: it is only in memory and ends with this program");
        }
    }
}

#[async_trait]
impl OwnTokens for Session {
    async fn token(&self) -> Result<Arc<GraphToken>, StsError> {
        self.uncancelled(|inner| async move { inner.token().await }).await
    }

    async fn instead_of(
        &self,
        rejected: &Arc<GraphToken>,
        challenge: Option<&ClaimsChallenge>,
    ) -> Result<Arc<GraphToken>, StsError> {
        let (rejected, challenge) = (Arc::clone(rejected), challenge.cloned());
        self.uncancelled(|inner| async move { inner.instead_of(&rejected, challenge).await }).await
    }
}

impl Held {
    /// Returns the token, if it is valid for a while and carries these permissions.
    fn usable(&self, scopes: &BTreeSet<String>) -> Option<Arc<GraphToken>> {
        let tokens = self.tokens.as_ref()?;
        let is_granted = |scope: &String| tokens.token.granted.contains(&*scope.to_ascii_lowercase());
        let is_enough = self.is_asked_for_all || scopes.iter().all(is_granted);
        (is_enough && Timestamp::now() < tokens.usable_until).then(|| Arc::clone(&tokens.token))
    }

    /// True if the stored tokens were issued later than those in memory, or memory has none.
    fn is_older_than(&self, kept: &KeptTokens) -> bool {
        self.tokens.as_ref().is_none_or(|tokens| tokens.issued_at < kept.issued_at)
    }

    /// True if memory and store have the same refresh token.
    fn has(&self, kept: &KeptTokens) -> bool {
        let held = self.tokens.as_ref().map(|tokens| tokens.refresh_token.expose_secret());
        held == Some(kept.refresh_token.expose_secret())
    }

    /// Loads stored tokens into memory.
    fn adopt(&mut self, kept: &KeptTokens) {
        let (token, granted, usable_until) = match &kept.access {
            Some(access) => (access.token.clone(), access.granted.iter().cloned().collect(), access.usable_until),
            None => (SecretString::default(), CompactSet::default(), Timestamp::UNIX_EPOCH),
        };
        self.tokens = Some(Tokens {
            refresh_token: kept.refresh_token.clone(),
            token: Arc::new(GraphToken { access_token: token, granted }),
            issued_at: kept.issued_at,
            usable_until,
        });
        self.is_kept = true;
    }

    /// Uses tokens that were just issued.
    fn issued(&mut self, tokens: Tokens) -> Arc<GraphToken> {
        let token = Arc::clone(&tokens.token);
        (self.tokens, self.is_asked_for_all) = (Some(tokens), true);
        token
    }

    /// Stops using the token.
    fn spoil(&mut self) {
        if let Some(tokens) = &mut self.tokens {
            tokens.usable_until = Timestamp::UNIX_EPOCH;
        }
    }
}

impl Tokens {
    fn new(refresh_token: SecretString, token: GraphToken, life: Duration) -> Self {
        let usable = life.saturating_sub(MARGIN.min(life / 4));
        let usable = SignedDuration::try_from(usable).unwrap_or(SignedDuration::MAX);
        let issued_at = Timestamp::now();
        let usable_until = issued_at.checked_add(usable).unwrap_or(Timestamp::MAX);
        Self { refresh_token, token: Arc::new(token), issued_at, usable_until }
    }
}

fn sign_in_for(challenge: Option<&ClaimsChallenge>) -> SignIn {
    challenge.map_or(SignIn::Anew, |challenge| SignIn::Satisfying(challenge.clone()))
}

/// True if Entra refuses the refresh token.
fn is_refused(error: &StsError) -> bool {
    let refusal = match error {
        StsError::SignInNeeded { refusal, .. } => refusal.as_ref(),
        _ => None,
    };
    refusal.is_some_and(|refusal| refusal.error == "invalid_grant")
}

/// Converts Entra's refusal of a refresh. If a person must act, the next step is a sign-in, whatever the code is:
/// Entra's page then explains the problem.
fn sign_in_needed(error: PublicClientError, challenge: Option<&ClaimsChallenge>) -> StsError {
    let error = match error {
        PublicClientError::Entra(error) => error,
        other => return StsError::NotUsable(other.to_string()),
    };
    let StsError::Refused(refusal) = error else { return error };
    if !matches!(&*refusal.error, "invalid_grant" | "interaction_required") {
        return StsError::Refused(refusal);
    }
    let sign_in = match &refusal.remedy {
        crate::entra::Remedy::AskAgain => return StsError::Refused(refusal),
        crate::entra::Remedy::SignIn(satisfying @ SignIn::Satisfying(_)) => satisfying.clone(),
        _ => sign_in_for(challenge),
    };
    StsError::SignInNeeded { sign_in, refusal: Some(refusal) }
}

#[cfg(test)]
mod tests;
