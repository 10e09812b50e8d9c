//! The built-in tools, prompts and resources for one person. A call that needs a sign-in starts one, waits for a
//! while, and continues.

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

/// Longest wait of a call for the sign-in: less than a minute, the shortest time limit of MCP clients.
const PATIENCE: Duration = Duration::from_secs(45);
/// The same after the client was asked to open the page, which takes a part of that minute.
const PATIENCE_AFTER_ASKING: Duration = Duration::from_secs(25);
/// Time between two progress messages. Some clients count their time limit from the last one.
const PROGRESS: Duration = Duration::from_secs(5);
/// Pause after a sign-in that did not help. No new sign-in starts during it.
const PAUSE: Duration = Duration::from_secs(60);
/// Name of the request to the client to open an address.
const SIGN_IN: &str = "sign_in";

/// The built-in tools, prompts and resources for one person.
pub(super) struct LocalOffer {
    graph: GraphOffer,
    sign_ins: Arc<SignIns>,
    /// Aliases with their tools.
    aliases: BTreeMap<String, String>,
    /// The command for signing in if no browser opens.
    command: String,
    /// The offer with aliases, by the id of the snapshot without them.
    with_aliases: Mutex<Option<(u64, Arc<Offered>)>>,
    /// Time of the last sign-in after which the tool still asked for one.
    in_vain: Mutex<Option<Instant>>,
}

impl LocalOffer {
    /// Returns an offer of these tools and aliases, with these sign-ins. `command` signs in in a terminal.
    pub(super) fn new(
        graph: GraphOffer,
        sign_ins: Arc<SignIns>,
        aliases: BTreeMap<String, String>,
        command: String,
    ) -> Self {
        Self { graph, sign_ins, aliases, command, with_aliases: Mutex::default(), in_vain: Mutex::default() }
    }

    /// Replaces an alias in the call with the tool's own name.
    fn by_own_name(&self, mut call: Call) -> Call {
        if let Operation::Tool { name, .. } = &mut call.operation
            && let Some(own) = self.aliases.get(name)
        {
            name.clone_from(own);
        }
        call
    }

    /// Answers a call that needs a sign-in: signs the person in and repeats the call.
    async fn after_sign_in(&self, call: Call, sign_in: &SignIn) -> Reply {
        let is_tool = is_tool(&call);
        let failed = |text: &str| failed(is_tool, text);
        let asked = Asked::of(&call);
        if asked == Asked::Declined {
            self.sign_ins.abandon().await;
            return failed("The sign-in was declined, but this call needs it. Call again to sign in.");
        }
        let (open, is_new) = match self.sign_ins.open(sign_in).await {
            Ok(open) => open,
            Err(error) => return failed(&error.told()),
        };
        // A client that can open addresses is asked once per call.
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
        // A person cannot enter a code before seeing it.
        let patience = match asked {
            _ if is_new && open.is_on_any_device() => Duration::ZERO,
            Asked::No => PATIENCE,
            _ => PATIENCE_AFTER_ASKING,
        };
        match wait(&open, &call.client.notices, patience).await {
            None => failed(&open.instruction()),
            Some(Err(error)) => failed(&error.told()),
            // The client may have repeated the call during the wait. A repetition here would run it twice.
            Some(Ok(())) if writes(&call) => {
                failed("You are signed in now. This call was not carried out: call again.")
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

/// The client's answer to the request to open an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    /// The client was not asked in this call.
    No,
    /// The person opens the address.
    Accepted,
    /// The person declined.
    Declined,
    /// The client cannot open addresses, or did not answer in time.
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

/// Waits for the end of a sign-in for at most this time, and reports progress to the client.
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

/// Returns a failure with this text. Only tools have results that report errors.
fn failed(is_tool: bool, text: &str) -> Reply {
    match is_tool {
        true => Reply::Complete(tool_error(text)),
        false => Reply::Failed(Failure::internal(text)),
    }
}

/// Asks the client to let the person open an address of this program.
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

/// Returns the offer with each tool also under its aliases.
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
            // Without this pause, a model that repeats the call would start sign-ins forever.
            // The person cannot help: an administrator must consent, as the text says.
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
