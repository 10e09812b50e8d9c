//! Tests of the documentation's links.

use std::collections::HashMap;

use documentation::{Page, pages, repository};

#[test]
fn every_relative_link_has_a_file_and_every_anchor_a_heading() {
    let pages = pages();
    let anchors: HashMap<_, _> =
        pages.iter().map(|page| (repository(&page.path).canonicalize().unwrap(), page.anchors())).collect();
    let mut broken = Vec::new();
    let mut seen = 0;
    for page in &pages {
        for link in page.links() {
            let file = match link.path.as_str() {
                "" => repository(&page.path),
                path => repository(&page.path).parent().unwrap().join(path),
            };
            let name = format!("{}: {}#{}", page.path, link.path, link.anchor.as_deref().unwrap_or_default());
            match (file.canonicalize(), &link.anchor) {
                (Err(_), _) => broken.push(name),
                (Ok(file), Some(anchor)) if !anchors.get(&file).is_some_and(|known| known.contains(anchor)) => {
                    broken.push(name);
                }
                _ => seen += 1,
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
    assert!(seen > 100, "only {seen} links were seen");
}

#[test]
fn the_index_links_to_every_page() {
    let pages = pages();
    let index = pages.iter().find(|page| page.path == "docs/README.md").unwrap();
    let linked: Vec<String> = index.links().into_iter().map(|link| format!("docs/{}", link.path)).collect();
    let adr = pages.iter().find(|page| page.path == "docs/adr/README.md").unwrap();
    let linked_there = adr.links().into_iter().map(|link| format!("docs/adr/{}", link.path));
    let reference = pages.iter().find(|page| page.path == "docs/reference/README.md").unwrap();
    let linked: Vec<String> = linked
        .into_iter()
        .chain(linked_there)
        .chain(reference.links().into_iter().map(|link| format!("docs/reference/{}", link.path)))
        .collect();
    let in_docs = |page: &&Page| page.path.starts_with("docs/") && page.path != "docs/README.md";
    let missing: Vec<_> =
        pages.iter().filter(in_docs).map(|page| &page.path).filter(|path| !linked.contains(path)).collect();
    assert!(missing.is_empty(), "no index names {missing:?}");
}
