//! Tests of headers that repeat parts of the body, and of the revisions of a request.

use serde_json::{Value, json};

use super::{PROTOCOL, Stage};

/// Returns the status and the error code of a request with these changed headers. An empty value removes the header.
async fn changed(stage: &Stage, method: &str, params: Value, headers: &[(&'static str, &str)]) -> (u16, Value) {
    let mut request = stage.request(method, params, true).build().unwrap();
    for (name, value) in headers {
        request.headers_mut().remove(*name);
        if !value.is_empty() {
            request.headers_mut().append(*name, value.parse().unwrap());
        }
    }
    let response = stage.site.http.execute(request).await.unwrap();
    let status = response.status().as_u16();
    if status != 200 {
        let reason = stage.site.audit_of(&response).await["reason"].clone();
        assert!(["header_mismatch", "unsupported_version", "invalid_message"].contains(&reason.as_str().unwrap()));
    }
    (status, response.json::<Value>().await.unwrap()["error"]["code"].clone())
}

#[tokio::test]
async fn a_header_must_match_the_body() {
    let stage = Stage::new().await;
    let refused = (400, json!(-32020));
    let accepted = (200, Value::Null);
    let echo = || json!({ "name": "echo" });
    let memo = || json!({ "uri": "memo://one" });
    for (method, params, headers, expected) in [
        ("tools/call", echo(), &[][..], &accepted),
        ("tools/call", echo(), &[("mcp-name", "=?base64?ZWNobw==?=")], &accepted),
        ("tools/call", echo(), &[("mcp-name", "=?base64?ZWNobw?=")], &refused),
        ("tools/call", echo(), &[("mcp-name", "=?base64?ZW!hbw==?=")], &refused),
        ("tools/call", echo(), &[("mcp-name", "ECHO")], &refused),
        ("tools/call", echo(), &[("mcp-name", "writes")], &refused),
        ("tools/call", echo(), &[("mcp-name", "")], &refused),
        ("tools/call", echo(), &[("mcp-method", "")], &refused),
        ("tools/call", echo(), &[("mcp-method", "tools/list")], &refused),
        ("tools/call", echo(), &[("mcp-protocol-version", "")], &refused),
        ("tools/call", echo(), &[("mcp-protocol-version", "2025-11-25")], &refused),
        ("tools/list", json!({}), &[("mcp-method", "TOOLS/LIST")], &refused),
        ("prompts/get", json!({ "name": "greet", "arguments": { "name": "Bob" } }), &[], &accepted),
        ("prompts/get", json!({ "name": "greet" }), &[("mcp-name", "else")], &refused),
        ("resources/read", memo(), &[], &accepted),
        ("resources/read", memo(), &[("mcp-name", "secret://two")], &refused),
    ] {
        assert_eq!(changed(&stage, method, params, headers).await, *expected, "{method} {headers:?}");
    }
    // Intermediaries may use the header, in every revision.
    for (name, status) in [("writes", 400), ("echo", 200)] {
        let call = stage.request("tools/call", echo(), false).header("mcp-name", name);
        assert_eq!(call.send().await.unwrap().status(), status, "{name}");
    }
    let mut twice = stage.request("tools/list", json!({}), true).build().unwrap();
    twice.headers_mut().append("mcp-method", "tools/list".parse().unwrap());
    assert_eq!(stage.site.http.execute(twice).await.unwrap().status(), 400, "those between may read either");
}

#[tokio::test]
async fn a_header_repeats_an_argument_where_the_schema_asks_for_it() {
    let stage = Stage::new().await;
    let placed = |arguments: Value| json!({ "name": "placed", "arguments": arguments });
    for (arguments, headers, expected) in [
        (json!({}), &[][..], true),
        (json!({ "region": null }), &[], true),
        (json!({ "region": "eu" }), &[("mcp-param-region", "eu")], true),
        (json!({ "region": "eu" }), &[("mcp-param-region", "=?base64?ZXU=?=")], true),
        (json!({ "region": "å" }), &[("mcp-param-region", "=?base64?w6U=?=")], true),
        (
            json!({ "region": "eu", "floor": { "number": 3 } }),
            &[("mcp-param-region", "eu"), ("mcp-param-floor", "3")],
            true,
        ),
        (json!({ "region": "eu" }), &[], false),
        (json!({ "region": "eu" }), &[("mcp-param-region", "us")], false),
        (json!({ "region": "eu" }), &[("mcp-param-region", "=?base64?ZX?=")], false),
        (json!({ "floor": { "number": 3 } }), &[("mcp-param-floor", "3.0")], true),
        (json!({ "floor": { "number": 3 } }), &[("mcp-param-floor", "4")], false),
        (json!({}), &[("mcp-param-region", "eu")], false),
    ] {
        let (status, code) = changed(&stage, "tools/call", placed(arguments.clone()), headers).await;
        // The tool itself is broken.
        let answered = if expected { (200, json!(-32000)) } else { (400, json!(-32020)) };
        assert_eq!((status, code), answered, "{arguments} {headers:?}");
    }
}

#[tokio::test]
async fn a_revision_that_is_not_served_is_refused_with_those_that_are() {
    let stage = Stage::new().await;
    let ask = async |header: &str, named: Option<&str>| {
        let mut params = json!({});
        if let Some(named) = named {
            params["_meta"] = json!({ "io.modelcontextprotocol/protocolVersion": named });
        }
        let request = stage.request("tools/list", params, false).header("mcp-protocol-version", header);
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.json::<Value>().await.unwrap())
    };
    let supported = json!([PROTOCOL, "2025-11-25", "2025-06-18", "2025-03-26"]);
    for named in [None, Some("1999-01-01")] {
        let (status, answer) = ask("1999-01-01", named).await;
        assert_eq!((status, &answer["error"]["code"]), (400, &json!(-32022)), "{answer}");
        assert_eq!(answer["error"]["data"], json!({ "supported": supported, "requested": "1999-01-01" }));
        assert_eq!(answer["id"], 7);
    }
    for (header, named) in [(PROTOCOL, None), (PROTOCOL, Some(PROTOCOL))] {
        let (status, answer) = ask(header, named).await;
        assert_eq!((status, &answer["error"]["code"]), (400, &json!(-32602)), "members of _meta are missing: {answer}");
    }
    for (method, header, code) in [("tools/of/tomorrow", "2030-01-01", -32022), ("tools/of/tomorrow", PROTOCOL, -32602)]
    {
        let request = stage.request(method, json!({}), false).header("mcp-protocol-version", header);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 400, "the revision is checked before the method");
        assert_eq!(response.json::<Value>().await.unwrap()["error"]["code"], code, "{header}");
    }
    for header in ["2025-03-26", "2025-06-18", "2025-11-25"] {
        let (status, answer) = ask(header, None).await;
        assert_eq!((status, answer["result"].get("resultType")), (200, None), "{answer}");
    }
}

#[tokio::test]
async fn every_revision_is_negotiated_and_notifications_are_announced_only_if_clients_can_listen() {
    let stage = Stage::new().await;
    for revision in ["2025-03-26", "2025-06-18", "2025-11-25"] {
        let params = json!({
            "protocolVersion": revision, "capabilities": {}, "clientInfo": { "name": "test", "version": "1" },
        });
        let answer = stage.send(stage.request("initialize", params, false)).await;
        assert_eq!(answer["result"]["protocolVersion"], revision);
        let capabilities = &answer["result"]["capabilities"];
        assert_eq!(capabilities["tools"], json!({}), "{answer}");
        assert_eq!(capabilities["resources"], json!({}), "{answer}");
    }
    let discovered = stage.ask("server/discover", json!({})).await;
    let capabilities = &discovered["result"]["capabilities"];
    assert_eq!(capabilities["tools"], json!({ "listChanged": true }), "{discovered}");
    assert_eq!(capabilities["resources"], json!({ "listChanged": true, "subscribe": true }), "{discovered}");
}
