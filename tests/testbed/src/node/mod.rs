//! A Kubernetes node whose pods are local processes.
