//! The known methods with their params.

use std::collections::HashSet;

use serde_json::Value;

use super::params::{Meta, Misfit, Params};
use crate::audit::Target;
use crate::offer::{About, CompletionReference, CompletionRequest, Input, JsonObject, Listed, Operation};

const CANCELLED: &str = "notifications/cancelled";
/// Resources that one client may listen to.
const MAXIMUM_RESOURCES: usize = 100;

/// A method with its params.
#[derive(Clone, Debug, PartialEq)]
pub enum Method {
    /// `initialize`: the handshake of clients before 2026-07-28.
    Initialize {
        /// The revision that the client requests.
        revision: String,
        /// Capabilities of the client.
        capabilities: JsonObject,
    },
    /// `server/discover`: the description of the server, without a handshake.
    Discover,
    /// `ping`, before 2026-07-28.
    Ping,
    /// `logging/setLevel`, before 2026-07-28.
    SetLogLevel,
    /// `tools/list`, `prompts/list`, `resources/list` or `resources/templates/list`.
    List {
        /// The list.
        of: Listed,
        /// The cursor from an earlier page.
        cursor: Option<String>,
    },
    /// `tools/call`, `prompts/get` or `resources/read`.
    Use {
        /// The use.
        operation: Operation,
        /// Client input besides arguments.
        input: Input,
    },
    /// `completion/complete`.
    Complete(CompletionRequest),
    /// `resources/subscribe` or `resources/unsubscribe`, before 2026-07-28.
    Subscribe {
        /// URI of the resource.
        uri: String,
        /// False for `resources/unsubscribe`.
        on: bool,
    },
    /// `subscriptions/listen`, since 2026-07-28.
    Listen(Filter),
    /// `notifications/cancelled`.
    Cancelled {
        /// The id of the request that the client cancels, if it is given.
        request: Option<Value>,
    },
    /// Another notification of a client, by name.
    Notification(&'static str),
    /// An unknown notification. It is ignored.
    UnknownNotification,
}

/// The notifications that a client requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Changes of the list of tools.
    pub tools: bool,
    /// Changes of the list of prompts.
    pub prompts: bool,
    /// Changes of the list of resources.
    pub resources: bool,
    /// URIs of the resources whose changes are reported, each once: the first 100 of the request.
    pub uris: Vec<String>,
}

impl Method {
    /// Returns the method's name in the protocol.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Initialize { .. } => "initialize",
            Self::Discover => "server/discover",
            Self::Ping => "ping",
            Self::SetLogLevel => "logging/setLevel",
            Self::List { of: Listed::Tools, .. } => "tools/list",
            Self::List { of: Listed::Prompts, .. } => "prompts/list",
            Self::List { of: Listed::Resources, .. } => "resources/list",
            Self::List { of: Listed::Templates, .. } => "resources/templates/list",
            Self::Use { operation: Operation::Tool { .. }, .. } => "tools/call",
            Self::Use { operation: Operation::Prompt { .. }, .. } => "prompts/get",
            Self::Use { operation: Operation::Resource { .. }, .. } => "resources/read",
            Self::Complete(_) => "completion/complete",
            Self::Subscribe { on: true, .. } => "resources/subscribe",
            Self::Subscribe { on: false, .. } => "resources/unsubscribe",
            Self::Listen(_) => "subscriptions/listen",
            Self::Cancelled { .. } => CANCELLED,
            Self::Notification(name) => name,
            Self::UnknownNotification => "notifications/*",
        }
    }

    /// True if the offer has this method.
    pub(super) fn is_served_by(&self, about: &About) -> bool {
        match self {
            Self::List { of: Listed::Prompts, .. } | Self::Use { operation: Operation::Prompt { .. }, .. } => {
                about.prompts
            }
            Self::List { of: Listed::Resources | Listed::Templates, .. }
            | Self::Use { operation: Operation::Resource { .. }, .. } => about.resources,
            Self::Complete(_) => about.completions,
            Self::SetLogLevel => about.logs,
            Self::Subscribe { .. } => about.updates_resources,
            Self::Initialize { .. }
            | Self::Discover
            | Self::Ping
            | Self::List { of: Listed::Tools, .. }
            | Self::Use { operation: Operation::Tool { .. }, .. }
            | Self::Listen(_)
            | Self::Cancelled { .. }
            | Self::Notification(_)
            | Self::UnknownNotification => true,
        }
    }

    /// True if the verdict or the answer depends on the current offer.
    pub fn depends_on_offer(&self) -> bool {
        match self {
            Self::List { .. } | Self::Use { .. } | Self::Complete(_) | Self::Subscribe { .. } | Self::Listen(_) => true,
            Self::Initialize { .. }
            | Self::Discover
            | Self::Ping
            | Self::SetLogLevel
            | Self::Cancelled { .. }
            | Self::Notification(_)
            | Self::UnknownNotification => false,
        }
    }

    /// Returns the requested use, if any.
    pub fn operation(&self) -> Option<&Operation> {
        if let Self::Use { operation, .. } = self { Some(operation) } else { None }
    }

    /// Returns the tool, prompt or resource that the method names, if any.
    pub fn target(&self) -> Option<Target> {
        Some(match self {
            Self::Use { operation: Operation::Tool { name, .. }, .. } => Target::Tool(name.clone()),
            Self::Use { operation: Operation::Prompt { name, .. }, .. } => Target::Prompt(name.clone()),
            Self::Use { operation: Operation::Resource { uri }, .. } | Self::Subscribe { uri, .. } => {
                Target::Resource(uri.clone())
            }
            Self::Complete(CompletionRequest { reference: CompletionReference::Prompt(name), .. }) => {
                Target::Prompt(name.clone())
            }
            Self::Complete(CompletionRequest { reference: CompletionReference::Template(text), .. }) => {
                Target::Resource(text.clone())
            }
            Self::Initialize { .. }
            | Self::Discover
            | Self::Ping
            | Self::SetLogLevel
            | Self::List { .. }
            | Self::Listen(_)
            | Self::Cancelled { .. }
            | Self::Notification(_)
            | Self::UnknownNotification => return None,
        })
    }
}

