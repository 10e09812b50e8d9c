//! Browser of a user: opens addresses, follows redirects, keeps cookies, and sends the forms of its pages.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use reqwest::{
    Client, Method, RequestBuilder, StatusCode,
    header::{ACCEPT, ACCEPT_LANGUAGE, COOKIE, HeaderMap, LOCATION, ORIGIN},
    redirect::Policy,
};
use url::Url;

use super::{
    Authority,
    cookies::{Cookie, Jar, Relation},
    html::{self, Button, Form, Link},
    read_form,
};
use crate::pages::USER_INPUT;

const TIME_OUT: Duration = Duration::from_secs(30);
/// Maximum number of redirects, as in Chrome.
const REDIRECT_LIMIT: usize = 20;

/// Browser of a user.
///
/// [`Self::open`] starts at any address. Buttons and links of the resulting [`Page`]s continue. The browser follows
/// redirects and keeps cookies. A navigation ends at a page, or at the address of a client that the browser does not
/// fetch: see [`Step`].
///
/// # Differences from a real browser
///
/// - It runs no script. If a page sends a form by a script, as Entra does for `response_mode=form_post`, the test sends
///   it with [`Page::submit`].
/// - Cookies belong to one origin: neither `Domain` nor another port of the same host extends that. A real browser
///   sends cookies to every port of a host. `Secure`, `HttpOnly` (there are no scripts), `Path`, `Max-Age=0`,
///   `SameSite`, `__Host-` and `__Secure-` are honoured. A site is a scheme and a host, without a list of public
///   suffixes.
/// - It sends `Sec-Fetch-Site`, `Sec-Fetch-Mode`, `Sec-Fetch-Dest` and, with POST, `Origin`, as Chrome does for a
///   navigation of the whole window. `Origin` is `null` if the page's `Referrer-Policy` requires it. It sends no
///   `Referer`.
/// - It enforces no content security policy and no frame rule, and keeps no history.
///
/// Clones are windows of the same browser, with the same cookies. Another user has another [`Browser::new`].
#[derive(Clone, Debug)]
pub struct Browser {
    http: Client,
    jar: Arc<Mutex<Jar>>,
    languages: Option<String>,
    clients: Vec<Url>,
}

/// End of a navigation.
#[derive(Clone, Debug)]
pub enum Step {
    /// The browser shows a page.
    Page(Page),
    /// The navigation ended at an address that the browser does not fetch: one of [`Browser::leaving_at`], or one that
    /// is not HTTP.
    Client(Callback),
}

impl Step {
    /// The page.
    ///
    /// # Errors
    /// If the browser left for a client; the message has the address.
    pub fn page(self) -> anyhow::Result<Page> {
        match self {
            Self::Page(page) => Ok(page),
            Self::Client(callback) => bail!("the browser left for {}", callback.url),
        }
    }

    /// Returns the client's address with its parameters.
    ///
    /// # Errors
    /// If the browser shows a page; the message has its address, status and text.
    pub fn callback(self) -> anyhow::Result<Callback> {
        match self {
            Self::Client(callback) => Ok(callback),
            Self::Page(page) => bail!("the browser shows {} (HTTP {}): {}", page.url, page.status, page.text()?),
        }
    }
}

/// An address of a client, which the browser does not fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Callback {
    /// The address, with query and fragment.
    pub url: Url,
    /// Form that is sent there, with `response_mode=form_post`.
    pub form: Vec<(String, String)>,
}

impl Callback {
    /// A parameter, e.g. `code` or `error`, of the query, the form or the fragment.
    pub fn parameter(&self, name: &str) -> Option<String> {
        let fragment = url::form_urlencoded::parse(self.url.fragment().unwrap_or_default().as_bytes());
        let of_form = self.form.iter().map(|(name, value)| (name.as_str().into(), value.as_str().into()));
        let mut all = self.url.query_pairs().chain(of_form).chain(fragment);
        all.find(|(known, _)| known == name).map(|(_, value)| value.into_owned())
    }
}

