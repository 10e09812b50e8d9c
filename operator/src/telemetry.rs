//! Telemetry of the program: logs on standard error, and traces by OTLP if the environment configures them.

use std::{env, io::IsTerminal, time::Duration};

use anyhow::Context;
use clap::ValueEnum;
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use tracing_subscriber::{
    filter::{EnvFilter, LevelFilter, Targets},
    layer::{Layer, SubscriberExt},
    util::SubscriberInitExt,
};

/// Time limit for sending the last spans.
const FLUSH: Duration = Duration::from_secs(5);
/// Variables that configure the destination of traces. The exporter reads them and OpenTelemetry's other variables
/// itself.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"];

/// The format of logs.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum LogFormat {
    /// One JSON object per line.
    Json,
    /// Text for people.
    Text,
}

/// The exporter of traces, if it is configured.
pub(crate) struct Telemetry(Option<SdkTracerProvider>);

impl Telemetry {
    /// Starts logging and tracing. `RUST_LOG` filters the logs; the traces contain only the operator's own spans.
    pub(crate) fn start(format: Option<LogFormat>) -> anyhow::Result<Self> {
        let filter = match env::var_os(EnvFilter::DEFAULT_ENV) {
            Some(_) => {
                EnvFilter::try_from_default_env().context("RUST_LOG cannot be read; an example is info,kube=debug")?
            }
            None => EnvFilter::new("info,kube=warn"),
        };
        let by_default = if std::io::stderr().is_terminal() { LogFormat::Text } else { LogFormat::Json };
        let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
        let lines = match format.unwrap_or(by_default) {
            LogFormat::Json => lines.json().flatten_event(true).boxed(),
            LogFormat::Text => lines.boxed(),
        };
        let provider = is_configured().then(provider).transpose()?;
        let own = Targets::new().with_target("mcp_entra_operator", LevelFilter::INFO);
        let spans = provider.as_ref().map(|provider| {
            tracing_opentelemetry::layer()
                .with_tracer(provider.tracer("mcp-entra-operator"))
                .with_location(false)
                .with_threads(false)
                .with_filter(own)
        });
        tracing_subscriber::registry().with(lines.with_filter(filter)).with(spans).init();
        Ok(Self(provider))
    }

    /// Sends the remaining spans within a time limit.
    pub(crate) fn end(self) {
        if let Some(Err(error)) = self.0.map(|provider| provider.shutdown_with_timeout(FLUSH)) {
            tracing::warn!(%error, "cannot send the last traces; see OTEL_EXPORTER_OTLP_ENDPOINT");
        }
    }
}

fn is_configured() -> bool {
    ENDPOINTS.iter().any(|variable| env::var_os(variable).is_some_and(|value| !value.is_empty()))
}

fn provider() -> anyhow::Result<SdkTracerProvider> {
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .build()
        .context("cannot send traces with the settings in OTEL_EXPORTER_OTLP_*; correct or unset these variables")?;
    let name = env::var("OTEL_SERVICE_NAME").unwrap_or_else(|_| "mcp-entra-operator".to_owned());
    let resource = Resource::builder().with_service_name(name).build();
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build())
}
