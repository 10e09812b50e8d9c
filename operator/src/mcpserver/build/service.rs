//! Builds the Service: the MCP endpoint inside the cluster, without the admin port.

use k8s_openapi::{
    api::core::v1::{Service, ServicePort, ServiceSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::container::HTTP_PORT_NAME;
use crate::{mcpserver::validate::Validated, objects::child::ChildKind};

/// The port of the Service.
pub(super) const PORT: i32 = 80;

pub(super) fn service(server: &Validated) -> Service {
    Service {
        metadata: server.owner.child_metadata(ChildKind::Service),
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".to_owned()),
            selector: Some(server.owner.selector()),
            ports: Some(vec![ServicePort {
                name: Some(HTTP_PORT_NAME.to_owned()),
                port: PORT,
                protocol: Some("TCP".to_owned()),
                target_port: Some(IntOrString::String(HTTP_PORT_NAME.to_owned())),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}
