//! Microsoft Graph about one user, asked as that user or as the application itself. The way to Graph and its errors live
//! here; the questions are up to the tools.
//!
//! `access` is the identity that asks, `subject` the user that is asked about; `question` one question with its repetitions, `pages` and `batch` several
//! at once, `once` a request that changes something, `groups` the one about memberships; `error` what Graph says otherwise; `turns` bounds the questions at a time, and `mailbox` names their queues.
//!
//! No answer is kept. A profile or a mailbox changes under our hands, what the user may see of it is for Graph to decide
//! anew each time, and no tool asks the same question twice in one call: a cache would only ever be wrong or unused.

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

/// Outlook's limit for one application and one mailbox.
const OF_A_MAILBOX: usize = 4;
/// Questions to the directory at a time, about whomever: far fewer than Graph answers. As many about memberships, which
/// decide who is let in, wait for none of the others.
const OF_THE_DIRECTORY: usize = 32;

/// Microsoft Graph, as anyone.
#[derive(Clone)]
pub struct GraphClient(Arc<Client>);

struct Client {
    http: reqwest::Client,
    /// Address of Graph, to which paths are added.
    base_url: Url,
    identities: Identities,
    /// By mailbox.
    mailboxes: Turns,
    directory: Turns,
    memberships: Turns,
    /// By user principal name: what the user's mailbox is called among the queues.
    named: Cache<String, Named>,
    /// Requests that change something and have not ended.
    once_only: TaskTracker,
}

/// The identities in which Graph is asked.
enum Identities {
    /// Those of many callers.
    Callers(Callers),
    /// That of the person who runs this program.
    Own(Arc<dyn OwnTokens>),
}

/// The ways to Graph for many callers.
struct Callers {
    sts: Arc<Sts>,
    /// Address of Graph as scopes begin with it.
    resource: String,
    /// The delegated permissions that may be asked for, by name.
    scopes: BTreeSet<String>,
    /// Absent where nobody reaches Graph as the application.
    application: Option<Arc<ApplicationCredential>>,
}

/// Microsoft Graph about one user. Tools name what comes behind `/me` or `/users/{id}`, so that none of them can ask about
/// anybody else.
pub struct Graph {
    client: GraphClient,
    access: Access,
    subject: Subject,
    caller: Caller,
    /// Is told of each pause that Graph asks for.
    waits: Option<Waits>,
}

/// Takes the length of a pause.
type Waits = Box<dyn Fn(Duration) + Send + Sync>;

/// The caller, with whom turns are shared.
struct Caller {
    object_id: String,
    /// Object id and client: of one user's clients, none delays another.
    name: String,
}

impl GraphClient {
    /// The configured Graph, reached on behalf of users by `sts`, and as the application by `application`, which takes
    /// effect where the configuration allows that. Fails if the configured address is none.
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

    /// The Graph at this address, as the person who runs this program. Fails if the address is none.
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

    /// Graph as this caller, to whom the policy grants this access.
    ///
    /// A user is reached as the application only where both configuration and policy say so, and even then it is that
    /// same user whom Graph is asked about. `user` is the one whom an application asks about; users cannot name any.
    /// `scopes` are the delegated permissions that the questions need.
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

    /// Waits until all requests that change something have ended. Each ends at its own deadline, 15 s after it is sent.
    pub async fn end(&self) {
        self.0.once_only.close();
        self.0.once_only.wait().await;
    }
}

impl Client {
    /// The address of what is at `path` behind the version.
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
            // Whoever runs a server for others is no caller of it.
            (Principal::LocalUser(_), ..) | (Principal::Application(_), None, _) => return Err(GraphError::NoUser),
            (Principal::Application(_), Some(_), None) => return Err(GraphError::UserNotNamed),
            (Principal::Application(_), Some(application), Some(user)) => {
                let id = UserId::parse(user).ok_or(GraphError::NotAUser)?;
                (Access::Application(Arc::clone(application)), Subject::User(id))
            }
        })
    }

    /// The user, with these permissions and no others. Where the configuration names another in place of one, as
    /// `Mail.ReadWrite` for `Mail.Read`, with all that it names.
    fn on_behalf_of(&self, user: &User, scopes: &[&str]) -> OnBehalfOf {
        match scopes.iter().all(|scope| self.scopes.contains(*scope)) {
            true => OnBehalfOf::new(user, &self.resource, scopes.iter().copied()),
            false => OnBehalfOf::new(user, &self.resource, &self.scopes),
        }
    }
}

impl Graph {
    /// The same, which tells `waits` of each pause before a question is repeated, as far as Graph asks for one.
    pub fn telling(self, waits: impl Fn(Duration) + Send + Sync + 'static) -> Self {
        Self { waits: Some(Box::new(waits)), ..self }
    }

    /// The document at `path` behind the user (as `/messages`; empty: the user), with these query parameters.
    pub async fn get(&self, path: &'static str, query: &[(&str, &str)]) -> Result<Value, GraphError> {
        in_time(self.answer_about(path, query, None)).await.map(|(answer, _)| answer)
    }

    /// Sends a request that changes something, with this body to `path` behind the user (as `/sendMail`). It is sent at
    /// most once, whatever Graph answers. Once it is sent it runs to its end, even if the future of this call is dropped or
    /// the server stops.
    /// Returns null where the answer has no body.
    pub async fn post_once(&self, path: &'static str, body: Value) -> Result<Value, GraphError> {
        self.once(path, body).await
    }

    /// The answer to a question that has a body and changes nothing, and the token that it was asked by.
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

    /// The address of what is at `path` behind the user.
    fn url(&self, path: &str) -> Url {
        self.client.0.url(&format!("/{}{path}", self.subject.path()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entra::FederatedToken;
    use crate::http_client;
    use crate::token::{Application, Assertion, Membership};
    use mcp_entra_policy::{CallerKind, Cloud, EntraConfiguration, Groups, GroupsSource, Registration, TokenVersion};

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
            roles: BTreeSet::new(),
            groups: Groups::Unknown,
            scopes: BTreeSet::new(),
            authentication_contexts: BTreeSet::new(),
        })
    }

    fn alice() -> Principal {
        Principal::User(User {
            tenant_id: "tenant".into(),
            object_id: ALICE.into(),
            membership: Membership::Member,
            caller: caller(CallerKind::User, "client"),
            accepts_claims_challenge: false,
            assertion: Assertion::new("assertion"),
            expires_at: 0,
        })
    }

    fn daemon() -> Principal {
        Principal::Application(Application {
            tenant_id: "tenant".into(),
            object_id: "daemon".into(),
            caller: caller(CallerKind::Application, "daemon"),
            expires_at: 0,
        })
    }

    /// The address that is asked, and true if on behalf of the user.
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
    fn a_user_names_nobody_not_even_themselves() {
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
            assert!(asked(Application, &daemon(), granted, None).unwrap_err().contains("give the argument user"));
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
    fn a_question_takes_its_own_permission_or_where_the_configuration_has_another_name_for_it_all_of_those() {
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
