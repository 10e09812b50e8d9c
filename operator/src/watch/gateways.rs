//! Views of Gateways and their classes, which the operator only reads: listeners and supported features.

use std::borrow::Cow;

use k8s_openapi::{ClusterResourceScope, NamespaceResourceScope, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::Resource;
use serde::Deserialize;

use crate::objects::child::ChildKind;

/// The Gateway API feature for a timeout of each request.
const REQUEST_TIMEOUT: &str = "HTTPRouteRequestTimeout";

/// The fields of a Gateway that are read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct GatewayView {
    pub(crate) metadata: ObjectMeta,
    pub(crate) spec: GatewaySpecView,
}

/// The fields of a Gateway's spec that are read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct GatewaySpecView {
    pub(crate) gateway_class_name: String,
    pub(crate) listeners: Vec<ListenerView>,
}

/// The fields of a listener that are read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ListenerView {
    pub(crate) name: String,
    pub(crate) protocol: String,
}

/// The fields of a GatewayClass that are read.
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

/// The name of a feature. Gateway API before 1.3 lists plain names.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Feature {
    Named { name: String },
    Name(String),
}

impl GatewayClassView {
    /// Returns true if the controller of the class supports request timeouts of routes.
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
