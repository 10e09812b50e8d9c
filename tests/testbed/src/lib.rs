//! Test environment of tests and demo: a real Kubernetes control plane, a node whose pods are processes, and an HTTPS
//! edge. It needs no root, no container engine and no fixed port. It leaves nothing behind, even when killed.
//!
//! With root, [`container_node`] is a real node instead, in its own [`namespaces`].

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
mod pod_tunnels;
pub mod programs;
mod serve;
pub mod shared;
pub mod stack;
pub mod supervisor;
pub mod workload_identity_webhook;
