//! Turns of upgrades. A namespace can hold half of the turns. A server whose pods do not become ready halts its
//! namespace, and two such namespaces halt the fleet. A server that cannot continue gives its turn back. Pure, except
//! for the record of turns.

use std::{
    collections::{BTreeMap, BTreeSet, hash_map::Entry},
    time::{Duration, Instant},
};

use super::{Progress, RequestedHash, RollOut};
use crate::{
    objects::{
        names::{REQUESTED_HASH, TEMPLATE_HASH},
        owner::Owner,
        views::ChildView,
    },
    runtime::by_uid::ByUid,
};

/// The longest time that a server keeps its turn. Many pods can take long, and an author could block the end of an
/// upgrade.
const LONGEST_TURN: Duration = Duration::from_secs(60 * 60);

/// The number of namespaces with a failed upgrade that halts all others: then the new version is probably the cause.
const HALTING_NAMESPACES: usize = 2;

/// The reason why a server's pods are not replaced for now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Waits {
    /// All turns are taken.
    Busy,
    /// Upgraded pods of a server in the same namespace, named here, did not become ready.
    HaltedBy(String),
    /// Upgraded pods of servers in several namespaces did not become ready.
    Halted,
    /// The Deployment is paused.
    Paused,
}

/// The given turns, by uid of the server.
pub(crate) type Turns = ByUid<Turn>;

/// The turn of one server.
#[derive(Debug)]
pub(crate) struct Turn {
    namespace: String,
    /// The hash of the pod template that the turn is for.
    template: String,
    since: Instant,
}

/// The upgrade that a server asks for.
#[derive(Clone, Copy)]
pub(crate) struct Next<'a> {
    pub(crate) owner: &'a Owner,
    /// The present Deployment, if there is one, and its progress.
    pub(crate) live: Option<(&'a ChildView, Progress)>,
    /// The hash of the desired pod template.
    pub(crate) template: &'a str,
    /// The hash of what the author asks of the pods.
    pub(crate) requested: &'a RequestedHash,
}

/// A server of the fleet that has a Deployment.
pub(crate) struct Member {
    pub(crate) owner: Owner,
    /// The hash of its Deployment's pod template.
    template: Option<String>,
    progress: Progress,
}

impl Member {
    pub(crate) fn new(owner: Owner, deployment: &ChildView, progress: Progress) -> Self {
        Self { owner, template: template_of(deployment).map(str::to_owned), progress }
    }
}

/// Decides if a Deployment may be applied now.
pub(crate) fn turn(
    next: Next<'_>,
    fleet: impl FnOnce() -> Vec<Member>,
    at_once: usize,
    turns: &Turns,
    now: Instant,
) -> Result<RollOut, Waits> {
    let Some((live, progress)) = next.live else {
        turns.take(&next.owner.uid);
        return Ok(RollOut::Requested);
    };
    if template_of(live) == Some(next.template) {
        return Ok(RollOut::of(live));
    }
    // Without a ready pod, a rollout interrupts nothing.
    let is_down = live.status().ready_replicas == 0;
    if next.requested.differs_from(live.annotation(REQUESTED_HASH)) || is_down {
        turns.take(&next.owner.uid);
        return Ok(RollOut::Requested);
    }
    // The new template may fix the failure.
    if progress == Progress::Failed {
        return Ok(RollOut::Upgrade);
    }
    if live.paused {
        return Err(Waits::Paused);
    }
    // Locked while turns are counted: two concurrent passes must not both get the last turn.
    let mut given = turns.lock();
    let mut failed = Vec::new();
    for Member { owner, template, progress } in fleet() {
        let template = template.unwrap_or_default();
        match (given.entry(owner.uid.clone()), progress) {
            // An earlier operator process upgraded it.
            (Entry::Vacant(turn), Progress::Running) => {
                turn.insert(Turn { namespace: owner.namespace.clone(), template, since: now });
            }
            (Entry::Occupied(_), Progress::Running) => {}
            // The turn is over, unless the Deployment does not have the turn's template yet.
            (Entry::Occupied(turn), _) if turn.get().template == template => drop(turn.remove()),
            _ => {}
        }
        if progress == Progress::Failed {
            failed.push(owner);
        }
    }
    if let Some(failed) = failed.iter().find(|failed| failed.namespace == next.owner.namespace) {
        return Err(Waits::HaltedBy(failed.name.clone()));
    }
    if failed.iter().map(|failed| &failed.namespace).collect::<BTreeSet<_>>().len() >= HALTING_NAMESPACES {
        return Err(Waits::Halted);
    }
    let is_counted = |(uid, turn): &(&String, &Turn)| {
        **uid != next.owner.uid && now.saturating_duration_since(turn.since) < LONGEST_TURN
    };
    let has_turn = given.get(&next.owner.uid).is_some_and(|turn| turn.template == next.template);
    if !has_turn {
        let (namespace, share) = (next.owner.namespace.clone(), at_once.div_ceil(2));
        let mut counted = BTreeMap::<&str, usize>::new();
        for (_, turn) in given.iter().filter(is_counted) {
            *counted.entry(&turn.namespace).or_default() += 1;
        }
        // Running upgrades can exceed a namespace's share. They do not take the shares of other namespaces.
        let held: usize = counted.values().map(|count| share.min(*count)).sum();
        if held >= at_once || counted.get(&*namespace).is_some_and(|count| *count >= share) {
            return Err(Waits::Busy);
        }
        given.insert(next.owner.uid.clone(), Turn { namespace, template: next.template.to_owned(), since: now });
    }
    Ok(RollOut::Upgrade)
}

