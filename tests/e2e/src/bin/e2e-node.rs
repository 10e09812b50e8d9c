//! `cargo e2e-node`: the product's story on a real node, as root on Linux.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use e2e::story::{CONTAINER_STEPS, World, play_all};
use testbed::chart::{BACKEND, BACKEND_IMAGE, REGISTRY};
use testbed::container_node::ContainerNode;
use testbed::definitions;
use testbed::namespaces;
use testbed::stack::Stack;
use testbed::supervisor::Supervisor;

/// Plays the product's story on a real node: containerd, kubelet, kube-proxy, the images that `cargo xtask image` makes, and
/// Helm. For root on Linux.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    process: Option<Process>,
}

/// Role of this process, unless it is the one that the user started.
#[derive(Subcommand)]
#[command(hide = true)]
enum Process {
    #[command(name = namespaces::KEEPER)]
    Keeper { arguments: Vec<String> },
    #[command(name = namespaces::FIRST)]
    First { arguments: Vec<String> },
    #[command(name = INSIDE)]
    Inside { images: Vec<PathBuf> },
}

const INSIDE: &str = "inside";

fn main() -> ExitCode {
    let ended = match Arguments::parse().process {
        None => outside(),
        Some(Process::Keeper { arguments }) => namespaces::keep(&arguments),
        Some(Process::First { arguments }) => namespaces::first(&arguments),
        Some(Process::Inside { images }) => inside(&images),
    };
    match ended {
        Ok(code) => u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from),
        Err(error) => {
            eprintln!("e2e-node: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Builds everything, which needs a network. Inside the namespaces there is none.
fn outside() -> anyhow::Result<i32> {
    println!(
        "mcp-entra on a real node: containerd, kubelet, kube-proxy and our own images; Entra and Graph are emulated."
    );
    println!("Building its programs: about 20 minutes on 2 cores the first time, seconds after that.");
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async { ContainerNode::build(&Supervisor::start()?).await })?;
    definitions::gateway_api()?;
    let workspace = image::Workspace::read()?;
    let built = image::Program::ALL.map(|program| {
        let reference = image::reference(REGISTRY, program, env!("CARGO_PKG_VERSION"))?;
        image::build(&workspace, program, reference)
    });
    let mut arguments = vec![INSIDE.to_owned()];
    for image in built {
        let image = image?;
        println!("  {}, {:.1} MB, {}", image.reference, image.size as f64 / 1e6, image.digest);
        arguments.push(image.archive.display().to_string());
    }
    let (package, backend) = BACKEND;
    let backend = image::build_other(&workspace, package, backend, BACKEND_IMAGE)?;
    println!("  {BACKEND_IMAGE}, a third-party MCP server");
    arguments.push(backend.display().to_string());
    Ok(namespaces::enter(&arguments)?.code().unwrap_or(1))
}

fn inside(images: &[PathBuf]) -> anyhow::Result<i32> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let all = runtime.block_on(story(images))?;
    Ok(i32::from(!all))
}

async fn story(images: &[PathBuf]) -> anyhow::Result<bool> {
    let start = Instant::now();
    let stack = Arc::new(Stack::start_on_containers(images, &|line| println!("  {line}")).await?);
    println!("Everything runs after {:.1?}. The story:\n", start.elapsed());
    let mut world = World::of_the_examples(stack)?;
    world.patience = Duration::from_secs(60);
    let passed = play_all(&world, CONTAINER_STEPS).await;
    if passed < CONTAINER_STEPS.len() {
        println!("\nLast log lines of the operator:\n{}", world.stack.operator_log().await?);
    }
    println!(
        "\ne2e-node: {passed} of {} steps passed in {:.0} s",
        CONTAINER_STEPS.len(),
        start.elapsed().as_secs_f64()
    );
    Ok(passed == CONTAINER_STEPS.len())
}
