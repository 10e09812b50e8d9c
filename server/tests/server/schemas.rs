//! Tests of the tools' schemas, as strict clients need them.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use mcp_entra_policy::{CallerKind, CompiledPolicy, Subject};
use serde_json::{Map, Value, json};

use crate::harness::{Setup, Site, arguments_for, every_tool, grant};
use crate::tenant::{ALICE, ROLE};

/// A server with tools for users and applications, and a token of each.
async fn site() -> (Site, [String; 2]) {
    let mut setup = Setup::new();
    let everybody = Subject::AppRole { role: ROLE.into(), callers: [CallerKind::User, CallerKind::Application].into() };
    setup.policy = CompiledPolicy {
        denies: vec![],
        grants: vec![grant("everybody", everybody, &every_tool())],
        ..CompiledPolicy::default()
    };
    let site = setup.start().await;
    let tenant = &site.setup.tenant;
    let tokens = [tenant.token(ALICE), tenant.sign(&json!({}), &tenant.application_claims(tenant.daemon))];
    (site, tokens)
}

/// Returns the tools in the list for this token.
async fn tools(site: &Site, token: &str) -> Vec<Value> {
    let mut answer: Value = site.rpc(token, "tools/list", json!({})).await.json().await.unwrap();
    let tools: Vec<Value> = serde_json::from_value(answer["result"]["tools"].take()).unwrap();
    assert_eq!(tools.len(), mcp_entra_policy::BUILT_IN_TOOLS.len());
    tools
}

/// Returns each schema of each tool, for users and for applications, by name.
async fn schemas() -> Map<String, Value> {
    let (site, tokens) = site().await;
    let mut schemas = Map::new();
    for (caller, token) in ["user", "application"].into_iter().zip(&tokens) {
        for tool in tools(&site, token).await {
            for schema in ["inputSchema", "outputSchema"] {
                let name = format!("{schema} of {} for a {caller}", tool["name"].as_str().unwrap());
                schemas.insert(name, tool[schema].clone());
            }
        }
    }
    schemas
}

/// Returns Ajv's messages about refused schemas. Needs Node 20 or newer with npm, and npm's configured registry.
fn refused_by_ajv(schemas: &Map<String, Value>) -> String {
    let folder = tempfile::tempdir().unwrap();
    for file in ["package.json", "package-lock.json", "compile.cjs"] {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ajv").join(file);
        std::fs::copy(source, folder.path().join(file)).unwrap();
    }
    let npm = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline", "--loglevel=error"];
    let installed = Command::new("npm").args(npm).current_dir(&folder).output().expect("this test needs npm");
    assert!(installed.status.success(), "{}", String::from_utf8_lossy(&installed.stderr));
    let mut node = Command::new("node")
        .arg("compile.cjs")
        .current_dir(&folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    node.stdin.take().unwrap().write_all(Value::Object(schemas.clone()).to_string().as_bytes()).unwrap();
    let output = node.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

/// Returns the members of this name, at any depth.
fn members<'a>(value: &'a Value, name: &str) -> Vec<&'a Value> {
    match value {
        Value::Object(object) => {
            let inner = object.values().flat_map(|value| members(value, name));
            object.get(name).into_iter().chain(inner).collect()
        }
        Value::Array(items) => items.iter().flat_map(|value| members(value, name)).collect(),
        _ => vec![],
    }
}

#[tokio::test]
async fn every_schema_of_every_tool_compiles_in_strict_mode() {
    let mut schemas = schemas().await;
    assert_eq!(refused_by_ajv(&schemas), "");
    // This test detects schemas that a strict client refuses.
    schemas.insert("foreign".into(), json!({ "type": "integer", "format": "uint8" }));
    assert_eq!(refused_by_ajv(&schemas), "foreign: unknown format \"uint8\" ignored in schema at path \"#\"\n");
}

#[tokio::test]
async fn every_schema_of_every_tool_has_its_types_in_place_and_no_format() {
    for (name, schema) in schemas().await {
        assert_eq!(schema["type"], "object", "{name}");
        for member in ["$ref", "$defs", "format"] {
            assert_eq!(members(&schema, member), [&Value::Null; 0], "{name} has {member}: {schema}");
        }
    }
}

#[tokio::test]
async fn every_integer_argument_accepts_whole_numbers_of_its_range_and_errors_name_the_range() {
    let (site, [alice, _]) = site().await;
    let mut seen = 0;
    for tool in tools(&site, &alice).await {
        let name = tool["name"].as_str().unwrap();
        for (argument, schema) in tool["inputSchema"]["properties"].as_object().unwrap() {
            if !schema["type"].to_string().contains("\"integer\"") {
                continue;
            }
            seen += 1;
            let (minimum, maximum) = (schema["minimum"].as_i64().unwrap(), schema["maximum"].as_i64().unwrap());
            for good in [json!(minimum), json!(maximum), json!(minimum as f64), json!(maximum as f64)] {
                let answer = call(&site, &alice, name, argument, &good).await;
                assert_eq!(answer["isError"], false, "{name}, {argument}, {good}: {answer}");
            }
            let number = minimum.to_string();
            for bad in [
                json!(minimum - 1),
                json!(maximum + 1),
                json!(u64::MAX),
                json!(1e300),
                json!(1.5),
                json!(number),
                json!(true),
                json!([minimum]),
            ] {
                let answer = call(&site, &alice, name, argument, &bad).await;
                assert_eq!(answer["isError"], true, "{name}, {argument}, {bad}: {answer}");
                let text = answer["content"][0]["text"].as_str().unwrap();
                let range = format!("{minimum} to {maximum}");
                assert!(text.contains(argument) && text.contains(&range), "{name}, {argument}, {bad}: {text}");
            }
        }
    }
    assert!(seen > 0);
}

async fn call(site: &Site, token: &str, tool: &str, argument: &str, value: &Value) -> Value {
    let mut arguments = arguments_for(tool);
    arguments[argument] = value.clone();
    let response = site.call(token, tool, arguments).await;
    assert_eq!(response.status(), 200);
    response.json::<Value>().await.unwrap()["result"].take()
}
