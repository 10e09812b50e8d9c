//! The direction of imports: the stories use the report of a step, and no two modules import each other.

use std::path::Path;

/// The modules from the top down, each with what it holds. A module imports from those below it alone.
const MODULES: &[(&str, &str)] = &[
    ("bin", "plays the stories from the command line"),
    ("laptop", "is the story of local mode"),
    ("story", "is the story of a cluster, a step a function"),
    ("report", "prints what a step saw"),
];

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src");

#[test]
fn a_story_imports_the_report_and_no_other_story() {
    let breaches = import_graph::against(MODULES, Path::new(SOURCE)).unwrap();
    assert!(breaches.is_empty(), "against the direction: {breaches:#?}");
}

#[test]
fn no_modules_import_each_other_in_a_circle() {
    let circles = import_graph::circles(Path::new(SOURCE)).unwrap();
    assert!(circles.is_empty(), "these import each other: {circles:?}");
}