/// One request of a navigation.
struct Navigation {
    method: Method,
    url: Url,
    form: Vec<(String, String)>,
    /// Page that the navigation starts from, unless the user typed the address.
    initiator: Option<Url>,
    /// Widest relation of the navigation so far.
    relation: Relation,
    /// The `Origin` header of a POST.
    origin: String,
}

impl Navigation {
    fn typed(url: Url) -> Self {
        let origin = "null".to_owned();
        Self { method: Method::GET, url, form: Vec::new(), initiator: None, relation: Relation::Typed, origin }
    }

    /// Starts at a page, whose policy decides on the `Origin` (Fetch, "append a request `Origin` header").
    fn from(initiator: &Url, referrer_policy: &str, method: Method, url: Url) -> Self {
        let relation = Relation::between(initiator, &url);
        let hidden = match referrer_policy {
            "no-referrer" => true,
            "same-origin" => relation != Relation::SameOrigin,
            "origin" | "unsafe-url" | "origin-when-cross-origin" => false,
            _ => initiator.scheme() == "https" && url.scheme() != "https",
        };
        let origin = if hidden { "null".to_owned() } else { initiator.origin().ascii_serialization() };
        Self { method, url, form: Vec::new(), initiator: Some(initiator.clone()), relation, origin }
    }

    /// Returns the next request after a redirect: GET, except that 307 and 308 keep method and form.
    fn redirected(self, status: StatusCode, url: Url) -> Self {
        let keeps = matches!(status, StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT);
        let origin = if self.url.origin() == url.origin() { self.origin } else { "null".to_owned() };
        let relation =
            self.initiator.as_ref().map_or(Relation::Typed, |from| self.relation.max(Relation::between(from, &url)));
        let (method, form) = if keeps { (self.method, self.form) } else { (Method::GET, Vec::new()) };
        Self { method, url, form, initiator: self.initiator, relation, origin }
    }
}

impl Browser {
    /// Returns a browser that trusts this authority.
    ///
    /// # Errors
    /// If the authority's certificates are not PEM.
    pub fn new(authority: &Authority) -> anyhow::Result<Self> {
        Self::trusting(&[&authority.ca_pem])
    }

    /// Returns a browser that only trusts these certificate authorities, each a PEM bundle.
    ///
    /// # Errors
    /// If one is not PEM.
    pub fn trusting(ca_pems: &[&str]) -> anyhow::Result<Self> {
        Self::knowing(ca_pems, &[])
    }

    /// Resolves these hosts to these addresses. For a URL without a port, the port of the address is dialled.
    ///
    /// # Errors
    /// If one is not PEM.
    pub fn knowing(ca_pems: &[&str], hosts: &[(&str, SocketAddr)]) -> anyhow::Result<Self> {
        let mut trusted = Vec::new();
        for pem in ca_pems {
            trusted.extend(reqwest::Certificate::from_pem_bundle(pem.as_bytes())?);
        }
        let builder = Client::builder().tls_certs_only(trusted).no_proxy().redirect(Policy::none()).timeout(TIME_OUT);
        let http = hosts.iter().fold(builder, |builder, (host, address)| builder.resolve(host, *address)).build()?;
        Ok(Self { http, jar: Arc::default(), languages: None, clients: Vec::new() })
    }

    /// Adds a redirect URI of a client. The browser does not fetch this address, with any query or fragment, but ends
    /// there with [`Step::Client`].
    ///
    /// # Errors
    /// If it is not a URL.
    pub fn leaving_at(mut self, redirect_uri: &str) -> anyhow::Result<Self> {
        self.clients.push(Url::parse(redirect_uri).with_context(|| redirect_uri.to_owned())?);
        Ok(self)
    }

