//! The session of the person who runs this program: their tokens, renewed in silence as long as Entra allows that.
//!
//! First the token in memory, then what another process of theirs has kept meanwhile, then a refresh. Only Entra's own word
//! that a person must act leads to a sign-in: neither a network that is down nor a busy Entra does. The account is pinned:
//! once known, no other one takes its place while the program runs.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Mutex;

use super::store::{KeptAccess, KeptTokens, LockPurpose, StoreError, TokenStore};
use crate::entra::{ClaimsChallenge, GraphToken, PublicClient, PublicClientError, SignIn, SignedIn, StsError};
use crate::graph::OwnTokens;
use crate::token::Account;

/// Time before its end from which a token is no longer handed out.
const MARGIN: Duration = Duration::from_secs(300);
/// Time to wait for another process of the same person, which refreshes.
const PATIENCE: Duration = Duration::from_secs(30);

/// The session of one person.
pub(super) struct Session {
    client: Arc<PublicClient>,
    store: TokenStore,
    account: Arc<OnceLock<Account>>,
    held: Mutex<Held>,
}

/// The tokens in memory.
#[derive(Default)]
struct Held {
    tokens: Option<Tokens>,
    /// True once it was told that tokens cannot be kept.
    is_told: bool,
}

struct Tokens {
    refresh_token: SecretString,
    token: Arc<GraphToken>,
    usable_until: Timestamp,
}

/// A reason for which a sign-in that worked is not taken over.
#[derive(Debug, thiserror::Error)]
pub(super) enum TakeOverError {
    /// Somebody else signed in.
    #[error(
        "{now} signed in, and this program goes on as {before}; sign in as {before}, or end that sign-in with --sign-out first"
    )]
    OtherAccount {
        /// The account of the session.
        before: String,
        /// The account that signed in.
        now: String,
    },
    /// Entra issued no refresh token.
    #[error("Entra issued no refresh token; an administrator consents to offline_access for this app registration")]
    NoRefreshToken,
}

impl Session {
    /// The session of this client, with tokens from this store. Neither is asked yet.
    pub(super) fn new(client: Arc<PublicClient>, store: TokenStore) -> Self {
        Self { client, store, account: Arc::default(), held: Mutex::default() }
    }

    /// The account, once it is known.
    pub(super) fn account(&self) -> &Arc<OnceLock<Account>> {
        &self.account
    }

    /// The client through which the person signs in.
    pub(super) fn client(&self) -> &Arc<PublicClient> {
        &self.client
    }

    /// The store.
    pub(super) fn store(&self) -> &TokenStore {
        &self.store
    }

    /// Takes over a sign-in. `replaces`: also in place of a file that cannot be opened.
    ///
    /// # Errors
    /// If another account signed in than that of the session.
    pub(super) async fn take_over(
        &self,
        signed_in: SignedIn,
        account: &Account,
        replaces: bool,
    ) -> Result<(), TakeOverError> {
        let mut held = self.held.lock().await;
        let _lock = self.store.lock(LockPurpose::Tokens, PATIENCE).await;
        // What is kept names the account, even if its tokens are worth nothing any more.
        if let Ok(Some(kept)) = self.store.read().await {
            self.account.get_or_init(|| kept.account);
        }
        let pinned = self.account.get_or_init(|| account.clone());
        if !pinned.is_of(account) {
            let (before, now) = (pinned.username.clone(), account.username.clone());
            return Err(TakeOverError::OtherAccount { before, now });
        }
        let refresh_token = signed_in.refresh_token.ok_or(TakeOverError::NoRefreshToken)?;
        held.replace(Tokens::new(refresh_token, signed_in.token, signed_in.life));
        self.keep(&mut held, replaces).await;
        Ok(())
    }

    /// True if another process has kept tokens since then that this one does not have: its person has signed in there.
    pub(super) async fn has_news(&self) -> bool {
        let mut held = self.held.lock().await;
        let Ok(Some(kept)) = self.store.read().await else { return false };
        let is_new = held.tokens.as_ref().is_none_or(|tokens| !tokens.are(&kept));
        is_new && self.adopt(&mut held, kept).is_ok()
    }

    /// Forgets the session, here and in the store. Says whether there was anything in the store.
    ///
    /// # Errors
    /// If the store keeps it.
    pub(super) async fn end(&self) -> Result<bool, StoreError> {
        self.held.lock().await.tokens = None;
        let _lock = self.store.lock(LockPurpose::Tokens, PATIENCE).await?;
        self.store.delete().await
    }

