//! Story of the product, one function for each step. The demo plays all steps in order; tests play them one by one.
//!
//! A step acts as a person would (kubectl, HTTPS, a sign-in page), checks the result, and returns the evidence in one
//! or more lines. A failure contains the observed result.

mod authorization_server;
mod backend_identity;
mod backend_pin;
mod backends;
mod callers;
mod containers;
mod convergence;
mod edge;
mod federation;
mod network;
mod pods;
mod process;
mod public_backend;
mod quickstart;
mod replicas;
mod server;
mod sessions;
mod tokens;
mod world;

use std::future::Future;
use std::pin::Pin;

use crate::report::{Evidence, tell};
pub use world::World;

type Play = for<'a> fn(&'a World) -> Pin<Box<dyn Future<Output = anyhow::Result<Evidence>> + Send + 'a>>;

/// Step of the story.
#[derive(Clone, Copy)]
pub struct Step {
    /// Title of the step, as a sentence.
    pub title: &'static str,
    play: Play,
}

impl Step {
    /// Plays the step.
    ///
    /// # Errors
    /// If the result differs from the title.
    pub async fn play(&self, world: &World) -> anyhow::Result<Evidence> {
        (self.play)(world).await
    }
}

/// Plays steps up to the first that fails, since later steps depend on it, and prints each. Returns the number of steps
/// that passed.
pub async fn play_all(world: &World, steps: &[Step]) -> usize {
    for (index, step) in steps.iter().enumerate() {
        if !tell((index + 1, steps.len()), step.title, step.play(world)).await {
            return index;
        }
    }
    steps.len()
}

macro_rules! steps {
    ($(#[doc = $list_doc:literal] $list:ident = [$($listed:ident),* $(,)?];)* $($constant:ident: $title:literal => $function:path;)*) => {
        $(#[doc = $title] pub const $constant: Step = Step { title: $title, play: |world| Box::pin($function(world)) };)*
        $(#[doc = $list_doc] pub const $list: &[Step] = &[$($listed),*];)*
    };
}

steps! {
    /// Steps for pods of either sort, in the order of the story.
    STEPS = [
        DEFINITIONS, SERVER, FEDERATION, CHALLENGE, ALICE, BOB, MAPPING, OVERAGE, STEP_UP, REVOKED_SESSION, TOKENS,
        AUTHORIZATION_SERVER, EXPOSURE, CERTIFICATE, CONFLICT, STDIO_BACKEND, HTTP_BACKEND, BACKEND_IDENTITY, AUTOSCALING,
        HAND_OVER, CONVERGENCE, REVOCATION, DELETION,
    ];
    /// Story on a real node: the same steps, and those that need containers.
    CONTAINER_STEPS = [
        QUICKSTART, DEFINITIONS, SERVER, FEDERATION, CONFINED, ROTATING, CHALLENGE, ALICE, BOB, MAPPING, OVERAGE, STEP_UP,
        REVOKED_SESSION, TOKENS, AUTHORIZATION_SERVER, ENFORCEMENT, EXPOSURE, CERTIFICATE, CONFLICT, KILLED, HANGING, EVICTION, MISSING_IMAGE,
        STDIO_BACKEND, HTTP_BACKEND, BACKEND_IDENTITY, NETWORK,
        AUTOSCALING, HAND_OVER, CONVERGENCE, FROZEN, ROTATED, REVOCATION, DELETION,
    ];

    QUICKSTART: "The commands of docs/quickstart.md lead from an empty cluster to a signed-in tool call" => quickstart::followed;
    CONFINED: "The server runs as an unprivileged user, only with its program, under the restricted standard" => containers::confined;
    ROTATING: "A second server uses a service account token for ten minutes, the minimum" => containers::rotating;
    ENFORCEMENT: "A mapping is enforced seconds after kubectl, through a mounted ConfigMap, many times" => containers::enforcement;
    FROZEN: "The policy's ConfigMap becomes immutable, and a later deletion of a mapping still removes its access" => containers::frozen;
    KILLED: "The server's process is killed, then its pod, and the server recovers" => containers::killed;
    HANGING: "The server hangs, gets no more traffic, and is restarted" => containers::hanging;
    EVICTION: "One of two pods may be evicted, the second only when another is ready" => containers::eviction;
    MISSING_IMAGE: "The status names an image that does not exist" => containers::missing_image;
    STDIO_BACKEND: "A third-party MCP server over stdio gets Entra's roles for each tool, is killed, and is pinned" => backends::over_stdio;
    HTTP_BACKEND: "Another one over HTTP gets the same, and is killed" => backends::over_http;
    BACKEND_IDENTITY: "A third one receives the identity of each caller, and verifies it" => backend_identity::is_verified;
    NETWORK: "A NetworkPolicy closes a server's pod to strangers, and limits the pod to the ports that its spec implies" => network::is_enforced;
    PUBLIC_BACKEND: "The unchanged public mcp-server-time runs behind Entra, with one of its tools for one role" => public_backend::stands_behind_entra;
    ROTATED: "The second server's token is renewed, and the server continues past the end of the first token" => containers::rotated;
    DEFINITIONS: "The API server refuses an invalid McpServer and names the field" => server::definitions;
    SERVER: "An McpServer and an McpRoleMapping become a running server" => server::runs;
    FEDERATION: "The status requests the federated credential, which is created in Entra and works" => federation::comes_true;
    CHALLENGE: "A call without a token gets a challenge, and metadata that refers to Entra" => callers::challenge;
    ALICE: "alice signs in, sees her tools, and reads her profile from Graph as herself" => callers::alice;
    BOB: "bob, without a role, sees nothing and is refused with the role that he lacks" => callers::bob;
    MAPPING: "A mapping gives access to bob, its deletion removes it, and no pod restarts" => callers::mapping;
    OVERAGE: "carol, in more groups than a token can list, gets access by one of them, which Graph confirms" => sessions::overage;
    STEP_UP: "A mapping that requires an authentication context challenges bob, and his next sign-in meets it" => sessions::step_up;
    REVOKED_SESSION: "alice's session is revoked, Graph's challenge reaches her client, and her next sign-in meets it" => sessions::revoked;
    TOKENS: "Every token that is not for this server is refused" => tokens::refused;
    AUTHORIZATION_SERVER: "A client that only has the URL registers itself and signs alice in" => authorization_server::signs_in;
    EXPOSURE: "The status quotes a Gateway that refuses the server, and notices when it accepts it again" => edge::exposure;
    CERTIFICATE: "An expired certificate makes the server unready, and a new one makes it ready again" => edge::certificate;
    CONFLICT: "A second server with the same host gets a conflict, which does not name the first" => edge::conflict;
    AUTOSCALING: "The operator keeps an autoscaler's pods, and replaces them without a failed call" => pods::autoscaling;
    HAND_OVER: "The operator's leader is killed, and another replica takes over" => replicas::hand_over;
    CONVERGENCE: "Drift is corrected once, foreign objects stay, and then nothing is written" => convergence::holds;
    REVOCATION: "The credential is removed in Entra, reported as missing, and restored" => federation::is_revoked_and_restored;
    DELETION: "The McpServer is deleted, and everything it owned is gone" => server::is_deleted;
}
