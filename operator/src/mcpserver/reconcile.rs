//! A reconcile of one McpServer: the steps in their order.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::ObjectMeta, jiff::Timestamp};
use kube::{Resource, runtime::controller::Action};
use mcp_entra_crds::{ClusterMcpRoleMapping, McpServer};

use crate::{
    conditions::events,
    mcpserver::{
        apply::{Applier, Failure},
        build,
        claim::claim,
        context::Context,
        execute::execute,
        outcome::{Outcome, Stopped},
        pass_memory::ServerMemory,
        plan::plan,
        pod_status::{self, PolledPod},
        resolve,
        resolved::SeenChildren,
        status::{
            self,
            debounce::{self, MOMENT},
            facts::{Facts, GRACE, is_probing},
        },
        take_away::{hide, put_in_force, take_away},
        validate::{refusal::Refusal, validate},
    },
    objects::{
        child::{Child, ChildKind},
        config_map_edition::Mounted,
        owner::Owner,
        views::PodView,
    },
    policy::{
        binding::{Mapping, Target, unreadable_as_deny},
        compile::{self, Compiled},
        written_policies::ProgrammedPolicy,
    },
    runtime::{
        errors::{Error, SOON},
        pass_limits::Place,
    },
    watch::stores::{World, labels_of},
};

/// Time until a name is looked at again that is somebody else's object: that one need not carry a label we watch.
const CONFLICT_PAUSE: Duration = Duration::from_secs(5);

/// The longest time between passes, whatever the poll of pods: a trust bundle may have been missed.
const LONGEST_PAUSE: Duration = Duration::from_secs(54);

/// Brings one McpServer's children and status to what is so.
pub(crate) async fn reconcile(server: &McpServer, context: &Context, place: Place<'_>) -> Result<Action, Error> {
    context.gate.passed().await?;
    let owner = Owner::of(server)?;
    let mut memory = context.memories.take(&owner.uid).unwrap_or_default();
    let result = pass(server, &owner, context, &mut memory, place).await;
    context.memories.put(&owner.uid, memory);
    result
}

/// A pass over an McpServer of which nothing but the metadata can be read, as one of another version of the kind. Its pods
/// serve, and revocations reach them.
pub(crate) async fn reconcile_unreadable(
    metadata: &ObjectMeta,
    context: &Context,
    place: Place<'_>,
) -> Result<Action, Error> {
    context.gate.passed().await?;
    let owner = Owner::of_metadata(metadata)?;
    let mut memory = context.memories.take(&owner.uid).unwrap_or_default();
    let compiled = compile(metadata, None, &context.world)?;
    let result = revoke(&owner, context, &mut memory, &compiled, place).await;
    context.memories.put(&owner.uid, memory);
    result
}

/// Writes the policy where there is one, and sees to it that it is enforced; nothing else.
async fn revoke(
    owner: &Owner,
    context: &Context,
    memory: &mut ServerMemory,
    compiled: &Compiled,
    place: Place<'_>,
) -> Result<Action, Error> {
    let mut applier = Applier { client: &context.client, owner, seen: SeenChildren::new(), memory };
    match put_in_force(&mut applier, &context.world, compiled).await.map(|policy| policy.is_written) {
        Ok(true) => context.policies.put(owner, compiled.programmed.clone()),
        Ok(false) | Err(Failure::Conflict(_)) => {
            context.policies.put(owner, ProgrammedPolicy::default());
            return Ok(Action::await_change());
        }
        Err(Failure::Error(error)) => return Err(error),
    }
    let _share = place.ask(&owner.namespace).await;
    let answers = ask(owner, context, memory, compiled, true).await;
    Ok(next(context, false, &answers))
}

