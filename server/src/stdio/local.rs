//! The parts of local mode, connected according to the settings.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use mcp_entra_policy::{
    Caller, CallerKind, CompactSet, CompiledPolicy, Grant, GraphAccess, GraphConfiguration, Groups, MappingReference,
    Pattern, Primitives, Requirements, Subject,
};

use super::client_config;
use super::offer::LocalOffer;
use super::session::Session;
use super::settings::Settings;
use super::sign_in::SignIns;
use super::store::{self, Owner, StoreError, StoreKind, TokenStore};
use crate::entra::{PublicClient, Registration};
use crate::graph::{GraphClient, OwnTokens};
use crate::inputs;
use crate::offer::About;
use crate::offer::graph::GraphOffer;
use crate::token::{LocalUser, Principal};

/// The person's role in the policy, which the grant names.
const PERSON: &str = "local";
/// Title of the server, for people.
const TITLE: &str = "Microsoft Graph";
/// Instructions for models about the tools.
const INSTRUCTIONS: &str = "Tools that use Microsoft Graph as the person who runs this server.";

/// The parts of local mode.
pub(super) struct Local {
    pub(super) settings: Settings,
    pub(super) http: reqwest::Client,
    pub(super) session: Session,
    pub(super) graph: GraphClient,
}

impl Local {
    pub(super) fn new(settings: Settings) -> anyhow::Result<Self> {
        let http = inputs::http_client(settings.trust_bundle.as_deref()).context("--trust-bundle")?;
        let registration = Registration {
            authority: settings.authority.clone(),
            tenant: settings.tenant.clone(),
            client_id: settings.client_id.clone(),
        };
        let client = PublicClient::new(http.clone(), registration, &settings.graph_url, &settings.scopes);
        let client = client.context("--authority is not a URL; correct it")?;
        let owner = Owner {
            authority: settings.authority.clone(),
            graph_url: settings.graph_url.clone(),
            tenant: settings.tenant.clone(),
            client_id: settings.client_id.clone(),
        };
        let store = TokenStore::new(settings.store, folder(store::default_folder(), settings.store)?, owner);
        let session = Session::new(client, settings.scopes.clone(), store);
        let tokens: Arc<dyn OwnTokens> = Arc::new(session.clone());
        let graph = GraphClient::own(http.clone(), &settings.graph_url, tokens)
            .context("--graph-url is not a URL; correct it")?;
        Ok(Self { settings, http, session, graph })
    }

    /// Returns the tools with their prompts and resources, as far as the settings allow them.
    pub(super) fn offer(&self) -> LocalOffer {
        let Settings { device_code, tools, scopes, graph_url, aliases, .. } = &self.settings;
        let configuration = GraphConfiguration {
            base_url: graph_url.clone(),
            scopes: scopes.iter().cloned().collect(),
            tools: tools.iter().cloned().collect(),
            access: GraphAccess::OnBehalfOf,
        };
        let about = About { title: TITLE.to_owned(), instructions: INSTRUCTIONS.to_owned(), ..About::default() };
        let graph = GraphOffer::new(about, &configuration, self.graph.clone());
        let sign_ins = SignIns::new(self.session.clone(), *device_code, false);
        LocalOffer::new(graph, sign_ins, aliases.clone(), self.sign_in_command())
    }

    /// Returns the command for signing in in a terminal.
    fn sign_in_command(&self) -> String {
        let program = std::env::current_exe().unwrap_or_else(|_| env!("CARGO_PKG_NAME").into());
        let mut arguments = vec!["local".to_owned()];
        arguments.extend(self.settings.arguments());
        arguments.push("--sign-in".to_owned());
        client_config::shell_command(&program, &arguments)
    }

    /// Returns the policy. The person may use each tool in the settings, by its own name and its aliases, and every
    /// prompt and resource that is offered with these tools.
    pub(super) fn policy(&self) -> CompiledPolicy {
        let Settings { tools, aliases, .. } = &self.settings;
        let names = tools.iter().chain(aliases.keys());
        let all = || vec![Pattern("*".to_owned())];
        let grant = Grant {
            mapping: MappingReference { namespace: None, name: PERSON.to_owned() },
            name: "arguments".to_owned(),
            registration: None,
            to: vec![Subject::AppRole { role: PERSON.to_owned(), callers: [CallerKind::User].into() }],
            require: Requirements::default(),
            graph: GraphAccess::OnBehalfOf,
            allow: Primitives { tools: names.cloned().map(Pattern).collect(), prompts: all(), resources: all() },
        };
        CompiledPolicy { denies: vec![], grants: vec![grant], ..CompiledPolicy::default() }
    }

    pub(super) fn principal(&self) -> Principal {
        let caller = Caller {
            kind: CallerKind::User,
            registration: mcp_entra_policy::Registration::Unknown,
            client_id: self.settings.client_id.clone(),
            roles: [PERSON].into_iter().collect(),
            groups: Groups::Unknown,
            scopes: CompactSet::default(),
            authentication_contexts: CompactSet::default(),
        };
        Principal::LocalUser(LocalUser { account: Arc::clone(self.session.account()), caller: Arc::new(caller) })
    }
}

/// Returns the folder for tokens. The memory store needs none.
fn folder(of_the_person: Option<PathBuf>, store: StoreKind) -> Result<PathBuf, StoreError> {
    match store {
        StoreKind::Os | StoreKind::File => of_the_person.ok_or(StoreError::NoFolder),
        StoreKind::Memory => Ok(of_the_person.unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_home_folder_tokens_are_kept_only_in_memory() {
        for store in [StoreKind::Os, StoreKind::File] {
            assert!(matches!(folder(None, store), Err(StoreError::NoFolder)), "{store:?}");
            assert_eq!(folder(Some("/home/ann".into()), store).unwrap(), PathBuf::from("/home/ann"));
        }
        assert_eq!(folder(None, StoreKind::Memory).unwrap(), PathBuf::new());
    }
}