    /// Sets the `Accept-Language`, such as `sv-SE,sv;q=0.9`.
    #[must_use]
    pub fn with_languages(mut self, languages: &str) -> Self {
        self.languages = Some(languages.to_owned());
        self
    }

    /// Opens an address as if the user typed it, and follows redirects.
    ///
    /// # Errors
    /// If there is no answer, or after 20 redirects.
    pub async fn open(&self, address: &str) -> anyhow::Result<Step> {
        let url = Url::parse(address).with_context(|| address.to_owned())?;
        self.navigate(Navigation::typed(url)).await
    }

    /// Opens an address by a link on a page of another site, e.g. `https://attacker.example/`.
    ///
    /// # Errors
    /// Same as [`Self::open`].
    pub async fn open_from(&self, initiator: &str, address: &str) -> anyhow::Result<Step> {
        let url = Url::parse(address).with_context(|| address.to_owned())?;
        self.navigate(Navigation::from(&Url::parse(initiator)?, "", Method::GET, url)).await
    }

    /// Sends a form from a page of another site, e.g. `https://attacker.example/`, as a forged request does.
    ///
    /// # Errors
    /// Same as [`Self::open`].
    pub async fn post_from(&self, initiator: &str, address: &str, form: &[(&str, &str)]) -> anyhow::Result<Step> {
        let url = Url::parse(address).with_context(|| address.to_owned())?;
        let form = form.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.navigate(Navigation { form, ..Navigation::from(&Url::parse(initiator)?, "", Method::POST, url) }).await
    }

    /// The cookies that the browser has for an address.
    ///
    /// # Errors
    /// If it is not a URL.
    pub fn cookies(&self, address: &str) -> anyhow::Result<Vec<Cookie>> {
        Ok(self.jar().of(&Url::parse(address)?))
    }

    /// Adds a cookie as if this address had set it, in the format of `Set-Cookie`. An attacker who can plant cookies
    /// has the same effect.
    ///
    /// # Errors
    /// If the address is not a URL, or a browser refuses the cookie.
    pub fn plant_cookie(&self, address: &str, cookie: &str) -> anyhow::Result<()> {
        ensure!(self.jar().set(&Url::parse(address)?, cookie), "a browser refuses the cookie {cookie}");
        Ok(())
    }

    /// Forgets all cookies.
    pub fn forget_cookies(&self) {
        self.jar().clear();
    }

    /// No code panics while it holds the lock.
    fn jar(&self) -> MutexGuard<'_, Jar> {
        self.jar.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn navigate(&self, mut next: Navigation) -> anyhow::Result<Step> {
        for _ in 0..=REDIRECT_LIMIT {
            let is_http = matches!(next.url.scheme(), "http" | "https");
            if !is_http || self.clients.iter().any(|client| is_same_place(client, &next.url)) {
                return Ok(Step::Client(Callback { url: next.url, form: next.form }));
            }
            let answer = self.request(&next).send().await?;
            self.jar().keep(&next.url, answer.headers());
            let status = answer.status();
            if status.is_redirection()
                && let Some(location) = answer.headers().get(LOCATION)
            {
                let url = next.url.join(location.to_str()?).context("the redirect has no address")?;
                next = next.redirected(status, url);
                continue;
            }
            return Ok(Step::Page(Page {
                url: next.url,
                status: status.as_u16(),
                headers: answer.headers().clone(),
                html: answer.text().await?,
                browser: self.clone(),
            }));
        }
        bail!("more than {REDIRECT_LIMIT} redirects, the last to {}", next.url)
    }