async fn pass(
    server: &McpServer,
    owner: &Owner,
    context: &Context,
    memory: &mut ServerMemory,
    place: Place<'_>,
) -> Result<Action, Error> {
    let Context { client, world, .. } = context;
    let before = status::current(server, memory);
    if before.conditions.is_empty() {
        let first = status::at_first_sight(server, Timestamp::now());
        // A refused status holds up no revocation: the failure is told where it happens, and the pass goes on.
        status::write(client, &context.unwritten, server, owner, memory, &before, first).await.ok();
    }
    let compiled = compile(&server.metadata, Some(server), world)?;
    let mut applier = Applier { client, owner, seen: SeenChildren::new(), memory };
    let ended = match server.metadata.deletion_timestamp {
        Some(_) => leave(context, &compiled, &mut applier).await,
        None => bring_about(server, context, &compiled, &mut applier).await,
    };
    let (outcome, failure) = match ended {
        Ok(outcome) => (outcome, None),
        Err(stopped) => (stopped.reached, Some(stopped.failure)),
    };
    let is_applied = failure.is_none();
    let (conflict, error) = match failure {
        None => (None, None),
        Some(Failure::Conflict(conflict)) => (Some(conflict), None),
        // Nobody's fault and soon over: not worth a condition.
        Some(Failure::Error(error @ (Error::Contended { .. } | Error::Immutable(_)))) => return Err(error),
        Some(Failure::Error(error)) => (None, Some(error)),
    };
    memory.is_conflicted = conflict.is_some();
    if outcome.policy {
        context.policies.put(owner, compiled.programmed.clone());
    } else if error.is_none() {
        // There is none, or it is somebody else's.
        context.policies.put(owner, ProgrammedPolicy::default());
    }

    let _share = place.ask(&owner.namespace).await;
    let answers = ask(owner, context, memory, &compiled, outcome.policy).await;
    let validated = outcome.validated.as_ref();
    let carrier = outcome.standing.held().and_then(|held| held.listener_of.clone());
    let children = world.children.of(owner);
    let carrying = carrier.as_ref().map(|carrier| world.children.of(carrier)).unwrap_or_default();
    let deployment = children.get(&ChildKind::Deployment);
    let settled = memory.settled.get(&ChildKind::Deployment).filter(|_| is_applied);
    let deployment_is_stale =
        deployment.as_ref().zip(settled).is_some_and(|(seen, settled)| seen.generation < settled.generation);
    let accepted = validated.and_then(|validated| validated.as_ref().ok());
    let exposed = accepted.and_then(|accepted| accepted.exposure.as_ref());
    let facts = Facts {
        server,
        owner,
        validation: validated.map(|validated| validated.as_ref().map(|_| ())),
        configuration: accepted.map(build::configuration_hash),
        conflict: conflict.as_ref(),
        standing: &outcome.standing,
        error: error.as_ref(),
        policy: &compiled,
        deployment_is_stale,
        missing: &outcome.missing,
        upgrade: outcome.upgrade.as_ref(),
        mounted: outcome.mounted,
        children: &children,
        absent: exposed.map(|exposed| exposed.absent.as_slice()).unwrap_or_default(),
        carrying: &carrying,
        pods: &answers.pods.iter().map(|pod| &**pod).collect::<Vec<&PodView>>(),
        polled: &answers.polled,
        lagging: answers.lagging,
        probing: answers.probing,
    };
    let before = status::current(server, memory);
    let after = status::status(&facts, &before, Timestamp::now());
    if error.is_none() && before != after && memory.told_within(MOMENT) && debounce::may_wait(&before, &after) {
        return Ok(Action::requeue(SOON));
    }
    let is_undecided = facts.is_undecided();
    let conditions = after.conditions.clone();
    if status::write(client, &context.unwritten, server, owner, memory, &before, after).await? {
        events::publish(client, &server.object_ref(&()), &before.conditions, &conditions).await;
    }
    match error {
        Some(error) => Err(error),
        None if is_undecided => Ok(Action::requeue(SOON)),
        None => Ok(next(context, conflict.is_some(), &answers)),
    }
}

