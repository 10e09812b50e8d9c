//! Reconcile of one McpServer: its steps in order.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::{Resource, runtime::controller::Action};
use mcp_entra_crds::McpServer;

use crate::{
    conditions::events,
    mcpserver::{
        apply::Applier,
        build::configuration_hash,
        claim::claim,
        conclude::{Conclusion, NextPass, conclude, next},
        context::Context,
        execute::execute,
        keys::write::KeyWriter,
        observe::{Subject, compile},
        outcome::{Outcome, Stopped},
        pass_memory::ServerMemory,
        plan::plan,
        poll::poll,
        resolve,
        resolved::{Resolved, SeenChildren},
        status::{backend::offered, debounce::MOMENT, facts::Facts, observed_children::ObservedChildren, write},
        take_away::{Taken, hide, take_away},
        validate::{refusal::Refusal, validate},
    },
    objects::{
        child::{Child, ChildKind},
        owner::Owner,
        views::PodView,
    },
    policy::{compile::Compiled, written_policies::ProgrammedPolicy},
    runtime::{
        errors::{Error, SOON},
        pass_limits::Place,
    },
    watch::stores::{WatchedServer, World},
};

/// The pause before a foreign object with a child's name is checked again. It may have no watched label.
const CONFLICT_PAUSE: Duration = Duration::from_secs(5);

/// The longest pause between passes, regardless of the poll interval: the change of a trust bundle may have been
/// missed.
const LONGEST_PAUSE: Duration = Duration::from_secs(54);

/// Updates the children and the status of one McpServer.
pub(crate) async fn reconcile(server: &WatchedServer, context: &Context, place: Place<'_>) -> Result<Action, Error> {
    context.gate.passed().await?;
    let subject = Subject::of(server);
    let owner = Owner::of_metadata(subject.metadata())?;
    let mut memory = context.memories.take(&owner.uid).unwrap_or_default();
    let result = pass(subject, &owner, context, &mut memory, place).await;
    context.memories.put(&owner.uid, memory);
    result
}

/// Runs one pass: takes away what the mappings withdraw, applies the spec, polls the pods, and writes the status.
async fn pass(
    subject: Subject<'_>,
    owner: &Owner,
    context: &Context,
    memory: &mut ServerMemory,
    place: Place<'_>,
) -> Result<Action, Error> {
    if let Some(server) = subject.readable() {
        write::at_first_sight(context, server, owner, memory).await;
    }
    let compiled = compile(subject, &context.world)?;

    let mut applier = Applier { client: &context.client, owner, seen: SeenChildren::new(), memory };
    let taken = take_away(&mut applier, subject, context, &compiled).await;
    let outcome = Outcome::of_steps(match subject {
        Subject::Present(server) => bring_about(server, context, &mut applier, taken).await,
        Subject::Leaving(_) | Subject::Unreadable(_) => Outcome::of_taking_away(taken),
    })?;
    note_policy(&outcome, owner, context, &compiled);
    if subject.readable().is_none() && !outcome.policy_is_written {
        return outcome.error_or(Action::await_change());
    }

    let _share = place.ask(&owner.namespace).await;
    let answers = poll(owner, context, memory, &compiled, outcome.policy_is_written).await;
    let Some(server) = subject.readable() else { return Ok(action(next(false, &answers), context)) };
    memory.is_conflicted = outcome.conflict().is_some();
    let observed = ObservedChildren::after(&outcome, owner, &context.world, memory);
    let facts = Facts { server, owner, compiled: &compiled, outcome: &outcome, observed: &observed, answers: &answers };
    if let Some(offered) = offered(&facts) {
        context.policies.put_offered(owner, offered);
    }
    let next = tell(&facts, context, memory).await?;
    outcome.error_or(action(next, context))
}

