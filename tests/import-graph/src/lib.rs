//! Imports between the modules of a crate, read from its source, for tests of their direction.
//!
//! A path that begins with `crate`, `super` or `self` is an import of its module. Re-exports of a module count as its
//! own items.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use syn::visit::Visit;

/// A module by its path, such as `["mcpserver", "status", "exposed"]`.
type Module = Vec<String>;
/// The modules that each module imports from.
type Imports = BTreeMap<Module, BTreeSet<Module>>;

/// Returns the violations of this order, one per line, in tests or not. `order` names the crate's top modules from the
/// top down, each with its purpose. All folders must be among them. A top module imports only from those below it.
///
/// # Errors
/// If the source cannot be read.
pub fn against(order: &[(&str, &str)], source: &Path) -> io::Result<Vec<String>> {
    let place = |module: &Module| {
        let top = module.first()?;
        order.iter().position(|(name, _)| name == top)
    };
    let imports = imports(source, true)?;
    let mut breaches = Vec::new();
    for (module, imported) in &imports {
        let Some(own) = place(module) else {
            if module.len() > 1 {
                breaches.push(format!("{} is in a folder that is missing in the order", module.join("::")));
            }
            continue;
        };
        let above = imported.iter().filter(|imported| place(imported).is_some_and(|place| place < own));
        breaches.extend(above.map(|imported| format!("{} imports {}", module.join("::"), imported.join("::"))));
    }
    for (name, purpose) in order {
        if !imports.keys().any(|module| module.first().is_some_and(|top| top == name)) {
            breaches.push(format!("{name} is in the order, but not in the crate"));
        }
        if purpose.is_empty() {
            breaches.push(format!("{name} has no purpose"));
        }
    }
    Ok(breaches)
}

/// Returns the modules that import each other in a circle, outside of their tests. A module and its submodules count as
/// one.
///
/// # Errors
/// If the source cannot be read.
pub fn circles(source: &Path) -> io::Result<Vec<String>> {
    let imports = imports(source, false)?;
    let is_within = |module: &Module, other: &Module| module.starts_with(other) || other.starts_with(module);
    let reaches_itself = |start: &Module| {
        let (mut next, mut seen) = (vec![start], BTreeSet::new());
        while let Some(module) = next.pop() {
            let imported = imports.get(module).into_iter().flatten();
            let outside = imported.filter(|imported| !is_within(imported, module));
            next.extend(outside.filter(|imported| seen.insert(*imported)));
        }
        seen.contains(start)
    };
    Ok(imports.keys().filter(|module| reaches_itself(module)).map(|module| module.join("::")).collect())
}

fn imports(source: &Path, with_tests: bool) -> io::Result<Imports> {
    let modules = modules(source, &[])?;
    let is_test = |module: &Module| module.last().is_some_and(|name| name == "fixtures" || name.ends_with("tests"));
    let mut imports = Imports::new();
    for (module, file) in modules.iter().filter(|(module, _)| with_tests || !is_test(module)) {
        let named = |error: syn::Error| io::Error::other(format!("{}: {error}", file.display()));
        let parsed = syn::parse_file(&std::fs::read_to_string(file)?).map_err(named)?;
        let mut paths = Paths { with_tests, module: module.clone(), found: BTreeSet::new() };
        paths.visit_file(&parsed);
        let known = |path: &Module| {
            let mut path = path.clone();
            while !path.is_empty() && !modules.contains_key(&path) {
                path.pop();
            }
            Some(path).filter(|path| !path.is_empty())
        };
        let imported = paths.found.iter().filter_map(known).filter(|imported| imported != module);
        imports.insert(module.clone(), imported.collect());
    }
    Ok(imports)
}

/// Returns the modules below a folder, with their files.
fn modules(folder: &Path, path: &[String]) -> io::Result<BTreeMap<Module, PathBuf>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?.path();
        let name = entry.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if entry.is_dir() {
            let inner: Module = path.iter().cloned().chain([name]).collect();
            found.extend(modules(&entry, &inner)?);
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            let is_inner = !matches!(name.as_str(), "mod" | "lib" | "main");
            found.insert(path.iter().cloned().chain(is_inner.then_some(name)).collect(), entry);
        }
    }
    Ok(found)
}

/// Returns the paths in a file that begin with `crate`, `super` or `self`, as modules and items of the crate.
struct Paths {
    with_tests: bool,
    module: Module,
    found: BTreeSet<Module>,
}

impl Paths {
    fn note(&mut self, path: &[String]) {
        let (mut base, mut rest): (Module, _) = match path {
            [first, rest @ ..] if first == "crate" => (Vec::new(), rest),
            [first, rest @ ..] if first == "self" => (self.module.clone(), rest),
            [first, ..] if first == "super" => (self.module.clone(), path),
            _ => return,
        };
        while let [first, inner @ ..] = rest
            && first == "super"
        {
            base.pop();
            rest = inner;
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a crate with these files.
    fn source(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let file = folder.path().join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        }
        folder
    }

    const ORDER: &[(&str, &str)] = &[("http", "answers"), ("token", "validates")];

    #[test]
    fn an_import_from_above_is_a_violation_anywhere() {
        let above = "http::Answer";
        for (text, breach) in [
            ("use crate::token::keys;".to_owned(), false),
            (format!("use crate::{above};"), true),
            (format!("use crate::{{ground, {above} as Other}};"), true),
            (format!("fn f() -> crate::{above} {{}}"), true),
            (format!("use super::{above};"), true),
            (format!("mod inner {{ use super::super::{above}; }}"), true),
            (format!("use super::{{self, token}}; use other::{above};"), false),
            (format!("#[cfg(test)] mod tests {{ use crate::{above}; }}"), true),
        ] {
            let files =
                [("lib.rs", "mod http; mod token;"), ("http.rs", ""), ("token/keys.rs", ""), ("token/mod.rs", &text)];
            let breaches = against(ORDER, source(&files).path()).unwrap();
            assert_eq!(breaches, Vec::from_iter(breach.then_some("token imports http")), "{text}");
        }
    }

    #[test]
    fn an_order_names_exactly_the_folders_with_their_purposes() {
        let source = source(&[("http.rs", ""), ("other/mod.rs", ""), ("other/inner.rs", "")]);
        let breaches = against(&[("http", ""), ("token", "validates")], source.path()).unwrap();
        for part in ["http has no purpose", "token is in the order", "other::inner is in a folder"] {
            assert!(breaches.iter().any(|breach| breach.starts_with(part)), "{part}: {breaches:?}");
        }
        assert_eq!(breaches.len(), 3, "{breaches:?}");
    }

    #[test]
    fn a_circle_is_found_between_modules_and_not_between_a_module_and_its_submodules() {
        let inner = [("a/mod.rs", "use self::b::B; use crate::c::C;"), ("a/b.rs", "use super::A;"), ("c.rs", "")];
        assert_eq!(circles(source(&inner).path()).unwrap(), Vec::<String>::new());
        let three = [("a.rs", "use crate::b::B;"), ("b.rs", "use crate::c::C;"), ("c.rs", "fn f() { crate::a::g() }")];
        assert_eq!(circles(source(&three).path()).unwrap(), ["a", "b", "c"]);
        let of_tests = [("a.rs", "use crate::b::B;"), ("b.rs", "#[cfg(test)] mod tests { use crate::a::A; }")];
        assert_eq!(circles(source(&of_tests).path()).unwrap(), Vec::<String>::new());
    }
}