    /// The account and a usable token, without a sign-in. None if nobody is signed in.
    ///
    /// # Errors
    /// If the tokens that are kept are of no use.
    pub(super) async fn resume(&self) -> Result<Option<Account>, StsError> {
        match self.token().await {
            Ok(_) => Ok(self.account.get().cloned()),
            Err(StsError::SignInNeeded { refusal: None, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Says whether the token in memory carries these permissions.
    ///
    /// # Errors
    /// In words, with those that it lacks.
    pub(super) async fn scopes(&self, asked: &BTreeSet<String>) -> Result<String, String> {
        let held = self.held.lock().await;
        let granted = held.tokens.as_ref().map(|tokens| &tokens.token.granted);
        let is_granted = |scope: &&String| granted.is_some_and(|all| all.contains(&scope.to_ascii_lowercase()));
        let (granted, missing): (Vec<&String>, Vec<&String>) = asked.iter().partition(is_granted);
        let list = |scopes: Vec<&String>| Vec::from_iter(scopes.into_iter().map(String::as_str)).join(", ");
        match missing.is_empty() {
            true => Ok(format!("{} granted", list(granted))),
            false => Err(format!(
                "{} not granted: run --sign-out and --sign-in to consent, or ask an administrator for consent",
                list(missing)
            )),
        }
    }

    /// Tokens that satisfy this challenge: those that another process has kept meanwhile, or new ones.
    async fn renew(&self, held: &mut Held, challenge: Option<&ClaimsChallenge>) -> Result<Arc<GraphToken>, StsError> {
        let lock = self.store.lock(LockPurpose::Tokens, PATIENCE).await;
        if let Err(error) = &lock {
            self.tell(held, error);
        }
        match self.store.read().await {
            Ok(Some(kept)) => {
                let is_new = held.tokens.as_ref().is_none_or(|tokens| !tokens.are(&kept));
                if is_new {
                    self.adopt(held, kept)?;
                    if let Some(token) = held.usable().filter(|_| challenge.is_none()) {
                        return Ok(token);
                    }
                }
            }
            Ok(None) => {}
            Err(error) => self.tell(held, &error),
        }
        let Some(tokens) = &held.tokens else {
            return Err(StsError::SignInNeeded { sign_in: sign_in_for(challenge), refusal: None });
        };
        let signed_in = self.client.refresh(&tokens.refresh_token, challenge).await;
        let signed_in = signed_in.map_err(|error| sign_in_needed(error, challenge))?;
        if signed_in.account.as_ref().is_some_and(|account| self.account.get().is_some_and(|it| !it.is_of(account))) {
            return Err(StsError::OtherAccount);
        }
        let refresh_token = signed_in.refresh_token.unwrap_or_else(|| tokens.refresh_token.clone());
        let token = held.replace(Tokens::new(refresh_token, signed_in.token, signed_in.life));
        self.keep(held, false).await;
        Ok(token)
    }

    /// Takes kept tokens into memory.
    fn adopt(&self, held: &mut Held, kept: KeptTokens) -> Result<(), StsError> {
        let KeptTokens { account, refresh_token, access } = kept;
        if !self.account.get_or_init(|| account.clone()).is_of(&account) {
            return Err(StsError::OtherAccount);
        }
        let access = access.unwrap_or_else(|| KeptAccess {
            token: SecretString::default(),
            granted: Default::default(),
            usable_until: Timestamp::UNIX_EPOCH,
        });
        let token = GraphToken { access_token: access.token, granted: access.granted };
        held.replace(Tokens { refresh_token, token: Arc::new(token), usable_until: access.usable_until });
        Ok(())
    }

    /// Keeps what is in memory. If that fails, the session goes on in memory.
    async fn keep(&self, held: &mut Held, replaces: bool) {
        let (Some(tokens), Some(account)) = (&held.tokens, self.account.get()) else { return };
        let kept = KeptTokens {
            account: account.clone(),
            refresh_token: tokens.refresh_token.clone(),
            access: Some(KeptAccess {
                token: tokens.token.access_token.clone(),
                granted: tokens.token.granted.clone(),
                usable_until: tokens.usable_until,
            }),
        };
        let result = match replaces {
            true => self.store.replace(&kept).await,
            false => self.store.write(&kept).await,
        };
        if let Err(error) = result {
            self.tell(held, &error);
        }
    }

    /// Tells once that tokens are in memory alone.
    fn tell(&self, held: &mut Held, error: &StoreError) {
        if !std::mem::replace(&mut held.is_told, true) {
            tracing::warn!(%error, "the sign-in is kept in memory alone and ends with this program");
        }
    }
}

#[async_trait]
impl OwnTokens for Session {
    async fn token(&self) -> Result<Arc<GraphToken>, StsError> {
        let mut held = self.held.lock().await;
        match held.usable() {
            Some(token) => Ok(token),
            None => self.renew(&mut held, None).await,
        }
    }

    async fn instead_of(
        &self,
        rejected: &Arc<GraphToken>,
        challenge: Option<&ClaimsChallenge>,
    ) -> Result<Arc<GraphToken>, StsError> {
        let mut held = self.held.lock().await;
        if let Some(token) = held.usable().filter(|token| !Arc::ptr_eq(token, rejected)) {
            return Ok(token);
        }
        held.spoil();
        self.renew(&mut held, challenge).await
    }
}

impl Held {
    fn usable(&self) -> Option<Arc<GraphToken>> {
        let tokens = self.tokens.as_ref()?;
        (Timestamp::now() < tokens.usable_until).then(|| Arc::clone(&tokens.token))
    }

    fn replace(&mut self, tokens: Tokens) -> Arc<GraphToken> {
        let token = Arc::clone(&tokens.token);
        self.tokens = Some(tokens);
        token
    }

    /// Hands the token out no more.
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
        let usable_until = Timestamp::now().checked_add(usable).unwrap_or(Timestamp::MAX);
        Self { refresh_token, token: Arc::new(token), usable_until }
    }

    /// True if these tokens are the ones that are kept.
    fn are(&self, kept: &KeptTokens) -> bool {
        let access = kept.access.as_ref().map(|access| access.token.expose_secret());
        self.refresh_token.expose_secret() == kept.refresh_token.expose_secret()
            && access == Some(self.token.access_token.expose_secret())
    }
}

fn sign_in_for(challenge: Option<&ClaimsChallenge>) -> SignIn {
    challenge.map_or(SignIn::Anew, |challenge| SignIn::Satisfying(challenge.clone()))
}

/// Entra's refusal of a refresh. If it says that a person must act, they sign in, whatever the code: Entra's page then
/// tells them what is wrong.
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
