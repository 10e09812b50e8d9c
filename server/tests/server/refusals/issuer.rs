//! Issuers other than the tenant's, in either version.

use serde_json::{Value, json};

use super::case::{Base, Case, Category};
use super::forge::Forge;

pub(super) fn cases(forge: &Forge) -> Vec<Case> {
    let mut cases = of_version_2(forge);
    cases.extend(of_version_1(forge));
    cases
}

fn claim(value: Option<Value>) -> Case {
    let reason = if matches!(value, Some(Value::String(_))) { "another_issuer" } else { "bad_claim" };
    Case::claim(Category::Issuer, "iss", value, reason)
}

fn of_version_2(forge: &Forge) -> Vec<Case> {
    let (ours, tenant) = (&forge.issuer, forge.tenant);
    let another = "aaaa0000-0000-4000-8000-000000000003";
    let at = |start: &str| format!("{start}/{tenant}/v2.0");
    let in_place_of_the_tenant = |name: &str| ours.replace(&tenant.to_string(), name);
    let authority = ours.strip_suffix(&format!("/{tenant}/v2.0")).unwrap();
    let host = authority.strip_prefix("https://").unwrap();
    let issuers = [
        String::new(),
        " ".to_owned(),
        format!("{ours}/"),
        format!(" {ours}"),
        format!("{ours} "),
        format!("{ours}?"),
        format!("{ours}#"),
        ours.replace("v2.0", "v1.0"),
        ours.replace("v2.0", "V2.0"),
        ours.replace("/v2.0", ""),
        ours.replace("/v2.0", "/"),
        ours.replace("https:", "http:"),
        ours.replace("https:", "HTTPS:"),
        ours.replace("https://", ""),
        ours.to_uppercase(),
        in_place_of_the_tenant(another),
        in_place_of_the_tenant("common"),
        in_place_of_the_tenant("organizations"),
        in_place_of_the_tenant("{tenantid}"),
        in_place_of_the_tenant("contoso.com"),
        in_place_of_the_tenant(&tenant.to_string().to_uppercase()),
        in_place_of_the_tenant(&tenant.simple().to_string()),
        in_place_of_the_tenant("9188040d-6c67-4c5b-b112-36a304b66dad"),
        in_place_of_the_tenant(&format!("{another}/../{tenant}")),
        in_place_of_the_tenant(&format!("/{tenant}")),
        at("https://login.microsoftonline.com"),
        at("https://login.microsoftonline.us"),
        at("https://login.partner.microsoftonline.cn"),
        at("https://login.windows.net"),
        at("https://sts.windows.net"),
        at(&format!("{authority}.evil.example")),
        at(&format!("{authority}@evil.example")),
        at(&format!("https://evil.example/{host}")),
        format!("https://sts.windows.net/{tenant}/"),
    ];
    let not_text = [json!(null), json!([ours]), json!({ "iss": ours }), json!(1)];
    let mut cases = vec![claim(None)];
    cases.extend(not_text.map(Some).map(claim));
    cases.extend(issuers.map(|issuer| claim(Some(json!(issuer)))));
    cases.push(claim(Some(json!(in_place_of_the_tenant(another)))).of(Base::Application));
    cases
}

fn of_version_1(forge: &Forge) -> Vec<Case> {
    let tenant = forge.tenant;
    let issuers = [
        forge.issuer.clone(),
        format!("https://sts.windows.net/{tenant}"),
        format!("https://sts.windows.net/{tenant}//"),
        format!("http://sts.windows.net/{tenant}/"),
        format!("https://STS.windows.net/{tenant}/"),
        format!("https://sts.windows.net.evil.example/{tenant}/"),
        format!("https://sts.chinacloudapi.cn/{tenant}/"),
        "https://sts.windows.net/aaaa0000-0000-4000-8000-000000000003/".to_owned(),
        "https://sts.windows.net/{tenantid}/".to_owned(),
    ];
    let mut cases: Vec<Case> = issuers.map(|issuer| claim(Some(json!(issuer))).of(Base::UserOfVersion1)).into();
    cases.push(claim(None).of(Base::UserOfVersion1));
    cases.push(claim(Some(json!(forge.issuer))).of(Base::ApplicationOfVersion1));
    cases
}
