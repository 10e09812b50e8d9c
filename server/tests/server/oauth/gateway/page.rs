//! Page about API gateways, as a gateway can follow it: paths, headers and the policy.

use axum::http::{HeaderName, Method};

const PAGE: &str = include_str!("../../../../../docs/api-gateway.md");

/// Settings of a gateway on the page.
pub(crate) struct Page {
    operations: Vec<(Method, &'static str)>,
    requests: Headers,
    answers: Headers,
    /// The policy.
    pub(crate) policy: Element,
}

/// Names of headers. One that ends in `*` matches every name with this prefix.
struct Headers(Vec<String>);

/// An element of an XML document, without its text beside child elements.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Element {
    pub(crate) name: String,
    pub(crate) attributes: Vec<(String, String)>,
    pub(crate) children: Vec<Element>,
    pub(crate) text: String,
}

impl Page {
    /// The page of this repository.
    pub(crate) fn read() -> Self {
        let operations = block("bicep").lines().filter_map(|line| {
            let (method, path) = line.trim().strip_prefix('\'')?.strip_suffix('\'')?.split_once(' ')?;
            Some((method.parse().unwrap(), path))
        });
        Self {
            operations: operations.collect(),
            requests: Headers::of("Requests"),
            answers: Headers::of("Answers"),
            policy: Element::read(block("xml")),
        }
    }

    /// Returns true if the API has an operation for this.
    pub(crate) fn publishes(&self, method: &Method, path: &str) -> bool {
        self.operations.iter().any(|(known, template)| known == method && matches(template, path))
    }

    /// Returns true if the request header passes.
    pub(crate) fn passes_on(&self, header: &HeaderName) -> bool {
        self.requests.contain(header)
    }

    /// Returns true if the answer header passes.
    pub(crate) fn passes_back(&self, header: &HeaderName) -> bool {
        self.answers.contain(header)
    }

    /// The headers of answers that pass, in lower case.
    pub(crate) fn answers(&self) -> &[String] {
        &self.answers.0
    }

    /// The value that the policy gives this header of a request.
    pub(crate) fn sets(&self, header: &str) -> Option<&str> {
        let policies = self.policy.all("set-header");
        let set = policies.into_iter().find(|set| set.attribute("name") == Some(header))?;
        assert_eq!(set.attribute("exists-action"), Some("override"));
        set.children.first().map(|value| value.text.as_str())
    }

    /// Returns the lines of the page with this prefix, without the indentation.
    pub(crate) fn lines(begin: &str) -> Vec<&'static str> {
        PAGE.lines().map(str::trim).filter_map(|line| line.strip_prefix(begin)).collect()
    }

    /// The operations of the API.
    pub(crate) fn operations(&self) -> &[(Method, &'static str)] {
        &self.operations
    }
}

impl Headers {
    /// Returns those in the row of the table with this heading.
    fn of(direction: &str) -> Self {
        let rows = Page::lines(&format!("| {direction} | "));
        let [row] = rows.as_slice() else { panic!("rows of {direction}: {rows:?}") };
        Self(row.split('`').skip(1).step_by(2).map(str::to_lowercase).collect())
    }

    fn contain(&self, header: &HeaderName) -> bool {
        self.0.iter().any(|pattern| matches(pattern, header.as_str()))
    }
}

/// Returns true if this matches the pattern, which may end in `*`.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == text, |begin| text.starts_with(begin))
}

/// Returns the only block of this language.
fn block(language: &str) -> &'static str {
    let fence = format!("```{language}\n");
    let mut blocks = PAGE.split(&fence).skip(1);
    let block = blocks.next().unwrap().split_once("\n```").unwrap().0;
    assert_eq!(blocks.next(), None, "a second block of {language}");
    block
}

impl Element {
    /// Returns the root of a document. Fails on a malformed one; does not support entities, namespaces or declarations.
    fn read(document: &str) -> Self {
        let mut open = vec![Self::default()];
        let mut rest = document;
        while let Some((text, markup)) = rest.split_once('<') {
            open.last_mut().unwrap().text += text.trim();
            if let Some(comment) = markup.strip_prefix("!--") {
                rest = comment.split_once("-->").expect("the comment has an end").1;
                continue;
            }
            let (tag, behind) = markup.split_once('>').expect("the tag has an end");
            rest = behind;
            if let Some(name) = tag.strip_prefix('/') {
                let closed = open.pop().unwrap();
                assert_eq!(closed.name, name);
                open.last_mut().expect("the root is open").children.push(closed);
                continue;
            }
            let (tag, empty) = tag.strip_suffix('/').map_or((tag, false), |tag| (tag, true));
            let element = Self::opened(tag.trim());
            match empty {
                true => open.last_mut().unwrap().children.push(element),
                false => open.push(element),
            }
        }
        let [document] = open.as_slice() else { panic!("elements without an end: {open:?}") };
        assert!(document.text.is_empty() && rest.trim().is_empty(), "text beside the root");
        let mut roots = open.remove(0).children;
        assert_eq!(roots.len(), 1, "roots: {roots:?}");
        roots.remove(0)
    }

    /// Returns the element that this tag starts.
    fn opened(tag: &str) -> Self {
        let (name, mut rest) = tag.split_once(' ').unwrap_or((tag, ""));
        assert!(!name.is_empty() && name.chars().all(|character| character.is_ascii_lowercase() || character == '-'));
        let mut attributes = Vec::new();
        while let Some((attribute, behind)) = rest.split_once("=\"") {
            let (value, behind) = behind.split_once('"').expect("the value has an end");
            attributes.push((attribute.trim().to_owned(), value.to_owned()));
            rest = behind;
        }
        assert!(rest.trim().is_empty(), "in <{tag}>: {rest}");
        Self { name: name.to_owned(), attributes, ..Self::default() }
    }

    /// All elements of this name below this one.
    pub(crate) fn all(&self, name: &str) -> Vec<&Self> {
        let below = self.children.iter().flat_map(|child| child.all(name));
        self.children.iter().filter(|child| child.name == name).chain(below).collect()
    }

    /// The value of an attribute.
    pub(crate) fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

#[test]
#[should_panic(expected = "inbound")]
fn a_policy_that_is_not_well_formed_is_noticed() {
    Element::read("<policies><inbound></policies></inbound>");
}
