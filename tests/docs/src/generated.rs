//! Files and parts of pages that are generated from the code. `cargo xtask generate` writes them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use crate::page::repository;

/// Asserts that a file matches the generated one. Writes it instead if the variable `REGENERATE` is set.
pub fn hold(path: &str, generated: &str) {
    let file = repository(path);
    if std::env::var_os("REGENERATE").is_some() {
        std::fs::write(&file, generated).unwrap();
    }
    assert!(
        std::fs::read_to_string(&file).unwrap_or_default() == generated,
        "{path} is not what the code generates; run `cargo xtask generate`"
    );
}

/// Asserts that a section, up to the next heading of its level, matches the generated one.
pub fn hold_section(path: &str, heading: &str, generated: &str) {
    let page = std::fs::read_to_string(repository(path)).unwrap();
    let start = page.find(&format!("{heading}\n")).unwrap_or_else(|| panic!("{path} has no heading {heading}"));
    let level = heading.split(' ').next().unwrap();
    let (before, rest) = page.split_at(start + heading.len() + 1);
    let behind = rest.find(&format!("\n{level} ")).map_or("", |end| rest.split_at(end).1);
    hold(path, &format!("{before}\n{generated}{behind}"));
}

/// Returns the page about the flags of a program: the output of `--help`, for the program and each of its commands.
pub fn flags(program: &Path) -> String {
    let name = program.file_stem().unwrap().to_str().unwrap();
    let overview = help(program, &[]);
    let commands = overview.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    // Continuations of descriptions are indented further.
    let commands = commands.filter(|line| !line.starts_with("   ")).map(|line| line.trim().split(' ').next().unwrap());
    let mut page = format!("# {name}\n\nThis page is generated from `{name} --help`.\n\n```text\n{overview}```\n");
    for command in commands.filter(|command| *command != "help") {
        write!(page, "\n## {command}\n\n```text\n{}```\n", help(program, &[command])).unwrap();
    }
    page
}

/// Returns the help of a command without an environment, whose values it would print.
fn help(program: &Path, command: &[&str]) -> String {
    let output = Command::new(program).args(command).arg("--help").env_clear().output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// Returns the table of metrics that have a sample in the Prometheus text format.
pub fn metrics(text: &str) -> String {
    let mut kinds = BTreeMap::new();
    let mut says = BTreeMap::new();
    for line in text.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|line| line.split_once(' ')) {
            kinds.insert(name.to_owned(), kind.to_owned());
        } else if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|line| line.split_once(' ')) {
            says.insert(name.to_owned(), help.trim_end_matches('.').to_owned());
        }
    }
    let mut table = "| Metric | Type | Labels | Description |\n|---|---|---|---|\n".to_owned();
    for (name, kind) in &kinds {
        let name_of_samples = if kind == "counter" { format!("{name}_total") } else { name.clone() };
        let help = says.get(name).map_or("", String::as_str);
        writeln!(table, "| `{name_of_samples}` | {kind} | {} | {help} |", labels(text, name)).unwrap();
    }
    table
}

/// Names of the labels of a metric's samples, in their order.
fn labels(text: &str, name: &str) -> String {
    let mut labels = Vec::new();
    for line in text.lines() {
        let Some(rest) = line.strip_prefix(name) else { continue };
        let is_its_own = ["{", "_total{", "_bucket{"].iter().any(|begin| rest.starts_with(begin));
        let Some(inside) = rest.split_once('{').and_then(|(_, rest)| rest.split('}').next()) else { continue };
        for label in inside.split(',').filter_map(|pair| pair.split_once('=')).map(|(label, _)| format!("`{label}`")) {
            if is_its_own && label != "`le`" && !labels.contains(&label) {
                labels.push(label);
            }
        }
    }
    labels.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_has_its_type_its_labels_and_its_help() {
        let text = "# HELP a_requests Requests.\n# TYPE a_requests counter\na_requests_total{verb=\"get\",code=\"200\"} 1\n\
                    # HELP a_seconds Seconds.\n# TYPE a_seconds histogram\na_seconds_bucket{le=\"1\"} 1\n# EOF\n";
        let table = metrics(text);
        assert!(table.contains("| `a_requests_total` | counter | `verb`, `code` | Requests |\n"), "{table}");
        assert!(table.contains("| `a_seconds` | histogram |  | Seconds |\n"), "{table}");
    }
}
