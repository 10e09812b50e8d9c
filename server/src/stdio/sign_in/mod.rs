//! Sign-ins: at most one is open at a time, among all processes of the person. It goes on though the call that began it is
//! cancelled.
//!
//! `browser` opens the page, `loopback` listens for its way back, `page` is the end of it. `peer_user` tells other
//! users of the machine from the person.

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

/// Time for which a sign-in is open.
const LIFETIME: Duration = Duration::from_secs(600);

/// The sign-ins of one session.
pub(super) struct SignIns {
    session: Session,
    /// The person enters a code on another device.
    by_device_code: bool,
    /// The person asks for it in a terminal. Its tokens also take the place of a file that cannot be opened.
    is_in_terminal: bool,
    latest: Mutex<Option<OpenSignIn>>,
}

/// A sign-in that has begun.
#[derive(Clone)]
pub(super) struct OpenSignIn {
    place: Place,
    /// Ends it, so that another one can begin.
    abandoned: CancellationToken,
    outcome: watch::Receiver<Option<Result<Account, Arc<SignInError>>>>,
}

/// The place where the person signs in.
#[derive(Clone)]
enum Place {
    /// In a browser, which comes back to this machine.
    Browser(Arc<Loopback>),
    /// On any device.
    AnyDevice { address: String, code: String },
    /// In the browser of another process of the same person.
    Elsewhere,
}

