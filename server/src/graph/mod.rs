//! Microsoft Graph for one user, called as that user or as the application itself. This module has the transport and
//! its errors; the tools define the questions.
//!
//! `access` is the identity of a request, and `subject` the user that it concerns. `question` is one question with
//! its retries; `pages` and `batch` are several at once. `once` is a request that changes something, and `groups` the
//! lookup of memberships. `error` has Graph's refusals, `turns` limits concurrent questions, and `mailbox` names
//! their queues.
//!
//! Answers are not cached. A profile or a mailbox can change at any time, and Graph must decide about access each
//! time. No tool asks the same question twice in one call, so a cache would have no use.

mod access;
mod batch;
mod error;
mod groups;
mod mailbox;
mod once;
mod pages;
mod question;
mod subject;
mod turns;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use mcp_entra_policy::{GraphAccess, GraphConfiguration};
use moka::future::Cache;
use serde_json::Value;
use tokio_util::task::TaskTracker;
use url::Url;

pub use access::OwnTokens;
pub use batch::BatchQuestion;
pub use error::{GraphError, GraphRefusal};
pub use pages::List;

use access::Access;
use mailbox::{Named, names};
use question::{Question, in_time};
use subject::{Subject, UserId};
use turns::Turns;

use crate::entra::{ApplicationCredential, GraphToken, OnBehalfOf, Sts};
use crate::token::{Principal, User};

/// Outlook's limit of concurrent requests for one application and one mailbox.
const OF_A_MAILBOX: usize = 4;
/// Concurrent questions to the directory, for all users: far fewer than Graph's limit. Questions about memberships
/// have a second limit of this size, because decisions about access wait for them.
const OF_THE_DIRECTORY: usize = 32;

/// A client of Microsoft Graph, for all identities.
#[derive(Clone)]
pub struct GraphClient(Arc<Client>);

struct Client {
    http: reqwest::Client,
    /// Address of Graph. Paths are appended to it.
    base_url: Url,
    identities: Identities,
    /// Turns by mailbox.
    mailboxes: Turns,
    directory: Turns,
    memberships: Turns,
    /// Queue names of mailboxes, by user principal name.
    named: Cache<String, Named>,
    /// Running requests that change something.
    once_only: TaskTracker,
}

/// Identities for requests to Graph.
enum Identities {
    /// Identities of many callers.
    Callers(Callers),
    /// The identity of the person who runs this program.
    Own(Arc<dyn OwnTokens>),
}

/// Access to Graph for many callers.
struct Callers {
    sts: Arc<Sts>,
    /// Address of Graph: the prefix of its scopes.
    resource: String,
    /// Names of the configured delegated permissions.
    scopes: BTreeSet<String>,
    /// Absent if no caller uses Graph as the application.
    application: Option<Arc<ApplicationCredential>>,
}

/// Microsoft Graph for one user. Tools give only the path after `/me` or `/users/{id}`, so that no tool can read
/// another user's data.
pub struct Graph {
    client: GraphClient,
    access: Access,
    subject: Subject,
    caller: Caller,
    /// Called for each pause that Graph requests.
    waits: Option<Waits>,
}

/// Receives the length of a pause.
type Waits = Box<dyn Fn(Duration) + Send + Sync>;

/// The caller, for the fair sharing of turns.
struct Caller {
    object_id: String,
    /// Object id and client, so that clients of one user do not delay each other.
    name: String,
}

impl GraphClient {
    /// Returns a client for the configured Graph. It uses `sts` on behalf of users, and `application` for itself if
    /// the configuration allows that. Fails if the configured address is not a URL.
    pub fn new(
        http: reqwest::Client,
        configuration: &GraphConfiguration,
        sts: Arc<Sts>,
        application: ApplicationCredential,
    ) -> Result<Self, url::ParseError> {
        let allowed = configuration.access == GraphAccess::Application;
        let callers = Callers {
            sts,
            resource: configuration.base_url.clone(),
            scopes: configuration.scopes.iter().cloned().collect(),
            application: allowed.then(|| Arc::new(application)),
        };
        Self::with(http, &configuration.base_url, Identities::Callers(callers))
    }