fn template_of(deployment: &ChildView) -> Option<&str> {
    deployment.annotation(TEMPLATE_HASH)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::objects::names::ROLL_OUT;

    /// A server, named `namespace/name`.
    fn mk_owner(full_name: &str) -> Owner {
        let (namespace, name) = full_name.split_once('/').unwrap();
        Owner { namespace: namespace.into(), name: name.into(), uid: full_name.into() }
    }

    fn mk_live(template: &str, requested: &str, ready: i32, paused: bool) -> ChildView {
        serde_json::from_value(json!({
            "metadata": {"name": "a", "annotations": {
                TEMPLATE_HASH: template, ROLL_OUT: RollOut::Upgrade.as_str(), REQUESTED_HASH: requested}},
            "spec": {"paused": paused},
            "status": {"replicas": 2, "readyReplicas": ready},
        }))
        .unwrap()
    }

    fn mk_member(full_name: &str, template: &str, progress: Progress) -> Member {
        Member { owner: mk_owner(full_name), template: Some(template.into()), progress }
    }

    /// A fleet and its turns.
    struct Fleet {
        turns: Turns,
        start: Instant,
    }

    impl Fleet {
        fn new() -> Self {
            Self { turns: Turns::default(), start: Instant::now() }
        }

        /// Asks for the upgrade of a working server of the fleet.
        fn ask_after(
            &self,
            elapsed: Duration,
            full_name: &str,
            at_once: usize,
            others: &[(&str, &str, Progress)],
        ) -> Result<RollOut, Waits> {
            let (owner, requested) = (mk_owner(full_name), RequestedHash::mk("asked"));
            let own = others.iter().find(|(name, ..)| *name == full_name);
            let (template, progress) =
                own.map_or(("old", Progress::Settled), |(_, template, progress)| (template, *progress));
            let live = mk_live(template, requested.as_str(), 2, progress == Progress::Paused);
            let fleet =
                || others.iter().map(|(name, template, progress)| mk_member(name, template, *progress)).collect();
            let next = Next { owner: &owner, live: Some((&live, progress)), template: "new", requested: &requested };
            turn(next, fleet, at_once, &self.turns, self.start + elapsed)
        }

        fn ask(&self, full_name: &str, at_once: usize, others: &[(&str, &str, Progress)]) -> Result<RollOut, Waits> {
            self.ask_after(Duration::ZERO, full_name, at_once, others)
        }
    }

    use Progress::{Failed, NoRoom, Paused, Running, Settled};

    #[test]
    fn upgrades_stay_within_the_limit_even_before_deployments_show_them() {
        let fleet = Fleet::new();
        let old = [("x/a", "old", Settled), ("y/b", "old", Settled), ("z/c", "old", Settled)];
        assert_eq!(fleet.ask("x/a", 2, &old), Ok(RollOut::Upgrade));
        assert_eq!(fleet.ask("x/a", 2, &old), Ok(RollOut::Upgrade), "a server keeps its turn");
        assert_eq!(fleet.ask("y/b", 2, &old), Ok(RollOut::Upgrade));
        assert_eq!(fleet.ask("z/c", 2, &old), Err(Waits::Busy));
        let running = [("x/a", "new", Running), ("y/b", "new", Running), ("z/c", "old", Settled)];
        assert_eq!(fleet.ask("z/c", 2, &running), Err(Waits::Busy));
        let one_done = [("x/a", "new", Settled), ("y/b", "new", Running), ("z/c", "old", Settled)];
        assert_eq!(fleet.ask("z/c", 2, &one_done), Ok(RollOut::Upgrade));
    }

    #[test]
    fn one_namespace_has_half_of_the_turns_at_most() {
        let fleet = Fleet::new();
        let old: Vec<(&str, &str, Progress)> =
            ["x/a", "x/b", "x/c", "x/d", "y/a", "y/b"].into_iter().map(|name| (name, "old", Settled)).collect();
        for (server, expected) in [
            ("x/a", Ok(RollOut::Upgrade)),
            ("x/b", Ok(RollOut::Upgrade)),
            ("x/c", Ok(RollOut::Upgrade)),
            ("x/d", Err(Waits::Busy)),
            ("y/a", Ok(RollOut::Upgrade)),
            ("y/b", Ok(RollOut::Upgrade)),
        ] {
            assert_eq!(fleet.ask(server, 5, &old), expected, "{server}");
        }
        // Upgrades that already run at the operator's start count, too.
        let running = [("x/a", "new", Running), ("x/b", "old", Settled), ("y/a", "old", Settled)];
        assert_eq!(Fleet::new().ask("x/b", 2, &running), Err(Waits::Busy));
        assert_eq!(Fleet::new().ask("y/a", 2, &running), Ok(RollOut::Upgrade));
        // An author with write access to Deployments can fake any number of upgrades.
        let many = ["x/a", "x/b", "x/c", "x/d", "x/e"].map(|name| (name, "new", Running));
        let all: Vec<_> = many.into_iter().chain([("y/a", "old", Settled)]).collect();
        assert_eq!(Fleet::new().ask("y/a", 5, &all), Ok(RollOut::Upgrade));
    }

    #[test]
    fn upgrades_that_run_when_an_operator_starts_keep_their_turns() {
        let running = [("x/a", "new", Running), ("x/b", "old", Settled)];
        assert_eq!(Fleet::new().ask("x/b", 1, &running), Err(Waits::Busy));
    }

    #[test]
    fn a_stuck_upgrade_holds_no_turn_and_halts_no_other() {
        for stuck in [Paused, NoRoom, Settled] {
            let fleet = Fleet::new();
            assert_eq!(fleet.ask("x/a", 1, &[("x/a", "old", Settled)]), Ok(RollOut::Upgrade));
            for other in ["x/b", "y/b"] {
                let others = [("x/a", "new", stuck), (other, "old", Settled)];
                let fleet = Fleet::new();
                assert_eq!(fleet.ask(other, 1, &others), Ok(RollOut::Upgrade), "{stuck:?} {other}");
            }
            // A whole namespace of them.
            let many = [("x/a", "new", stuck), ("x/b", "new", stuck), ("x/c", "new", stuck), ("y/a", "old", Settled)];
            assert_eq!(fleet.ask("y/a", 1, &many), Ok(RollOut::Upgrade), "{stuck:?}");
        }
    }

    #[test]
    fn a_turn_ends_even_if_the_upgrade_never_ends() {
        let fleet = Fleet::new();
        let running = [("x/a", "new", Running), ("y/b", "old", Settled)];
        assert_eq!(fleet.ask("y/b", 1, &running), Err(Waits::Busy));
        let almost = LONGEST_TURN.saturating_sub(Duration::from_secs(1));
        assert_eq!(fleet.ask_after(almost, "y/b", 1, &running), Err(Waits::Busy));
        assert_eq!(fleet.ask_after(LONGEST_TURN, "y/b", 1, &running), Ok(RollOut::Upgrade));
    }

    #[test]
    fn a_failure_halts_its_namespace_and_failures_in_two_halt_the_fleet() {
        let ask = |full_name: &str, failed: &[&str]| {
            let mut fleet = vec![("x/well", "old", Settled), ("y/well", "old", Settled), ("z/well", "old", Settled)];
            fleet.extend(failed.iter().map(|name| (*name, "new", Failed)));
            Fleet::new().ask(full_name, 5, &fleet)
        };
        let halted_by = |name: &str| Err(Waits::HaltedBy(name.into()));
        for (asks, failed, expected) in [
            ("x/well", &["x/a"][..], halted_by("a")),
            ("y/well", &["x/a"], Ok(RollOut::Upgrade)),
            ("y/well", &["x/a", "x/b", "x/c"], Ok(RollOut::Upgrade)),
            ("z/well", &["x/a", "y/a"], Err(Waits::Halted)),
            ("y/well", &["x/b", "y/a"], halted_by("a")),
        ] {
            assert_eq!(ask(asks, failed), expected, "{asks} {failed:?}");
        }
    }

    #[test]
    fn a_failed_server_can_be_upgraded_while_it_halts_others() {
        let fleet = [("x/a", "bad", Failed), ("y/a", "bad", Failed), ("x/b", "old", Settled)];
        assert_eq!(Fleet::new().ask("x/a", 1, &fleet), Ok(RollOut::Upgrade));
        assert_eq!(Fleet::new().ask("x/b", 1, &fleet), Err(Waits::HaltedBy("a".into())));
    }

    #[test]
    fn a_paused_server_waits_until_it_is_resumed_without_taking_a_turn() {
        let fleet = Fleet::new();
        let paused = [("x/a", "old", Paused), ("x/b", "old", Settled)];
        assert_eq!(fleet.ask("x/a", 1, &paused), Err(Waits::Paused));
        assert_eq!(fleet.ask("x/b", 1, &paused), Ok(RollOut::Upgrade));
    }

    #[test]
    fn a_requested_rollout_and_a_server_without_ready_pods_do_not_wait() {
        let (owner, requested) = (mk_owner("x/b"), RequestedHash::mk("asked"));
        let halted = || vec![mk_member("x/a", "new", Failed), mk_member("y/a", "new", Failed)];
        let ask = |template, live: Option<&ChildView>| {
            let live = live.map(|live| (live, Settled));
            let next = Next { owner: &owner, live, template, requested: &requested };
            turn(next, halted, 1, &Turns::default(), Instant::now())
        };
        let held = Err(Waits::HaltedBy("a".into()));
        assert_eq!(ask("new", None), Ok(RollOut::Requested));
        assert_eq!(ask("new", Some(&mk_live("old", "v1-else", 2, false))), Ok(RollOut::Requested));
        assert_eq!(ask("new", Some(&mk_live("old", "v1-else", 2, true))), Ok(RollOut::Requested), "paused");
        assert_eq!(ask("new", Some(&mk_live("old", requested.as_str(), 0, false))), Ok(RollOut::Requested));
        assert_eq!(ask("new", Some(&mk_live("old", requested.as_str(), 1, false))), held, "half of it works");
        for of_another_version in ["", "0123456789abcdef", "v2-else"] {
            let live = mk_live("old", of_another_version, 2, false);
            assert_eq!(ask("new", Some(&live)), held, "{of_another_version:?}");
            assert_eq!(ask("old", Some(&live)), Ok(RollOut::Upgrade), "{of_another_version:?}: the template stays");
        }
    }

    #[test]
    fn a_turn_is_released_when_the_author_requests_a_rollout() {
        let fleet = Fleet::new();
        assert_eq!(fleet.ask("x/a", 1, &[("x/a", "old", Settled)]), Ok(RollOut::Upgrade));
        let (owner, requested) = (mk_owner("x/a"), RequestedHash::mk("else"));
        let live = mk_live("old", "v1-asked", 2, false);
        let next = Next { owner: &owner, live: Some((&live, Settled)), template: "newer", requested: &requested };
        let asked = turn(next, Vec::new, 1, &fleet.turns, fleet.start);
        assert_eq!(asked, Ok(RollOut::Requested));
        assert_eq!(fleet.ask("x/b", 1, &[("x/a", "newer", Settled), ("x/b", "old", Settled)]), Ok(RollOut::Upgrade));
    }
}
