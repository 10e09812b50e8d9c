//! The direction of imports: between folders they run one way, and no two modules import each other.
#![cfg(test)] // clippy does not see otherwise that the functions tests share are of tests too

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use syn::visit::Visit;

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

/// A module by its path, such as `["mcpserver", "status", "exposed"]`.
type Module = Vec<String>;

/// The paths in a file that begin at `crate`, `super` or `self`, as modules and items of the crate.
struct Paths {
    with_tests: bool,
    module: Module,
    found: BTreeSet<Module>,
}

impl Paths {
    fn note(&mut self, path: &[String]) {
        let (base, rest): (Module, _) = match path {
            [first, rest @ ..] if first == "crate" => (Vec::new(), rest),
            [first, rest @ ..] if first == "self" => (self.module.clone(), rest),
            [first, rest @ ..] if first == "super" => (parent(&self.module), rest),
            _ => return,
        };
        self.found.insert(base.into_iter().chain(rest.iter().cloned()).collect());
    }

    fn tree(&mut self, tree: &syn::UseTree, before: &[String]) {
        let with = |name: &syn::Ident| before.iter().cloned().chain([name.to_string()]).collect::<Module>();
        match tree {
            syn::UseTree::Path(path) => self.tree(&path.tree, &with(&path.ident)),
            syn::UseTree::Group(group) => group.items.iter().for_each(|tree| self.tree(tree, before)),
            syn::UseTree::Name(name) => self.note(&with(&name.ident)),
            syn::UseTree::Rename(rename) => self.note(&with(&rename.ident)),
            syn::UseTree::Glob(_) => self.note(before),
        }
    }
}

fn parent(module: &[String]) -> Module {
    module.split_last().map_or_else(Vec::new, |(_, parent)| parent.to_vec())
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.tree(&item.tree, &[]);
    }

    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        let is_test = |attribute: &syn::Attribute| attribute.path().is_ident("cfg");
        if !self.with_tests && module.attrs.iter().any(is_test) {
            return;
        }
        self.module.push(module.ident.to_string());
        syn::visit::visit_item_mod(self, module);
        self.module.pop();
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.note(&path.segments.iter().map(|segment| segment.ident.to_string()).collect::<Vec<_>>());
        syn::visit::visit_path(self, path);
    }
}

/// The modules below a folder, with their files.
fn modules(folder: &Path, path: &[String]) -> BTreeMap<Module, PathBuf> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap().path();
        let name = entry.file_stem().unwrap().to_str().unwrap().to_owned();
        if entry.is_dir() {
            let inner: Module = path.iter().cloned().chain([name]).collect();
            found.extend(modules(&entry, &inner));
        } else {
            let is_inner = !matches!(name.as_str(), "mod" | "lib" | "main");
            found.insert(path.iter().cloned().chain(is_inner.then_some(name)).collect(), entry);
        }
    }
    found
}

/// The modules that each module of the operator imports from, in its tests or not.
fn imports(with_tests: bool) -> BTreeMap<Module, BTreeSet<Module>> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let modules = modules(&source, &[]);
    let of = |(module, file): (&Module, &PathBuf)| {
        let parsed = syn::parse_file(&std::fs::read_to_string(file).unwrap()).unwrap();
        let mut paths = Paths { with_tests, module: module.clone(), found: BTreeSet::new() };
        paths.visit_file(&parsed);
        let known = |path: &Module| {
            (1..=path.len()).rev().map(|end| path[..end].to_vec()).find(|path| modules.contains_key(path))
        };
        let imported = paths.found.iter().filter_map(known).filter(|imported| imported != module);
        (module.clone(), imported.collect())
    };
    let is_test = |module: &Module| module.last().is_some_and(|name| name == "fixtures" || name.ends_with("tests"));
    modules.iter().filter(|(module, _)| with_tests || !is_test(module)).map(of).collect()
}

#[test]
fn a_folder_imports_from_folders_below_it_alone() {
    let place = |folder: &str| FOLDERS.iter().position(|(name, _)| *name == folder);
    let mut upwards = Vec::new();
    let mut folders = BTreeSet::new();
    for (module, imported) in imports(true) {
        let [folder, _, ..] = module.as_slice() else { continue };
        folders.insert(folder.clone());
        let own = place(folder).unwrap_or_else(|| panic!("{folder} is not among the folders of this test"));
        let wrong = imported.iter().filter(|imported| place(&imported[0]).is_some_and(|place| place < own));
        upwards.extend(wrong.map(|imported| format!("{} imports {}", module.join("::"), imported.join("::"))));
    }
    assert!(upwards.is_empty(), "against the direction: {upwards:#?}");
    assert_eq!(folders.len(), FOLDERS.len(), "a folder is gone: {folders:?}");
    let undescribed = FOLDERS.iter().filter(|(_, holds)| holds.is_empty());
    assert_eq!(undescribed.count(), 0);
}

#[test]
fn no_modules_import_each_other_in_a_circle() {
    let imports = imports(false);
    // A module and those inside it are one.
    let is_within = |module: &Module, other: &Module| module.starts_with(other) || other.starts_with(module);
    let mut reached: BTreeMap<Module, BTreeSet<Module>> = BTreeMap::new();
    for start in imports.keys() {
        let mut next: Vec<Module> = vec![start.clone()];
        let seen = reached.entry(start.clone()).or_default();
        while let Some(module) = next.pop() {
            let outside = imports[&module].iter().filter(|imported| !is_within(imported, &module));
            next.extend(outside.filter(|imported| seen.insert((*imported).clone())).cloned());
        }
    }
    let circles: Vec<_> = reached
        .iter()
        .filter(|(module, reached)| reached.contains(*module))
        .map(|(module, _)| module.join("::"))
        .collect();
    assert!(circles.is_empty(), "these import each other: {circles:?}");
}
