//! Program of a pod for the testbed's own tests: it serves HTTP, reports its environment, and ends on request.

use std::net::SocketAddr;
use std::path::PathBuf;

use axum::Router;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::routing::get;
use clap::Parser;

#[derive(Parser)]
struct Arguments {
    /// Address to serve at.
    #[arg(long)]
    listen: SocketAddr,
    /// File that is served at /content. While it contains `ready`, /ready answers 200, otherwise 503.
    #[arg(long)]
    file: PathBuf,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Arguments { listen, file } = Arguments::parse();
    let content = move || std::fs::read_to_string(&file).unwrap_or_default();
    let ready = {
        let content = content.clone();
        async move || match content().trim() {
            "ready" => StatusCode::OK,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        }
    };
    let exit = async |Path(code): Path<i32>| -> StatusCode { std::process::exit(code) };
    let variable = async |Path(name): Path<String>| std::env::var(name).unwrap_or_default();
    let routes = Router::new()
        .route("/content", get(async move || content()))
        .route("/ready", get(ready))
        .route("/exit/{code}", get(exit))
        .route("/environment/{name}", get(variable));
    let listener = tokio::net::TcpListener::bind(listen).await?;
    println!("serving at {listen}");
    Ok(axum::serve(listener, routes).await?)
}
