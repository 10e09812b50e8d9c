//! The operator: reconciles `McpServer`s into running MCP servers, and `McpRoleMapping`s into the policy they enforce.
//!
//! A pass over one McpServer, in the order in which the rooms are used:
//!
//! 1. [`world`] holds what the watches have seen, of the kinds that [`discovery`] found, children and pods, as [`watched`], in a
//!    [`cache`] of small [`views`]; [`concerns`] tells whom a change concerns; [`resolve`] reads the little that they have not.
//! 2. [`policy`] compiles the mappings that are about the server ([`binding`]), [`validate`] decides whether the spec can be
//!    built at all. Both are pure. [`ownership`] then claims the host and the client id, unless another server holds them.
//! 3. [`build`] makes the children, one of each [`child`] kind that the spec asks for. It is pure, and only what was
//!    validated and is held reaches it.
//!    [`fleet`] decides whether pods that nobody asked for have to wait for their turn.
//! 4. [`children`] brings them about in their order: [`apply`] writes what differs ([`drift`]), and nothing else: the policy before anything else is even read, so that nothing
//!    holds up a revocation. [`replicas`] hands the number of pods over to an autoscaler and back.
//! 5. [`pods`] asks the pods what is so, and nudges those whose policy is old.
//! 6. [`status`] turns all that into conditions ([`conditions`] for [`reasons`]: [`programmed`], [`availability`],
//!    [`reported`], [`exposed`]) and writes them once, what is [`news`] at once; [`events`] says what changed.
//!
//! [`controller`] wires a pass together, [`mapping`] is the small controller of role mappings, whose status
//! [`mapping_status`] decides, [`preview`] says offline or in a cluster who may call what, [`memory`] what a pass
//! leaves to the next, [`errors`] what happens when it fails, [`http`], [`metrics`] and [`census`] what is told about
//! all that. [`leader`] elects the one replica that reconciles; the others watch, so that they can take over at once.
//! [`passes`] decides when a pass may run, [`api`] how long the API server may take for an answer,
//! [`orphans`] takes the rights of what was left without its McpServer,
//! [`scope`] where it is watched, [`sight`] what must be seen for that. [`render`] does the
//! pure steps on [`manifests`], offline.
//!
//! Nothing here needs a state of its own: with the memory lost, a pass reads more and decides the same.

mod api;
mod apply;
mod availability;
mod binding;
mod build;
mod by_uid;
mod cache;
mod census;
mod check;
mod child;
mod children;
mod concerns;
mod conditions;
mod controller;
mod discovery;
mod drift;
mod editions;
mod errors;
mod events;
mod exposed;
mod exposure;
mod fleet;
mod foreign;
mod gate;
mod gateways;
mod hosts;
mod http;
mod leader;
mod manifests;
mod mapping;
mod mapping_status;
mod memory;
mod metrics;
mod news;
mod options;
mod orphans;
mod owner;
mod ownership;
mod passes;
mod pods;
mod policies;
mod policy;
mod preview;
mod programmed;
mod reasons;
mod render;
mod replicas;
mod report;
mod reported;
mod resolve;
mod run;
mod scope;
mod shares;
mod sight;
mod status;
mod unwritten;
mod validate;
mod views;
mod watched;
mod workload;
mod world;

pub use check::{CheckError, CheckOptions, check};
pub use hosts::NoHostAllowed;
pub use http::listen;
pub use leader::Lost;
pub use manifests::ManifestError;
pub use options::{Options, PodMonitors};
pub use preview::{PreviewError, PreviewOptions, preview};
pub use render::{Arguments as RenderArguments, RenderError, render};
pub use run::{RunError, run};
pub use sight::Blind;

/// The field manager of every write, and the value of the `app.kubernetes.io/managed-by` label.
pub const MANAGER: &str = "mcp-entra-operator";
