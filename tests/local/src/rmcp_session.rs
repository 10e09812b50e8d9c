//! Session of rmcp with a remote server, in a separate process. Commands are JSON lines on standard input, events JSON
//! lines on standard output, as in `tests/clients`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, anyhow, bail};
use reqwest::Certificate;
use rmcp::handler::client::ClientHandler;
use rmcp::model::{
    CallToolRequest, CallToolRequestParams, ClientRequest, ContentBlock, GetPromptRequestParams,
    ProgressNotificationParam, ProgressToken, ProtocolVersion, ReadResourceRequestParams, ResourceContents,
    ServerNotification, ServerResult, SubscriptionFilter,
};
use rmcp::service::{ClientLifecycleMode, ClientServiceExt, NotificationContext, Peer, PeerRequestOptions, RoleClient};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio_util::sync::CancellationToken;

/// The server, and its client options.
#[derive(Deserialize)]
struct Server {
    url: String,
    token: String,
    /// True to skip the handshake.
    modern: bool,
}

/// A command, in a line of JSON.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Command {
    #[serde(default)]
    id: u64,
    #[serde(flatten)]
    task: Task,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
enum Task {
    List(String),
    Call(String),
    Get(String),
    Read(String),
    Listen(serde::de::IgnoredAny),
    Cancel(u64),
}

/// Prints the progress of calls. Tokens identify the commands of calls. A token is known only after its request was
/// sent, so that progress can arrive before it.
#[derive(Clone, Default)]
struct Progress(Arc<Mutex<Tokens>>);

#[derive(Default)]
struct Tokens {
    commands: HashMap<ProgressToken, u64>,
    early: Vec<ProgressNotificationParam>,
}

impl Progress {
    fn is_of(&self, token: &ProgressToken, command: u64) {
        let mut tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.commands.insert(token.clone(), command);
        tokens.early.extract_if(.., |early| early.progress_token == *token).for_each(|early| tell_of(command, &early));
    }
}

impl ClientHandler for Progress {
    async fn on_progress(&self, params: ProgressNotificationParam, _: NotificationContext<RoleClient>) {
        let mut tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match tokens.commands.get(&params.progress_token) {
            Some(command) => tell_of(*command, &params),
            None => tokens.early.push(params),
        }
    }
}

fn tell_of(command: u64, progress: &ProgressNotificationParam) {
    let ProgressNotificationParam { progress, message, .. } = progress;
    tell(&json!({"event": "progress", "id": command, "progress": progress, "message": message}));
}

fn tell(event: &Value) {
    println!("{event}");
}

/// Executes commands until standard input ends.
pub(crate) async fn serve(server: &str) -> anyhow::Result<()> {
    let server: Server = serde_json::from_str(server)?;
    let authorities = std::fs::read(std::env::var_os("SSL_CERT_FILE").context("SSL_CERT_FILE")?)?;
    let http = reqwest::Client::builder().tls_certs_only(Certificate::from_pem_bundle(&authorities)?).build()?;
    let configuration = StreamableHttpClientTransportConfig::with_uri(server.url).auth_header(server.token);
    let transport = StreamableHttpClientTransport::with_client(http, configuration);
    let progress = Progress::default();
    let lifecycle = match server.modern {
        true => ClientLifecycleMode::Discover { preferred_versions: vec![ProtocolVersion::V_2026_07_28] },
        false => ClientLifecycleMode::Initialize,
    };
    let client = progress.clone().serve_with_lifecycle(transport, lifecycle).await?;
    tell(&json!({"event": "ready"}));
    let mut running = HashMap::new();
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let Command { id, task } = serde_json::from_str(&line)?;
        if let Task::Cancel(call) = task {
            running.get(&call).map(CancellationToken::cancel);
            continue;
        }
        let cancelled = CancellationToken::new();
        running.insert(id, cancelled.clone());
        let (peer, progress) = (client.peer().clone(), progress.clone());
        tokio::spawn(async move {
            if let Err(error) = run(&peer, &progress, (id, task), &cancelled).await {
                tell(&json!({"event": "failed", "id": id, "error": format!("{error:#}")}));
            }
        });
    }
    client.cancel().await?;
    Ok(())
}

async fn run(
    peer: &Peer<RoleClient>,
    progress: &Progress,
    (id, task): (u64, Task),
    cancelled: &CancellationToken,
) -> anyhow::Result<()> {
    let listed = |names: Vec<String>| tell(&json!({"event": "listed", "id": id, "names": names}));
    let answered = |texts: Vec<String>, is_error| {
        tell(&json!({"event": "answer", "id": id, "isError": is_error, "text": texts.join("\n")}));
    };
    match task {
        Task::List(kind) => listed(match kind.as_str() {
            "tools" => peer.list_all_tools().await?.into_iter().map(|tool| tool.name.to_string()).collect(),
            "prompts" => peer.list_all_prompts().await?.into_iter().map(|prompt| prompt.name).collect(),
            _ => peer.list_all_resources().await?.into_iter().map(|resource| resource.uri.clone()).collect(),
        }),
        Task::Call(tool) => {
            let request = ClientRequest::CallToolRequest(CallToolRequest::new(CallToolRequestParams::new(tool)));
            let mut handle = peer.send_cancellable_request(request, PeerRequestOptions::no_options()).await?;
            progress.is_of(&handle.progress_token, id);
            let answered_in_time = tokio::select! {
                answer = &mut handle.rx => Some(answer??),
                () = cancelled.cancelled() => None,
            };
            let Some(result) = answered_in_time else {
                handle.cancel(None).await?;
                bail!("cancelled");
            };
            let ServerResult::CallToolResult(result) = result else { bail!("no result of a tool: {result:?}") };
            answered(texts(&result.content), result.is_error == Some(true));
        }
        Task::Get(name) => {
            let prompt = peer.get_prompt(GetPromptRequestParams::new(name)).await?;
            answered(texts(prompt.messages.iter().map(|message| &message.content)), false);
        }
        Task::Read(uri) => {
            let resource = peer.read_resource(ReadResourceRequestParams::new(uri)).await?;
            let text = |contents: ResourceContents| match contents {
                ResourceContents::TextResourceContents { text, .. } => Some(text),
                _ => None,
            };
            answered(resource.contents.into_iter().filter_map(text).collect(), false);
        }
        Task::Listen(_) => {
            let mut news = peer.listen(SubscriptionFilter::builder().tools_list_changed().build()).await?;
            tell(&json!({"event": "listening", "id": id}));
            while let Some(notification) = news.next().await? {
                if let ServerNotification::ToolListChangedNotification(_) = notification {
                    tell(&json!({"event": "changed", "what": "tools"}));
                }
            }
        }
        Task::Cancel(_) => return Err(anyhow!("a command that is not a task")),
    }
    Ok(())
}

fn texts<'a>(blocks: impl IntoIterator<Item = &'a ContentBlock>) -> Vec<String> {
    blocks.into_iter().filter_map(|block| block.as_text().map(|text| text.text.clone())).collect()
}
