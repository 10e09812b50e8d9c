//! May: the compiled policy in force, reloaded while the server runs.
//!
//! The file is polled by content: kubelets replace a mounted ConfigMap by swapping symbolic links, which file watches
//! miss. A document that cannot be used changes nothing but the status; the last good one stays in force.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use mcp_entra_policy::{
    BuiltInTool, Caller, CallerKind, CompiledPolicy, Decision, GraphAccess, Groups, Operation, PolicyStatus, Refusal,
    revision,
};
use tokio::io::AsyncReadExt;
use tokio_util::sync::CancellationToken;

/// How often the file is read.
pub const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// A ConfigMap holds at most 1 MiB.
const MAXIMUM_BYTES: u64 = 1024 * 1024;

/// The policy file and what it last said.
pub struct PolicyStore {
    path: PathBuf,
    state: ArcSwap<State>,
}

/// What is in force, and why it is not the newest document.
#[derive(Default)]
struct State {
    in_force: Option<Arc<PolicyInForce>>,
    error: Option<String>,
}

/// One good policy document.
#[derive(Debug, Default)]
pub struct PolicyInForce {
    policy: CompiledPolicy,
    revision: String,
    group_ids: BTreeSet<String>,
    denied_group_ids: BTreeSet<String>,
}

/// What one caller may do by the policy that was in force when the request came in. A request keeps it to its end, so
/// that every part of the answer follows from one revision.
#[derive(Clone, Debug)]
pub struct Permissions {
    caller: Arc<Caller>,
    policy: Arc<PolicyInForce>,
}

impl Permissions {
    /// The groups on which a decision about any of these tools depends, while it is not known whether the caller is in
    /// them. A group that a token lists is one that the user is in; that it lists another not proves nothing: it may hold
    /// direct members, groups assigned to the application, or security groups alone. So groups that something is denied
    /// to are asked for where they are not listed. `reachable` is the widest access to Graph that makes a difference: a call
    /// that is allowed may get a wider one by a grant to a group.
    pub fn groups_to_learn<'a>(
        &self,
        tools: impl IntoIterator<Item = &'a BuiltInTool>,
        reachable: GraphAccess,
    ) -> Option<BTreeSet<String>> {
        if self.caller.kind != CallerKind::User {
            return None;
        }
        let policy = &self.policy;
        let mut tools = tools.into_iter();
        let (ids, needed): (BTreeSet<String>, bool) = match &self.caller.groups {
            Groups::Known(listed) | Groups::AtLeast(listed) => {
                let unlisted = self.clone().with_groups(None);
                let needed = |tool: &BuiltInTool| self.decide(tool).is_allowed() && !unlisted.decide(tool).is_allowed();
                (policy.denied_group_ids.difference(listed).cloned().collect(), tools.any(needed))
            }
            Groups::Unknown => (policy.group_ids.clone(), tools.any(|tool| self.may_become_more(tool, reachable))),
        };
        (needed && !ids.is_empty()).then_some(ids)
    }

    /// Says if a tool may be allowed that is not, or may reach Graph as whom it does not, once groups are known.
    fn may_become_more(&self, tool: &BuiltInTool, reachable: GraphAccess) -> bool {
        match self.decide(tool) {
            Decision::Allowed { graph, .. } => {
                graph < reachable && self.policy.policy.widens_access_for_a_group(Operation::built_in(tool))
            }
            Decision::Refused(Refusal::Denied { groups_unknown, .. }) => groups_unknown,
            Decision::Refused(_) => true,
        }
    }

    /// The same, once it is known in which of [`Self::groups_to_learn`] the caller is, or that it cannot be known.
    pub fn with_groups(mut self, learnt: Option<&Groups>) -> Self {
        let mut groups = match &self.caller.groups {
            Groups::Known(listed) | Groups::AtLeast(listed) => listed.clone(),
            Groups::Unknown => BTreeSet::new(),
        };
        if let Some(Groups::Known(learnt) | Groups::AtLeast(learnt)) = learnt {
            groups.extend(learnt.iter().cloned());
        }
        let all = matches!(learnt, Some(Groups::Known(_)));
        Arc::make_mut(&mut self.caller).groups = if all { Groups::Known(groups) } else { Groups::AtLeast(groups) };
        self
    }

    /// Decides about the use of a tool.
    pub fn decide(&self, tool: &BuiltInTool) -> Decision {
        self.policy.policy.decide(&self.caller, Operation::built_in(tool))
    }
}

impl PolicyStore {
    /// A store for this file, with nothing in force yet.
    pub fn new(path: PathBuf) -> Self {
        Self { path, state: ArcSwap::default() }
    }

    /// What the caller may do now. Before the first good document, that is nothing.
    pub fn permissions(&self, caller: Arc<Caller>) -> Permissions {
        Permissions { caller, policy: self.state.load().in_force.clone().unwrap_or_default() }
    }

    /// For the admin port.
    pub fn status(&self) -> PolicyStatus {
        let state = self.state.load();
        PolicyStatus {
            revision: state.in_force.as_ref().map(|policy| policy.revision.clone()),
            error: state.error.clone(),
        }
    }

    /// Reads the file once.
    pub async fn reload(&self) {
        match self.read().await {
            Ok(document) => self.adopt(&document),
            Err(error) => self.report(format!(
                "the policy file {} cannot be read ({error}); the last good policy stays in force until it can",
                self.path.display()
            )),
        }
    }

    /// Reads the file every [`POLL_INTERVAL`] until cancelled.
    pub async fn watch(self: Arc<Self>, cancellation: CancellationToken) {
        let mut interval = tokio::time::interval(POLL_INTERVAL);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while cancellation.run_until_cancelled(interval.tick()).await.is_some() {
            self.reload().await;
        }
    }

    async fn read(&self) -> std::io::Result<Vec<u8>> {
        let mut document = Vec::new();
        let file = tokio::fs::File::open(&self.path).await?;
        file.take(MAXIMUM_BYTES + 1).read_to_end(&mut document).await?;
        if document.len() as u64 > MAXIMUM_BYTES {
            return Err(std::io::Error::other("it is larger than 1 MiB, which no ConfigMap is"));
        }
        Ok(document)
    }

    fn adopt(&self, document: &[u8]) {
        let revision = revision(document);
        let current = self.state.load();
        if current.error.is_none() && current.in_force.as_ref().is_some_and(|policy| policy.revision == revision) {
            return;
        }
        match CompiledPolicy::parse(document) {
            Ok(policy) => {
                tracing::info!(revision, denies = policy.denies.len(), grants = policy.grants.len(), "policy in force");
                let (group_ids, denied_group_ids) = (policy.group_ids(), policy.denied_group_ids());
                let in_force = Some(Arc::new(PolicyInForce { policy, revision, group_ids, denied_group_ids }));
                self.state.store(Arc::new(State { in_force, error: None }));
            }
            Err(error) => self.report(error.to_string()),
        }
    }

    fn report(&self, error: String) {
        let current = self.state.load();
        if current.error.as_ref() != Some(&error) {
            tracing::error!(error, "policy not usable");
            self.state.store(Arc::new(State { in_force: current.in_force.clone(), error: Some(error) }));
        }
    }
}
