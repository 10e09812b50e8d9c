//! Hand-over of a Deployment's number of pods between the spec and an autoscaler. The number falls to one when its only
//! field manager drops it, so a second manager holds it meanwhile.

use kube::{
    Api, ResourceExt,
    api::{DynamicObject, Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::MANAGER;

/// The field manager that holds the number during the hand-over to an autoscaler. The autoscaler takes it over with its
/// first change.
const KEEPER: &str = "mcp-entra-operator-replicas";

/// Returns true if the next apply drops the number, because the desired child has none.
pub(crate) fn is_dropped(live: &DynamicObject, desired: &Value) -> bool {
    desired.pointer("/spec/replicas").is_none() && is_held_by(live, MANAGER)
}

/// Returns true if the operator owns the number again, but the second manager still holds it, too.
pub(crate) fn is_held_twice(live: &DynamicObject) -> bool {
    is_held_by(live, MANAGER) && is_held_by(live, KEEPER)
}

/// Holds the number as it is. Nothing is forced, so a concurrent change gives a 409. The exception is 0, which becomes
/// 1: at 0, an autoscaler never starts a pod.
pub(crate) async fn keep(api: &Api<DynamicObject>, live: &DynamicObject) -> kube::Result<()> {
    let number = live.data.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(1);
    let mut parameters = PatchParams::apply(KEEPER);
    parameters.force = number == 0;
    hold(api, live, &parameters, json!({"replicas": number.max(1)})).await
}

/// Releases the number from the second manager.
pub(crate) async fn release(api: &Api<DynamicObject>, live: &DynamicObject) -> kube::Result<()> {
    hold(api, live, &PatchParams::apply(KEEPER), json!({})).await
}

async fn hold(
    api: &Api<DynamicObject>,
    live: &DynamicObject,
    parameters: &PatchParams,
    spec: Value,
) -> kube::Result<()> {
    let patch = json!({
        "apiVersion": live.types.as_ref().map(|types| &types.api_version),
        "kind": live.types.as_ref().map(|types| &types.kind),
        "metadata": {"name": live.name_any(), "uid": live.uid()},
        "spec": spec,
    });
    api.patch(&live.name_any(), parameters, &Patch::Apply(&patch)).await.map(drop)
}

fn is_held_by(object: &DynamicObject, manager: &str) -> bool {
    object.managed_fields().iter().any(|entry| {
        entry.manager.as_deref() == Some(manager)
            && entry.operation.as_deref() == Some("Apply")
            && entry.fields_v1.as_ref().is_some_and(|fields| fields.0.pointer("/f:spec/f:replicas").is_some())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mk_deployment(managers: &[(&str, &str)]) -> DynamicObject {
        let entry = |(manager, operation): &(&str, &str)| {
            json!({"manager": manager, "operation": operation, "apiVersion": "apps/v1", "fieldsType": "FieldsV1",
                   "fieldsV1": {"f:spec": {"f:replicas": {}}}})
        };
        let managed: Vec<Value> = managers.iter().map(entry).collect();
        serde_json::from_value(json!({"metadata": {"name": "graph", "managedFields": managed}})).unwrap()
    }

    #[test]
    fn the_operator_releases_replicas_only_if_it_owns_them_and_no_longer_sets_them() {
        let (without, with) = (json!({"spec": {}}), json!({"spec": {"replicas": 2}}));
        let ours = mk_deployment(&[(MANAGER, "Apply")]);
        assert!(is_dropped(&ours, &without));
        assert!(!is_dropped(&ours, &with));
        assert!(!is_dropped(&mk_deployment(&[("kube-controller-manager", "Update")]), &without));
        assert!(!is_dropped(&mk_deployment(&[(KEEPER, "Apply")]), &without));
    }

    #[test]
    fn the_second_manager_gives_up_only_fields_that_the_first_holds() {
        assert!(is_held_twice(&mk_deployment(&[(MANAGER, "Apply"), (KEEPER, "Apply")])));
        assert!(!is_held_twice(&mk_deployment(&[(KEEPER, "Apply")])));
        assert!(!is_held_twice(&mk_deployment(&[(MANAGER, "Apply")])));
    }
}
