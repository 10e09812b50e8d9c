//! The built-in tools, prompts and resources for one person: a call that takes a sign-in begins one, waits a while for it, and goes on.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use mcp_entra_policy::built_in_tool;
use serde_json::{Value, json};

use super::sign_in::{OpenSignIn, SignInError, SignIns};
use crate::entra::SignIn;
use crate::offer::graph::GraphOffer;
use crate::offer::{
    About, Call, Completion, CompletionRequest, Failure, InputRequired, Notices, Offer, Offered, OfferedTool,
    Operation, Reply, Unavailable, tool_error,
};
use crate::token::Principal;

/// Time that a call waits for the person: less than the shortest time limit of MCP clients, which is a minute.
const PATIENCE: Duration = Duration::from_secs(45);
/// The same once the client has been asked to open the page, which takes its own part of that minute.
const PATIENCE_AFTER_ASKING: Duration = Duration::from_secs(25);
/// Time between two messages of progress. Some clients count their limit from the last one.
const PROGRESS: Duration = Duration::from_secs(5);
/// Time in which no sign-in begins after one that did not help.
const PAUSE: Duration = Duration::from_secs(60);
/// The name of the request to the client to open an address.
const SIGN_IN: &str = "sign_in";

/// The built-in tools, prompts and resources for one person.
pub(super) struct LocalOffer {
    graph: GraphOffer,
    sign_ins: Arc<SignIns>,
    /// Further names of tools, each with the tool that it stands for.
    aliases: BTreeMap<String, String>,
    /// The command by which the person signs in where no browser opens by itself.
    command: String,
    /// The tools with their further names, by the number of the snapshot without those.
    with_aliases: Mutex<Option<(u64, Arc<Offered>)>>,
    /// Time of the last sign-in after which the tool asked for another one.
    in_vain: Mutex<Option<Instant>>,
}

impl LocalOffer {
    /// These tools, also under these names, with these sign-ins. `command` signs in in a terminal.
    pub(super) fn new(
        graph: GraphOffer,
        sign_ins: Arc<SignIns>,
        aliases: BTreeMap<String, String>,
        command: String,
    ) -> Self {
        Self { graph, sign_ins, aliases, command, with_aliases: Mutex::default(), in_vain: Mutex::default() }
    }

    /// The call by the tool's own name.
    fn by_own_name(&self, mut call: Call) -> Call {
        if let Operation::Tool { name, .. } = &mut call.operation
            && let Some(own) = self.aliases.get(name)
        {
            name.clone_from(own);
        }
        call
    }

    /// Answers a call that takes a sign-in: signs the person in, and calls again.
    async fn after_sign_in(&self, call: Call, sign_in: &SignIn) -> Reply {
        let is_tool = is_tool(&call);
        let failed = |text: &str| failed(is_tool, text);
        let asked = Asked::of(&call);
        if asked == Asked::Declined {
            self.sign_ins.abandon().await;
            return failed("The sign-in was declined, without which this reaches nothing. Call again to sign in.");
        }
        let (open, is_new) = match self.sign_ins.open(sign_in).await {
            Ok(open) => open,
            Err(error) => return failed(&error.told()),
        };
        // A client that opens addresses is asked once a call.
        let is_shown_by_client = call.client.opens_addresses() && asked != Asked::Unanswered;
        match (is_shown_by_client, asked) {
            (true, Asked::No) => {
                if let Some(address) = open.address() {
                    return open_address(address);
                }
            }
            (false, _) if is_new || asked == Asked::Unanswered => {
                if let Err(error) = open.show().await {
                    return failed(&self.no_browser(&error));
                }
            }
            _ => {}
        }
        // The person cannot enter a code before they are told it.
        let patience = match asked {
            _ if is_new && open.is_on_any_device() => Duration::ZERO,
            Asked::No => PATIENCE,
            _ => PATIENCE_AFTER_ASKING,
        };
        match wait(&open, &call.client.notices, patience).await {
            None => failed(&open.instruction()),
            Some(Err(error)) => failed(&error.told()),
            // The client may have repeated the call while it waited: then it would be done twice.
            Some(Ok(())) if writes(&call) => {
                failed("You are signed in now. This call has changed nothing yet: call again.")
            }
            Some(Ok(())) => match self.graph.call(call).await {
                Reply::SignIn(_, text) => {
                    *self.in_vain() = Some(Instant::now());
                    failed(&text)
                }
                reply => reply,
            },
        }
    }

