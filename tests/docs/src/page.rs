//! Markdown pages with the parts that tests need: code blocks, links, anchors and commands.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// A Markdown page of the repository.
pub struct Page {
    /// Path from the repository's root.
    pub path: String,
    /// Content.
    pub text: String,
}

/// A fenced code block, without its indentation.
pub struct Block {
    /// Path and line of its fence, for messages.
    pub place: String,
    /// Language after the fence; empty if none is named.
    pub language: String,
    /// Lines between the fences.
    pub text: String,
}

/// A link to a target that is not on the web.
pub struct Link {
    /// Path from the folder of the page; empty for the page itself.
    pub path: String,
    /// Anchor after `#`, if there is one.
    pub anchor: Option<String>,
}

/// Returns the path of a file of this repository.
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// Returns the pages at the root, below `docs`, and of the charts.
pub fn pages() -> Vec<Page> {
    let mut paths = Vec::new();
    collect("", false, &mut paths);
    collect("docs", true, &mut paths);
    for chart in folder("charts") {
        collect(&chart, false, &mut paths);
    }
    paths.sort();
    paths.into_iter().map(|path| Page { text: std::fs::read_to_string(repository(&path)).unwrap(), path }).collect()
}

fn folder(path: &str) -> Vec<String> {
    let entries = std::fs::read_dir(repository(path)).unwrap().map(|entry| entry.unwrap());
    let names = entries.map(|entry| entry.file_name().into_string().unwrap());
    names.map(|name| if path.is_empty() { name } else { format!("{path}/{name}") }).collect()
}

fn collect(path: &str, recursive: bool, into: &mut Vec<String>) {
    if !repository(path).is_dir() {
        return;
    }
    for entry in folder(path) {
        if entry.ends_with(".md") {
            into.push(entry);
        } else if recursive {
            collect(&entry, true, into);
        }
    }
}

impl Page {
    /// Returns the fenced code blocks.
    pub fn blocks(&self) -> Vec<Block> {
        let mut blocks = Vec::new();
        let mut open: Option<(usize, Block)> = None;
        for (number, line) in self.text.lines().enumerate() {
            let trimmed = line.trim_start();
            match open.take() {
                Some((_, block)) if trimmed.trim_end() == "```" => blocks.push(block),
                Some((indentation, mut block)) => {
                    let content = if line.len() >= indentation { line.split_at(indentation).1 } else { trimmed };
                    block.text.push_str(content);
                    block.text.push('\n');
                    open = Some((indentation, block));
                }
                None => {
                    if let Some(language) = trimmed.strip_prefix("```") {
                        let place = format!("{}:{}", self.path, number + 1);
                        let language = language.trim().to_owned();
                        open = Some((line.len() - trimmed.len(), Block { place, language, text: String::new() }));
                    }
                }
            }
        }
        assert!(open.is_none(), "{} ends inside a code block", self.path);
        blocks
    }

    /// Returns the relative links outside of code.
    pub fn links(&self) -> Vec<Link> {
        let prose = self.prose();
        let targets = prose.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        targets
            .filter(|target| !target.contains("://") && !target.starts_with("mailto:"))
            .map(|target| match target.split_once('#') {
                Some((path, anchor)) => Link { path: path.to_owned(), anchor: Some(anchor.to_owned()) },
                None => Link { path: target.to_owned(), anchor: None },
            })
            .collect()
    }

    /// Returns the code spans outside of blocks, each in one line.
    pub fn spans(&self) -> Vec<String> {
        let text = self.without_blocks().join("\n");
        let spans = text.split('`').skip(1).step_by(2);
        // A table escapes the separator of its columns.
        spans.map(|span| span.split_whitespace().collect::<Vec<_>>().join(" ").replace("\\|", "|")).collect()
    }

    /// Returns the anchors of the headings, as GitHub generates them.
    pub fn anchors(&self) -> Vec<String> {
        let mut seen: HashMap<String, usize> = HashMap::new();
        let headings = self.without_blocks().into_iter().filter(|line| line.starts_with('#'));
        headings
            .map(|line| {
                let anchor = anchor(line.trim_start_matches('#').trim());
                let count = seen.entry(anchor.clone()).or_default();
                *count += 1;
                if *count == 1 { anchor } else { format!("{anchor}-{}", *count - 1) }
            })
            .collect()
    }

    fn without_blocks(&self) -> Vec<&str> {
        let mut is_code = false;
        let outside = self.text.lines().filter(|line| {
            let is_fence = line.trim_start().starts_with("```");
            is_code ^= is_fence;
            !is_code && !is_fence
        });
        outside.collect()
    }

    /// Returns the text without code blocks and code spans.
    fn prose(&self) -> String {
        let text = self.without_blocks().join("\n");
        text.split('`').step_by(2).collect::<Vec<_>>().join("`")
    }
}