    /// Returns a client for the Graph at this address, as the person who runs this program. Fails if the address is
    /// not a URL.
    pub fn own(http: reqwest::Client, base_url: &str, tokens: Arc<dyn OwnTokens>) -> Result<Self, url::ParseError> {
        Self::with(http, base_url, Identities::Own(tokens))
    }

    fn with(http: reqwest::Client, base_url: &str, identities: Identities) -> Result<Self, url::ParseError> {
        Ok(Self(Arc::new(Client {
            http,
            base_url: base_url.parse()?,
            identities,
            mailboxes: Turns::new(OF_A_MAILBOX),
            directory: Turns::new(OF_THE_DIRECTORY),
            memberships: Turns::new(OF_THE_DIRECTORY),
            named: names(),
            once_only: TaskTracker::new(),
        })))
    }

    /// Returns Graph for this caller, with the access that the policy grants.
    ///
    /// A user is served with application access only if both configuration and policy allow it, and still only for
    /// that user's own data. `user` is the user that an application names; users cannot name one. `scopes` are the
    /// delegated permissions that the questions need.
    pub fn for_caller(
        &self,
        principal: &Principal,
        granted: GraphAccess,
        user: Option<&str>,
        scopes: &[&str],
    ) -> Result<Graph, GraphError> {
        let (access, subject) = match &self.0.identities {
            Identities::Own(_) if user.is_some() => return Err(GraphError::UserNamedByUser),
            Identities::Own(tokens) => {
                (Access::Own { tokens: Arc::clone(tokens), permissions: scopes.join(", ") }, Subject::Me)
            }
            Identities::Callers(callers) => callers.access(principal, granted, user, scopes)?,
        };
        let object_id = principal.object_id().to_owned();
        let caller = Caller { name: format!("{object_id} {}", principal.client_id()), object_id };
        Ok(Graph { client: self.clone(), access, subject, caller, waits: None })
    }

    /// Waits until all requests that change something have ended. Each has a deadline 15 s after it is sent.
    pub async fn end(&self) {
        self.0.once_only.close();
        self.0.once_only.wait().await;
    }
}

impl Client {
    /// Returns the address of `path` after the version.
    fn url(&self, path: &str) -> Url {
        let mut url = self.base_url.clone();
        url.set_path(&format!("/v1.0{path}"));
        url
    }
}

impl Callers {
    fn access(
        &self,
        principal: &Principal,
        granted: GraphAccess,
        user: Option<&str>,
        scopes: &[&str],
    ) -> Result<(Access, Subject), GraphError> {
        Ok(match (principal, &self.application, user) {
            (Principal::User(_), _, Some(_)) => return Err(GraphError::UserNamedByUser),
            (Principal::User(user), Some(application), None) if granted == GraphAccess::Application => {
                let id = UserId::parse(&user.object_id).ok_or(GraphError::NotAUser)?;
                (Access::Application(Arc::clone(application)), Subject::User(id))
            }
            (Principal::User(user), _, None) => {
                let user = self.on_behalf_of(user, scopes);
                (Access::OnBehalfOf { sts: Arc::clone(&self.sts), user }, Subject::Me)
            }
            // A local user runs the server and is never its remote caller.
            (Principal::LocalUser(_), ..) | (Principal::Application(_), None, _) => return Err(GraphError::NoUser),
            (Principal::Application(_), Some(_), None) => return Err(GraphError::UserNotNamed),
            (Principal::Application(_), Some(application), Some(user)) => {
                let id = UserId::parse(user).ok_or(GraphError::NotAUser)?;
                (Access::Application(Arc::clone(application)), Subject::User(id))
            }
        })
    }

    /// Returns the user with these permissions only. If the configuration replaces a permission (such as `Mail.Read`
    /// by `Mail.ReadWrite`), uses all its replacements.
    fn on_behalf_of(&self, user: &User, scopes: &[&str]) -> OnBehalfOf {
        match scopes.iter().all(|scope| self.scopes.contains(*scope)) {
            true => OnBehalfOf::new(user, &self.resource, scopes.iter().copied()),
            false => OnBehalfOf::new(user, &self.resource, &self.scopes),
        }
    }
}

impl Graph {
    /// Reports each pause that Graph requests before a retry to `waits`.
    pub fn telling(self, waits: impl Fn(Duration) + Send + Sync + 'static) -> Self {
        Self { waits: Some(Box::new(waits)), ..self }
    }

