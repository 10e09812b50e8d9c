//! What the programs of an image are made of, as a CycloneDX document: the crates that are linked into them, and which of
//! them needs which.
//! What only builds or tests it, macros included, is not in it.

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
    /// Whether it is of a registry, and not of this workspace.
    pub published: bool,
    license: String,
}

/// The crates of an image's programs, each with those that it needs.
pub type Crates = BTreeMap<Crate, BTreeSet<Crate>>;

/// Asks cargo which crates are linked into the program and those beside it, with the features that they are built with.
///
/// # Errors
/// Where cargo does not know the package, or has to change Cargo.lock for it.
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
        bail!("`cargo tree` failed for {program}; what it says stands above");
    }
    parse(std::str::from_utf8(&output.stdout)?)
}

/// Reads the lines of `cargo tree`: each is the depth, the crate and its license, below the crate that needs it.
fn parse(tree: &str) -> anyhow::Result<Crates> {
    let mut crates = Crates::new();
    let mut above: Vec<Crate> = Vec::new();
    // Between the programs is an empty one.
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
    // Behind a crate whose needs were listed before stands a mark.
    let line = line.strip_suffix(" (*)").unwrap_or(line);
    let (depth, rest) = line.split_once(' ')?;
    let (package, license) = rest.split_once('|')?;
    let mut words = package.split(' ');
    let (name, version) = (words.next()?.to_owned(), words.next()?.strip_prefix('v')?.to_owned());
    // Where it lies follows, unless it comes from the registry.
    let published = words.next().is_none();
    Some((depth.parse().ok()?, Crate { name, version, published, license: license.to_owned() }))
}

/// Writes the document as JSON.
///
/// # Errors
/// Where the program is not among the crates, or a crate's name or license is not understood.
pub fn document(program: Program, crates: &Crates, created: Timestamp) -> anyhow::Result<Vec<u8>> {
    let own = crates.keys().find(|own| own.name == program.name());
    let own = own.with_context(|| format!("{program} is not among its crates"))?;
    let others = crates.keys().filter(|other| *other != own);
    let others = others.map(|other| {
        let is_program = program.beside().contains(&other.name.as_str());
        component(if is_program { Classification::Application } else { Classification::Library }, other)
    });
    let bom = Bom {
        // One by chance would make it another document each time.
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
