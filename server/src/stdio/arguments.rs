//! Arguments of the subcommand `local`. They are validated here instead of by clap, so that errors name the
//! environment variable.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use clap::Args;
use mcp_entra_policy::{BUILT_IN_TOOLS, BuiltInTool, GraphAccess};
use url::Url;

use super::client_config::Client;
use super::machine_policy::{Forbidden, MachinePolicy};
use super::settings::{self, CLOUDS, STORES, Settings};

/// Longest name of a tool that every client accepts.
const MAXIMUM_NAME: usize = 64;

/// Arguments of local mode.
#[derive(Args, Clone, Debug)]
pub struct LocalArguments {
    /// Your tenant: its GUID or a verified domain. Required.
    #[arg(long, env = "MCP_ENTRA_TENANT", value_name = "GUID or domain")]
    tenant: Option<String>,
    /// The app registration to sign in to: its application (client) ID. Required.
    #[arg(long, env = "MCP_ENTRA_CLIENT_ID", value_name = "GUID")]
    client_id: Option<String>,
    /// Delegated permissions of Microsoft Graph to request, such as User.Read,Mail.Read. Default: those that the
    /// offered tools need.
    #[arg(long, env = "MCP_ENTRA_SCOPES", value_name = "NAMES", value_delimiter = ',')]
    scopes: Option<Vec<String>>,
    /// Allowed tools that write. Other tools that write are not offered.
    #[arg(long, env = "MCP_ENTRA_ALLOW", value_name = "TOOLS", value_delimiter = ',')]
    allow: Vec<String>,
    /// Additional names of tools, such as GetUserDetailsFromGraph=get_user_details.
    #[arg(long, env = "MCP_ENTRA_ALIAS", value_name = "NAME=TOOL", value_delimiter = ',')]
    alias: Vec<String>,
    /// The cloud of the tenant: public (the default), usgov, usgovdod or china.
    #[arg(long, env = "MCP_ENTRA_CLOUD", value_name = "CLOUD")]
    cloud: Option<String>,
    /// Entra's address, instead of the cloud's. For private clouds and tests.
    #[arg(long, env = "MCP_ENTRA_AUTHORITY", value_name = "URL")]
    authority: Option<String>,
    /// Microsoft Graph's address, instead of the cloud's. For private clouds and tests.
    #[arg(long, env = "MCP_ENTRA_GRAPH_URL", value_name = "URL")]
    graph_url: Option<String>,
    /// Storage of the tokens: os (default; encrypted, with the key in the operating system's secure store), file (not
    /// encrypted) or memory.
    #[arg(long, env = "MCP_ENTRA_TOKEN_STORE", value_name = "STORE")]
    token_store: Option<String>,
    /// Sign in with a code that you type on any device with a browser.
    #[arg(long, env = "MCP_ENTRA_DEVICE_CODE", value_name = "true or false", num_args = 0..=1, require_equals = true,
          default_missing_value = "true")]
    device_code: Option<String>,
    /// CA certificates (PEM) to trust besides the system's.
    #[arg(long, env = "MCP_ENTRA_TRUST_BUNDLE", value_name = "FILE")]
    trust_bundle: Option<String>,
    /// File for logs. Default: standard error.
    #[arg(long, env = "MCP_ENTRA_LOG_FILE", value_name = "FILE")]
    log_file: Option<String>,
    /// File for audit lines. Default: standard error.
    #[arg(long, env = "MCP_ENTRA_AUDIT_FILE", value_name = "FILE")]
    audit_file: Option<String>,
    #[command(flatten)]
    mode: ModeArguments,
}

/// Arguments that select another mode than serving. They have no environment variables, because those would stay set.
#[derive(Args, Clone, Debug)]
#[group(id = "mode", multiple = false)]
struct ModeArguments {
    /// Sign in with the browser, store the tokens, and exit.
    #[arg(long)]
    sign_in: bool,
    /// Delete the stored tokens, and exit.
    #[arg(long)]
    sign_out: bool,
    /// Report line by line what works, and exit.
    #[arg(long)]
    doctor: bool,
    /// Print the configuration for this MCP client, including the other arguments, and exit.
    #[arg(long, value_name = "CLIENT")]
    print_config: Option<Client>,
}

/// Modes of local mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Serve MCP over standard input and output.
    Serve,
    /// Sign in and exit.
    SignIn,
    /// Delete the tokens and exit.
    SignOut,
    /// Report what works and exit.
    Doctor,
    /// Print a client's configuration and exit.
    PrintConfig(Client),
}

