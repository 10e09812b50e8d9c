//! Valid tokens that give no access: no scope, no role, another client, no principal.

use serde_json::{Value, json};

use super::case::{Base, Case, Category};
use super::forge::Forge;

pub(super) fn cases(forge: &Forge) -> Vec<Case> {
    let claim = |name, value: Option<Value>, reason| Case::claim(Category::Authorization, name, value, reason);
    let mut cases = Vec::new();
    let qualified = format!("{}/mcp.access", forge.server);
    let scopes = [
        "other.scope",
        "MCP.ACCESS",
        "mcp.access2",
        "mcp.acces",
        "mcp",
        "access",
        "mcp.access.read",
        "mcp.access,other",
        "mcp.access\tother",
        "mcp.access\n",
        "\"mcp.access\"",
        "*",
        "mcp.*",
        ".default",
        "openid profile email",
        "Mcp.Reader",
        &qualified,
    ];
    cases.extend(scopes.map(|scope| claim("scp", Some(json!(scope)), "scope_missing")));
    for scopes in [json!(["mcp.access"]), json!(null), json!(1), json!({ "mcp.access": true }), json!(true)] {
        cases.push(claim("scp", Some(scopes), "bad_claim"));
    }
    for base in [Base::Application, Base::ApplicationOfVersion1] {
        cases.push(claim("roles", None, "application_without_role").of(base));
        cases.push(claim("roles", Some(json!([])), "application_without_role").of(base));
    }
    for base in [Base::User, Base::Application] {
        for roles in
            [json!("Mcp.Reader"), json!([1]), json!(null), json!({ "Mcp.Reader": true }), json!([["Mcp.Reader"]])]
        {
            cases.push(claim("roles", Some(roles), "bad_claim").of(base));
        }
    }
    let another = json!("aaaa0000-0000-4000-8000-000000000003");
    for (base, name) in [
        (Base::User, "azp"),
        (Base::Application, "azp"),
        (Base::UserOfVersion1, "appid"),
        (Base::ApplicationOfVersion1, "appid"),
    ] {
        cases.push(claim(name, Some(another.clone()), "client_not_allowed").of(base));
        cases.push(claim(name, Some(json!(forge.server)), "client_not_allowed").of(base));
        for client in [json!("a client"), json!(""), json!(null), json!([another]), json!(forge.clients()[0].simple())]
        {
            cases.push(claim(name, Some(client), "bad_claim").of(base));
        }
    }
    cases.push(claim("azp", None, "bad_claim"));
    cases.push(claim("appid", None, "bad_claim").of(Base::UserOfVersion1));
    for person in [json!("../me"), json!(""), json!(null), json!(1), json!([another]), json!(forge.tenant.simple())] {
        cases.push(claim("oid", Some(person), "bad_claim"));
    }
    cases.push(claim("oid", None, "bad_claim"));
    for (name, value) in
        [("groups", json!("all")), ("groups", json!([1])), ("acrs", json!("c1")), ("xms_cc", json!("cp1"))]
    {
        cases.push(claim(name, Some(value), "bad_claim"));
    }
    cases
}
