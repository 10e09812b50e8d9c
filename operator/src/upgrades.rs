//! Upgrades: a new operator version that builds other pods replaces those of a bounded number of servers at a time, and
//! of no further one once a server does not come up with them. Pure, but for what is noted of turns just given.

use crate::{by_uid::ByUid, views::ChildView};

/// The annotation of a Deployment with the hash of its pod template as built.
pub(crate) const TEMPLATE_HASH: &str = "mcp-entra.dev/template-hash";
/// The annotation of a Deployment with the hash of what its McpServer's author asked of the pods.
pub(crate) const REQUESTED_HASH: &str = "mcp-entra.dev/requested-hash";
/// The annotation of a Deployment that says who wanted its newest roll-out.
pub(crate) const ROLL_OUT: &str = "mcp-entra.dev/roll-out";

/// Who wanted a roll-out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RollOut {
    /// Whoever wrote the McpServer, or nobody: there is nothing yet that works.
    Requested,
    /// The operator, of itself.
    Upgrade,
}

impl RollOut {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Upgrade => "upgrade",
        }
    }

    fn of(deployment: &ChildView) -> Self {
        match deployment.annotation(ROLL_OUT) {
            Some(value) if value == Self::Upgrade.as_str() => Self::Upgrade,
            _ => Self::Requested,
        }
    }
}

/// Why a server's pods are left as they are for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    /// As many servers as may be are being upgraded.
    Busy,
    /// A server did not come up.
    Halted,
}

/// The template of turns that were given, by uid of the server, until its Deployment shows it.
pub(crate) type Turns = ByUid<String>;

/// What is to be rolled out.
#[derive(Clone, Copy)]
pub(crate) struct Next<'a> {
    pub(crate) uid: &'a str,
    /// Hash of the pod template as built.
    pub(crate) template: &'a str,
    /// Hash of what the author asks of the pods: another one asks for the roll-out.
    pub(crate) requested: &'a str,
}

/// Decides whether a Deployment may be applied now. `fleet` are the Deployments of all servers.
pub(crate) fn turn<'a>(
    next: Next<'_>,
    live: Option<&ChildView>,
    fleet: impl IntoIterator<Item = &'a ChildView>,
    at_once: usize,
    turns: &Turns,
) -> Result<RollOut, Held> {
    let Some(live) = live else { return Ok(RollOut::Requested) };
    if template_of(live) == Some(next.template) {
        return Ok(RollOut::of(live));
    }
    let asked = live.annotation(REQUESTED_HASH).is_some_and(|requested| requested != next.requested);
    // There is nothing to lose, or what failed before may be mended.
    let is_down = live.status().ready_replicas == 0;
    if asked || is_down {
        return Ok(RollOut::Requested);
    }
    if has_failed(live) {
        return Ok(RollOut::Upgrade);
    }
    // Held while everything is counted: two passes at once must not both get the last turn.
    let mut given = turns.lock();
    let mut running = 0;
    for deployment in fleet {
        let Some(owner) = &deployment.controller else { continue };
        given.retain(|uid, template| **uid != *owner.uid || template_of(deployment) != Some(template));
        if has_failed(deployment) {
            return Err(Held::Halted);
        }
        running += usize::from(RollOut::of(deployment) == RollOut::Upgrade && !is_complete(deployment));
    }
    if given.get(next.uid).is_none_or(|template| template != next.template) {
        if running + given.len() >= at_once {
            return Err(Held::Busy);
        }
        given.insert(next.uid.to_owned(), next.template.to_owned());
    }
    Ok(RollOut::Upgrade)
}

/// Whether the pods of an upgrade did not come up.
fn has_failed(deployment: &ChildView) -> bool {
    RollOut::of(deployment) == RollOut::Upgrade && progressing(deployment).is_some_and(|(status, _)| status == "False")
}

fn template_of(deployment: &ChildView) -> Option<&str> {
    deployment.annotation(TEMPLATE_HASH)
}

fn progressing(deployment: &ChildView) -> Option<(&str, &str)> {
    let condition = deployment.status().conditions.iter().find(|condition| condition.type_ == "Progressing")?;
    Some((&condition.status, &condition.reason))
}