/// The reason why arguments are not valid.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// An argument or its environment variable is missing or invalid.
    #[error("{flag} ({}) {problem}", variable(flag))]
    Argument {
        /// The flag.
        flag: &'static str,
        /// The problem and the next step.
        problem: String,
    },
    /// The machine policy forbids a setting.
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
}

/// Returns the environment variable of a flag.
fn variable(flag: &str) -> String {
    format!("MCP_ENTRA_{}", flag.trim_start_matches('-').replace('-', "_").to_ascii_uppercase())
}

/// Returns a function that makes an error of this flag from a problem.
fn wrong<P: ToString>(flag: &'static str) -> impl Fn(P) -> SettingsError {
    move |problem| SettingsError::Argument { flag, problem: problem.to_string() }
}

impl LocalArguments {
    /// Returns the selected mode.
    pub fn mode(&self) -> Mode {
        match &self.mode {
            ModeArguments { sign_in: true, .. } => Mode::SignIn,
            ModeArguments { sign_out: true, .. } => Mode::SignOut,
            ModeArguments { doctor: true, .. } => Mode::Doctor,
            ModeArguments { print_config: Some(client), .. } => Mode::PrintConfig(*client),
            ModeArguments { .. } => Mode::Serve,
        }
    }

    /// Returns the settings, if this policy allows them. Paths become absolute.
    pub fn settings(self, policy: &MachinePolicy) -> Result<Settings, SettingsError> {
        self.settings_with(BUILT_IN_TOOLS, policy)
    }

    fn settings_with(self, registry: &[BuiltInTool], policy: &MachinePolicy) -> Result<Settings, SettingsError> {
        let cloud = one_of("--cloud", &CLOUDS, self.cloud)?;
        let (scopes, tools) = offer(registry, self.scopes, &self.allow)?;
        let settings = Settings {
            tenant: tenant(self.tenant)?,
            client_id: client_id(self.client_id)?,
            authority: address("--authority", self.authority, cloud.authority())?,
            graph_url: address("--graph-url", self.graph_url, cloud.graph())?,
            aliases: aliases(registry, &tools, &self.alias)?,
            scopes,
            tools,
            store: one_of("--token-store", &STORES, self.token_store)?,
            device_code: one_of("--device-code", &[("false", false), ("true", true)], self.device_code)?,
            trust_bundle: absolute("--trust-bundle", self.trust_bundle)?,
            log_file: absolute("--log-file", self.log_file)?,
            audit_file: absolute("--audit-file", self.audit_file)?,
        };
        policy.bound(&settings)?;
        Ok(settings)
    }
}

fn tenant(text: Option<String>) -> Result<String, SettingsError> {
    const FLAG: &str = "--tenant";
    let text = text.ok_or("is missing: name your tenant by its GUID or a verified domain").map_err(wrong(FLAG))?;
    settings::tenant(text.trim()).map_err(|error| wrong(FLAG)(format!("{text:?} {error}")))
}

fn client_id(text: Option<String>) -> Result<String, SettingsError> {
    const NEXT: &str = "copy the application (client) ID from the Overview of the app registration";
    let problem = match &text {
        Some(_) => format!("is not a GUID: {NEXT}"),
        None => format!("is missing: {NEXT}"),
    };
    text.and_then(|text| settings::guid(text.trim())).ok_or(problem).map_err(wrong("--client-id"))
}

/// Returns the value with this name, or the default.
fn one_of<T: Copy + Default>(
    flag: &'static str,
    values: &[(&str, T)],
    text: Option<String>,
) -> Result<T, SettingsError> {
    let Some(text) = text else { return Ok(T::default()) };
    let named = values.iter().find(|(name, _)| text.trim().eq_ignore_ascii_case(name));
    let names = || listed(values.iter().map(|(name, _)| *name));
    named.map(|(_, value)| *value).ok_or_else(|| wrong(flag)(format!("is {text:?}: choose one of {}", names())))
}

/// Returns an https address without a trailing slash. The text may contain a password, so errors do not quote it.
fn address(flag: &'static str, text: Option<String>, by_default: &str) -> Result<String, SettingsError> {
    let Some(text) = text else { return Ok(by_default.to_owned()) };
    let is_bare = |url: &Url| {
        url.scheme() == "https"
            && url.username().is_empty()
            && (url.password(), url.query(), url.fragment()) == (None, None, None)
            && url.path() == "/"
    };
    let url = Url::parse(text.trim()).ok().filter(is_bare);
    let problem = format!("is not an address such as {by_default}: use only https, host and port");
    url.map(|url| url.origin().ascii_serialization()).ok_or(problem).map_err(wrong(flag))
}

