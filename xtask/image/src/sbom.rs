//! Software bill of materials of an image as a CycloneDX document: the crates that are linked into its programs, and
//! their dependencies. Crates that are used only for building or testing, including macros, are left out.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;

use anyhow::{Context, bail};
use cyclonedx_bom::external_models::spdx::SpdxExpression;
use cyclonedx_bom::external_models::uri::Purl;
use cyclonedx_bom::models::bom::Bom;
use cyclonedx_bom::models::component::{Classification, Component, Components};
use cyclonedx_bom::models::dependency::{Dependencies, Dependency};
use cyclonedx_bom::models::license::{LicenseChoice, Licenses};
use cyclonedx_bom::models::metadata::Metadata;
use jiff::Timestamp;

use crate::compile::{cargo, target};
use crate::{Program, Workspace};

/// A crate of an image's programs.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Crate {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// True if the crate is from a registry, not from this workspace.
    pub published: bool,
    license: String,
}

/// Crates of an image's programs, each with its dependencies.
pub type Crates = BTreeMap<Crate, BTreeSet<Crate>>;

/// Reads from cargo the crates that are linked into the program and the other ones of its image, with the features of
/// their build.
///
/// # Errors
/// If cargo does not know the package, or has to change Cargo.lock for it.
pub fn crates(workspace: &Workspace, program: Program) -> anyhow::Result<Crates> {
    let output = cargo()
        .args(["tree", "--locked", "--target", &target()])
        .args(program.all_names().flat_map(|name| ["--package", name]))
        .args(["--edges=normal,no-proc-macro", "--prefix=depth", "--format= {p}|{l}"])
        .current_dir(&workspace.root)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("run cargo tree")?;
    if !output.status.success() {
        bail!("`cargo tree` failed for {program}; its output is above");
    }
    parse(std::str::from_utf8(&output.stdout)?)
}

/// Parses the lines of `cargo tree`: each has the depth, the crate and its license, below its dependent.
fn parse(tree: &str) -> anyhow::Result<Crates> {
    let mut crates = Crates::new();
    let mut above: Vec<Crate> = Vec::new();
    // An empty line separates the programs.
    for line in tree.lines().filter(|line| !line.is_empty()) {
        let (depth, own) = parse_line(line).with_context(|| format!("read `cargo tree`'s line {line:?}"))?;
        above.truncate(depth);
        if let Some(parent) = above.last() {
            crates.entry(parent.clone()).or_default().insert(own.clone());
        }
        crates.entry(own.clone()).or_default();
        above.push(own);
    }
    Ok(crates)
}

fn parse_line(line: &str) -> Option<(usize, Crate)> {
    // A mark follows a crate whose dependencies were listed before.
    let line = line.strip_suffix(" (*)").unwrap_or(line);
    let (depth, rest) = line.split_once(' ')?;
    let (package, license) = rest.split_once('|')?;
    let mut words = package.split(' ');
    let (name, version) = (words.next()?.to_owned(), words.next()?.strip_prefix('v')?.to_owned());
    // The path of the crate follows, unless it comes from the registry.
    let published = words.next().is_none();
    Some((depth.parse().ok()?, Crate { name, version, published, license: license.to_owned() }))
}

/// Writes the document as JSON.
///
/// # Errors
/// If the program is not among the crates, or a crate's name or license is not understood.
pub fn document(program: Program, crates: &Crates, created: Timestamp) -> anyhow::Result<Vec<u8>> {
    let own = crates.keys().find(|own| own.name == program.name());
    let own = own.with_context(|| format!("{program} is not among its crates"))?;
    let others = crates.keys().filter(|other| *other != own);
    let others = others.map(|other| {
        let is_program = program.beside().contains(&other.name.as_str());
        component(if is_program { Classification::Application } else { Classification::Library }, other)
    });
    let bom = Bom {
        // A random one would change the document each time.
        serial_number: None,
        metadata: Some(Metadata {
            timestamp: Some(created.to_string().try_into()?),
            component: Some(component(Classification::Application, own)?),
            ..Metadata::default()
        }),
        components: Some(Components(others.collect::<anyhow::Result<_>>()?)),
        dependencies: Some(Dependencies(crates.iter().map(dependency).collect())),
        ..Bom::default()
    };
    let mut json = Vec::new();
    bom.output_as_json_v1_5(&mut json)?;
    json.push(b'\n');
    Ok(json)
}

fn component(kind: Classification, own: &Crate) -> anyhow::Result<Component> {
    let mut component = Component::new(kind, &own.name, &own.version, Some(reference(own)));
    if own.published {
        component.purl = Some(Purl::new("cargo", &own.name, &own.version)?);
    }
    if !own.license.is_empty() {
        let license = SpdxExpression::parse_lax(own.license.clone());
        let license = license.with_context(|| format!("read the license of {}", own.name))?;
        component.licenses = Some(Licenses(vec![LicenseChoice::Expression(license)]));
    }
    Ok(component)
}

fn dependency((own, needed): (&Crate, &BTreeSet<Crate>)) -> Dependency {
    Dependency { dependency_ref: reference(own), dependencies: needed.iter().map(reference).collect() }
}

fn reference(own: &Crate) -> String {
    format!("{}@{}", own.name, own.version)
}
