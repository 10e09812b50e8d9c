//! Tests that the page about the environment names the variables that the programs read.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use documentation::repository;

/// Page that lists the variables without a flag.
const PAGE: &str = "docs/reference/environment.md";

/// Programs as the page names them, each with its sources and the page of its flags.
const PROGRAMS: [(&str, &str, &str); 2] = [
    ("operator", "operator/src", "docs/reference/mcp-entra-operator.md"),
    ("server", "server/src", "docs/reference/mcp-entra-server.md"),
];

/// Variables that a library reads, each with the program and the call in its sources by which the library does so.
const OF_LIBRARIES: [(&str, &str, &str); 5] = [
    ("RUST_LOG", "operator", "EnvFilter::try_from_default_env"),
    ("RUST_LOG", "server", "EnvFilter::try_from_default_env"),
    ("KUBECONFIG", "operator", "Config::infer"),
    ("NO_PROXY", "server", "reqwest::Client"),
    ("LOCALAPPDATA", "server", "ProjectDirs::from"),
];

/// Adds the sources below a folder to the list, without tests.
fn sources(folder: &Path, into: &mut Vec<String>) {
    for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        if name == "fixtures" || name == "tests" || name.ends_with("_tests") {
            continue;
        }
        if path.is_dir() {
            sources(&path, into);
        } else {
            let text = fs::read_to_string(path).unwrap();
            into.push(text.split("mod tests {").next().unwrap().to_owned());
        }
    }
}

/// Returns the names of variables in a source: string literals in capital letters. Where the source reads no
/// environment, only those with an underscore, which no other constant has.
fn names(source: &str) -> BTreeSet<String> {
    let is_name = |text: &str| {
        text.len() >= 4
            && text.starts_with(|c: char| c.is_ascii_uppercase())
            && text.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
            && (text.contains('_') || source.contains("env::var"))
    };
    let pieces: Vec<_> = source.split('"').collect();
    let literals = pieces.windows(2).filter(|pair| {
        let is_of_the_help_or_the_build = ["value_name = ", "env!("].iter().any(|end| pair[0].ends_with(end));
        is_name(pair[1]) && !is_of_the_help_or_the_build
    });
    literals.map(|pair| pair[1].to_owned()).collect()
}

/// Returns the variables of the page, each with the programs of its row.
fn rows() -> BTreeMap<String, String> {
    let page = fs::read_to_string(repository(PAGE)).unwrap();
    let mut rows = BTreeMap::new();
    for line in page.lines().filter(|line| line.starts_with("| `")) {
        let mut columns = line.split('|').map(str::trim).skip(1);
        let (variables, programs) = (columns.next().unwrap(), columns.next().unwrap());
        for variable in variables.split('`').skip(1).step_by(2) {
            // An ellipsis ends the common beginning of several names.
            rows.insert(variable.trim_end_matches('…').to_owned(), programs.to_owned());
        }
    }
    rows
}

#[test]
fn the_page_names_every_variable_that_a_program_reads_without_a_flag() {
    let rows = rows();
    let mut seen = 0;
    for (program, folder, flags) in PROGRAMS {
        let flags = fs::read_to_string(repository(flags)).unwrap();
        let mut texts = Vec::new();
        sources(&repository(folder), &mut texts);
        let read: BTreeSet<String> = texts.iter().flat_map(|text| names(text)).collect();
        for name in read.iter().filter(|name| !flags.contains(&format!("[env: {name}="))) {
            // The operator sets variables of the server, which have flags there.
            let is_of_the_server = program == "operator" && name.starts_with("MCP_ENTRA_");
            assert!(is_of_the_server || rows.contains_key(name), "{PAGE} does not name {name} of the {program}");
            seen += 1;
        }
    }
    assert!(seen >= 10, "only {seen} variables were seen");
}

#[test]
fn each_program_of_a_row_reads_its_variables() {
    for (program, folder, _) in PROGRAMS {
        let mut texts = Vec::new();
        sources(&repository(folder), &mut texts);
        let of_libraries = OF_LIBRARIES.iter().filter(|(_, of, call)| {
            let calls = *of == program && texts.iter().any(|text| text.contains(call));
            assert!(calls || *of != program, "the {program} does not call {call}");
            calls
        });
        let read: BTreeSet<String> = texts.iter().flat_map(|text| names(text)).collect();
        let read: BTreeSet<&str> =
            read.iter().map(String::as_str).chain(of_libraries.map(|(name, ..)| *name)).collect();
        for (variable, programs) in rows() {
            let is_its_own = programs == "both" || programs.starts_with(program);
            assert!(!is_its_own || read.contains(&*variable), "{PAGE}: the {program} does not read {variable}");
        }
    }
}