/// Brings about what the spec asks for: what is against it is taken away first; then the spec is resolved, validated and
/// claimed for, the children are planned, and the plan is executed.
async fn bring_about(
    server: &McpServer,
    context: &Context,
    compiled: &Compiled,
    applier: &mut Applier<'_>,
) -> Result<Outcome, Box<Stopped>> {
    let (Context { client, world, options, .. }, owner) = (context, applier.owner);
    let taken = take_away(applier, server, context, compiled).await;
    let mut outcome = Outcome::after(&taken);

    let resolved = resolve::references(client, world, server, owner, applier.memory).await;
    let resolved = resolved.map_err(|error| outcome.stopped(error))?;
    let validated = validate(server, owner, &resolved, options);
    outcome.validated = Some(validated.clone());
    if validated.as_ref().is_err_and(Refusal::hides) {
        hide(applier, world).await.map_err(|error| outcome.stopped(error))?;
    }
    let claimed = claim(server, context, &validated, &taken.standing, &mut applier.memory.undecided).await;
    outcome.standing = claimed.map_err(|error| outcome.stopped(error))?;
    if taken.standing.lost().is_none() && outcome.standing.lost().is_some() {
        hide(applier, world).await.map_err(|error| outcome.stopped(error))?;
    }

    let in_force = taken.in_force.map_err(|failure| outcome.stopped(failure))?;
    let configuration = applier.memory.frozen.edition(ChildKind::Configuration, &world.children, owner);
    let configuration = configuration.map_err(|error| outcome.stopped(error))?;
    outcome.mounted = Mounted { policy: in_force.edition, configuration, is_moving: in_force.is_moving };
    if server.spec.suspend {
        return outcome.done(taken.hidden);
    }
    let holder = validated.as_ref().ok().zip(outcome.standing.held());
    let missing = |children: &[Child]| world.missing(children.iter().map(|child| child.kind));
    let plan = plan(holder, outcome.mounted, missing).map_err(|error| outcome.stopped(Error::from(error)))?;
    outcome.missing = plan.missing.clone();
    execute(applier, context, &in_force, plan, outcome).await?.done(taken.hidden)
}

/// Takes away what leads clients to a server that is being deleted, and writes its policy. Its children go with it: the garbage
/// collector follows their owner references. As long as somebody's finalizer holds it up, its pods serve, and revocations
/// reach them.
async fn leave(context: &Context, compiled: &Compiled, applier: &mut Applier<'_>) -> Result<Outcome, Box<Stopped>> {
    let mut outcome = Outcome::default();
    // Its host is free from now on, so that nothing may lead from there to it.
    let hidden = hide(applier, &context.world).await;
    let in_force = put_in_force(applier, &context.world, compiled).await.map_err(|failure| outcome.stopped(failure))?;
    outcome.policy = in_force.is_written;
    outcome.mounted.policy = in_force.edition;
    outcome.done(hidden)
}

/// Compiles the policy of a server, whether or not it can be read.
fn compile(metadata: &ObjectMeta, server: Option<&McpServer>, world: &World) -> Result<Compiled, Error> {
    let namespace = &metadata.namespace;
    let mappings = world.mappings.state_filter(|mapping| mapping.meta().namespace == *namespace);
    let cluster_mappings = world.cluster_mappings.state();
    let own = mappings.iter().filter_map(|mapping| mapping.0.as_ref().ok()).map(Mapping::from);
    // What a deny says that cannot be read nobody knows, so that it says all.
    let unreadable: Vec<ClusterMcpRoleMapping> = cluster_mappings
        .iter()
        .filter_map(|mapping| mapping.0.as_ref().err())
        .map(|invalid| unreadable_as_deny(invalid.metadata.clone()))
        .collect();
    let cluster = cluster_mappings.iter().filter_map(|mapping| mapping.0.as_ref().ok()).chain(&unreadable);
    let labels = labels_of(&world.namespaces, metadata);
    let target = match server {
        Some(server) => Target::of(server, labels.as_ref()),
        None => Target::unreadable(metadata, labels.as_ref()),
    };
    Ok(compile::compile(&target, own.chain(cluster.map(Mapping::from)))?)
}

/// What the pods say.
struct Answers {
    pods: Vec<Arc<PodView>>,
    polled: Vec<PolledPod>,
    /// For how long some ready pod has not reported the compiled policy.
    lagging: Option<Duration>,
    /// For how long some ready pod has not said whether its credential works.
    probing: Option<Duration>,
}

/// Asks the pods what is so, and nudges those whose policy is old.
async fn ask(
    owner: &Owner,
    context: &Context,
    memory: &mut ServerMemory,
    compiled: &Compiled,
    policy_is_written: bool,
) -> Answers {
    let pods = context.world.pods_of(owner);
    let polled = pod_status::poll(&context.pods, &context.metrics, pods.clone()).await;
    let now = Instant::now();
    if policy_is_written {
        pod_status::nudge(&context.client, memory, &polled, compiled.revision(), now).await;
    }
    let is_behind = |polled: &PolledPod| polled.pod.is_ready() && !polled.enforces(compiled.revision());
    let lagging = memory.lagging.note(polled.iter().any(is_behind), now);
    let probing = memory.probing.note(polled.iter().any(is_probing), now);
    Answers { pods, polled, lagging, probing }
}