    fn request(&self, navigation: &Navigation) -> RequestBuilder {
        let Navigation { method, url, form, initiator, relation, origin } = navigation;
        let by_get = *method == Method::GET;
        let mut request = self
            .http
            .request(method.clone(), url.clone())
            .header(ACCEPT, "text/html,application/xhtml+xml,*/*;q=0.8")
            .header("sec-fetch-site", relation.text())
            .header("sec-fetch-mode", "navigate")
            .header("sec-fetch-dest", "document")
            .header("sec-fetch-user", "?1");
        if let Some(languages) = &self.languages {
            request = request.header(ACCEPT_LANGUAGE, languages);
        }
        let from = initiator.as_ref().map_or(Relation::Typed, |initiator| Relation::between(initiator, url));
        if let Some(cookies) = self.jar().header(url, from, by_get) {
            request = request.header(COOKIE, cookies);
        }
        if by_get { request } else { request.header(ORIGIN, origin).form(form) }
    }
}

/// The address without query and fragment.
fn is_same_place(one: &Url, other: &Url) -> bool {
    let place = |url: &Url| {
        let mut url = url.clone();
        url.set_query(None);
        url.set_fragment(None);
        url
    };
    place(one) == place(other)
}

/// A page that a browser shows, after all redirects.
#[derive(Clone, Debug)]
pub struct Page {
    /// Address of the page.
    pub url: Url,
    /// The HTTP status.
    pub status: u16,
    /// The headers of the answer.
    pub headers: HeaderMap,
    /// Body of the page as received.
    pub html: String,
    browser: Browser,
}

impl Page {
    /// The text of the page, without markup, with one space for every run of white space.
    ///
    /// # Errors
    /// Never, unless the emulator itself is broken.
    pub fn text(&self) -> anyhow::Result<String> {
        html::text(&self.html)
    }

    /// The text of the first element with the role `alert`.
    ///
    /// # Errors
    /// Same as [`Self::text`].
    pub fn alert(&self) -> anyhow::Result<Option<String>> {
        html::alert(&self.html)
    }

    /// The forms, in their order.
    ///
    /// # Errors
    /// Same as [`Self::text`].
    pub fn forms(&self) -> anyhow::Result<Vec<Form>> {
        html::forms(&self.html)
    }

    /// The links, in their order.
    ///
    /// # Errors
    /// Same as [`Self::text`].
    pub fn links(&self) -> anyhow::Result<Vec<Link>> {
        html::links(&self.html)
    }

    /// Presses the button with this text, or otherwise with this value, and follows redirects.
    ///
    /// # Errors
    /// If there is no such button; the message has the page's text. Also same as [`Browser::open`].
    pub async fn press(&self, button: &str) -> anyhow::Result<Step> {
        self.press_with(button, &[]).await
    }

    /// Same as [`Self::press`], after filling in these inputs of the form. Missing inputs are added.
    ///
    /// # Errors
    /// Same as [`Self::press`].
    pub async fn press_with(&self, button: &str, inputs: &[(&str, &str)]) -> anyhow::Result<Step> {
        let forms = self.forms()?;
        let find = |is_it: &dyn Fn(&Button) -> bool| {
            forms.iter().find_map(|form| Some((form, form.buttons.iter().find(|button| is_it(button))?)))
        };
        let found = find(&|known| known.text == button).or_else(|| find(&|known| known.value == button));
        let Some((form, button)) = found else {
            bail!("{} (HTTP {}) has no button {button}: {}", self.url, self.status, self.text()?);
        };
        self.send(form, Some(button), inputs).await
    }

    /// Sends the first form without pressing a button, as a script does, after filling in these inputs.
    ///
    /// # Errors
    /// If there is no form, and as [`Self::press`].
    pub async fn submit(&self, inputs: &[(&str, &str)]) -> anyhow::Result<Step> {
        let forms = self.forms()?;
        let Some(form) = forms.first() else {
            bail!("{} (HTTP {}) has no form: {}", self.url, self.status, self.text()?);
        };
        self.send(form, None, inputs).await
    }