/// A reason for which a sign-in does not come to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum SignInError {
    /// No port.
    #[error("cannot listen on this machine's loopback address ({0}); call again")]
    NoPort(std::io::Error),
    /// Entra refuses, or its answer is of no use.
    #[error(transparent)]
    Entra(#[from] PublicClientError),
    /// The sign-in is not taken over.
    #[error(transparent)]
    TakeOver(#[from] TakeOverError),
    /// Nobody came.
    #[error("nobody signed in within ten minutes; call again")]
    TooLate,
    /// Nobody can come.
    #[error("the sign-in was given up; call again")]
    Abandoned,
    /// The other process has ended, or its sign-in has failed.
    #[error("the sign-in that another MCP client had opened was not finished; call again")]
    NotFinishedElsewhere,
}

impl From<StsError> for SignInError {
    fn from(error: StsError) -> Self {
        Self::Entra(error.into())
    }
}

impl SignInError {
    /// The same without a name, for logs.
    fn logged(&self) -> String {
        match self {
            Self::TakeOver(TakeOverError::OtherAccount { .. }) => "another account signed in".to_owned(),
            _ => self.to_string(),
        }
    }

    /// All that can be said of it, for nobody but the person.
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
    /// The sign-ins of this session.
    pub(super) fn new(session: Session, by_device_code: bool, is_in_terminal: bool) -> Arc<Self> {
        Arc::new(Self { session, by_device_code, is_in_terminal, latest: Mutex::default() })
    }

    /// The sign-in that is open, or a new one for this purpose. Returns true with a new one.
    ///
    /// # Errors
    /// If none can begin.
    pub(super) async fn open(self: &Arc<Self>, sign_in: &SignIn) -> Result<(OpenSignIn, bool), SignInError> {
        let (sign_ins, sign_in) = (Arc::clone(self), sign_in.clone());
        // In a task of its own: a call that is cancelled now leaves the sign-in open.
        let opening = tokio::spawn(async move { sign_ins.latest_or_new(&sign_in).await });
        opening.await.unwrap_or(Err(SignInError::Abandoned))
    }

    /// Gives up the sign-in that is open, so that another one can begin.
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
        // Where tokens cannot be kept, nobody else could have them: each process signs in by itself.
        let lock = match session.store().lock(LockPurpose::SignIn, Duration::ZERO).await {
            // Whoever asks in a terminal is there, and the page of the other may not be.
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

/// A sign-in that begins.
struct New {
    session: Session,
    challenge: Option<ClaimsChallenge>,
    replaces: bool,
    /// Held to the end of it, so that other processes open none.
    _lock: Option<Lock>,
}

impl New {
    /// Waits for the browser to come back with a code or a refusal.
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
        // The browser may have gone.
        _ = page.send(shown);
        result
    }

    /// Asks Entra until the person has entered the code.
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

/// Waits for the sign-in of another process, and takes its tokens.
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
    /// A sign-in at this place, which goes on by itself.
    fn of(place: Place, signing_in: impl Future<Output = Result<Account, SignInError>> + Send + 'static) -> Self {
        let (tell, outcome) = watch::channel(None);
        let abandoned = CancellationToken::new();
        let until = abandoned.clone();
        tokio::spawn(async move {
            let result = until.run_until_cancelled(signing_in).await.unwrap_or(Err(SignInError::Abandoned));
            match &result {
                Ok(_) => tracing::info!("signed in"),
                Err(error) => tracing::warn!(error = error.logged(), "not signed in"),
            }
            tell.send_replace(Some(result.map_err(Arc::new)));
        });
        Self { place, abandoned, outcome }
    }

    /// Opens the page in the browser of this machine. Where none opens, the sign-in is given up.
    ///
    /// # Errors
    /// If no browser opens.
    pub(super) async fn show(&self) -> std::io::Result<()> {
        let Place::Browser(loopback) = &self.place else { return Ok(()) };
        let shown = browser::open(loopback.start_address()).await;
        match &shown {
            Ok(()) => tracing::info!("the browser was asked to open the sign-in"),
            Err(_) => self.abandoned.cancel(),
        }
        shown
    }

    /// Opens the page in the browser of this machine, and waits for the person in any case.
    pub(super) async fn show_if_possible(&self) {
        if let Place::Browser(loopback) = &self.place
            && let Err(error) = browser::open(loopback.start_address()).await
        {
            tracing::debug!(%error, "no browser opens");
        }
    }

    /// The account, once the person has signed in. None if that takes longer than this.
    pub(super) async fn wait(&self, patience: Duration) -> Option<Result<Account, Arc<SignInError>>> {
        let mut outcome = self.outcome.clone();
        match timeout(patience, outcome.wait_for(Option::is_some)).await {
            Ok(Ok(outcome)) => outcome.clone(),
            // Its task has panicked.
            Ok(Err(_)) => Some(Err(Arc::new(SignInError::NotFinishedElsewhere))),
            Err(_) => None,
        }
    }

    /// Waits until the browser has its last page, for a moment at most. Whoever ends the program then cuts nothing off.
    pub(super) async fn ended(&self) {
        if let Place::Browser(loopback) = &self.place {
            loopback.ended().await;
        }
    }

    /// A one-time address at which the person can begin, if the browser comes back to this process.
    pub(super) fn address(&self) -> Option<String> {
        match &self.place {
            Place::Browser(loopback) => Some(loopback.start_address()),
            Place::AnyDevice { .. } | Place::Elsewhere => None,
        }
    }

    /// True if the person is to be told an address and a code at once.
    pub(super) fn is_on_any_device(&self) -> bool {
        matches!(self.place, Place::AnyDevice { .. })
    }

    /// The same for a person who looks at a terminal.
    pub(super) fn instruction_in_terminal(&self) -> String {
        match &self.place {
            Place::Browser(loopback) => format!(
                "Sign in in your browser. If no page opens, open this on this machine (good once, for ten minutes):\n{}",
                loopback.start_address()
            ),
            Place::AnyDevice { address, code } => {
                format!("Sign in on any device: open {address} and enter the code {code}.")
            }
            Place::Elsewhere => "Sign in in the browser that an MCP client has opened.".to_owned(),
        }
    }

    /// The words that say where the sign-in is open, with what to do.
    pub(super) fn instruction(&self) -> String {
        match &self.place {
            Place::Browser(loopback) => format!(
                "The sign-in is open in your browser: finish it there and call again. If no page is open, open {} (good once, for ten minutes).",
                loopback.start_address()
            ),
            Place::AnyDevice { address, code } => {
                format!("Sign in on any device: open {address}, enter the code {code}, and call again.")
            }
            Place::Elsewhere => {
                "The sign-in is open in your browser, by another MCP client: finish it there and call again.".to_owned()
            }
        }
    }
}
