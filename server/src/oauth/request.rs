//! Validation of an authorization request (OAuth 2.1 section 4.1.1) from a known client with a valid redirect URI.
//! Pure.

use serde::{Deserialize, Serialize};

use super::addresses::Addresses;
use super::parameters::Parameters;
use super::scopes::AskedScopes;

/// Longest `state` of a client, in bytes.
const MAXIMUM_STATE: usize = 2 * 1024;
/// Length of an S256 `code_challenge`: SHA-256 in base64url (RFC 7636 section 4.2).
const CHALLENGE_LENGTH: usize = 43;

/// A valid authorization request, ready for the person's decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct AuthorizationRequest {
    /// The redirect URI for the answer.
    pub(super) redirect_uri: String,
    /// The client's `state`.
    pub(super) state: Option<String>,
    /// The client's `code_challenge`, always S256.
    pub(super) code_challenge: String,
    /// The scopes.
    pub(super) scopes: AskedScopes,
    /// `prompt` for Entra.
    pub(super) prompt: Option<Prompt>,
}

/// A `prompt` that is passed on to Entra. `consent` is not: it fails in tenants whose users may not consent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Prompt {
    /// The person must enter credentials.
    Login,
    /// The person must choose an account.
    SelectAccount,
}

impl Prompt {
    /// Returns the value for Entra.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::SelectAccount => "select_account",
        }
    }
}

/// A refusal that goes to the client's redirect URI (RFC 6749 section 4.1.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RequestError {
    /// `error`.
    pub(super) error: &'static str,
    /// `error_description`: ASCII, with the next step.
    pub(super) description: &'static str,
}

impl RequestError {
    const fn new(error: &'static str, description: &'static str) -> Self {
        Self { error, description }
    }
}

impl AuthorizationRequest {
    /// Parses the request of this client, whose redirect URI is already valid.
    ///
    /// # Errors
    /// If the client requests something that is not supported.
    pub(super) fn read(
        parameters: &Parameters,
        addresses: &Addresses,
        redirect_uri: String,
        scopes: AskedScopes,
    ) -> Result<Self, RequestError> {
        let get = |name| parameters.get(name);
        match get("response_type") {
            Some("code") => {}
            None => return Err(RequestError::new("invalid_request", "response_type is missing; send code")),
            Some(_) => return Err(RequestError::new("unsupported_response_type", "send response_type=code")),
        }
        if get("response_mode").is_some_and(|mode| mode != "query") {
            return Err(RequestError::new("invalid_request", "send response_mode=query or no response_mode"));
        }
        if get("request").is_some() {
            return Err(RequestError::new("request_not_supported", "send plain parameters"));
        }
        if get("request_uri").is_some() {
            return Err(RequestError::new("request_uri_not_supported", "send plain parameters"));
        }
        if get("resource").is_some_and(|resource| !addresses.is_resource(resource)) {
            return Err(RequestError::new("invalid_target", "the resource is another server; send this server's URL"));
        }
        if get("code_challenge_method") != Some("S256") {
            return Err(RequestError::new("invalid_request", "PKCE is required: send code_challenge_method=S256"));
        }
        let code_challenge = get("code_challenge").filter(|challenge| is_challenge(challenge));
        let Some(code_challenge) = code_challenge else {
            return Err(RequestError::new("invalid_request", "PKCE is required: send a code_challenge of S256"));
        };
        if get("state").is_some_and(|state| state.len() > MAXIMUM_STATE) {
            return Err(RequestError::new("invalid_request", "the state is longer than 2 KiB; send a shorter one"));
        }
        let prompts: Vec<&str> = get("prompt").unwrap_or_default().split(' ').collect();
        let prompt = match &*prompts {
            prompts if prompts.contains(&"none") => {
                return Err(RequestError::new(
                    "interaction_required",
                    "each sign-in needs the person's decision: send no prompt",
                ));
            }
            prompts if prompts.contains(&"login") => Some(Prompt::Login),
            prompts if prompts.contains(&"select_account") => Some(Prompt::SelectAccount),
            _ => None,
        };
        Ok(Self {
            redirect_uri,
            state: get("state").map(str::to_owned),
            code_challenge: code_challenge.to_owned(),
            scopes,
            prompt,
        })
    }
}

fn is_challenge(text: &str) -> bool {
    text.len() == CHALLENGE_LENGTH && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

    fn read(query: &str) -> Result<AuthorizationRequest, RequestError> {
        let addresses = Addresses::new("https://h.example/mcp", "/mcp", false).unwrap();
        let parameters = Parameters::parse(query.as_bytes()).unwrap();
        AuthorizationRequest::read(&parameters, &addresses, "http://localhost/cb".to_owned(), AskedScopes::default())
    }

    fn good(more: &str) -> String {
        format!("client_id=c&response_type=code&code_challenge={CHALLENGE}&code_challenge_method=S256&state=s{more}")
    }

    #[test]
    fn a_request_with_pkce_for_this_server_is_read_and_its_prompt_and_claims_are_not_all_passed_on() {
        for (more, prompt) in [
            ("", None),
            ("&resource=https%3A%2F%2Fh.example%2Fmcp", None),
            ("&resource=https%3A%2F%2Fh.example%2Fmcp%2F", None),
            ("&prompt=consent", None),
            ("&prompt=login", Some(Prompt::Login)),
            ("&prompt=consent+login", Some(Prompt::Login)),
            ("&prompt=select_account", Some(Prompt::SelectAccount)),
            ("&claims=%7B%7D", None),
            ("&response_mode=query", None),
        ] {
            let request = read(&good(more)).unwrap();
            assert_eq!((request.prompt, request.state.as_deref()), (prompt, Some("s")), "{more}");
        }
    }

    #[test]
    fn each_unsupported_parameter_has_its_oauth_error() {
        for (query, error) in [
            (good("&resource=https%3A%2F%2Fevil.example"), "invalid_target"),
            (good("&prompt=none"), "interaction_required"),
            (good("&prompt=login+none"), "interaction_required"),
            (good("&response_mode=form_post"), "invalid_request"),
            (good("&response_mode=fragment"), "invalid_request"),
            (good("&request=e30.e30."), "request_not_supported"),
            (good("&request_uri=https%3A%2F%2Fx"), "request_uri_not_supported"),
            (good("").replace("response_type=code", "response_type=token"), "unsupported_response_type"),
            (good("").replace("response_type=code&", ""), "invalid_request"),
            (good("").replace("S256", "plain"), "invalid_request"),
            (good("").replace("&code_challenge_method=S256", ""), "invalid_request"),
            (good("").replace(CHALLENGE, ""), "invalid_request"),
            (good("").replace(CHALLENGE, "short"), "invalid_request"),
            (good("").replace(CHALLENGE, &"x".repeat(44)), "invalid_request"),
            (good("").replace("state=s", &format!("state={}", "x".repeat(MAXIMUM_STATE + 1))), "invalid_request"),
        ] {
            assert_eq!(read(&query).unwrap_err().error, error, "{query}");
        }
    }
}
