//! Write of a status, and its memory until the watch shows it.

use std::time::Instant;

use k8s_openapi::jiff::Timestamp;
use kube::{
    Api, Resource,
    api::{Patch, PatchParams},
};
use mcp_entra_crds::{McpServer, McpServerStatus};

use crate::{
    MANAGER,
    conditions::status_patch::status_patch,
    mcpserver::{
        context::Context,
        pass_memory::{ServerMemory, WrittenStatus},
        status,
    },
    objects::owner::Owner,
    runtime::errors::Error,
};

/// Writes a first status, if the server has none yet.
pub(crate) async fn at_first_sight(context: &Context, server: &McpServer, owner: &Owner, memory: &mut ServerMemory) {
    if current(server, memory).conditions.is_empty() {
        let first = status::at_first_sight(server, Timestamp::now());
        // A failed first status must not delay a revocation. The write reports its own failure.
        write(context, server, owner, memory, first).await.ok();
    }
}

/// Returns the newest known status: the last written one, if the watch does not show it yet.
pub(crate) fn current(server: &McpServer, memory: &mut ServerMemory) -> McpServerStatus {
    memory.written.take_if(|written| written.based_on != server.metadata.resource_version);
    match &memory.written {
        Some(written) => written.status.clone(),
        None => server.status.clone().unwrap_or_default(),
    }
}

/// Writes the status.
pub(crate) async fn write(
    context: &Context,
    server: &McpServer,
    owner: &Owner,
    memory: &mut ServerMemory,
    status: McpServerStatus,
) -> Result<(), Error> {
    let Owner { namespace, name, uid, .. } = owner;
    let patch = status_patch("McpServer", name, uid, &status)?;
    let api = Api::<McpServer>::namespaced(context.client.clone(), namespace);
    let written = api.patch_status(name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&patch)).await;
    if let Err(error) = &written {
        context.unwritten.tell(&server.object_ref(&()), error).await;
    }
    written.map_err(Error::kubernetes(format!("writing the status of McpServer {name}")))?;
    let based_on = server.metadata.resource_version.clone();
    memory.written = Some(Box::new(WrittenStatus { based_on, status }));
    memory.told = Some(Instant::now());
    Ok(())
}