fn anchor(heading: &str) -> String {
    // Only the text of a link is part of the anchor.
    let mut text = heading.to_owned();
    while let Some((before, rest)) = text.split_once("](") {
        let behind = rest.split_once(')').map_or("", |(_, behind)| behind);
        text = format!("{before}{behind}");
    }
    text.to_lowercase()
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

impl Block {
    /// Returns the commands of a `console` block: lines after a prompt, with their continuations after a backslash or
    /// inside quotation marks. A `sh` block is one command.
    pub fn commands(&self) -> Vec<String> {
        self.answered_commands().into_iter().map(|(command, _)| command).collect()
    }

    /// Returns the commands, each with the output that the block shows; empty if it shows none.
    pub fn answered_commands(&self) -> Vec<(String, String)> {
        if self.language == "sh" {
            return vec![(self.text.clone(), String::new())];
        }
        let mut commands: Vec<(String, String)> = Vec::new();
        let mut continued = false;
        for line in self.text.lines().filter(|_| self.language == "console") {
            if let Some(command) = line.strip_prefix("$ ") {
                commands.push((command.to_owned(), String::new()));
            } else if let Some((command, output)) = commands.last_mut() {
                if continued {
                    command.push('\n');
                    command.push_str(line);
                } else {
                    output.push_str(line);
                    output.push('\n');
                }
            }
            continued = commands.last().is_some_and(|(command, _)| is_open(command));
        }
        commands
    }

    /// Returns the calls of a program in its commands: the program's name and its arguments, without redirections.
    pub fn calls(&self, program: &str) -> Vec<Vec<String>> {
        let commands = self.commands();
        let lines = commands.iter().flat_map(|command| match self.language.as_str() {
            "sh" => command.lines().map(str::to_owned).collect(),
            _ => vec![command.replace("\\\n", " ")],
        });
        let mut calls = Vec::new();
        for line in lines {
            let words = shlex::split(&line).unwrap_or_default();
            let is_end = |word: &String| matches!(word.as_str(), "|" | "<" | ">" | ">>" | "&&" | ";");
            for call in words.split(is_end) {
                // After `--` comes the command that `kubectl exec` runs in a container.
                let inside = call.iter().position(|word| word == "--").and_then(|end| call.get(end + 1..));
                let of_program =
                    |call: &&[String]| call.first().is_some_and(|word| word.trim_start_matches('/') == program);
                calls.extend([Some(call), inside].into_iter().flatten().find(of_program).map(<[String]>::to_vec));
            }
        }
        calls
    }
}

/// True if the next line belongs to the command.
fn is_open(command: &str) -> bool {
    let here_document = command.split_once("<<").and_then(|(_, behind)| {
        let end = behind.trim_start().split(|c: char| c.is_whitespace()).next()?.trim_matches(['\'', '"']).to_owned();
        Some(!command.lines().any(|line| line == end))
    });
    command.ends_with('\\')
        || command.trim_end().ends_with('|')
        || command.matches('\'').count() % 2 == 1
        || here_document.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(text: &str) -> Page {
        Page { path: "a.md".to_owned(), text: text.to_owned() }
    }

    #[test]
    fn a_block_loses_the_indentation_of_its_list_and_has_its_commands() {
        let page = page(
            "1. Do:\n\n   ```console\n   $ one \\\n       --more\n   said\n   $ cat <<'END'\n   x\n   END\n   ```\n",
        );
        let blocks = page.blocks();
        assert_eq!(blocks[0].place, "a.md:3");
        assert_eq!(blocks[0].commands(), ["one \\\n    --more", "cat <<'END'\nx\nEND"]);
        assert_eq!(blocks[0].calls("one"), [["one", "--more"]]);
        let outputs: Vec<_> = blocks[0].answered_commands().into_iter().map(|(_, output)| output).collect();
        assert_eq!(outputs, ["said\n", ""]);
    }

    #[test]
    fn a_call_ends_before_a_pipe_or_a_redirection() {
        let page = page("```console\n$ a | p x --y < file\n$ kubectl exec a -- /q z\n```\n");
        assert_eq!(page.blocks()[0].calls("p"), [["p", "x", "--y"]]);
        assert_eq!(page.blocks()[0].calls("q"), [["/q", "z"]]);
    }

    #[test]
    fn only_relative_links_outside_of_code_are_returned() {
        let page = page("[a](b.md#c) [long\ntext](#d) `[e](f)` <x> [w](https://example.com)\n```\n[g](h)\n```\n");
        let links: Vec<_> = page.links().into_iter().map(|link| (link.path, link.anchor)).collect();
        assert_eq!(links, [("b.md".to_owned(), Some("c".to_owned())), (String::new(), Some("d".to_owned()))]);
    }

    #[test]
    fn a_code_span_is_outside_of_blocks_and_may_continue_on_the_next_line() {
        let page = page("a `b c` d `e\nf`\n\n```console\n$ `g`\n```\n| `h \\| i` |\n");
        assert_eq!(page.spans(), ["b c", "e f", "h | i"]);
    }

    #[test]
    fn anchors_match_those_of_github() {
        let page = page("# A `b`, c: d\n## [x](y.md) z\n## A-b\n## A-b\n```\n# no\n```\n");
        assert_eq!(page.anchors(), ["a-b-c-d", "x-z", "a-b", "a-b-1"]);
    }
}
