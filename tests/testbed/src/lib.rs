//! A real Kubernetes control plane, a node whose pods are processes, and an HTTPS edge: what the tests and the demo
//! run on. It needs no root, no container engine and no fixed port, and leaves nothing behind, even when killed.
//!
//! Where root is at hand, [`container_node`] is a real node instead, in [`namespaces`] of its own.

pub mod address;
pub mod certificate_manager;
pub mod certificates;
pub mod chart;
pub mod command_line;
pub mod container_node;
pub mod control_plane;
mod controller;
pub mod definitions;
pub mod edge;
mod forward;
mod go_modules;
pub mod helm;
pub mod namespaces;
pub mod network_policy;
pub mod node;
pub mod openapi;
pub mod pod_proxy;
pub mod programs;
mod serve;
pub mod shared;
pub mod stack;
pub mod supervisor;
pub mod workload_identity_webhook;
