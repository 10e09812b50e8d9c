//! Contract between operator and server, without Kubernetes: the server's configuration file, the compiled policy and
//! its evaluation, the built-in tools, prompts and resources, and the status document of a pod's admin port.
//!
//! All functions are pure: no clock, no network, no files. The operator writes these documents and the server reads
//! them. Both decide with the same [`CompiledPolicy::decide`].

mod authorization_server;
mod backend;
mod cloud;
mod compact_set;
mod configuration;
mod decision;
mod microsoft;
mod permissions;
mod policy;
mod prompts;
mod registration;
mod status;
mod tools;

pub use authorization_server::{
    APP_REDIRECT_PATTERN, AuthorizationServerConfiguration, CLIENT_ID_PATTERN, ClientRegistration, KeyEpoch, KeyEpochs,
    ListedClient, REFUSED_SCHEMES_PATTERN, STORE_PORT, STORE_URL_PATTERN, SessionStore, ValkeyStore,
    WEB_REDIRECT_PATTERN, is_redirect_uri,
};
pub use backend::{
    BACKEND_PATH_PATTERN, BACKEND_SCOPE_PATTERN, BackendConfiguration, BackendIdentity, BackendScope, BackendSessions,
    BackendTransport, DIGEST_PATTERN, HttpBackend,
};
pub use cloud::Cloud;
pub use compact_set::CompactSet;
pub use configuration::{
    AuditConfiguration, CONFIGURATION_KEY, ConfigurationError, EntraConfiguration, GraphAccess, GraphConfiguration,
    GroupsSource, ORIGIN_PATTERN, ProbeConfiguration, Rate, RateLimitConfiguration, ServerConfiguration,
    ServerReference, TokenVersion,
};
pub use decision::{Caller, Decision, Groups, Operation, Refusal, Ways};
pub use microsoft::{
    MICROSOFT_APPLICATION_FAMILIES, MICROSOFT_APPLICATIONS, MICROSOFT_DOMAINS, MICROSOFT_NAMES, is_microsofts_own,
    microsofts_own_pattern,
};
pub use permissions::accepted_permissions;
pub use policy::{
    CallerKind, CompiledPolicy, Deny, Grant, MappingReference, POLICY_KEY, Pattern, PolicyError, Primitives,
    Requirements, Subject, revision,
};
pub use prompts::{
    BUILT_IN_PROMPTS, BUILT_IN_RESOURCES, BuiltInPrompt, BuiltInResource, DRAFT_REPLY, INTRODUCE_ME, MY_PROFILE,
    PLAN_MEETING, SUMMARIZE_INBOX, operations_over, prompts_over, resources_over,
};
pub use registration::Registration;
pub use status::{
    BackendStatus, FederatedIdentity, FederationStatus, GraphStatus, KeysStatus, PolicyStatus, ServerStatus,
    SessionStoreStatus,
};
pub use tools::{
    BUILT_IN_TOOLS, BuiltInTool, CREATE_EVENT, GET_USER_DETAILS, GraphPermissions, LIST_MY_MESSAGES, SEND_MAIL,
    built_in_tool,
};
