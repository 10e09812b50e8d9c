//! The controller of role mappings: it writes their status, and nothing else. What they grant, the servers' passes
//! compile.

use std::{sync::Arc, time::Duration};

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{Patch, PatchParams},
    core::PartialObjectMeta,
    runtime::{
        controller::Action,
        reflector::{ObjectRef, Store},
    },
};
use mcp_entra_crds::{ConditionType, McpRoleMapping, McpRoleMappingStatus, McpServer};

use crate::{
    MANAGER,
    apply::status_patch,
    conditions::{Reason, Verdict, conditions},
    errors::{Error, Failures, SOON},
    leader::Leadership,
    memory::{ProgrammedPolicies, ProgrammedPolicy},
    metrics::Metrics,
    status::named,
    world::{Gate, WatchedMapping},
};

/// How long a mapping that is not held yet is looked at every second; ever after, every ten.
const PATIENCE_SECONDS: i64 = 10;

/// What a pass over a mapping uses.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) servers: Store<PartialObjectMeta<McpServer>>,
    pub(crate) gate: Gate,
    pub(crate) leadership: Leadership,
    pub(crate) policies: Arc<ProgrammedPolicies>,
    pub(crate) failures: Failures,
    pub(crate) metrics: Metrics,
}

/// The mappings that name a server.
pub(crate) fn mappings_naming(
    mappings: &Store<WatchedMapping>,
    server: &PartialObjectMeta<McpServer>,
) -> Vec<ObjectRef<WatchedMapping>> {
    let (namespace, name) = (server.namespace(), server.name_any());
    mappings
        .state_filter(|mapping| {
            mapping.namespace() == namespace
                && mapping.0.as_ref().is_ok_and(|mapping| mapping.spec.servers.names.contains(&name))
        })
        .iter()
        .map(|mapping| ObjectRef::from_obj(&**mapping))
        .collect()
}

/// Brings one mapping's status to what is so.
pub(crate) async fn reconcile(mapping: &McpRoleMapping, context: &Context) -> Result<Action, Error> {
    context.gate.passed().await?;
    if mapping.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let (Some(namespace), Some(uid)) = (mapping.namespace(), mapping.uid()) else { return Err(Error::NoIdentity) };
    let (mut bound, mut missing) = (Vec::new(), Vec::new());
    for name in &mapping.spec.servers.names {
        match context.servers.get(&ObjectRef::new(name).within(&namespace)) {
            Some(server) => bound.push((name.clone(), server.uid().unwrap_or_default())),
            None => missing.push(name.clone()),
        }
    }
    let generation = mapping.metadata.generation.unwrap_or_default();
    let mut standings = Vec::new();
    for (name, server_uid) in &bound {
        let policy = context.policies.get(server_uid);
        standings.push((name.clone(), standing(policy.as_ref(), &uid, generation)));
    }
    // Before the servers have been looked at once since the start, nothing is known that would be worth a write. Every
    // pass over a server ends that, whatever becomes of it.
    if standings.iter().any(|(_, standing)| *standing == Standing::Unknown) {
        return Ok(Action::requeue(SOON));
    }
    let pending = standings.iter().any(|(_, standing)| *standing == Standing::Pending);
    let previous = mapping.status.clone().unwrap_or_default();
    let verdicts =
        vec![(ConditionType::Accepted, accepted(&missing)), (ConditionType::Programmed, programmed(&standings))];
    let status = McpRoleMappingStatus {
        observed_generation: mapping.metadata.generation,
        servers: i32::try_from(bound.len()).unwrap_or(i32::MAX),
        conditions: conditions(&previous.conditions, verdicts, mapping.metadata.generation, Timestamp::now()),
    };
    let action = next(pending, &status.conditions);
    if status != previous {
        let name = mapping.name_any();
        let kind = McpRoleMapping::kind(&());
        let patch = status_patch(&kind, &name, &uid, &status)?;
        Api::<McpRoleMapping>::namespaced(context.client.clone(), &namespace)
            .patch_status(&name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&patch))
            .await
            .map_err(Error::kubernetes(format!("writing the status of {kind} {name}")))?;
    }
    Ok(action)
}

/// When to look again, besides when a watch tells.
fn next(pending: bool, conditions: &[Condition]) -> Action {
    if !pending {
        // Once an hour, lest anything that was missed is missed for ever; not all at once.
        return Action::requeue(Duration::from_secs(60 * 40).mul_f64(1.0 + rand::random::<f64>() / 2.0));
    }
    let since = conditions
        .iter()
        .find(|condition| condition.type_ == ConditionType::Programmed.as_str())
        .map_or(0, |condition| Timestamp::now().as_second() - condition.last_transition_time.0.as_second());
    Action::requeue(if since < PATIENCE_SECONDS { SOON } else { SOON * 10 })
}

