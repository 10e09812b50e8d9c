//! Audiences that are similar to this server's, but not equal.

use serde_json::{Value, json};

use super::case::{Base, Case, Category};
use super::forge::Forge;

pub(super) fn cases(forge: &Forge) -> Vec<Case> {
    let ours = forge.server;
    let uri = format!("api://{ours}");
    let not_text = [
        json!(null),
        json!([ours]),
        json!([ours, forge.tenant]),
        json!([]),
        json!({ "id": ours }),
        json!(1),
        json!(true),
    ];
    let graph = ["https://graph.microsoft.com", "https://graph.microsoft.com/", "00000003-0000-0000-c000-000000000000"];
    let others = [
        String::new(),
        " ".to_owned(),
        forge.tenant.to_string(),
        "https://management.azure.com/".to_owned(),
        "00000002-0000-0000-c000-000000000000".to_owned(),
        "api://AzureADTokenExchange".to_owned(),
        format!("{ours}/"),
        format!(" {ours}"),
        format!("{ours} "),
        format!("{ours}\0"),
        format!("{{{ours}}}"),
        format!("{ours},{}", forge.tenant),
        format!("spn:{ours}"),
        format!("urn:uuid:{ours}"),
        ours.to_string().to_uppercase(),
        ours.simple().to_string(),
        ours.to_string()[..35].to_owned(),
        format!("{ours}0"),
        format!("{uri}/"),
        format!("{uri}/mcp.access"),
        format!("{uri}.evil.example"),
        format!("{uri}#"),
        format!("{uri}?"),
        uri.to_uppercase(),
        uri.replace("api:", "API:"),
        uri.replace("://", ":/"),
        uri.replace("api:", "https:"),
        uri.replace('-', "%2d"),
        "https://graph.mcp.contoso.com/mcp".to_owned(),
        "https://graph.mcp.contoso.com".to_owned(),
    ];
    let claim = |value: Option<Value>, reason| Case::claim(Category::Audience, "aud", value, reason);
    let mut cases = vec![claim(None, "bad_claim")];
    cases.extend(not_text.map(|value| claim(Some(value), "bad_claim")));
    cases.extend(graph.map(|value| claim(Some(json!(value)), "graph_token")));
    cases.extend(others.map(|value| claim(Some(json!(value)), "another_audience")));
    cases.push(claim(Some(json!(forge.tenant)), "another_audience").of(Base::Application));
    cases.push(claim(Some(json!(forge.tenant)), "another_audience").of(Base::UserOfVersion1));
    cases.push(claim(Some(json!(format!("{uri}/"))), "another_audience").of(Base::UserOfVersion1));
    cases
}