    fn in_vain(&self) -> MutexGuard<'_, Option<Instant>> {
        self.in_vain.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn no_browser(&self, error: &std::io::Error) -> String {
        format!(
            "You are not signed in, and no browser opens here ({error}). Run this in a terminal, and call again: {}",
            self.command
        )
    }
}

/// The answer of the client to the request to open an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    /// It was not asked in this call.
    No,
    /// The person opens the address.
    Accepted,
    /// The person does not want to.
    Declined,
    /// The client cannot, or did not answer in time.
    Unanswered,
}

impl Asked {
    fn of(call: &Call) -> Self {
        let Some(answer) = call.input.responses.get(SIGN_IN) else { return Self::No };
        match answer.get("action").and_then(Value::as_str) {
            Some("accept") => Self::Accepted,
            Some(_) => Self::Declined,
            None => Self::Unanswered,
        }
    }
}

/// The outcome of a sign-in, if it comes in this time. Meanwhile the client is told of the progress.
async fn wait(open: &OpenSignIn, notices: &Notices, patience: Duration) -> Option<Result<(), Arc<SignInError>>> {
    let telling = async {
        loop {
            notices.progress("waiting for the sign-in in your browser");
            tokio::time::sleep(PROGRESS).await;
        }
    };
    tokio::select! {
        outcome = open.wait(patience) => outcome.map(|outcome| outcome.map(drop)),
        () = telling => None,
    }
}

/// True if a call changes something.
fn writes(call: &Call) -> bool {
    matches!(&call.operation, Operation::Tool { name, .. } if built_in_tool(name).is_none_or(|tool| tool.writes))
}

fn is_tool(call: &Call) -> bool {
    matches!(call.operation, Operation::Tool { .. })
}

/// Says in words what went wrong: only a tool has a result for that.
fn failed(is_tool: bool, text: &str) -> Reply {
    match is_tool {
        true => Reply::Complete(tool_error(text)),
        false => Reply::Failed(Failure::internal(text)),
    }
}

/// Asks the client to have the person open an address of ours.
fn open_address(address: String) -> Reply {
    let request = json!({
        "method": "elicitation/create",
        "params": {
            "mode": "url",
            "message": "Sign in with your Microsoft account, so that this program can reach Microsoft Graph as you.",
            "url": address,
            "elicitationId": uuid::Uuid::new_v4().to_string(),
        },
    });
    let requests = BTreeMap::from([(SIGN_IN.to_owned(), request)]);
    Reply::InputRequired(InputRequired { requests, state: None })
}

/// The same, with each tool under its further names, too.
fn with_aliases(offered: &Offered, aliases: &BTreeMap<String, String>) -> Offered {
    let further = aliases
        .iter()
        .filter_map(|(alias, own)| Some(OfferedTool { name: alias.clone(), ..offered.tool(own)?.clone() }));
    let tools = offered.tools.iter().cloned().chain(further).collect();
    let (prompts, resources) = (offered.prompts.clone(), offered.resources.clone());
    Offered::new(tools, prompts, resources, offered.templates.clone())
}

#[async_trait]
impl Offer for LocalOffer {
    fn about(&self) -> Arc<About> {
        self.graph.about()
    }

    async fn snapshot(&self, principal: &Arc<Principal>) -> Result<Arc<Offered>, Unavailable> {
        let offered = self.graph.snapshot(principal).await?;
        if self.aliases.is_empty() {
            return Ok(offered);
        }
        let mut kept = self.with_aliases.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((id, all)) = kept.as_ref()
            && *id == offered.id()
        {
            return Ok(Arc::clone(all));
        }
        let all = Arc::new(with_aliases(&offered, &self.aliases));
        *kept = Some((offered.id(), Arc::clone(&all)));
        Ok(all)
    }

    async fn call(&self, call: Call) -> Reply {
        let call = self.by_own_name(call);
        let is_tool = is_tool(&call);
        match self.graph.call(call.clone()).await {
            // A model that calls again and again would have the person sign in for ever.
            // An administrator consents, as the text says.
            Reply::SignIn(SignIn::Consenting(_), text) => failed(is_tool, &text),
            Reply::SignIn(_, text) if self.in_vain().is_some_and(|at| at.elapsed() < PAUSE) => failed(is_tool, &text),
            Reply::SignIn(sign_in, _) => self.after_sign_in(call, &sign_in).await,
            reply => reply,
        }
    }

    async fn complete(&self, completing: CompletionRequest, principal: &Arc<Principal>) -> Result<Completion, Failure> {
        self.graph.complete(completing, principal).await
    }
}
