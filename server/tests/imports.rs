//! Direction of imports: between the top modules they run one way, and no two modules import each other.

use std::path::Path;

/// Top modules of the server from the top down, each with its purpose. A module imports only from those below it.
const MODULES: &[(&str, &str)] = &[
    ("serve", "starts and stops the server"),
    ("stdio", "serves one user over standard input and output"),
    ("check", "reports the working parts of a configuration"),
    ("admin", "answers about the pod's health"),
    ("oauth", "signs users in for clients that cannot sign in to Entra"),
    ("http", "passes a request through its stages"),
    ("protocol", "speaks MCP for any offer"),
    ("policy", "keeps the compiled policy in force"),
    ("authorize", "decides about messages, without HTTP"),
    ("offer", "answers calls: the interface, and the built-in tools"),
    ("backend", "calls another MCP server"),
    ("groups", "reads the groups that a token does not list"),
    ("graph", "calls Microsoft Graph"),
    ("backend_identity", "makes the identity of a caller for a backend"),
    ("entra", "calls Entra's token endpoint"),
    ("audit", "writes the audit log"),
    ("token", "validates bearer tokens"),
    ("telemetry", "counts and logs"),
    ("report", "writes the results of checks, line by line"),
    ("inputs", "reads the input files of a server"),
    ("http_client", "sends requests over HTTPS"),
    ("www_authenticate", "reads and writes challenges"),
    ("listeners", "lists the sockets that listen in this pod"),
    ("environment", "refuses secrets in the environment"),
    ("open_files", "raises the limit of open files"),
    ("signals", "receives the signals that request a stop"),
    ("raw_json", "keeps the exact text of JSON"),
    ("strict_json", "reads JSON without duplicate members"),
    ("es256", "signs JWTs"),
    ("aes_gcm", "encrypts with protection against changes"),
];

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src");

#[test]
fn a_module_imports_only_from_modules_below_it() {
    let breaches = import_graph::against(MODULES, Path::new(SOURCE)).unwrap();
    assert!(breaches.is_empty(), "imports against the direction: {breaches:#?}");
}

#[test]
fn no_modules_import_each_other_in_a_circle() {
    let circles = import_graph::circles(Path::new(SOURCE)).unwrap();
    assert!(circles.is_empty(), "these import each other: {circles:?}");
}