/// Whether a server's policy ConfigMap holds a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Held,
    LeftOut,
    Pending,
    Unknown,
}

fn standing(policy: Option<&ProgrammedPolicy>, mapping: &str, generation: i64) -> Standing {
    let Some(policy) = policy else { return Standing::Unknown };
    if policy.held.get(mapping).is_some_and(|held| *held >= generation) {
        Standing::Held
    } else if policy.left_out.get(mapping).is_some_and(|seen| *seen >= generation) {
        Standing::LeftOut
    } else {
        Standing::Pending
    }
}

fn accepted(missing: &[String]) -> Verdict {
    if missing.is_empty() {
        return Verdict::yes(Reason::Accepted, "every named server exists");
    }
    Verdict::no(
        Reason::ServerNotFound,
        format!(
            "there is no McpServer of this name in this namespace: {}; correct spec.servers.names, or create it",
            named(missing)
        ),
    )
}

fn programmed(standings: &[(String, Standing)]) -> Verdict {
    let of = |wanted: Standing| -> Vec<String> {
        standings.iter().filter(|(_, standing)| *standing == wanted).map(|(name, _)| name.clone()).collect()
    };
    let (left_out, pending) = (of(Standing::LeftOut), of(Standing::Pending));
    if standings.is_empty() {
        Verdict::no(
            Reason::ServerNotFound,
            "no named server exists, so nothing is granted; the condition Accepted names them",
        )
    } else if !left_out.is_empty() {
        Verdict::no(
            Reason::PolicyTooLarge,
            format!(
                "with this mapping the policy of {} would be larger than 900 KiB, so it grants nothing there; merge or remove mappings",
                named(&left_out)
            ),
        )
    } else if !pending.is_empty() {
        Verdict::no(
            Reason::Pending,
            format!(
                "the policy of {} does not hold the mapping yet; if this lasts, see the server's condition Programmed",
                named(&pending)
            ),
        )
    } else {
        Verdict::yes(Reason::Applied, "the policy of every bound server holds the mapping")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::conditions::State;

    #[test]
    fn a_mapping_is_programmed_once_every_bound_server_holds_its_newest_generation() {
        let policy = ProgrammedPolicy {
            held: BTreeMap::from([("held".into(), 2)]),
            left_out: BTreeMap::from([("large".into(), 1)]),
        };
        assert_eq!(standing(Some(&policy), "held", 2), Standing::Held);
        assert_eq!(standing(Some(&policy), "held", 3), Standing::Pending);
        assert_eq!(standing(Some(&policy), "large", 1), Standing::LeftOut);
        assert_eq!(standing(Some(&policy), "new", 1), Standing::Pending);
        assert_eq!(standing(None, "held", 2), Standing::Unknown);

        let verdict = |standings: &[Standing]| {
            programmed(&standings.iter().map(|standing| ("graph".to_owned(), *standing)).collect::<Vec<_>>())
        };
        assert_eq!(verdict(&[Standing::Held, Standing::Held]).state, State::True);
        assert_eq!(verdict(&[Standing::Held, Standing::Pending]).reason, "Pending");
        assert_eq!(verdict(&[Standing::Pending, Standing::LeftOut]).reason, "PolicyTooLarge");
        assert_eq!(verdict(&[]).reason, "ServerNotFound");
    }

    #[test]
    fn a_mapping_that_cannot_be_written_is_pending_and_looked_at_ever_less_often() {
        let policies = ProgrammedPolicies::default();
        policies.not_written("server");
        assert_eq!(standing(policies.get("server").as_ref(), "new", 1), Standing::Pending);
        let verdict = programmed(&[("graph".to_owned(), Standing::Pending)]);
        assert_eq!((verdict.state, verdict.reason.as_str()), (State::False, "Pending"));
        assert!(verdict.message.contains("the server's condition Programmed"), "{}", verdict.message);

        let now = Timestamp::now();
        let pending =
            |since: Timestamp| conditions(&[], vec![(ConditionType::Programmed, verdict.clone())], None, since);
        assert_eq!(next(true, &pending(now)), Action::requeue(SOON));
        let earlier = Timestamp::from_second(now.as_second() - 60).unwrap();
        assert_eq!(next(true, &pending(earlier)), Action::requeue(SOON * 10));
        let later = next(false, &[]);
        assert!(later != Action::await_change() && later != Action::requeue(SOON));
    }

    #[test]
    fn servers_that_do_not_exist_are_named() {
        assert_eq!(accepted(&[]).state, State::True);
        assert!(accepted(&["grpah".to_owned()]).message.contains("grpah"));
    }
}
