//! Direction of imports: between the top modules they run one way, and no two modules import each other.

use std::path::Path;

/// Top modules of the server from the top down, each with its purpose. A module imports only from those below it.
const MODULES: &[(&str, &str)] = &[
    ("serve", "starts and stops the server"),
    ("stdio", "serves one person over standard input and output"),
    ("check", "says what of a configuration works"),
    ("admin", "answers about the pod's health"),
    ("oauth", "signs people in for clients that cannot sign in to Entra"),
    ("http", "takes a request through its stages"),
    ("protocol", "speaks MCP for any offer"),
    ("policy", "keeps the compiled policy in force"),
    ("authorize", "decides about messages, without HTTP"),
    ("offer", "answers calls: the interface, and the built-in tools"),
    ("backend", "asks another MCP server"),
    ("groups", "learns the groups that a token does not say"),
    ("graph", "asks Microsoft Graph"),
    ("backend_identity", "makes the identity of a caller that a backend is told"),
    ("entra", "asks Entra's token endpoint"),
    ("audit", "writes the audit log"),
    ("token", "validates bearer tokens"),
    ("telemetry", "counts and logs"),
    ("report", "writes what works, line by line"),
    ("inputs", "reads the files that a server is started with"),
    ("http_client", "asks others over HTTPS"),
    ("www_authenticate", "reads and writes challenges"),
    ("listeners", "lists the sockets that listen in this pod"),
    ("environment", "refuses secrets in the environment"),
    ("open_files", "raises the limit of open files"),
    ("signals", "takes the signals that ask for the stop"),
    ("raw_json", "keeps JSON as it was written"),
    ("strict_json", "reads JSON without duplicate members"),
    ("es256", "signs JWTs"),
    ("aes_gcm", "encrypts so that nobody can alter it"),
];

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src");

#[test]
fn a_module_imports_from_modules_below_it_alone() {
    let breaches = import_graph::against(MODULES, Path::new(SOURCE)).unwrap();
    assert!(breaches.is_empty(), "against the direction: {breaches:#?}");
}

#[test]
fn no_modules_import_each_other_in_a_circle() {
    let circles = import_graph::circles(Path::new(SOURCE)).unwrap();
    assert!(circles.is_empty(), "these import each other: {circles:?}");
}
