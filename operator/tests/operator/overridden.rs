//! Tests of admission that changes children during writes: the reported changes, and the additions that others may
//! make.

use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt;
use mcp_entra_crds::McpServer;
use serde_json::json;

use crate::harness::{Space, api_of, mk_server, until};

const VERSION: &str = "admissionregistration.k8s.io/v1";

impl Space {
    /// Makes the API server patch the namespace's objects of a kind at these operations, by a policy of the cluster's
    /// administrator. The steps of the JSON patch are in CEL. It takes effect a moment later.
    pub(crate) async fn mutate(&self, (group, plural): (&str, &str), operations: &[&str], steps: &[(&str, &str)]) {
        let rule =
            json!({"apiGroups": [group], "apiVersions": ["v1"], "resources": [plural], "operations": operations});
        let steps = steps.iter().map(|(path, value)| format!("JSONPatch{{op: 'add', path: '{path}', value: {value}}}"));
        let patch = format!("[{}]", steps.collect::<Vec<_>>().join(", "));
        self.apply_to_cluster(&json!({
            "apiVersion": VERSION, "kind": "MutatingAdmissionPolicy", "metadata": {"name": self.name},
            "spec": {"failurePolicy": "Fail", "reinvocationPolicy": "Never",
                     "matchConstraints": {"resourceRules": [rule]},
                     "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": patch}}]},
        }))
        .await;
        let here = json!({"matchLabels": {"kubernetes.io/metadata.name": self.name}});
        self.apply_to_cluster(&json!({
            "apiVersion": VERSION, "kind": "MutatingAdmissionPolicyBinding", "metadata": {"name": self.name},
            "spec": {"policyName": self.name, "matchResources": {"namespaceSelector": here}},
        }))
        .await;
    }

    /// Makes the API server patch the namespace's Deployments, and waits for the effect.
    async fn mutate_deployments(&self, operations: &[&str], steps: &[(&str, &str)]) {
        // The mark shows that the policy is in effect.
        let steps = [&[("/metadata/labels/mutated", "'yes'")], steps].concat();
        self.mutate(("apps", "deployments"), operations, &steps).await;
        self.until_tried(true).await;
    }

    async fn mutate_no_longer(&self) {
        for kind in ["MutatingAdmissionPolicyBinding", "MutatingAdmissionPolicy"] {
            let object = json!({"apiVersion": VERSION, "kind": kind, "metadata": {"name": self.name}});
            let (api, _) = api_of(&self.client, &serde_json::from_value(object).unwrap()).await.unwrap();
            api.delete(&self.name, &Default::default()).await.unwrap();
        }
        self.until_tried(false).await;
    }

    /// Waits until a Deployment is changed during writes, or is not any more.
    async fn until_tried(&self, is_mutated: bool) {
        let probe: Deployment = serde_json::from_value(json!({
            "metadata": {"name": "probe", "labels": {"app": "probe"}, "annotations": {"a": "b"}},
            "spec": {"selector": {"matchLabels": {"app": "probe"}}, "template": {
                "metadata": {"labels": {"app": "probe"}, "annotations": {"a": "b"}},
                "spec": {
                    "containers": [{"name": "a", "image": "b", "env": [{"name": "A"}], "args": ["a"],
                                    "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
                    "volumes": [{"name": "v", "emptyDir": {}}],
                    "tolerations": [{"key": "a", "operator": "Exists"}], "nodeSelector": {"a": "b"},
                },
            }},
        }))
        .unwrap();
        let parameters = kube::api::PostParams { dry_run: true, ..Default::default() };
        until("the policy is as it is to be", async || {
            let made = self.api::<Deployment>().create(&parameters, &probe).await.unwrap();
            made.labels().contains_key("mutated") == is_mutated
        })
        .await;
    }
}

const ALWAYS: &[&str] = &["CREATE", "UPDATE"];

#[tokio::test]
async fn an_image_that_admission_rewrites_is_reported_with_the_chart_value_that_prevents_it() {
    let space = Space::new().await;
    space.mutate_deployments(ALWAYS, &[("/spec/template/spec/containers/0/image", "'mirror.example/server:1'")]).await;
    space.apply(mk_server()).await;
    let told = space.condition("Programmed", "False", "Overridden").await.message;
    let field = "Deployment graph does not stay as applied: an admission webhook or policy of this cluster changes it: spec.template.spec.containers[server].image";
    let values = "is “mirror.example/server:1” and should be “registry.example/mcp-entra-server:test”; if that is a mirror, set it in the chart's value image.registry";
    assert!(told.starts_with(&format!("{field} {values}")), "{told}");
    space.condition("Ready", "False", "Overridden").await;
    space.mutate_no_longer().await;
    space.condition("Programmed", "True", "Applied").await;
}

#[tokio::test]
async fn any_other_field_that_admission_rewrites_is_reported_with_the_exemption_that_prevents_it() {
    let space = Space::new().await;
    space.mutate_deployments(ALWAYS, &[("/spec/template/spec/terminationGracePeriodSeconds", "7")]).await;
    space.apply(mk_server()).await;
    let told = space.condition("Programmed", "False", "Overridden").await.message;
    let says = "spec.template.spec.terminationGracePeriodSeconds is “7” and should be “40”; exempt objects labelled app.kubernetes.io/managed-by=mcp-entra-operator";
    assert!(told.contains(says), "{told}");
    space.mutate_no_longer().await;
}

#[tokio::test]
async fn additions_of_admission_to_a_deployment_stay_and_block_nothing() {
    let space = Space::new().await;
    let additions = [
        ("/metadata/annotations/theirs", "'x'"),
        ("/spec/template/metadata/labels/theirs", "'x'"),
        ("/spec/template/metadata/annotations/theirs", "'x'"),
        ("/spec/template/spec/nodeSelector/theirs", "'x'"),
        (
            "/spec/template/spec/tolerations/0",
            "Object.spec.template.spec.tolerations{key: 'theirs', operator: 'Exists'}",
        ),
        ("/spec/template/spec/volumes/0", "Object.spec.template.spec.volumes{name: 'theirs'}"),
        (
            "/spec/template/spec/containers/0/volumeMounts/0",
            "Object.spec.template.spec.containers.volumeMounts{name: 'theirs', mountPath: '/theirs'}",
        ),
        (
            "/spec/template/spec/containers/0/env/0",
            "Object.spec.template.spec.containers.env{name: 'THEIRS', value: 'x'}",
        ),
        ("/spec/template/spec/containers/0", "Object.spec.template.spec.containers{name: 'theirs', image: 'x'}"),
    ];
    space.mutate_deployments(&["CREATE"], &additions).await;
    let mut server = mk_server();
    server["spec"]["podTemplate"] =
        json!({"tolerations": [{"key": "apps", "operator": "Exists"}], "nodeSelector": {"pool": "apps"}});
    space.apply(server).await;
    space.condition("Programmed", "True", "Applied").await;
    let there = serde_json::to_value(space.get::<Deployment>("graph").await.unwrap()).unwrap();
    let added = there.to_string().matches("theirs").count() + there.to_string().matches("THEIRS").count();
    assert!(added >= additions.len(), "{there:#}");
    space.quiet().await;
    let mark = space.mark();
    space.edit::<McpServer>("graph", json!({"metadata": {"labels": {"looked": "at"}}})).await;
    space.quiet().await;
    assert!(space.writes(mark).await.iter().all(|write| write.resource != "deployments"), "it is left as it is");
}