    /// Follows the link with this text.
    ///
    /// # Errors
    /// If there is no such link, and as [`Browser::open`].
    pub async fn follow(&self, link: &str) -> anyhow::Result<Step> {
        let Some(found) = self.links()?.into_iter().find(|known| known.text == link) else {
            bail!("{} (HTTP {}) has no link {link}: {}", self.url, self.status, self.text()?);
        };
        let url = self.url.join(&found.target)?;
        self.browser.navigate(Navigation::from(&self.url, self.referrer_policy(), Method::GET, url)).await
    }

    /// Selects this user on the emulator's sign-in page.
    ///
    /// # Errors
    /// Same as [`Self::submit`].
    pub async fn sign_in(&self, user: &str) -> anyhow::Result<Step> {
        self.submit(&[(USER_INPUT, user)]).await
    }

    fn referrer_policy(&self) -> &str {
        let value = self.headers.get("referrer-policy").and_then(|value| value.to_str().ok());
        // The last supported policy of several applies.
        value.and_then(|value| value.rsplit(',').next()).unwrap_or_default().trim()
    }

    async fn send(&self, form: &Form, button: Option<&Button>, inputs: &[(&str, &str)]) -> anyhow::Result<Step> {
        let mut sent = form.inputs.clone();
        for (name, value) in inputs {
            sent.retain(|(known, _)| known != name);
            sent.push(((*name).to_owned(), (*value).to_owned()));
        }
        let pressed = button.filter(|button| !button.name.is_empty());
        sent.extend(pressed.map(|button| (button.name.clone(), button.value.clone())));
        let action = button.map(|button| button.action.as_str()).filter(|action| !action.is_empty());
        let mut url = self.url.join(action.unwrap_or(&form.action)).context("the form has no address")?;
        let method = if form.post { Method::POST } else { Method::GET };
        if !form.post {
            url.query_pairs_mut().clear().extend_pairs(&sent);
            sent.clear();
        }
        let navigation = Navigation::from(&self.url, self.referrer_policy(), method, url);
        self.browser.navigate(Navigation { form: sent, ..navigation }).await
    }
}

/// An answer as received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The HTTP status.
    pub status: u16,
    /// The page.
    pub html: String,
}

/// Sign-in without cookies and redirects. It is for a public client that opens an address itself and receives the
/// answer through Entra's form.
impl Browser {
    /// Signs this user in, from an address of the client to its last page.
    ///
    /// # Errors
    /// If a page is missing, or is not a sign-in page.
    pub async fn sign_in(&self, address: &str, user: &str) -> anyhow::Result<Shown> {
        let (action, inputs) = self.submit(address, user).await?;
        self.show(self.http.post(action).form(&inputs)).await
    }

    /// Signs this user in up to the form with the code, and returns the form's target and its inputs.
    ///
    /// # Errors
    /// If a page is missing, or is not a sign-in page.
    pub async fn submit(&self, address: &str, user: &str) -> anyhow::Result<(String, Vec<(String, String)>)> {
        let start = self.http.get(address).send().await?;
        let status = start.status().as_u16();
        let Some(location) = start.headers().get(LOCATION) else { bail!("{address} leads nowhere: HTTP {status}") };
        let page = self.http.get(location.to_str()?).send().await?.text().await?;
        let (action, mut inputs) = read_form(&page)?;
        inputs.push((USER_INPUT.to_owned(), user.to_owned()));
        let page = self.http.post(action).form(&inputs).send().await?.text().await?;
        read_form(&page)
    }

    /// The page that answers this request.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn show(&self, request: RequestBuilder) -> anyhow::Result<Shown> {
        let answer = request.send().await?;
        Ok(Shown { status: answer.status().as_u16(), html: answer.text().await? })
    }

    /// Builds a request of this browser to an address, for changes.
    pub fn get(&self, address: &str) -> RequestBuilder {
        self.http.get(address)
    }

    /// Builds a request of this browser with a form.
    pub fn post(&self, address: &str, form: &[(String, String)]) -> RequestBuilder {
        self.http.post(address).form(form)
    }
}
