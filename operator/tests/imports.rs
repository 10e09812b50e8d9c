//! Direction of imports: between folders they run one way, and no two modules import each other.

use std::path::Path;

/// Folders of the operator from the top down, each with its purpose. A folder imports only from those below it.
const FOLDERS: &[(&str, &str)] = &[
    ("wiring", "starts watches, controllers, leader election and endpoints"),
    ("commands", "runs commands that end by themselves"),
    ("mapping", "reconciles the status of role mappings"),
    ("orphans", "withdraws the rights of orphaned children"),
    ("mcpserver", "reconciles one McpServer"),
    ("ownership", "decides the owner of a host, a path, a client id"),
    ("fleet", "schedules upgrades in turns"),
    ("watch", "caches the objects of the API server"),
    ("policy", "selects the mappings of a server and compiles them"),
    ("conditions", "defines conditions, reasons and events"),
    ("runtime", "runs controllers: leader election, limits of reconciles, metrics, errors"),
    ("objects", "names and reads objects"),
];

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src");

#[test]
fn a_folder_imports_only_from_folders_below_it() {
    let breaches = import_graph::against(FOLDERS, Path::new(SOURCE)).unwrap();
    assert!(breaches.is_empty(), "imports against the direction: {breaches:#?}");
}

#[test]
fn no_modules_import_each_other_in_a_circle() {
    let circles = import_graph::circles(Path::new(SOURCE)).unwrap();
    assert!(circles.is_empty(), "these import each other: {circles:?}");
}