/// Applies the spec: resolves references, validates, claims, plans the children and executes the plan.
async fn bring_about(
    server: &McpServer,
    context: &Context,
    applier: &mut Applier<'_>,
    taken: Taken,
) -> Result<Outcome, Stopped> {
    let (Context { client, world, options, .. }, owner) = (context, applier.owner);
    let mut outcome = Outcome::after(&taken);

    let resolved = resolve::references(client, world, server, owner, applier.memory).await;
    let resolved = resolved.map_err(|error| outcome.stopped(error))?;
    let validated = outcome.validated.insert(validate(server, owner, &resolved, options)).clone();
    if validated.as_ref().is_err_and(Refusal::hides) {
        hide(applier, world).await.map_err(|error| outcome.stopped(error))?;
    }
    let claimed = claim(server, context, &validated, &taken.standing, &mut applier.memory.undecided).await;
    let standing = claimed.map_err(|error| outcome.stopped(error))?;
    outcome.stand(standing);
    if taken.standing.lost().is_none() && outcome.standing.lost().is_some() {
        hide(applier, world).await.map_err(|error| outcome.stopped(error))?;
    }

    let in_force = taken.in_force.map_err(|failure| outcome.stopped(failure))?;
    let configuration = applier.memory.frozen.edition(ChildKind::Configuration, &world.children, owner);
    outcome.mounted.configuration = configuration.map_err(|error| outcome.stopped(error))?;
    if server.spec.suspend {
        return outcome.done(taken.hidden);
    }
    let made = make_keys(applier, world, &outcome, &resolved).await;
    made.map_err(|error| outcome.stopped(error))?;
    let holder = outcome.accepted().zip(outcome.standing.held());
    let missing = |children: &[Child]| world.missing(children.iter().map(Child::kind));
    let plan = plan(holder, outcome.mounted, missing);
    let mut outcome = execute(applier, context, &in_force, plan, outcome).await?;
    let pruned = prune_keys(applier, world, &outcome, &resolved).await;
    pruned.map_err(|error| outcome.stopped(error))?;
    outcome.done(taken.hidden)
}

/// Creates the missing keys of the authorization server before a pod mounts them.
async fn make_keys(
    applier: &mut Applier<'_>,
    world: &World,
    outcome: &Outcome,
    resolved: &Resolved,
) -> Result<(), Error> {
    let accepted = outcome.accepted().filter(|_| outcome.standing.held().is_some());
    if accepted.is_none_or(|accepted| accepted.sign_in.is_none()) {
        return Ok(());
    }
    let (client, owner) = (applier.client, applier.owner);
    let is_waiting = world.pods_of(owner).iter().any(|pod| !pod.is_ready());
    KeyWriter { client, owner, known: &mut applier.memory.epochs }.make(&resolved.keys, is_waiting).await
}

/// Deletes unneeded key epochs, once no pod uses them.
async fn prune_keys(
    applier: &mut Applier<'_>,
    world: &World,
    outcome: &Outcome,
    resolved: &Resolved,
) -> Result<(), Error> {
    let Some(accepted) = outcome.accepted().filter(|accepted| accepted.sign_in.is_some()) else { return Ok(()) };
    let configuration = configuration_hash(accepted);
    let (client, owner) = (applier.client, applier.owner);
    let uses = |pod: &PodView| pod.configuration_hash.as_deref() != Some(&configuration);
    if outcome.standing.held().is_none() || world.pods_of(owner).iter().any(|pod| uses(pod)) {
        return Ok(());
    }
    KeyWriter { client, owner, known: &mut applier.memory.epochs }.prune(&resolved.keys.pruned).await
}

/// Reports the content of the server's policy to the mappings. After a failed write it is unknown.
fn note_policy(outcome: &Outcome, owner: &Owner, context: &Context, compiled: &Compiled) {
    if outcome.policy_is_written {
        context.policies.put(owner, compiled.programmed.clone());
    } else if outcome.error().is_none() {
        // There is no ConfigMap, or it has another owner.
        context.policies.put(owner, ProgrammedPolicy::default());
    }
}

/// Concludes, and writes status and events.
async fn tell(facts: &Facts<'_>, context: &Context, memory: &mut ServerMemory) -> Result<NextPass, Error> {
    let before = write::current(facts.server, memory);
    let Conclusion { status, next } = conclude(facts, &before, memory.told_within(MOMENT), Timestamp::now());
    if let Some(status) = status {
        let conditions = status.conditions.clone();
        write::write(context, facts.server, facts.owner, memory, status).await?;
        events::publish(&context.client, &facts.server.object_ref(&()), &before.conditions, &conditions).await;
    }
    Ok(next)
}

