//! Compiling: the role mappings that name a server become one document with one revision. Pure.

use std::collections::{BTreeMap, BTreeSet};

use kube::ResourceExt;
use mcp_entra_crds::{McpRoleMapping, PolicySummary};
use mcp_entra_policy::{
    Allow, BUILT_IN_TOOLS, CompiledPolicy, Grant, MappingReference, Subject, ToolPattern, revision,
};

use crate::memory::ProgrammedPolicy;

/// The largest document in bytes: below the 1,048,576 bytes that a ConfigMap holds, with room for its metadata.
pub(crate) const LARGEST_DOCUMENT: usize = 900 * 1024;

/// A server's policy, ready to be written.
#[derive(Clone, Debug)]
pub(crate) struct Compiled {
    /// The bytes that the pods read.
    pub(crate) document: String,
    pub(crate) summary: PolicySummary,
    /// Which mappings are in it and which did not fit.
    pub(crate) programmed: ProgrammedPolicy,
    /// Names of the mappings that did not fit.
    pub(crate) left_out: Vec<String>,
}

impl Compiled {
    pub(crate) fn revision(&self) -> &str {
        &self.summary.revision
    }
}

/// Compiles the mappings of a namespace that name the server. What does not fit is left out, the newest first, so that
/// a mapping in force is not displaced by a new one.
pub(crate) fn compile<'a>(
    server: &str,
    mappings: impl IntoIterator<Item = &'a McpRoleMapping>,
) -> Result<Compiled, serde_json::Error> {
    compile_within(LARGEST_DOCUMENT, server, mappings)
}

fn compile_within<'a>(
    largest: usize,
    server: &str,
    mappings: impl IntoIterator<Item = &'a McpRoleMapping>,
) -> Result<Compiled, serde_json::Error> {
    let mut binding: Vec<&McpRoleMapping> = mappings.into_iter().filter(|mapping| binds(mapping, server)).collect();
    binding.sort_by_key(|mapping| (mapping.creation_timestamp(), mapping.name_any()));

    let mut size = serde_json::to_string(&CompiledPolicy::default())?.len();
    let mut fitting = 0;
    for mapping in &binding {
        for grant in grants(mapping) {
            size += serde_json::to_string(&grant)?.len() + ",".len();
        }
        if size > largest {
            break;
        }
        fitting += 1;
    }
    let left_out = binding.split_off(fitting);

    binding.sort_by_key(|mapping| (mapping.namespace(), mapping.name_any()));
    let policy = CompiledPolicy { grants: binding.iter().flat_map(|mapping| grants(mapping)).collect() };
    let document = serde_json::to_string(&policy)?;
    Ok(Compiled {
        summary: summarise(&policy, binding.len(), revision(document.as_bytes())),
        document,
        left_out: left_out.iter().map(|mapping| mapping.name_any()).collect(),
        programmed: ProgrammedPolicy { held: generations(&binding), left_out: generations(&left_out) },
    })
}

/// Whether a mapping says something about the server. One that is being deleted no longer does.
pub(crate) fn binds(mapping: &McpRoleMapping, server: &str) -> bool {
    mapping.metadata.deletion_timestamp.is_none() && mapping.spec.servers.names.iter().any(|name| name == server)
}

fn grants(mapping: &McpRoleMapping) -> Vec<Grant> {
    let reference = MappingReference { namespace: mapping.namespace().unwrap_or_default(), name: mapping.name_any() };
    mapping
        .spec
        .grants
        .iter()
        .map(|grant| Grant {
            mapping: reference.clone(),
            name: grant.name.clone(),
            to: grant.to.iter().flat_map(subjects).collect(),
            allow: Allow { tools: grant.allow.tools.iter().cloned().map(ToolPattern).collect() },
        })
        .collect()
}

fn subjects(subject: &mcp_entra_crds::Subject) -> impl Iterator<Item = Subject> {
    let role = subject.app_role.clone().map(Subject::AppRole);
    let group = subject
        .group
        .as_ref()
        .map(|group| Subject::Group { id: group.id.clone(), display_name: group.display_name.clone() });
    role.into_iter().chain(group)
}