/// Whether the newest template has come up once. What becomes of its pods later is no failed upgrade.
fn is_complete(deployment: &ChildView) -> bool {
    deployment.status().observed_generation == deployment.generation
        && progressing(deployment).is_some_and(|(_, reason)| reason == "NewReplicaSetAvailable")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn mk(server: &str, template: &str, roll_out: RollOut, ready: i32, progressing: (&str, &str)) -> ChildView {
        serde_json::from_value(json!({
            "metadata": {
                "name": server, "generation": 2,
                "annotations": {TEMPLATE_HASH: template, ROLL_OUT: roll_out.as_str(), REQUESTED_HASH: "asked"},
                "ownerReferences": [{"apiVersion": "mcp-entra.dev/v1alpha1", "kind": "McpServer", "name": server,
                                     "uid": server, "controller": true}],
            },
            "status": {"observedGeneration": 2, "replicas": 2, "readyReplicas": ready, "conditions": [
                {"type": "Progressing", "status": progressing.0, "reason": progressing.1}]},
        }))
        .unwrap()
    }

    const COMPLETE: (&str, &str) = ("True", "NewReplicaSetAvailable");
    const RUNNING: (&str, &str) = ("True", "ReplicaSetUpdated");
    const FAILED: (&str, &str) = ("False", "ProgressDeadlineExceeded");

    fn well(server: &str) -> ChildView {
        mk(server, "old", RollOut::Requested, 2, COMPLETE)
    }

    fn next(uid: &str) -> Next<'_> {
        Next { uid, template: "new", requested: "asked" }
    }

    #[test]
    fn at_most_so_many_servers_are_upgraded_at_once_even_before_their_deployments_show_it() {
        let (fleet, turns) = ([well("a"), well("b"), well("c")], Turns::default());
        let ask = |fleet: &[ChildView], uid: &str| {
            turn(next(uid), fleet.iter().find(|view| view.name() == uid), fleet, 2, &turns)
        };
        assert_eq!(ask(&fleet, "a"), Ok(RollOut::Upgrade));
        assert_eq!(ask(&fleet, "a"), Ok(RollOut::Upgrade), "a turn is kept");
        assert_eq!(ask(&fleet, "b"), Ok(RollOut::Upgrade));
        assert_eq!(ask(&fleet, "c"), Err(Held::Busy));
        let running =
            [mk("a", "new", RollOut::Upgrade, 2, RUNNING), mk("b", "new", RollOut::Upgrade, 2, RUNNING), well("c")];
        assert_eq!(ask(&running, "c"), Err(Held::Busy));
        let one_done =
            [mk("a", "new", RollOut::Upgrade, 2, COMPLETE), mk("b", "new", RollOut::Upgrade, 2, RUNNING), well("c")];
        assert_eq!(ask(&one_done, "c"), Ok(RollOut::Upgrade));
    }

    #[test]
    fn one_that_does_not_come_up_halts_the_others_until_it_is_gone_or_mended() {
        let ask = |first: ChildView| turn(next("b"), Some(&well("b")), [&first, &well("b")], 5, &Turns::default());
        assert_eq!(ask(mk("a", "new", RollOut::Upgrade, 2, FAILED)), Err(Held::Halted));
        assert_eq!(ask(mk("a", "newer", RollOut::Requested, 2, FAILED)), Ok(RollOut::Upgrade), "its author's affair");
        assert_eq!(ask(mk("a", "new", RollOut::Upgrade, 0, COMPLETE)), Ok(RollOut::Upgrade), "it came up once");
    }

    #[test]
    fn what_the_spec_asks_for_and_what_does_not_work_anyway_waits_for_nobody() {
        let failed = mk("a", "new", RollOut::Upgrade, 2, FAILED);
        let ask = |next: Next<'_>, live: Option<&ChildView>| turn(next, live, [&failed], 1, &Turns::default());
        assert_eq!(ask(next("b"), None), Ok(RollOut::Requested));
        assert_eq!(ask(Next { requested: "else", ..next("b") }, Some(&well("b"))), Ok(RollOut::Requested));
        assert_eq!(ask(next("b"), Some(&mk("b", "old", RollOut::Requested, 0, COMPLETE))), Ok(RollOut::Requested));
        assert_eq!(
            ask(next("b"), Some(&mk("b", "old", RollOut::Requested, 1, COMPLETE))),
            Err(Held::Halted),
            "half of it works"
        );
        assert_eq!(ask(next("b"), Some(&well("b"))), Err(Held::Halted));
    }

    #[test]
    fn what_failed_may_be_mended_though_it_halts_the_others() {
        let failed = mk("a", "bad", RollOut::Upgrade, 2, FAILED);
        let ask = |uid: &str, live: &ChildView| turn(next(uid), Some(live), [&failed], 1, &Turns::default());
        assert_eq!(ask("a", &failed), Ok(RollOut::Upgrade));
        assert_eq!(ask("b", &well("b")), Err(Held::Halted));
    }

    #[test]
    fn who_wanted_a_roll_out_stays_said_while_the_template_is_the_same() {
        let upgraded = mk("a", "new", RollOut::Upgrade, 2, COMPLETE);
        assert_eq!(turn(next("a"), Some(&upgraded), [&upgraded], 1, &Turns::default()), Ok(RollOut::Upgrade));
        let requested = mk("a", "new", RollOut::Requested, 2, COMPLETE);
        assert_eq!(turn(next("a"), Some(&requested), [&requested], 1, &Turns::default()), Ok(RollOut::Requested));
    }
}
