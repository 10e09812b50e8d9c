//! Content of a [`Page`](super::Page): its forms with their inputs and buttons, its links, its text.
//!
//! Programs write these pages, so they are well-formed. All elements except forms, their inputs and links are ignored.

use html_escape::decode_html_entities;
use regex::Regex;

const TAG: &str = r#"(?is)<(/?)(form|input|button|textarea|select|option|a)\b((?:[^"'>]|"[^"]*"|'[^']*')*)>"#;
const COMMENT: &str = "(?s)<!--.*?-->";
const ATTRIBUTE: &str = r#"(?s)([^\s"'<>/=]+)(?:\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'=<>`]+)))?"#;
const NO_TEXT: &str = r"(?is)<!--.*?-->|<(?:script|style|head)\b.*?</(?:script|style|head)>|<[^>]*>";
const ALERT: &str = r#"(?is)<([a-z0-9]+)\b[^>]*\brole="?alert"?[^>]*>(.*?)</(?:p|div|section)>"#;

/// A form of a page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Form {
    /// Target, as written. Empty for the page's own address.
    pub action: String,
    /// True for POST, false for GET.
    pub post: bool,
    /// Inputs that are sent with any button, including hidden ones, with their values.
    pub inputs: Vec<(String, String)>,
    /// Its buttons.
    pub buttons: Vec<Button>,
}

/// A button that sends a form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Button {
    /// The text on it.
    pub text: String,
    /// Its name; empty if it sends none.
    pub name: String,
    /// Its value.
    pub value: String,
    /// Target of the form that replaces the form's action. Empty if there is none.
    pub action: String,
}

/// A link of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its text.
    pub text: String,
    /// Target, as written.
    pub target: String,
}

/// A start or end tag, with its position in the page.
struct Tag<'a> {
    element: String,
    closing: bool,
    attributes: Vec<(&'a str, String)>,
    /// From the start tag to the end tag.
    content: &'a str,
}

impl Tag<'_> {
    fn has(&self, name: &str) -> bool {
        self.attributes.iter().any(|(known, _)| known.eq_ignore_ascii_case(name))
    }

    fn get(&self, name: &str) -> String {
        let found = self.attributes.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.clone()).unwrap_or_default()
    }
}

fn tags(page: &str) -> anyhow::Result<Vec<Tag<'_>>> {
    let (tag, attribute) = (Regex::new(TAG)?, Regex::new(ATTRIBUTE)?);
    let attributes = |text| {
        let found = attribute.captures_iter(text).filter_map(|found| {
            let name = found.get(1)?.as_str();
            let value = found.get(2).or(found.get(3)).or(found.get(4)).map_or("", |value| value.as_str());
            Some((name, decode_html_entities(value).into_owned()))
        });
        found.collect()
    };
    let tags = tag.captures_iter(page).map(|found| {
        let (_, [closing, element, written]) = found.extract();
        let rest = found.get(0).and_then(|all| page.get(all.end()..)).unwrap_or_default();
        let element = element.to_ascii_lowercase();
        let end = rest.find(&format!("</{element}")).or(rest.find('<')).unwrap_or(rest.len());
        let content = rest.get(..end).unwrap_or_default();
        Tag { element, closing: !closing.is_empty(), attributes: attributes(written), content }
    });
    Ok(tags.collect())
}

/// The forms of a page, in their order.
pub(super) fn forms(page: &str) -> anyhow::Result<Vec<Form>> {
    let mut forms: Vec<Form> = Vec::new();
    let mut inside = false;
    let mut select = String::new();
    let page = Regex::new(COMMENT)?.replace_all(page, "");
    for tag in tags(&page)? {
        match (tag.element.as_str(), tag.closing) {
            ("form", false) => {
                let post = tag.get("method").eq_ignore_ascii_case("post");
                forms.push(Form { action: tag.get("action"), post, ..Form::default() });
            }
            ("select", false) => select = tag.get("name"),
            _ => {}
        }
        inside = if tag.element == "form" { !tag.closing } else { inside };
        if let Some(form) = forms.last_mut().filter(|_| inside && !tag.closing && !tag.has("disabled")) {
            form.add(&tag, &select)?;
        }
    }
    Ok(forms)
}

impl Form {
    fn add(&mut self, tag: &Tag<'_>, select: &str) -> anyhow::Result<()> {
        let (name, kind) = (tag.get("name"), tag.get("type").to_ascii_lowercase());
        let button = |text| Button { text, name: name.clone(), value: tag.get("value"), action: tag.get("formaction") };
        let value_or = |absent: String| if tag.has("value") { tag.get("value") } else { absent };
        match (tag.element.as_str(), kind.as_str()) {
            ("button", "" | "submit") => self.buttons.push(button(text(tag.content)?)),
            ("input", "submit") => self.buttons.push(button(tag.get("value"))),
            ("input", "checkbox" | "radio") if tag.has("checked") => {
                self.inputs.push((name, value_or("on".to_owned())))
            }
            ("input", "checkbox" | "radio" | "button" | "reset" | "image" | "file") => {}
            ("input", _) if !name.is_empty() => self.inputs.push((name, tag.get("value"))),
            ("textarea", _) if !name.is_empty() => {
                self.inputs.push((name, decode_html_entities(tag.content).into_owned()));
            }
            // The first option, unless another is selected.
            ("option", _) if tag.has("selected") || !self.inputs.iter().any(|(known, _)| known == select) => {
                self.inputs.retain(|(known, _)| known != select);
                self.inputs.push((select.to_owned(), value_or(text(tag.content)?)));
            }
            _ => {}
        }
        Ok(())
    }
}

/// The links of a page.
pub(super) fn links(page: &str) -> anyhow::Result<Vec<Link>> {
    let page = Regex::new(COMMENT)?.replace_all(page, "");
    let links = tags(&page)?.into_iter().filter(|tag| tag.element == "a" && !tag.closing && tag.has("href"));
    links.map(|tag| Ok(Link { text: text(tag.content)?, target: tag.get("href") })).collect()
}

/// The text of a page or a part of it, with one space for every run of white space.
pub(super) fn text(page: &str) -> anyhow::Result<String> {
    let no_text = Regex::new(NO_TEXT)?;
    let text = no_text.replace_all(page, " ");
    Ok(decode_html_entities(&*text).split_whitespace().collect::<Vec<_>>().join(" "))
}

/// The text of the first element with the role `alert`.
pub(super) fn alert(page: &str) -> anyhow::Result<Option<String>> {
    let found = Regex::new(ALERT)?;
    found.captures(page).and_then(|found| found.get(2)).map(|inner| text(inner.as_str())).transpose()
}
