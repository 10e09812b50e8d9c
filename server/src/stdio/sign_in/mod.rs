//! Sign-ins: at most one is open at a time, across all processes of the person. It stays open even if the call that
//! started it is cancelled.
//!
//! `browser` opens the page, `loopback` listens for its return, and `page` is the last page. `peer_user` detects
//! other users of the machine.

mod browser;
mod loopback;
mod page;
mod peer_user;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

pub(super) use self::browser::describe as browser;
use self::loopback::{Brought, Loopback, Ports, Return};
use self::page::Page;
use super::session::{Session, TakeOverError};
use super::store::{Lock, LockPurpose};
use crate::entra::{ClaimsChallenge, DeviceCode, PublicClientError, SignIn, SignedIn, StsError};
use crate::token::Account;

/// Time for which a sign-in stays open.
const LIFETIME: Duration = Duration::from_secs(600);

/// The sign-ins of one session.
pub(super) struct SignIns {
    session: Session,
    /// The person enters a code on another device.
    by_device_code: bool,
    /// The person signs in in a terminal. Then the tokens also replace a file that cannot be opened.
    is_in_terminal: bool,
    latest: Mutex<Option<OpenSignIn>>,
}

/// An open sign-in.
#[derive(Clone)]
pub(super) struct OpenSignIn {
    place: Place,
    /// Cancels it, so that another one can start.
    abandoned: CancellationToken,
    outcome: watch::Receiver<Option<Result<Account, Arc<SignInError>>>>,
}

/// The place of the sign-in.
#[derive(Clone)]
enum Place {
    /// A browser that returns to this machine.
    Browser(Arc<Loopback>),
    /// Any device.
    AnyDevice { address: String, code: String },
    /// A browser that another process of the same person opened.
    Elsewhere,
}

