//! The direction of imports: between folders they run one way, and no two modules import each other.

use std::path::Path;

/// The folders of the operator from the top down, each with what it holds. A folder imports from those below it alone.
const FOLDERS: &[(&str, &str)] = &[
    ("wiring", "starts watches, controllers, leader election and endpoints"),
    ("commands", "are commands that end by themselves"),
    ("mapping", "reconciles the status of role mappings"),
    ("orphans", "takes the rights of what deletions left behind"),
    ("mcpserver", "reconciles one McpServer"),
    ("ownership", "decides who holds a host, a path, a client id"),
    ("fleet", "gives turns to upgrades"),
    ("watch", "keeps what the API server showed"),
    ("policy", "selects the mappings of a server and compiles them"),
    ("conditions", "words conditions, reasons and events"),
    ("runtime", "runs controllers: leader election, limits of passes, metrics, errors"),
    ("objects", "names and reads objects"),
];

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src");

#[test]
fn a_folder_imports_from_folders_below_it_alone() {
    let breaches = import_graph::against(FOLDERS, Path::new(SOURCE)).unwrap();
    assert!(breaches.is_empty(), "against the direction: {breaches:#?}");
}

#[test]
fn no_modules_import_each_other_in_a_circle() {
    let circles = import_graph::circles(Path::new(SOURCE)).unwrap();
    assert!(circles.is_empty(), "these import each other: {circles:?}");
}