fn absolute(flag: &'static str, text: Option<String>) -> Result<Option<PathBuf>, SettingsError> {
    let absolute = text.map(std::path::absolute).transpose();
    absolute.map_err(|error| wrong(flag)(format!("is not a file path ({error}): use the path of a file")))
}

/// Returns the scopes to request and the tools to offer.
fn offer(
    registry: &[BuiltInTool],
    scopes: Option<Vec<String>>,
    allow: &[String],
) -> Result<(BTreeSet<String>, BTreeSet<String>), SettingsError> {
    let allow: BTreeSet<&str> = allow.iter().map(|name| name.trim()).collect();
    if let Some(name) = allow.iter().find(|name| !registry.iter().any(|tool| tool.writes && tool.name == **name)) {
        return Err(wrong("--allow")(not_allowable(registry, name)));
    }
    let offered: Vec<_> = registry.iter().filter(|tool| !tool.writes || allow.contains(tool.name)).collect();
    let scopes: Vec<String> = match scopes {
        Some(scopes) => scopes.iter().map(|scope| permission(scope)).collect::<Result<_, _>>()?,
        None => Vec::from_iter(settings::needed_scopes(offered.iter().copied())),
    };
    let mut tools = BTreeSet::new();
    for tool in offered {
        match tool.missing_scopes(&scopes, GraphAccess::OnBehalfOf) {
            missing if missing.is_empty() => {
                tools.insert(tool.name.to_owned());
            }
            missing if tool.writes => {
                let missing = listed(missing);
                let problem = format!("lacks {missing}, which {} needs: add it, or remove {0} from --allow", tool.name);
                return Err(wrong("--scopes")(problem));
            }
            _ => {}
        }
    }
    if tools.is_empty() {
        let needed = listed(settings::needed_scopes(registry.iter().filter(|tool| !tool.writes)));
        return Err(wrong("--scopes")(format!("is not enough for any tool: add one of {needed}")));
    }
    Ok((scopes.into_iter().collect(), tools))
}

fn not_allowable(registry: &[BuiltInTool], name: &str) -> String {
    let problem = match registry.iter().any(|tool| tool.name == name) {
        true => format!("names {name}, which only reads and is offered without it"),
        false => format!("names {name:?}, which is not a tool"),
    };
    let allowable = listed(registry.iter().filter(|tool| tool.writes).map(|tool| tool.name));
    match allowable.is_empty() {
        true => format!("{problem}: remove it, because this version has no tool that writes"),
        false => format!("{problem}: choose one of {allowable}"),
    }
}

/// Returns a permission of Graph: a plain name without a resource prefix.
fn permission(text: &str) -> Result<String, SettingsError> {
    let scope = text.trim();
    match is_word(scope) {
        true => Ok(scope.to_owned()),
        false => Err(wrong("--scopes")(format!(
            "names {scope:?}, which is not a permission of Microsoft Graph: use its plain name, such as User.Read"
        ))),
    }
}

fn aliases(
    registry: &[BuiltInTool],
    tools: &BTreeSet<String>,
    texts: &[String],
) -> Result<BTreeMap<String, String>, SettingsError> {
    let mut aliases = BTreeMap::new();
    for text in texts {
        let wrong = |problem| wrong("--alias")(format!("names {text:?}, {problem}"));
        let (name, tool) =
            text.trim().split_once('=').ok_or_else(|| wrong("which does not have the form NAME=TOOL".into()))?;
        if !is_word(name) || name.len() > MAXIMUM_NAME {
            return Err(wrong(format!(
                "whose name clients do not accept: choose 1 to {MAXIMUM_NAME} letters, digits, _, - and ."
            )));
        }
        if registry.iter().any(|built_in| built_in.name == name) {
            return Err(wrong("whose name already belongs to a tool: choose another".into()));
        }
        if !tools.contains(tool) {
            let can_be_allowed = registry.iter().any(|built_in| built_in.writes && built_in.name == tool);
            let allow = if can_be_allowed { ", or allow it with --allow" } else { "" };
            return Err(wrong(format!("which is not an offered tool: choose one of {}{allow}", listed(tools))));
        }
        if aliases.insert(name.to_owned(), tool.to_owned()).is_some_and(|before| before != tool) {
            return Err(wrong("whose name is already an alias of another tool: choose another".into()));
        }
    }
    Ok(aliases)
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

fn listed<T: AsRef<str>>(names: impl IntoIterator<Item = T>) -> String {
    let names: Vec<T> = names.into_iter().collect();
    names.iter().map(AsRef::as_ref).collect::<Vec<&str>>().join(", ")
}

#[cfg(test)]
mod tests;
