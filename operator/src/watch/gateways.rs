//! Gateways and their classes, which are never ours, as far as they are read: the listeners, and the supported features.

use std::borrow::Cow;

use k8s_openapi::{ClusterResourceScope, NamespaceResourceScope, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::Resource;
use serde::Deserialize;

use crate::objects::child::ChildKind;

/// The feature of Gateway API by which a route sets a time for each request.
const REQUEST_TIMEOUT: &str = "HTTPRouteRequestTimeout";

/// The part of a Gateway that is read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct GatewayView {
    pub(crate) metadata: ObjectMeta,
    pub(crate) spec: GatewaySpecView,
}

/// The part of a Gateway's spec that is read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct GatewaySpecView {
    pub(crate) gateway_class_name: String,
    pub(crate) listeners: Vec<ListenerView>,
}

/// The part of a listener that is read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ListenerView {
    pub(crate) name: String,
    pub(crate) protocol: String,
}

/// The part of a GatewayClass that is read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct GatewayClassView {
    pub(crate) metadata: ObjectMeta,
    status: GatewayClassStatusView,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct GatewayClassStatusView {
    supported_features: Vec<Feature>,
}

/// A feature by its name. Gateway API before 1.3 lists the names alone.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Feature {
    Named { name: String },
    Name(String),
}

impl GatewayClassView {
    /// Says if the controller of the class sets a time for each request where a route asks for one.
    pub(crate) fn takes_timeouts(&self) -> bool {
        let names = self.status.supported_features.iter().map(|feature| match feature {
            Feature::Named { name } | Feature::Name(name) => name,
        });
        names.into_iter().any(|name| name == REQUEST_TIMEOUT)
    }
}

macro_rules! kind_of_gateway_api {
    ($view:ty, $scope:ty, $kind:literal, $plural:literal) => {
        impl Resource for $view {
            type DynamicType = ();
            type Scope = $scope;

            fn kind((): &()) -> Cow<'_, str> {
                $kind.into()
            }

            fn group((): &()) -> Cow<'_, str> {
                ChildKind::HttpRoute.api_resource().group.into()
            }

            fn version((): &()) -> Cow<'_, str> {
                ChildKind::HttpRoute.api_resource().version.into()
            }

            fn plural((): &()) -> Cow<'_, str> {
                $plural.into()
            }

            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }

            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

kind_of_gateway_api!(GatewayView, NamespaceResourceScope, "Gateway", "gateways");
kind_of_gateway_api!(GatewayClassView, ClusterResourceScope, "GatewayClass", "gatewayclasses");

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_class_takes_timeouts_if_it_lists_that_feature_by_name_or_as_an_object() {
        let takes = |features: Value| {
            let class = json!({"metadata": {"name": "a"}, "status": {"supportedFeatures": features}});
            serde_json::from_value::<GatewayClassView>(class).unwrap().takes_timeouts()
        };
        assert!(takes(json!([{"name": "HTTPRoute"}, {"name": "HTTPRouteRequestTimeout"}])));
        assert!(takes(json!(["HTTPRoute", "HTTPRouteRequestTimeout"])));
        assert!(!takes(json!([{"name": "HTTPRoute"}, {"name": "HTTPRouteBackendTimeout"}])));
        let silent: GatewayClassView = serde_json::from_value(json!({"metadata": {"name": "a"}})).unwrap();
        assert!(!silent.takes_timeouts());
    }
}
