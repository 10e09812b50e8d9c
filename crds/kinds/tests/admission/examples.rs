//! Tests of the examples, and of the status of new objects.

use super::*;

#[tokio::test]
async fn every_example_is_accepted() {
    let mut seen = 0;
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        for document in serde_yaml::Deserializer::from_str(&text) {
            let mut manifest = Value::deserialize(document).unwrap();
            // Dry run: the namespace of the examples is not stored either.
            manifest["metadata"].as_object_mut().unwrap().remove("namespace");
            let refused = match manifest["kind"].as_str().unwrap() {
                "McpServer" => said::<McpServer>(&manifest).await,
                "McpRoleMapping" => said::<McpRoleMapping>(&manifest).await,
                "ClusterMcpRoleMapping" => said::<ClusterMcpRoleMapping>(&manifest).await,
                _ => continue,
            };
            assert_eq!(refused.unwrap(), None, "{}", path.display());
            seen += 1;
        }
    }
    assert!(seen >= 3, "only {seen} examples were seen");
}

#[tokio::test]
async fn every_manifest_and_fragment_of_the_documentation_is_accepted() {
    let example = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/2-server.yaml")).unwrap();
    let example: Value = serde_yaml::from_str(&example).unwrap();
    let mut seen = 0;
    for block in documentation::pages().iter().flat_map(documentation::Page::blocks) {
        let is_fragment = block.language == "yaml" && block.text.starts_with(documentation::MCP_SERVER_FRAGMENT);
        let fragment = is_fragment.then(|| merged(example.clone(), serde_yaml::from_str(&block.text).unwrap()));
        let whole = documentation::manifests(&block).into_iter().map(|text| serde_yaml::from_str(text).unwrap());
        for mut manifest in whole.chain(fragment) {
            manifest["metadata"].as_object_mut().unwrap().remove("namespace");
            let refused = match manifest["kind"].as_str().unwrap() {
                "McpServer" => said::<McpServer>(&manifest).await,
                "McpRoleMapping" => said::<McpRoleMapping>(&manifest).await,
                _ => said::<ClusterMcpRoleMapping>(&manifest).await,
            };
            assert_eq!(refused.unwrap(), None, "{}", block.place);
            seen += 1;
        }
    }
    assert!(seen >= 7, "only {seen} manifests and fragments were seen");
}

/// Merges the members of another object into this one.
fn merged(mut into: Value, from: Value) -> Value {
    match (&mut into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                let old = into.remove(&name).unwrap_or(Value::Null);
                into.insert(name, merged(old, value));
            }
        }
        (_, from) => return from,
    }
    into
}

/// Returns the examples as objects with names that no other test uses.
fn examples() -> Vec<Value> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    let text: Vec<String> = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    let mut objects = Vec::new();
    for document in text.iter().flat_map(|text| serde_yaml::Deserializer::from_str(text)) {
        let mut object = Value::deserialize(document).unwrap();
        let its_own = if object["metadata"].get("namespace").is_some() { "namespace" } else { "name" };
        object["metadata"][its_own] = json!(format!("twice-{}", object["metadata"][its_own].as_str().unwrap()));
        objects.push(object);
    }
    objects
}

#[tokio::test]
async fn a_second_apply_of_the_examples_changes_nothing() {
    let plane = control_plane().await;
    let list = json!({"apiVersion": "v1", "kind": "List", "items": examples()}).to_string();
    let mut said = String::new();
    for _ in 0..2 {
        let mut kubectl = tokio::process::Command::new(plane.kubectl());
        kubectl.arg("--kubeconfig").arg(plane.kubeconfig()).args(["apply", "-f", "-"]);
        // kubectl caches discovery below HOME.
        kubectl.env("KUBECACHEDIR", plane.kubeconfig().with_file_name("kubectl-cache"));
        kubectl.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut running = kubectl.spawn().unwrap();
        running.stdin.take().unwrap().write_all(list.as_bytes()).await.unwrap();
        let output = running.wait_with_output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        said = String::from_utf8(output.stdout).unwrap();
    }
    let changed: Vec<&str> = said.lines().filter(|line| !line.ends_with(" unchanged")).collect();
    assert!(said.lines().count() >= 4 && changed.is_empty(), "{said}");
}

#[tokio::test]
async fn an_object_that_nobody_has_looked_at_says_so_however_often_it_is_applied() {
    let client = control_plane().await.client().unwrap();
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "unseen"}});
    let namespaces = Api::<DynamicObject>::all_with(client.clone(), &ApiResource::erase::<Namespace>(&()));
    namespaces.patch("unseen", &PatchParams::apply("test"), &Patch::Apply(&namespace)).await.unwrap();
    for mut manifest in examples() {
        let resource = match manifest["kind"].as_str().unwrap() {
            "McpServer" => ApiResource::erase::<McpServer>(&()),
            "McpRoleMapping" => ApiResource::erase::<McpRoleMapping>(&()),
            "ClusterMcpRoleMapping" => ApiResource::erase::<ClusterMcpRoleMapping>(&()),
            _ => continue,
        };
        let mut name = manifest["metadata"]["name"].as_str().unwrap().to_owned();
        let api: Api<DynamicObject> = if resource.kind.starts_with("Cluster") {
            name = format!("unseen-{name}");
            Api::all_with(client.clone(), &resource)
        } else {
            manifest["metadata"]["namespace"] = json!("unseen");
            Api::namespaced_with(client.clone(), "unseen", &resource)
        };
        manifest["metadata"]["name"] = json!(name);
        let apply = async || api.patch(&name, &PatchParams::apply("test"), &Patch::Apply(&manifest)).await.unwrap();
        let (first, second, third) = (apply().await, apply().await, apply().await);
        let read = api.get(&name).await.unwrap();
        for object in [&first, &second, &third, &read] {
            assert_eq!(object.data["status"]["observedGeneration"], -1, "{}", resource.kind);
            let of = |object: &DynamicObject| (object.metadata.generation, object.metadata.managed_fields.clone());
            assert_eq!(of(object), of(&first), "{}", resource.kind);
        }
        // The second apply stores the default, which the manifest does not contain.
        assert_eq!(third.metadata, second.metadata, "{}", resource.kind);
        let status = json!({"status": {"observedGeneration": 1}});
        let written = api.patch_status(&name, &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
        assert_eq!(written.data["status"]["observedGeneration"], 1);
    }
}
