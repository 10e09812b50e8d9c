//! Refusal of Microsoft's resources as audiences or client ids, in any spelling.

use mcp_entra_crds::McpServer;
use mcp_entra_policy::{MICROSOFT_APPLICATION_FAMILIES, MICROSOFT_APPLICATIONS, MICROSOFT_DOMAINS, MICROSOFT_NAMES};
use serde_json::{Value, json};

use crate::{assert_accepted, mk_server, refusal};

/// Maximum number of audiences of a server.
const AT_ONCE: usize = 8;

fn applications() -> Vec<String> {
    let families = MICROSOFT_APPLICATION_FAMILIES.iter();
    let of_families =
        families.flat_map(|end| ["00000002", "00000003", "0000000a"].map(|start| format!("{start}{end}")));
    MICROSOFT_APPLICATIONS.iter().map(|id| (*id).to_owned()).chain(of_families).collect()
}

fn spellings() -> Vec<String> {
    let mut spellings = Vec::new();
    for id in applications().into_iter().chain(MICROSOFT_NAMES.iter().map(|name| (*name).to_owned())) {
        let uri = format!("api://{id}");
        spellings.extend([format!("{uri}/"), uri.to_uppercase(), format!("{id}/"), format!("spn:{id}"), uri, id]);
    }
    for domain in MICROSOFT_DOMAINS {
        let url = format!("https://{domain}");
        let forms = ["", "/", "//", ":443", ":443/", ".", "/path", "/.default"].map(|end| format!("{url}{end}"));
        spellings.extend(forms);
        spellings.extend([
            (*domain).to_owned(),
            url.to_uppercase(),
            format!("api://{domain}"),
            format!("http://{domain}"),
            format!("https://contoso.{domain}/"),
        ]);
    }
    spellings
}

/// Checks each entry by itself, since a refused entry in the same list would hide an accepted one.
#[tokio::test]
async fn every_resource_of_microsofts_own_is_refused_as_an_audience_in_every_spelling() {
    for audience in spellings() {
        let refused = refusal::<McpServer>(mk_server(), "/spec/entra/audiences/-", json!(audience)).await;
        let refused = refused.unwrap_or_else(|| panic!("{audience} is let in"));
        assert!(refused.contains("spec.entra.audiences") && refused.contains("a resource of Microsoft"), "{refused}");
    }
}

#[tokio::test]
async fn no_server_has_the_client_id_of_a_resource_of_microsofts_own() {
    for id in applications() {
        let refused = refusal::<McpServer>(mk_server(), "/spec/entra/clientId", json!(id)).await;
        let refused = refused.unwrap_or_else(|| panic!("{id} is let in"));
        assert!(refused.contains("spec.entra.clientId") && refused.contains("a resource of Microsoft"), "{refused}");
    }
}

#[tokio::test]
async fn the_neighbours_of_microsofts_resources_are_accepted() {
    let mut neighbours: Vec<String> = [
        "1c2d0000-0000-4000-8000-00000000000b",
        "api://1c2d0000-0000-4000-8000-00000000000b",
        "https://contoso.onmicrosoft.com/mcp",
        "https://contoso.com/graph.microsoft.com",
        "https://contoso.westeurope.cloudapp.azure.com/mcp",
        "https://notmicrosoft.com",
        "10000003-0000-0000-c000-000000000000",
    ]
    .map(str::to_owned)
    .to_vec();
    neighbours.extend(MICROSOFT_DOMAINS.iter().map(|domain| format!("https://{domain}.contoso.com")));
    neighbours.extend(MICROSOFT_DOMAINS.iter().map(|domain| format!("https://x{domain}")));
    let lists = neighbours.chunks(AT_ONCE).map(|some| ("/spec/entra/audiences", json!(some)));
    assert_accepted::<McpServer>(mk_server, lists.collect()).await;
    let longest: Value = (0..AT_ONCE).map(|number| json!(format!("{number}{}", "a".repeat(255)))).collect();
    assert_accepted::<McpServer>(mk_server, vec![("/spec/entra/audiences", longest)]).await;
}