/// Parses the params of this request. Returns `None` if the client's revision has no such method.
pub(super) fn request(name: &str, mut params: Params, meta: &Meta) -> Option<Result<Method, Misfit>> {
    let is_modern = meta.is_modern();
    let method = match name {
        // A request that names a revision needs no handshake.
        "initialize" if meta.revision.is_some() => return None,
        // Since 2026-07-28 no state outlives a request.
        "ping" | "logging/setLevel" | "resources/subscribe" | "resources/unsubscribe" if is_modern => {
            return None;
        }
        "initialize" => initialize(params),
        "server/discover" => Ok(Method::Discover),
        "ping" => Ok(Method::Ping),
        "logging/setLevel" => params.required_level("level").map(|()| Method::SetLogLevel),
        "tools/list" => list(Listed::Tools, params),
        "prompts/list" => list(Listed::Prompts, params),
        "resources/list" => list(Listed::Resources, params),
        "resources/templates/list" => list(Listed::Templates, params),
        "tools/call" => used(params, |params| {
            let arguments = params.object("arguments")?.unwrap_or_default();
            Ok(Operation::Tool { name: params.required_text("name")?, arguments: arguments.into() })
        }),
        "prompts/get" => used(params, |params| {
            let arguments = params.object("arguments")?.unwrap_or_default();
            Ok(Operation::Prompt { name: params.required_text("name")?, arguments: arguments.into() })
        }),
        "resources/read" => used(params, |params| Ok(Operation::Resource { uri: params.required_text("uri")? })),
        "completion/complete" => complete(params),
        "resources/subscribe" => params.required_text("uri").map(|uri| Method::Subscribe { uri, on: true }),
        "resources/unsubscribe" => params.required_text("uri").map(|uri| Method::Subscribe { uri, on: false }),
        "subscriptions/listen" if is_modern => listen(params),
        _ => return None,
    };
    Some(method)
}

fn initialize(mut params: Params) -> Result<Method, Misfit> {
    let mut client = params.required_object("clientInfo")?;
    client.required_text("name")?;
    client.required_text("version")?;
    let capabilities = params.required_object("capabilities")?.into_object();
    Ok(Method::Initialize { revision: params.required_text("protocolVersion")?, capabilities })
}

fn list(of: Listed, mut params: Params) -> Result<Method, Misfit> {
    Ok(Method::List { of, cursor: params.text("cursor")? })
}

fn used(
    mut params: Params,
    operation: impl FnOnce(&mut Params) -> Result<Operation, Misfit>,
) -> Result<Method, Misfit> {
    let responses = params.object("inputResponses")?.unwrap_or_default().into_iter().collect();
    let state = params.text("requestState")?;
    Ok(Method::Use { operation: operation(&mut params)?, input: Input { responses, state } })
}

fn complete(mut params: Params) -> Result<Method, Misfit> {
    let mut reference = params.required_object("ref")?;
    let reference = match reference.required_text("type")?.as_str() {
        "ref/prompt" => CompletionReference::Prompt(reference.required_text("name")?),
        "ref/resource" => CompletionReference::Template(reference.required_text("uri")?),
        _ => {
            return Err(Misfit("the params do not fit the method: ref.type must be ref/prompt or ref/resource".into()));
        }
    };
    let mut argument = params.required_object("argument")?;
    let (argument, value) = (argument.required_text("name")?, argument.required_text("value")?);
    let context = match params.object("context")? {
        None => Default::default(),
        Some(context) => Params::from(context).texts("arguments")?,
    };
    Ok(Method::Complete(CompletionRequest { reference, argument, value, context }))
}

fn listen(mut params: Params) -> Result<Method, Misfit> {
    let mut notifications = params.required_object("notifications")?;
    let (mut uris, mut known) = (notifications.list("resourceSubscriptions")?.unwrap_or_default(), HashSet::new());
    uris.retain(|uri: &String| known.insert(uri.clone()));
    uris.truncate(MAXIMUM_RESOURCES);
    Ok(Method::Listen(Filter {
        tools: notifications.flag("toolsListChanged")?,
        prompts: notifications.flag("promptsListChanged")?,
        resources: notifications.flag("resourcesListChanged")?,
        uris,
    }))
}

/// Names of all requests.
pub(super) const REQUESTS: [&str; 15] = [
    "initialize",
    "server/discover",
    "ping",
    "logging/setLevel",
    "tools/list",
    "prompts/list",
    "resources/list",
    "resources/templates/list",
    "tools/call",
    "prompts/get",
    "resources/read",
    "completion/complete",
    "resources/subscribe",
    "resources/unsubscribe",
    "subscriptions/listen",
];

/// Parses the params of this notification. Returns `None` if the name belongs to a request.
pub(super) fn notification(name: &str, mut params: Params) -> Option<Method> {
    const KNOWN: [&str; 3] =
        ["notifications/initialized", "notifications/progress", "notifications/roots/list_changed"];
    if REQUESTS.contains(&name) {
        return None;
    }
    if name == CANCELLED {
        return Some(Method::Cancelled { request: params.any("requestId") });
    }
    let known = KNOWN.into_iter().find(|known| *known == name);
    Some(known.map_or(Method::UnknownNotification, Method::Notification))
}