    /// Returns the document at `path` after the user (such as `/messages`; empty for the user), with these query
    /// parameters.
    pub async fn get(&self, path: &'static str, query: &[(&str, &str)]) -> Result<Value, GraphError> {
        in_time(self.answer_about(path, query, None)).await.map(|(answer, _)| answer)
    }

    /// Sends a request that changes something, with this body, to `path` after the user (such as `/sendMail`). It is
    /// sent at most once, whatever Graph answers. Once sent, it runs to its end, even if this future is dropped or
    /// the server stops. Returns null if the answer has no body.
    pub async fn post_once(&self, path: &'static str, body: Value) -> Result<Value, GraphError> {
        self.once(path, body).await
    }

    /// Returns the answer to a question that has a body and changes nothing, with the token that Graph accepted.
    async fn ask(&self, path: &'static str, body: &Value) -> Result<(Value, Arc<GraphToken>), GraphError> {
        in_time(self.answer_about(path, &[], Some(body))).await
    }

    async fn answer_about(
        &self,
        path: &'static str,
        query: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<(Value, Arc<GraphToken>), GraphError> {
        let queue = self.queue_of(path).await;
        self.answer(&Question { url: self.url(path), query, body, queue: &queue }).await
    }

    /// Returns the address of `path` after the user.
    fn url(&self, path: &str) -> Url {
        self.client.0.url(&format!("/{}{path}", self.subject.path()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entra::FederatedToken;
    use crate::http_client;
    use crate::token::{Application, Assertion, Membership, Profile};
    use mcp_entra_policy::{
        CallerKind, Cloud, CompactSet, EntraConfiguration, Groups, GroupsSource, Registration, TokenVersion,
    };

    const ALICE: &str = "aaaa0000-0000-4000-8000-000000000003";

    fn client(cloud: Cloud, access: GraphAccess) -> GraphClient {
        let graph = GraphConfiguration {
            base_url: cloud.graph().into(),
            scopes: vec!["User.Read".into()],
            tools: vec![],
            access,
        };
        client_of(cloud, &graph)
    }

    fn client_of(cloud: Cloud, graph: &GraphConfiguration) -> GraphClient {
        let entra = EntraConfiguration {
            tenant_id: "8f6b0000-0000-4000-8000-000000000001".into(),
            client_id: "1c2d0000-0000-4000-8000-000000000002".into(),
            authority: cloud.authority().into(),
            audiences: vec![],
            required_scopes: vec![],
            allowed_clients: vec![],
            token_versions: TokenVersion::by_default(),
            groups: GroupsSource::Resolve,
        };
        let (http, token) = (http_client::build(None).unwrap(), FederatedToken::at("/nowhere"));
        let sts = Arc::new(Sts::new(http.clone(), &entra, token.clone()).unwrap());
        let application = ApplicationCredential::new(http.clone(), &entra, &graph.base_url, token);
        GraphClient::new(http, graph, sts, application).unwrap()
    }

    fn caller(kind: CallerKind, client_id: &str) -> Arc<mcp_entra_policy::Caller> {
        Arc::new(mcp_entra_policy::Caller {
            kind,
            registration: Registration::Unknown,
            client_id: client_id.into(),
            roles: CompactSet::default(),
            groups: Groups::Unknown,
            scopes: CompactSet::default(),
            authentication_contexts: CompactSet::default(),
        })
    }

    fn alice() -> Principal {
        let profile = Profile {
            tenant_id: "tenant".into(),
            object_id: ALICE.into(),
            membership: Membership::Member,
            caller: caller(CallerKind::User, "client"),
            accepts_claims_challenge: false,
            expires_at: 0,
        };
        Principal::User(User { profile: Arc::new(profile), assertion: Assertion::for_test() })
    }

    fn daemon() -> Principal {
        Principal::Application(Application {
            tenant_id: "tenant".into(),
            object_id: "daemon".into(),
            caller: caller(CallerKind::Application, "daemon"),
            expires_at: 0,
        })
    }

    /// Returns the address of a request, and true if it is on behalf of the user.
    fn asked(
        configured: GraphAccess,
        principal: &Principal,
        granted: GraphAccess,
        user: Option<&str>,
    ) -> Result<(String, bool), String> {
        let graph = client(Cloud::Public, configured).for_caller(principal, granted, user, &["User.Read"]);
        graph
            .map(|graph| (graph.url("/messages").to_string(), matches!(graph.access, Access::OnBehalfOf { .. })))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_user_is_reached_as_the_application_only_where_both_configuration_and_grant_say_so() {
        use GraphAccess::{Application, OnBehalfOf};
        let me = Ok(("https://graph.microsoft.com/v1.0/me/messages".to_owned(), true));
        for (configured, granted) in [(OnBehalfOf, OnBehalfOf), (OnBehalfOf, Application), (Application, OnBehalfOf)] {
            assert_eq!(asked(configured, &alice(), granted, None), me, "{configured:?} {granted:?}");
        }
        let by_id = format!("https://graph.microsoft.com/v1.0/users/{ALICE}/messages");
        assert_eq!(asked(Application, &alice(), Application, None), Ok((by_id, false)));
    }

    #[test]
    fn a_user_cannot_set_the_argument_user() {
        for configured in [GraphAccess::OnBehalfOf, GraphAccess::Application] {
            for granted in [GraphAccess::OnBehalfOf, GraphAccess::Application] {
                for user in ["bob@contoso.com", ALICE, ""] {
                    let refused = asked(configured, &alice(), granted, Some(user)).unwrap_err();
                    assert!(refused.contains("leave out the argument user"), "{refused}");
                }
            }
        }
    }

    #[test]
    fn an_application_names_one_user_and_never_asks_about_me() {
        use GraphAccess::{Application, OnBehalfOf};
        for granted in [OnBehalfOf, Application] {
            let named = asked(Application, &daemon(), granted, Some("bob@contoso.com"));
            let expected = "https://graph.microsoft.com/v1.0/users/bob@contoso.com/messages".to_owned();
            assert_eq!(named, Ok((expected, false)));
            assert!(asked(Application, &daemon(), granted, None).unwrap_err().contains("set the argument user"));
            for user in ["me", "", "bob", "bob@contoso.com/../alice@contoso.com"] {
                let refused = asked(Application, &daemon(), granted, Some(user)).unwrap_err();
                assert!(refused.contains("alice@contoso.com"), "{user}: {refused}");
            }
            for user in [None, Some("bob@contoso.com")] {
                let refused = asked(OnBehalfOf, &daemon(), granted, user).unwrap_err();
                assert!(refused.contains("sign in as a user"), "{refused}");
            }
        }
    }

    #[test]
    fn a_request_uses_its_own_permission_or_all_configured_permissions() {
        let mut graph = GraphConfiguration {
            base_url: "https://graph.example".into(),
            scopes: vec!["User.Read".into(), "Mail.ReadWrite".into()],
            tools: vec![],
            access: GraphAccess::OnBehalfOf,
        };
        let asked = |graph: &GraphConfiguration, scope: &str| {
            let GraphClient(client) = client_of(Cloud::Public, graph);
            let (Principal::User(user), Identities::Callers(callers)) = (alice(), &client.identities) else { panic!() };
            callers.on_behalf_of(&user, &[scope]).permissions()
        };
        assert_eq!(asked(&graph, "User.Read"), "User.Read");
        assert_eq!(asked(&graph, "Mail.Read"), "Mail.ReadWrite, User.Read");
        graph.scopes.push("Mail.Read".into());
        assert_eq!(asked(&graph, "Mail.Read"), "Mail.Read");
    }

    #[test]
    fn every_cloud_has_its_own_graph_and_permissions_of_that_graph() {
        for (cloud, host) in [
            (Cloud::Public, "graph.microsoft.com"),
            (Cloud::USGov, "graph.microsoft.us"),
            (Cloud::USGovDoD, "dod-graph.microsoft.us"),
            (Cloud::China, "microsoftgraph.chinacloudapi.cn"),
        ] {
            let client = client(cloud, GraphAccess::OnBehalfOf);
            let graph = client.for_caller(&alice(), GraphAccess::OnBehalfOf, None, &["User.Read"]).unwrap();
            let Access::OnBehalfOf { user, .. } = &graph.access else { panic!("{cloud:?}: as the application") };
            assert_eq!(user.scope(), format!("https://{host}/User.Read"));
            assert_eq!(graph.url("").as_str(), format!("https://{host}/v1.0/me"));
        }
    }
}