/// Returns the action for the next reconcile.
fn action(next: NextPass, context: &Context) -> Action {
    let poll = context.options.status_poll().min(LONGEST_PAUSE);
    // Up to a tenth longer at random, so that servers do not stay in step.
    let pause = poll.mul_f64(1.0 + rand::random::<f64>() / 10.0);
    match next {
        NextPass::Soon => Action::requeue(SOON),
        NextPass::AfterConflict => Action::requeue(pause.min(CONFLICT_PAUSE)),
        NextPass::AtPoll => Action::requeue(pause),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use http::{Method, Request, Response, StatusCode};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
    use kube::{Client, client::Body, core::DeserializeGuard, runtime::reflector};
    use mcp_entra_crds::ClusterMcpRoleMapping;
    use prometheus_client::registry::Registry;
    use serde_json::{Value, json};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::{
        conditions::status_write_failure::Unwritten,
        fleet::Turns,
        mcpserver::{pass_memory::Memories, pod_status, status, validate::tests::mk_options},
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
        watch::{
            cache::cache,
            stores::{Children, World},
        },
    };

    type Writes = Arc<Mutex<Vec<(String, Value)>>>;

    /// The metadata of a policy of this server.
    fn mk_policy() -> ObjectMeta {
        let mut metadata = mk_owner().child_metadata(ChildKind::Policy);
        metadata.uid = Some("uid-2".into());
        metadata.resource_version = Some("1".into());
        metadata
    }

    /// An API server that has only a policy, fails for all other objects, and records writes and deletions.
    fn mk_client(writes: Writes, metadata: ObjectMeta) -> Client {
        let failed = || {
            let status = kube::core::Status::failure("etcd is slow", "InternalError").with_code(500);
            (StatusCode::INTERNAL_SERVER_ERROR, serde_json::to_value(status).unwrap())
        };
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
                } else if parts.method == Method::DELETE {
                    writes.lock().unwrap().push((format!("DELETE {path}"), Value::Null));
                    failed()
                } else if parts.method == Method::GET && policy {
                    let data = json!({"policy.json": "{\"grants\":[\"revoked\"]}"});
                    (
                        StatusCode::OK,
                        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}),
                    )
                } else {
                    failed()
                };
                let response = Response::builder().status(answer.0);
                Ok::<_, std::convert::Infallible>(response.body(Body::from(answer.1.to_string().into_bytes())).unwrap())
            }
        });
        Client::new(service, "default")
    }

    /// A server of which only the metadata is readable.
    fn mk_unreadable() -> WatchedServer {
        let mut server = serde_json::to_value(mk_server()).unwrap();
        server["spec"] = json!("of another version");
        let server: WatchedServer = serde_json::from_value(server).unwrap();
        assert!(server.0.is_err());
        server
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

    /// A context whose cache has a policy with withdrawn grants. Returns it with the recorded writes.
    fn mk_revoking(live: ObjectMeta) -> (Context, Writes) {
        let writes = Writes::default();
        let mut context = mk_context(mk_client(writes.clone(), live));
        let watched: ChildView = serde_json::from_value(json!({"metadata": mk_policy()})).unwrap();
        context.world.children = Children::one(ChildKind::Policy, watched);
        (context, writes)
    }

    /// A context in which the server has an Ingress besides its policy.
    fn mk_exposed() -> (Context, Writes) {
        let (mut context, writes) = mk_revoking(mk_policy());
        let mut ingress = mk_owner().child_metadata(ChildKind::Ingress);
        ingress.uid = Some("uid-3".into());
        let watched = |metadata: ObjectMeta| serde_json::from_value(json!({"metadata": metadata})).unwrap();
        let children = [(ChildKind::Policy, watched(mk_policy())), (ChildKind::Ingress, watched(ingress))];
        context.world.children = Children::these(children);
        (context, writes)
    }

    /// The paths of writes, in order.
    fn paths(writes: &Writes) -> Vec<String> {
        writes.lock().unwrap().iter().map(|(path, _)| path.clone()).collect()
    }

    const INGRESS: &str = "DELETE /apis/networking.k8s.io/v1/namespaces/productivity/ingresses/graph";
    const POLICY: &str = "/api/v1/namespaces/productivity/configmaps/graph-policy";

    #[tokio::test]
    async fn a_deleted_server_loses_its_route_first_and_its_rights_even_if_that_fails() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let (context, writes) = mk_exposed();
        let mut server = mk_server();
        server.status = Some(status::at_first_sight(&server, Timestamp::UNIX_EPOCH));
        server.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        reconcile(&DeserializeGuard(Ok(server)), &context, context.passes.place()).await.unwrap_err();
        assert_eq!(paths(&writes)[..2], [INGRESS, POLICY]);
    }

    #[tokio::test]
    async fn a_refused_host_is_reported_even_if_its_route_cannot_be_deleted() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let (mut context, writes) = mk_exposed();
        context.options.allowed_hosts = vec!["*.example.com".into()];
        let mut server = mk_server();
        server.status = Some(status::at_first_sight(&server, Timestamp::UNIX_EPOCH));
        reconcile(&DeserializeGuard(Ok(server)), &context, context.passes.place()).await.unwrap_err();
        assert_eq!(paths(&writes)[..2], [POLICY, INGRESS]);
        let writes = writes.lock().unwrap();
        let (_, written) = writes.last().unwrap();
        let conditions = written["status"]["conditions"].as_array().unwrap();
        let accepted = conditions.iter().find(|condition| condition["type"] == "Accepted").unwrap();
        assert_eq!((&accepted["status"], &accepted["reason"]), (&json!("False"), &json!("HostNotAllowed")));
    }

    #[tokio::test]
    async fn a_cluster_mapping_that_cannot_be_read_denies_everything() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let mut context = mk_context(mk_client(Writes::default(), mk_policy()));
        assert_eq!(compile(Subject::Present(&mk_server()), &context.world).unwrap().policy.denies, []);

        let (store, mut writer) = reflector::store();
        let guarded: DeserializeGuard<ClusterMcpRoleMapping> =
            serde_json::from_value(json!({"metadata": {"name": "guardrail"}, "spec": {"deny": "from the future"}}))
                .unwrap();
        assert!(guarded.0.is_err());
        writer.apply_watcher_event(&kube::runtime::watcher::Event::Apply(guarded));
        context.world.cluster_mappings = store;
        let policy = compile(Subject::Present(&mk_server()), &context.world).unwrap().policy;
        let [deny] = policy.denies.as_slice() else { panic!("{:?}", policy.denies) };
        assert_eq!((deny.mapping.name.as_str(), &deny.to), ("guardrail", &None));
        assert_eq!(deny.forbid.tools, [mcp_entra_policy::Pattern("*".into())]);
    }

    #[tokio::test]
    async fn a_server_that_cannot_be_read_is_still_revoked_from() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let (context, writes) = mk_revoking(mk_policy());
        reconcile(&mk_unreadable(), &context, context.passes.place()).await.unwrap();
        let writes = writes.lock().unwrap();
        let [(path, written)] = writes.as_slice() else { panic!("{writes:#?}") };
        assert!(path.ends_with("/configmaps/graph-policy"), "{path}");
        assert_eq!(written["data"]["policy.json"], r#"{"grants":[]}"#);
    }

    #[tokio::test]
    async fn an_object_that_has_lost_its_owner_is_not_written() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let (context, writes) = mk_revoking(ObjectMeta { owner_references: None, ..mk_policy() });
        reconcile(&mk_unreadable(), &context, context.passes.place()).await.unwrap();
        assert!(writes.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_failed_look_up_is_reported_and_does_not_stop_a_revocation() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let (context, writes) = mk_revoking(mk_policy());
        let mut server = mk_server();
        // Not the first look at the server: there is something to revoke.
        server.status = Some(status::at_first_sight(&server, Timestamp::UNIX_EPOCH));
        let error = reconcile(&DeserializeGuard(Ok(server)), &context, context.passes.place()).await.unwrap_err();
        assert!(error.to_string().contains("etcd is slow"), "{error}");

        let writes = writes.lock().unwrap();
        assert!(writes[0].0.ends_with("/configmaps/graph-policy"), "{writes:#?}");
        assert_eq!(writes[0].1["data"]["policy.json"], r#"{"grants":[]}"#);
        assert!(writes[1].0.ends_with("/mcpservers/graph/status"), "{writes:#?}");
        let conditions = writes[1].1["status"]["conditions"].as_array().unwrap();
        let programmed = conditions.iter().find(|condition| condition["type"] == "Programmed").unwrap();
        assert_eq!((&programmed["status"], &programmed["reason"]), (&json!("False"), &json!("ApplyFailed")));
        assert!(context.policies.get("uid-1").is_some(), "the mapping controller gets the content");
    }
}
