//! Claims of a reconcile: the host and the client id in the spec, if the server may claim them.

use std::time::{Duration, Instant};

use mcp_entra_crds::McpServer;

use crate::{
    mcpserver::{
        context::Context,
        pass_memory::Since,
        validate::{Validated, exposure::leads, refusal::Refusal},
    },
    objects::owner::Owner,
    ownership::{
        Contender, Standing, acquire,
        claim::{ClaimKind, Demand, demands},
        standing,
    },
    runtime::errors::Error,
    watch::{orphaned::leads_from, stores::World},
};

/// The longest wait for another server that should claim a value first, or for the deletion of an orphan's route. The
/// wait for a server that held the value has no limit.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Claims undecided values. Returns the new standing of the server.
pub(crate) async fn claim(
    server: &McpServer,
    context: &Context,
    validated: &Result<Validated, Refusal>,
    known: &Standing,
    undecided: &mut Since,
) -> Result<Standing, Error> {
    let Context { world, claims, ledger, .. } = context;
    let own = Contender { server, is_live: is_live(world, server) };
    let is_accepted = validated.is_ok() && !server.spec.suspend;
    let entitled = |demand: &Demand| is_accepted || (own.keeps(demand) && !is_refused(demand, validated));
    let is_undecided = *known == Standing::Open && demands(server).iter().any(entitled);
    let waited = undecided.note(is_undecided, Instant::now());
    if !is_undecided {
        return Ok(known.clone());
    }
    // A server that could claim but does not must not block others. After the limit, the API server decides.
    let is_patient = waited.is_none_or(|waited| waited < LONGEST_WAIT);
    let is_earlier = |other: &McpServer, demand: &Demand| is_to_claim_first(context, other, server, demand, is_patient);
    let must_wait = |demand: &Demand| {
        let servers = world.servers.state();
        let is_host = demand.claimed.kind == ClaimKind::Host;
        (is_patient && is_host && leads_from(world, &demand.claimed.value))
            || servers.iter().filter_map(|other| other.0.as_ref().ok()).any(|other| is_earlier(other, demand))
    };
    let named = |namespace: &str, name: &str| world.server(namespace, name);
    let standing = acquire(ledger, claims, &named, (server, &entitled), must_wait).await?;
    if standing == Standing::Open && waited.is_some_and(|waited| waited.is_zero()) {
        tracing::info!(
            namespace = server.metadata.namespace,
            server = server.metadata.name,
            "the server waits for its host or client id: another server claims it first, or the claim is unreadable"
        );
    }
    Ok(standing)
}

/// Returns true if the spec's refusal covers the demand. A refused host does not affect the client id.
fn is_refused(demand: &Demand, validated: &Result<Validated, Refusal>) -> bool {
    demand.claimed.kind == ClaimKind::Host && validated.as_ref().is_err_and(Refusal::hides)
}

/// Returns true if a route from the host and path in the spec leads to the server.
fn is_live(world: &World, server: &McpServer) -> bool {
    let (Some(exposure), Ok(owner)) = (&server.spec.exposure, Owner::of(server)) else { return false };
    leads(&world.children.of(&owner), exposure)
}

/// Returns true if another server also names the value, and should claim it first. Only the wait for a server that held
/// the value has no limit.
fn is_to_claim_first(
    context: &Context,
    other: &McpServer,
    server: &McpServer,
    demand: &Demand,
    is_patient: bool,
) -> bool {
    let Context { world, ledger, .. } = context;
    if other.metadata.uid == server.metadata.uid || !demands(other).iter().any(|named| named.claimed == demand.claimed)
    {
        return false;
    }
    let contender = |server| Contender { server, is_live: is_live(world, server) };
    let (other, own) = (contender(other), contender(server));
    let named = |namespace: &str, name: &str| world.server(namespace, name);
    (is_patient || other.held(demand))
        && other.will_claim(demand)
        && other.rank(demand) < own.rank(demand)
        && standing(&context.claims, &named, other.server, ledger.grace).lost().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{conditions::condition::Reason, objects::fixtures::mk_server};

    #[test]
    fn a_host_that_is_refused_takes_no_client_id_from_its_server() {
        let refused = |reason| is_refused_for(&Err(Refusal { reason, message: String::new() }));
        assert_eq!(refused(Reason::HostNotAllowed), [true, false]);
        assert_eq!(refused(Reason::TlsRequired), [true, false]);
        assert_eq!(refused(Reason::InvalidConfiguration), [false, false]);
    }

    /// Returns whether the host and the client id are refused.
    fn is_refused_for(validated: &Result<Validated, Refusal>) -> [bool; 2] {
        let demands: [Demand; 2] = demands(&mk_server()).try_into().unwrap();
        demands.map(|demand| is_refused(&demand, validated))
    }
}