/// When to look again, besides when a watch tells: pods are asked, they do not call.
fn next(context: &Context, conflicted: bool, answers: &Answers) -> Action {
    let mut reports = answers.polled.iter().filter_map(|polled| polled.report.as_ref().ok());
    let probing = reports.clone().any(|report| report.works.is_none());
    // A pod that cannot be asked for longer than that will not be a second later.
    let arriving = answers.lagging.is_some_and(|lagging| lagging < GRACE || reports.next().is_some());
    if arriving || probing {
        return Action::requeue(SOON);
    }
    let poll = context.options.status_poll().min(LONGEST_PAUSE);
    // Up to a tenth later, so that servers do not stay in step.
    let pause = poll.mul_f64(1.0 + rand::random::<f64>() / 10.0);
    Action::requeue(if conflicted { pause.min(CONFLICT_PAUSE) } else { pause })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use http::{Method, Request, Response, StatusCode};
    use kube::{Client, client::Body, core::DeserializeGuard, runtime::reflector};
    use prometheus_client::registry::Registry;
    use serde_json::{Value, json};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::{
        conditions::status_write_failure::Unwritten,
        fleet::Turns,
        mcpserver::{pass_memory::Memories, validate::tests::mk_options},
        objects::{
            fixtures::{mk_owner, mk_server},
            views::ChildView,
        },
        ownership::{Ledger, claim_cache::Claims},
        runtime::{
            leader::Leadership,
            metrics::{Kind, Metrics},
            pass_limits::Passes,
            ready_gate::Gate,
        },
        watch::{cache::cache, stores::Children},
    };

    type Writes = Arc<Mutex<Vec<(String, Value)>>>;

    /// The metadata of a policy of ours.
    fn mk_policy() -> ObjectMeta {
        let mut metadata = mk_owner().child_metadata(ChildKind::Policy);
        metadata.uid = Some("uid-2".into());
        metadata.resource_version = Some("1".into());
        metadata
    }

    /// An API server that has nothing but a policy, fails at every other object, and notes what is written.
    fn mk_client(writes: Writes, metadata: ObjectMeta) -> Client {
        let service = tower::service_fn(move |request: Request<Body>| {
            let (writes, metadata) = (writes.clone(), metadata.clone());
            async move {
                let (parts, body) = request.into_parts();
                let path = parts.uri.path().to_owned();
                let body = body.collect_bytes().await.unwrap();
                let policy = path.ends_with("/configmaps/graph-policy");
                let answer = if parts.method == Method::PATCH {
                    let sent: Value = serde_json::from_slice(&body).unwrap();
                    writes.lock().unwrap().push((path, sent.clone()));
                    (StatusCode::OK, if policy { sent } else { serde_json::to_value(mk_server()).unwrap() })
                } else if parts.method == Method::GET && policy {
                    let data = json!({"policy.json": "{\"grants\":[\"revoked\"]}"});
                    (
                        StatusCode::OK,
                        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}),
                    )
                } else {
                    let status = kube::core::Status::failure("etcd is slow", "InternalError").with_code(500);
                    (StatusCode::INTERNAL_SERVER_ERROR, serde_json::to_value(status).unwrap())
                };
                let response = Response::builder().status(answer.0);
                Ok::<_, std::convert::Infallible>(response.body(Body::from(answer.1.to_string().into_bytes())).unwrap())
            }
        });
        Client::new(service, "default")
    }

    fn mk_context(client: Client) -> Context {
        let (opener, gate) = Gate::closed();
        opener.send_replace(true);
        let metrics = Metrics::register(&mut Registry::default());
        Context {
            ledger: Ledger::new(&client, "mcp-entra-system", Duration::from_secs(600)),
            unwritten: Unwritten::new(client.clone(), metrics.clone(), Kind::McpServer),
            client,
            pods: pod_status::status_client(None).unwrap(),
            options: mk_options(),
            claims: Claims::empty("mcp-entra-system").0,
            world: World {
                servers: reflector::store().0,
                mappings: reflector::store().0,
                cluster_mappings: reflector::store().0,
                namespaces: reflector::store().0,
                children: Children::none(),
                pods: cache().0,
                gateways: reflector::store().0,
                gateway_classes: reflector::store().0,
                gateways_listed: Arc::default(),
                served: tokio::sync::watch::channel(None).1,
            },
            gate,
            passes: Passes::new(Kind::McpServer, Leadership::vacant().1, CancellationToken::new(), metrics.clone()),
            memories: Memories::default(),
            policies: Arc::default(),
            turns: Turns::default(),
            metrics,
        }
    }

    /// A context in which a policy of ours was seen that grants what nobody grants any more, whatever has become of it, and
    /// what is written.
    fn mk_revoking(live: ObjectMeta) -> (Context, Writes) {
        let writes = Writes::default();
        let mut context = mk_context(mk_client(writes.clone(), live));
        let watched: ChildView = serde_json::from_value(json!({"metadata": mk_policy()})).unwrap();
        context.world.children = Children::one(ChildKind::Policy, watched);
        (context, writes)
    }

    #[tokio::test]
    async fn a_cluster_mapping_that_cannot_be_read_denies_everything() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let mut context = mk_context(mk_client(Writes::default(), mk_policy()));
        assert_eq!(compile(&mk_server().metadata, Some(&mk_server()), &context.world).unwrap().policy.denies, []);

        let (store, mut writer) = reflector::store();
        let guarded: DeserializeGuard<ClusterMcpRoleMapping> =
            serde_json::from_value(json!({"metadata": {"name": "guardrail"}, "spec": {"deny": "from the future"}}))
                .unwrap();
        assert!(guarded.0.is_err());
        writer.apply_watcher_event(&kube::runtime::watcher::Event::Apply(guarded));
        context.world.cluster_mappings = store;
        let policy = compile(&mk_server().metadata, Some(&mk_server()), &context.world).unwrap().policy;
        let [deny] = policy.denies.as_slice() else { panic!("{:?}", policy.denies) };
        assert_eq!((deny.mapping.name.as_str(), &deny.to), ("guardrail", &None));
        assert_eq!(deny.forbid.tools, [mcp_entra_policy::Pattern("*".into())]);
    }

    #[tokio::test]
    async fn a_server_that_cannot_be_read_is_still_revoked_from() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let (context, writes) = mk_revoking(mk_policy());
        reconcile_unreadable(&mk_server().metadata, &context, context.passes.place()).await.unwrap();
        let writes = writes.lock().unwrap();
        let [(path, written)] = writes.as_slice() else { panic!("{writes:#?}") };
        assert!(path.ends_with("/configmaps/graph-policy"), "{path}");
        assert_eq!(written["data"]["policy.json"], r#"{"grants":[]}"#);
    }

    #[tokio::test]
    async fn what_is_somebody_elses_since_it_was_seen_is_not_written() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let (context, writes) = mk_revoking(ObjectMeta { owner_references: None, ..mk_policy() });
        reconcile_unreadable(&mk_server().metadata, &context, context.passes.place()).await.unwrap();
        assert!(writes.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_failed_look_up_does_not_freeze_a_revocation_and_is_told() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let (context, writes) = mk_revoking(mk_policy());
        let mut server = mk_server();
        // Not its first sight: there is something to revoke.
        server.status = Some(status::at_first_sight(&server, Timestamp::UNIX_EPOCH));
        let error = reconcile(&server, &context, context.passes.place()).await.unwrap_err();
        assert!(error.to_string().contains("etcd is slow"), "{error}");

        let writes = writes.lock().unwrap();
        assert!(writes[0].0.ends_with("/configmaps/graph-policy"), "{writes:#?}");
        assert_eq!(writes[0].1["data"]["policy.json"], r#"{"grants":[]}"#);
        assert!(writes[1].0.ends_with("/mcpservers/graph/status"), "{writes:#?}");
        let conditions = writes[1].1["status"]["conditions"].as_array().unwrap();
        let programmed = conditions.iter().find(|condition| condition["type"] == "Programmed").unwrap();
        assert_eq!((&programmed["status"], &programmed["reason"]), (&json!("False"), &json!("ApplyFailed")));
        assert!(context.policies.get("uid-1").is_some(), "the mapping controller is told what is held");
    }
}
