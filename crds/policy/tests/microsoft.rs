//! Tests of the pattern of Microsoft's resources.
#![cfg(test)] // without it, clippy treats functions that tests share as non-test code

use mcp_entra_policy::*;

/// Applications to test: all listed ones, and some of each family.
fn applications() -> Vec<String> {
    let starts = ["00000001", "00000002", "00000003", "00000009", "0000000a", "00000012"];
    let families = MICROSOFT_APPLICATION_FAMILIES.iter().flat_map(|end| starts.map(|start| format!("{start}{end}")));
    MICROSOFT_APPLICATIONS.iter().map(|id| (*id).to_owned()).chain(families).collect()
}

fn spellings_of_an_application(id: &str) -> Vec<String> {
    let forms = [
        id.to_owned(),
        format!("api://{id}"),
        format!("spn:{id}"),
        format!("{id}/"),
        format!("{id}//"),
        format!("api://{id}/"),
        format!("{id}/.default"),
        format!("{id}/outlook.office365.com@contoso.com"),
        format!(" {id} "),
    ];
    forms.iter().flat_map(|form| [form.clone(), form.to_uppercase()]).collect()
}

fn spellings_of_a_domain(domain: &str) -> Vec<String> {
    let forms = [
        domain.to_owned(),
        format!("https://{domain}"),
        format!("https://{domain}/"),
        format!("https://{domain}//"),
        format!("http://{domain}"),
        format!("api://{domain}"),
        format!("https://{domain}:443"),
        format!("https://{domain}:443/"),
        format!("https://{domain}."),
        format!("https://{domain}/powerbi/api"),
        format!("https://{domain}/.default"),
        format!("https://{domain}?a"),
        format!("https://{domain}#a"),
        format!("https://contoso.{domain}"),
        format!("https://a.b.{domain}/"),
        format!("https://user@{domain}"),
        format!(" https://{domain} "),
    ];
    forms.iter().flat_map(|form| [form.clone(), form.to_uppercase()]).collect()
}

#[test]
fn every_resource_of_microsofts_own_is_known_in_every_spelling() {
    let applications = applications().into_iter().flat_map(|id| spellings_of_an_application(&id));
    let domains = MICROSOFT_DOMAINS.iter().flat_map(|domain| spellings_of_a_domain(domain));
    let names = MICROSOFT_NAMES.iter().flat_map(|name| spellings_of_an_application(name));
    for audience in applications.chain(domains).chain(names) {
        assert!(is_microsofts_own(&audience), "{audience}");
    }
}

#[test]
fn well_known_resources_are_among_them() {
    let known = [
        "797f4846-ba00-4fd7-ba43-dac1f8f63013",
        "cfa8b339-82a2-471a-a3c9-0fc0be7a4093",
        "00000002-0000-0ff1-ce00-000000000000",
        "00000003-0000-0ff1-ce00-000000000000",
        "00000002-0000-0000-c000-000000000000",
        "00000003-0000-0000-c000-000000000000",
        "https://graph.microsoft.com/",
        "https://search.azure.com",
        "https://contoso.search.azure.com",
        "https://confidential-ledger.azure.com",
        "https://azconfig.io",
        "https://api.powerplatform.com",
        "https://api.botframework.com",
        "https://api.securitycenter.windows.com",
        "https://wns.windows.com",
        "https://management.azure.com/",
        "https://management.core.windows.net/",
        "https://management.core.usgovcloudapi.net/",
        "https://management.usgovcloudapi.net/",
        "https://management.core.chinacloudapi.cn/",
        "https://management.chinacloudapi.cn/",
        "https://vault.azure.net",
        "https://vault.usgovcloudapi.net",
        "https://vault.azure.cn",
        "https://outlook.office365.com/",
        "https://outlook.office.com",
        "https://manage.office.com",
        "https://contoso.sharepoint.com",
        "https://contoso-my.sharepoint.com/",
        "https://storage.azure.com/",
        "https://contoso.blob.core.windows.net",
        "https://database.windows.net/",
        "https://graph.windows.net/",
        "https://analysis.windows.net/powerbi/api",
        "https://api.loganalytics.io",
        "https://eventhubs.azure.net",
        "https://servicebus.azure.net",
        "https://cosmos.azure.com",
        "https://cognitiveservices.azure.com/",
        "https://management.microsoft.com",
        "https://app.vssps.visualstudio.com",
    ];
    let clouds = [Cloud::Public, Cloud::USGov, Cloud::USGovDoD, Cloud::China];
    let of_clouds = clouds.map(|cloud| [cloud.graph(), cloud.authority(), cloud.federation_audience()]);
    for audience in known.iter().chain(of_clouds.iter().flatten()) {
        assert!(is_microsofts_own(audience), "{audience}");
    }
}

#[test]
fn the_neighbours_of_microsofts_resources_are_let_in() {
    let mut neighbours: Vec<String> = [
        "1c2d0000-0000-4000-8000-00000000000b",
        "api://1c2d0000-0000-4000-8000-00000000000b",
        "api://mcp",
        "https://graph.mcp.contoso.com/mcp",
        "https://contoso.onmicrosoft.com/mcp",
        "https://contoso.com/graph.microsoft.com",
        "https://contoso.com/?a=graph.microsoft.com",
        "https://contoso.com/00000003-0000-0000-c000-000000000000",
        "https://contoso.westeurope.cloudapp.azure.com/mcp",
        "https://contoso.azurewebsites.net/mcp",
        "https://contoso.azure-api.net/mcp",
        "https://notmicrosoft.com",
        "https://graph.microsoft.com@contoso.com/",
        "10000003-0000-0000-c000-000000000000",
        "00000003-0000-0000-c000-000000000001",
        "api://azureadtokenexchange.contoso.com",
    ]
    .map(str::to_owned)
    .to_vec();
    neighbours.extend(MICROSOFT_DOMAINS.iter().flat_map(|domain| {
        [format!("https://{domain}.contoso.com"), format!("https://{domain}.evil"), format!("https://x{domain}")]
    }));
    neighbours.extend(MICROSOFT_APPLICATIONS.iter().flat_map(|id| [format!("{id}0"), format!("0{id}")]));
    for audience in neighbours {
        assert!(!is_microsofts_own(&audience), "{audience}");
    }
}

#[test]
fn the_pattern_can_stand_in_a_raw_string_of_cel() {
    assert!(!microsofts_own_pattern().contains(['\'', '\\', '"', '\n']));
}
