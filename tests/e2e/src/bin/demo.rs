//! `cargo demo`: plays the product's story on a real control plane, one line for each step. Then it keeps running, to
//! be used by hand.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use e2e::laptop::{self, Laptop};
use e2e::story::{SERVER, STEPS, World, play_all};
use mcp_entra_crds::ConditionType;
use testbed::stack::Stack;

/// Plays the story of an MCP server from `kubectl apply` to a Graph answer, without a secret.
#[derive(Parser)]
struct Arguments {
    /// Play the story of a laptop: the server as the child of an MCP client, without Kubernetes.
    #[arg(long)]
    local: bool,
    /// End after the story: exit code 0 only if every step passed.
    #[arg(long)]
    exit: bool,
}

/// Exit code that a shell expects of a program ended by Ctrl-C.
const INTERRUPTED: u8 = 130;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    tokio::select! {
        ended = demo(&arguments) => match ended {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) => {
                eprintln!("demo: {error:#}");
                ExitCode::FAILURE
            }
        },
        // The supervisor sees our end of the pipe close, and ends everything that runs.
        _ = tokio::signal::ctrl_c() => ExitCode::from(INTERRUPTED),
    }
}

async fn demo(arguments: &Arguments) -> anyhow::Result<bool> {
    match arguments.local {
        true => on_a_laptop(arguments).await,
        false => in_a_cluster(arguments).await,
    }
}

async fn on_a_laptop(arguments: &Arguments) -> anyhow::Result<bool> {
    println!(
        "mcp-entra demo: a real MCP client starts the real server as its child. Entra, Graph and the browser are emulated.\n"
    );
    let laptop = Laptop::start().await?;
    let story = Instant::now();
    let passed = laptop.play_all().await;
    println!("\ndemo: {passed} of {} steps passed in {:.1} s", laptop::STEPS.len(), story.elapsed().as_secs_f64());
    let all = passed == laptop::STEPS.len();
    if !all || arguments.exit {
        return Ok(all);
    }
    println!(
        "\nEntra keeps running; Ctrl-C ends it. To try it by hand, with your browser (it does not trust the certificate):\n"
    );
    println!("  {}\n", laptop.command_line("--doctor"));
    println!("  {}\n", laptop.command_line("--print-config vscode"));
    std::future::pending().await
}

async fn in_a_cluster(arguments: &Arguments) -> anyhow::Result<bool> {
    let start = Instant::now();
    println!(
        "mcp-entra demo: a real Kubernetes API server, a real service account token, real HTTPS; Entra and Graph are emulated."
    );
    println!("Building its programs: 10 to 20 minutes on 2 cores the first time, seconds after that.");
    let stack = Arc::new(Stack::start(&|line| println!("  {line}")).await?);
    println!("Everything runs after {:.1?}. The story:\n", start.elapsed());
    let mut world = World::of_the_examples(stack)?;
    world.patience = Duration::from_secs(30);

    let story = Instant::now();
    let passed = play_all(&world, STEPS).await;
    let verdict = format!("demo: {passed} of {} steps passed in {:.0} s", STEPS.len(), story.elapsed().as_secs_f64());
    let all = passed == STEPS.len();
    if !all || arguments.exit {
        if !all {
            println!("\nLast log lines of the operator:\n{}", world.stack.operator_log().await?);
        }
        println!("\n{verdict}");
        return Ok(all);
    }
    println!("\n{verdict}\n");
    // The credential still exists, as it would in Entra.
    SERVER.play(&world).await?;
    world.condition(ConditionType::Ready, "True").await?;
    by_hand(&world).await?;
    std::future::pending().await
}

async fn by_hand(world: &World) -> anyhow::Result<()> {
    let stack = &world.stack;
    let kubeconfig = stack.control_plane.kubeconfig().display().to_string();
    let edge = stack.edge.address();
    let authorities = stack.folder().join("edge-ca.pem");
    std::fs::write(&authorities, stack.certificates.pem())?;
    let alice = world.sign_in(&world.alice).await?.access_token;
    let bob = world.sign_in(&world.bob).await?.access_token;
    println!("It keeps running; Ctrl-C ends it and leaves nothing behind. To try it by hand:\n");
    println!("  kubectl --kubeconfig {kubeconfig} get mcpservers --all-namespaces");
    println!("  kubectl --kubeconfig {kubeconfig} -n {} describe mcpserver graph\n", world.namespace);
    println!("  (without kubectl: {})\n", stack.control_plane.kubectl().display());
    println!("MCP URL: {} (the edge serves it at {edge})\n", world.url());
    println!("  TOKEN=…");
    println!("  curl --cacert {} --connect-to {}:443:{edge} {} \\", authorities.display(), world.host, world.url());
    println!("    -H \"Authorization: Bearer $TOKEN\" \\");
    println!(
        "    --json '{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{{\"name\":\"get_user_details\"}}}}'\n"
    );
    println!("Tokens, valid for about an hour. alice, who has the role Mcp.Reader:\n{alice}\n");
    println!("bob, who has no role:\n{bob}\n");
    Ok(())
}
