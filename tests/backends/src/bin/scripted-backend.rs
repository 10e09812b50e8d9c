//! A scripted backend as a program, over stdio or streamable HTTP.

use clap::Parser;
use stock_backends::scripted::{Options, serve_http, serve_stdio};

/// Behaves as its caller requests, correctly or not.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    options: Options,
    /// Serves streamable HTTP at /mcp of this port on 127.0.0.1, not stdio.
    #[arg(long)]
    port: Option<u16>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Arguments { options, port } = Arguments::parse();
    match port {
        Some(port) => serve_http(options, port).await?,
        None => serve_stdio(options).await?,
    }
    // A read of stdin may still block a thread.
    std::process::exit(0)
}