/// The reason why a sign-in fails.
#[derive(Debug, thiserror::Error)]
pub(super) enum SignInError {
    /// No local port is free.
    #[error("cannot listen on this machine's loopback address ({0}); call again")]
    NoPort(std::io::Error),
    /// Entra refused, or its answer is not usable.
    #[error(transparent)]
    Entra(#[from] PublicClientError),
    /// The tokens of the sign-in cannot be used.
    #[error(transparent)]
    TakeOver(#[from] TakeOverError),
    /// Nobody signed in in time.
    #[error("nobody signed in within ten minutes; call again")]
    TooLate,
    /// The sign-in was cancelled.
    #[error("the sign-in was cancelled; call again")]
    Abandoned,
    /// The other process ended, or its sign-in failed.
    #[error("the sign-in in another MCP client was not finished; call again")]
    NotFinishedElsewhere,
}

impl From<StsError> for SignInError {
    fn from(error: StsError) -> Self {
        Self::Entra(error.into())
    }
}

impl SignInError {
    /// Returns the error without account names, for logs.
    fn logged(&self) -> String {
        match self {
            Self::TakeOver(TakeOverError::OtherAccount { .. }) => "another account signed in".to_owned(),
            _ => self.to_string(),
        }
    }

    /// Returns the complete text, for the person only.
    pub(super) fn told(&self) -> String {
        let said = match self {
            Self::Entra(PublicClientError::Entra(error)) => error.their_words(),
            _ => None,
        };
        let error = self.to_string();
        let sentence = format!("{}.", error.trim_end_matches('.'));
        said.map_or_else(|| sentence.clone(), |said| format!("{sentence} Entra says: {said}"))
    }
}

impl SignIns {
    /// Returns the sign-ins of this session.
    pub(super) fn new(session: Session, by_device_code: bool, is_in_terminal: bool) -> Arc<Self> {
        Arc::new(Self { session, by_device_code, is_in_terminal, latest: Mutex::default() })
    }

    /// Returns the open sign-in, or starts one for this purpose. The flag is true for a new one.
    ///
    /// # Errors
    /// If none can start.
    pub(super) async fn open(self: &Arc<Self>, sign_in: &SignIn) -> Result<(OpenSignIn, bool), SignInError> {
        let (sign_ins, sign_in) = (Arc::clone(self), sign_in.clone());
        // In its own task, so that a cancelled call leaves the sign-in open.
        let opening = tokio::spawn(async move { sign_ins.latest_or_new(&sign_in).await });
        opening.await.unwrap_or(Err(SignInError::Abandoned))
    }

    /// Cancels the open sign-in, so that another one can start.
    pub(super) async fn abandon(&self) {
        if let Some(open) = self.latest.lock().await.take() {
            open.abandoned.cancel();
        }
    }

    async fn latest_or_new(&self, sign_in: &SignIn) -> Result<(OpenSignIn, bool), SignInError> {
        let mut latest = self.latest.lock().await;
        if let Some(open) = latest.as_ref().filter(|open| open.outcome.borrow().is_none()) {
            return Ok((open.clone(), false));
        }
        let challenge = match sign_in {
            SignIn::Anew | SignIn::Consenting(_) => None,
            SignIn::Satisfying(challenge) => Some(challenge.clone()),
        };
        let open = self.begin(challenge).await?;
        *latest = Some(open.clone());
        Ok((open, true))
    }

    async fn begin(&self, challenge: Option<ClaimsChallenge>) -> Result<OpenSignIn, SignInError> {
        let session = self.session.clone();
        // If tokens cannot be stored, other processes could not use them. Then each process signs in by itself.
        let lock = match session.store().lock(LockPurpose::SignIn, Duration::ZERO).await {
            // A person in a terminal is present, but perhaps not at the other process's page.
            Ok(None) if self.is_in_terminal => None,
            Ok(None) => return Ok(OpenSignIn::of(Place::Elsewhere, await_others(session))),
            Ok(Some(lock)) => Some(lock),
            Err(_) => None,
        };
        if challenge.is_none() && session.has_subscriptions().await {
            return Ok(OpenSignIn::of(Place::Elsewhere, async move { known(&session) }));
        }
        let new = New { session, challenge, replaces: self.is_in_terminal, _lock: lock };
        match self.by_device_code {
            true => {
                let code = new.session.client().device_code(new.challenge.as_ref()).await?;
                let (address, user_code) = (code.verification_uri.clone(), code.user_code.clone());
                let place = Place::AnyDevice { address, code: user_code };
                Ok(OpenSignIn::of(place, new.by_device_code(code)))
            }
            false => {
                let ports = Ports::take().await.map_err(SignInError::NoPort)?;
                let hint = new.session.account().get().map(|account| account.username.clone());
                let client = new.session.client();
                let request =
                    client.authorization_request(ports.redirect_uri(), hint.as_deref(), new.challenge.as_ref());
                let (loopback, returns) = ports.serve(request);
                let loopback = Arc::new(loopback);
                let place = Place::Browser(Arc::clone(&loopback));
                Ok(OpenSignIn::of(place, new.by_browser(loopback, returns)))
            }
        }
    }
}

/// A sign-in that is starting.
struct New {
    session: Session,
    challenge: Option<ClaimsChallenge>,
    replaces: bool,
    /// Held to the end of the sign-in, so that other processes start none.
    _lock: Option<Lock>,
}

impl New {
    /// Waits for the browser to return with a code or a refusal.
    async fn by_browser(
        self,
        loopback: Arc<Loopback>,
        returns: mpsc::Receiver<Return>,
    ) -> Result<Account, SignInError> {
        let result = self.by_return(&loopback, returns).await;
        loopback.close();
        result
    }

    async fn by_return(
        &self,
        loopback: &Loopback,
        mut returns: mpsc::Receiver<Return>,
    ) -> Result<Account, SignInError> {
        let Ok(returned) = timeout(LIFETIME, returns.recv()).await else { return Err(SignInError::TooLate) };
        let Return { brought, page } = returned.ok_or(SignInError::TooLate)?;
        let client = self.session.client();
        let signed_in = match brought {
            Brought::Code(code) => client.redeem(&code, loopback.request(), self.challenge.as_ref()).await,
            Brought::Refusal { error, description } => Err(client.refusal(&error, &description).into()),
        };
        let result = self.take_over(signed_in).await;
        let shown = match &result {
            Ok(account) => Page::signed_in(&account.username),
            Err(error) => Page::failed(&error.told()),
        };
        // The browser may already be closed.
        _ = page.send(shown);
        result
    }

    /// Polls Entra until the person has entered the code.
    async fn by_device_code(self, mut code: DeviceCode) -> Result<Account, SignInError> {
        while Instant::now() < code.expires {
            tokio::time::sleep(code.interval).await;
            if let Some(signed_in) = self.session.client().redeem_device_code(&mut code).await? {
                return self.take_over(Ok(signed_in)).await;
            }
        }
        Err(SignInError::TooLate)
    }

    async fn take_over(
        &self,
        signed_in: Result<(SignedIn, Account), PublicClientError>,
    ) -> Result<Account, SignInError> {
        let (signed_in, account) = signed_in?;
        self.session.take_over(signed_in, &account, self.replaces).await?;
        Ok(account)
    }
}

/// Waits for the sign-in of another process and uses its tokens.
async fn await_others(session: Session) -> Result<Account, SignInError> {
    let lock = session.store().lock(LockPurpose::SignIn, LIFETIME).await;
    match lock {
        Ok(Some(_)) if session.has_subscriptions().await => known(&session),
        Ok(_) | Err(_) => Err(SignInError::NotFinishedElsewhere),
    }
}

fn known(session: &Session) -> Result<Account, SignInError> {
    session.account().get().cloned().ok_or(SignInError::NotFinishedElsewhere)
}

impl OpenSignIn {
    /// Returns a sign-in at this place, which runs in the background.
    fn of(place: Place, signing_in: impl Future<Output = Result<Account, SignInError>> + Send + 'static) -> Self {
        let (tell, outcome) = watch::channel(None);
        let abandoned = CancellationToken::new();
        let until = abandoned.clone();
        tokio::spawn(async move {
            let result = until.run_until_cancelled(signing_in).await.unwrap_or(Err(SignInError::Abandoned));
            match &result {
                Ok(_) => tracing::info!("signed in"),
                Err(error) => tracing::warn!(error = error.logged(), "the sign-in failed"),
            }
            tell.send_replace(Some(result.map_err(Arc::new)));
        });
        Self { place, abandoned, outcome }
    }

    /// Opens the page in this machine's browser. If none opens, the sign-in is cancelled.
    ///
    /// # Errors
    /// If no browser opens.
    pub(super) async fn show(&self) -> std::io::Result<()> {
        let Place::Browser(loopback) = &self.place else { return Ok(()) };
        let shown = browser::open(loopback.start_address()).await;
        match &shown {
            Ok(()) => tracing::info!("opened the sign-in in the browser"),
            Err(_) => self.abandoned.cancel(),
        }
        shown
    }

    /// Opens the page in this machine's browser. If none opens, the sign-in stays open.
    pub(super) async fn show_if_possible(&self) {
        if let Place::Browser(loopback) = &self.place
            && let Err(error) = browser::open(loopback.start_address()).await
        {
            tracing::debug!(%error, "cannot open a browser");
        }
    }

    /// Waits for the sign-in and returns the account, or none after this time.
    pub(super) async fn wait(&self, patience: Duration) -> Option<Result<Account, Arc<SignInError>>> {
        let mut outcome = self.outcome.clone();
        match timeout(patience, outcome.wait_for(Option::is_some)).await {
            Ok(Ok(outcome)) => outcome.clone(),
            // The task panicked.
            Ok(Err(_)) => Some(Err(Arc::new(SignInError::NotFinishedElsewhere))),
            Err(_) => None,
        }
    }

    /// Waits a short time for the browser to receive its last page, so that the end of the program does not cut it
    /// off.
    pub(super) async fn ended(&self) {
        if let Place::Browser(loopback) = &self.place {
            loopback.ended().await;
        }
    }

    /// Returns a one-time address at which the person can start, if the browser returns to this process.
    pub(super) fn address(&self) -> Option<String> {
        match &self.place {
            Place::Browser(loopback) => Some(loopback.start_address()),
            Place::AnyDevice { .. } | Place::Elsewhere => None,
        }
    }

    /// True if the person needs an address and a code at once.
    pub(super) fn is_on_any_device(&self) -> bool {
        matches!(self.place, Place::AnyDevice { .. })
    }

    /// Returns the instruction for a person at a terminal.
    pub(super) fn instruction_in_terminal(&self) -> String {
        match &self.place {
            Place::Browser(loopback) => format!(
                "Sign in in your browser. If no page opens, open this address on this machine (valid once, for ten minutes):\n{}",
                loopback.start_address()
            ),
            Place::AnyDevice { address, code } => {
                format!("Sign in on any device: open {address} and enter the code {code}.")
            }
            Place::Elsewhere => "Sign in in the browser page that an MCP client opened.".to_owned(),
        }
    }

    /// Returns the instruction for the person: the place of the sign-in and the next step.
    pub(super) fn instruction(&self) -> String {
        match &self.place {
            Place::Browser(loopback) => format!(
                "The sign-in is open in your browser: finish it there and call again. If no page is open, open {} (valid once, for ten minutes).",
                loopback.start_address()
            ),
            Place::AnyDevice { address, code } => {
                format!("Sign in on any device: open {address}, enter the code {code}, and call again.")
            }
            Place::Elsewhere => {
                "Another MCP client opened the sign-in in your browser: finish it there and call again.".to_owned()
            }
        }
    }
}
