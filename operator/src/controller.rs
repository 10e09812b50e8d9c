//! A pass over one McpServer: the steps in their order.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::jiff::Timestamp;
use kube::{
    Client, Resource,
    runtime::{controller::Action, reflector::ObjectRef},
};
use mcp_entra_crds::McpServer;

use crate::{
    apply::{Applier, Conflict, Failure, conflict},
    build,
    errors::{Error, Failures, SOON},
    events,
    memory::{Memories, ProgrammedPolicies, ServerMemory},
    metrics::Metrics,
    options::Options,
    owner::{ChildKind, Owner},
    pods::{self, PolledPod},
    policy::{self, Compiled},
    resolve,
    status::{self, Facts, GRACE},
    validate::{Refusal, Validated, validate},
    views::PodView,
    world::{Gate, World},
};

/// Time until a name is looked at again that is somebody else's object: that one need not carry a label we watch.
const CONFLICT_PAUSE: Duration = Duration::from_secs(5);

/// What a pass uses.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) pods: reqwest::Client,
    pub(crate) options: Options,
    pub(crate) world: World,
    pub(crate) gate: Gate,
    pub(crate) memories: Memories,
    pub(crate) policies: Arc<ProgrammedPolicies>,
    pub(crate) failures: Failures,
    pub(crate) metrics: Metrics,
}

/// Brings one McpServer's children and status to what is so.
pub(crate) async fn reconcile(server: &McpServer, context: &Context) -> Result<Action, Error> {
    context.gate.passed().await?;
    if server.metadata.deletion_timestamp.is_some() {
        // Its children go with it: the garbage collector follows their owner references.
        return Ok(Action::await_change());
    }
    let owner = Owner::of(server)?;
    let mut memory = context.memories.take(&owner.uid);
    let result = pass(server, &owner, context, &mut memory).await;
    context.memories.put(&owner.uid, memory);
    result
}

async fn pass(
    server: &McpServer,
    owner: &Owner,
    context: &Context,
    memory: &mut ServerMemory,
) -> Result<Action, Error> {
    let Context { client, world, options, .. } = context;

    let trust_bundle = resolve::trust_bundle(client, world, server, owner, memory).await?;
    let seen = resolve::children(client, world, owner, server.spec.exposure.is_some()).await?;
    let compiled = compile(owner, world)?;
    let validated = validate(server, owner, &trust_bundle, options);

    let mut applier = Applier { client, owner, seen: &seen, memory };
    let Applied { policy: policy_applied, result } = apply(&mut applier, &validated, &compiled).await;
    if policy_applied {
        context.policies.put(&owner.uid, compiled.programmed.clone());
    }
    let (conflict, error) = match result {
        Ok(()) => (None, None),
        Err(Failure::Conflict(conflict)) => (Some(conflict), None),
        // Nobody's fault and soon over: not worth a condition.
        Err(Failure::Error(error @ Error::Contended { .. })) => return Err(error),
        Err(Failure::Error(error)) => (None, Some(error)),
    };

    let pods = world.pods_of(&owner.namespace, &owner.name);
    let polled = pods::poll(&context.pods, &context.metrics, pods.clone()).await;
    let now = Instant::now();
    if policy_applied {
        pods::nudge(client, owner, memory, &polled, compiled.revision(), now).await;
    }
    let lagging = polled.iter().any(|polled| polled.pod.is_ready() && !polled.enforces(compiled.revision()));
    memory.lagging_since = lagging.then(|| memory.lagging_since.unwrap_or(now));
    let lagging = memory.lagging_since.map(|since| now.duration_since(since));

    let reference = |kind: ChildKind| (kind.name(&owner.name), owner.namespace.clone());
    let (name, namespace) = reference(ChildKind::Deployment);
    let deployment = world.deployments.get(&ObjectRef::new(&name).within(&namespace));
    let (name, namespace) = reference(ChildKind::Ingress);
    let ingress = world.ingresses.get(&ObjectRef::new(&name).within(&namespace));
    let facts = Facts {
        server,
        owner,
        refusal: validated.as_ref().err(),
        conflict: conflict.as_ref(),
        error: error.as_ref(),
        policy: &compiled,
        deployment: deployment.as_deref().filter(|deployment| owner.owns(&deployment.metadata)),
        ingress: ingress.as_deref().filter(|ingress| owner.owns(&ingress.metadata)),
        pods: &pods.iter().map(|pod| &**pod).collect::<Vec<&PodView>>(),
        polled: &polled,
        lagging,
    };
    let before = status::current(server, memory);
    let after = status::status(&facts, &before, Timestamp::now());
    let conditions = after.conditions.clone();
    if status::write(client, server, owner, memory, &before, after).await? {
        events::publish(client, &server.object_ref(&()), &before.conditions, &conditions).await;
    }
    match error {
        Some(error) => Err(error),
        None => Ok(next(context, conflict.as_ref(), lagging, &polled)),
    }
}

fn compile(owner: &Owner, world: &World) -> Result<Compiled, Error> {
    let mappings = world.mappings_of(&owner.namespace);
    Ok(policy::compile(&owner.name, mappings.iter().filter_map(|mapping| mapping.0.as_ref().ok()))?)
}

/// What was written.
struct Applied {
    /// Whether the policy's ConfigMap holds what was compiled.
    policy: bool,
    result: Result<(), Failure>,
}

/// The policy first, and even where nothing else may be written, if it is there and ours: nothing freezes a revocation.
async fn apply(applier: &mut Applier<'_>, validated: &Result<Validated, Refusal>, compiled: &Compiled) -> Applied {
    let conflict = conflict(applier.owner, applier.seen);
    let policy_is_ours = applier.seen.get(&ChildKind::Policy).is_some_and(|seen| seen.ours);
    if let Some(conflict) = conflict.clone().filter(|_| !policy_is_ours) {
        return Applied { policy: false, result: Err(Failure::Conflict(conflict)) };
    }
    if let Err(failure) = applier.child(ChildKind::Policy, &build::policy(applier.owner, compiled)).await {
        return Applied { policy: false, result: Err(failure) };
    }
    let result = match (conflict, validated) {
        (Some(conflict), _) => Err(Failure::Conflict(conflict)),
        (None, Ok(validated)) => applier.children(&build::children(validated)).await,
        (None, Err(_)) => Ok(()),
    };
    Applied { policy: true, result }
}

/// When to look again, besides when a watch tells: pods are asked, they do not call.
fn next(context: &Context, conflict: Option<&Conflict>, lagging: Option<Duration>, polled: &[PolledPod]) -> Action {
    let mut reports = polled.iter().filter_map(|polled| polled.report.as_ref().ok());
    let probing = reports.clone().any(|report| report.federation.works.is_none());
    // A pod that cannot be asked for longer than that will not be a second later.
    let arriving = lagging.is_some_and(|lagging| lagging < GRACE || reports.next().is_some());
    if arriving || probing {
        return Action::requeue(SOON);
    }
    let poll = context.options.status_poll();
    // Up to a tenth later, so that servers do not stay in step.
    let pause = poll.mul_f64(1.0 + rand::random::<f64>() / 10.0);
    Action::requeue(if conflict.is_some() { pause.min(CONFLICT_PAUSE) } else { pause })
}