fn summarise(policy: &CompiledPolicy, mappings: usize, revision: String) -> PolicySummary {
    let roles: BTreeSet<&String> = policy
        .grants
        .iter()
        .flat_map(|grant| &grant.to)
        .filter_map(|subject| match subject {
            Subject::AppRole(role) => Some(role),
            Subject::Group { .. } => None,
        })
        .collect();
    let tools = BUILT_IN_TOOLS
        .iter()
        .filter(|tool| policy.grants.iter().any(|grant| grant.allow.tools.iter().any(|pattern| pattern.matches(tool))))
        .count();
    PolicySummary { revision, mappings: count(mappings), roles: count(roles.len()), tools: count(tools) }
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn generations(mappings: &[&McpRoleMapping]) -> BTreeMap<String, i64> {
    mappings
        .iter()
        .filter_map(|mapping| Some((mapping.uid()?, mapping.metadata.generation.unwrap_or_default())))
        .collect()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
    use serde_json::json;

    use super::*;

    fn mk_mapping(name: &str, servers: &[&str], role: &str, age: i64) -> McpRoleMapping {
        let mut mapping: McpRoleMapping = serde_json::from_value(json!({
            "apiVersion": "mcp-entra.dev/v1alpha1",
            "kind": "McpRoleMapping",
            "metadata": {"name": name, "namespace": "productivity", "uid": format!("uid-{name}"), "generation": 3},
            "spec": {
                "servers": {"names": servers},
                "grants": [{"name": "grant", "to": [{"appRole": role}], "allow": {"tools": ["get_*"]}}],
            },
        }))
        .unwrap();
        mapping.metadata.creation_timestamp = Some(Time(Timestamp::from_second(1_000_000 - age).unwrap()));
        mapping
    }

    #[test]
    fn only_mappings_that_name_the_server_are_compiled() {
        let mappings = [mk_mapping("ours", &["other", "graph"], "A", 1), mk_mapping("theirs", &["graphs"], "B", 1)];
        let compiled = compile("graph", &mappings).unwrap();
        let policy = CompiledPolicy::parse(compiled.document.as_bytes()).unwrap();
        assert_eq!(policy.grants.len(), 1);
        assert_eq!(policy.grants[0].mapping.name, "ours");
        assert_eq!(policy.grants[0].to, [Subject::AppRole("A".into())]);
        assert_eq!(compiled.programmed.held, BTreeMap::from([("uid-ours".to_owned(), 3)]));
    }

    #[test]
    fn a_mapping_that_is_being_deleted_grants_nothing() {
        let mut mapping = mk_mapping("ours", &["graph"], "A", 1);
        mapping.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        assert_eq!(compile("graph", &[mapping]).unwrap().document, r#"{"grants":[]}"#);
    }

    #[test]
    fn the_document_does_not_depend_on_the_order_in_which_mappings_were_seen() {
        let (a, b) = (mk_mapping("a", &["graph"], "A", 1), mk_mapping("b", &["graph"], "B", 2));
        let forth = compile("graph", [&a, &b]).unwrap();
        let back = compile("graph", [&b, &a]).unwrap();
        assert_eq!(forth.document, back.document);
        assert!(forth.document.find(r#""name":"a""#) < forth.document.find(r#""name":"b""#));
    }

    #[test]
    fn the_summary_counts_mappings_distinct_roles_and_tools() {
        let mappings = [mk_mapping("a", &["graph"], "A", 1), mk_mapping("b", &["graph"], "A", 2)];
        let compiled = compile("graph", &mappings).unwrap();
        assert_eq!((compiled.summary.mappings, compiled.summary.roles, compiled.summary.tools), (2, 1, 1));
        assert_eq!(compiled.revision(), revision(compiled.document.as_bytes()));
    }

    #[test]
    fn what_does_not_fit_is_left_out_the_newest_first_and_named() {
        let mappings = [
            mk_mapping("new", &["graph"], "A", 1),
            mk_mapping("old", &["graph"], "B", 3),
            mk_mapping("middle", &["graph"], "C", 2),
        ];
        let whole = compile("graph", &mappings).unwrap().document.len();
        let compiled = compile_within(whole - 1, "graph", &mappings).unwrap();
        assert!(compiled.document.len() < whole);
        assert_eq!(compiled.left_out, ["new"]);
        assert_eq!(compiled.programmed.left_out, BTreeMap::from([("uid-new".to_owned(), 3)]));
        assert_eq!(compiled.programmed.held.keys().collect::<Vec<_>>(), ["uid-middle", "uid-old"]);

        let nothing_fits = compile_within(20, "graph", &mappings).unwrap();
        assert_eq!(nothing_fits.document, r#"{"grants":[]}"#);
        assert_eq!(nothing_fits.left_out, ["old", "middle", "new"]);
    }
}
