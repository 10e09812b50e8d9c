//! Story of the product, one function for each step. The demo plays all steps in order; tests play them one by one.
//!
//! A step acts as a person would (kubectl, HTTPS, a sign-in page), checks the result, and returns the evidence in one
//! or more lines. A failure contains the observed result.

mod authorization_server;
mod backend_identity;
mod backends;
mod callers;
mod containers;
mod convergence;
mod edge;
mod federation;
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
    /// If something else happens than the title says.
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
        STDIO_BACKEND, HTTP_BACKEND, BACKEND_IDENTITY,
        AUTOSCALING, HAND_OVER, CONVERGENCE, FROZEN, ROTATED, REVOCATION, DELETION,
    ];

    QUICKSTART: "The commands of docs/quickstart.md lead from an empty cluster to a signed-in tool call" => quickstart::followed;
    CONFINED: "The server runs as nobody, with nothing but its program, where the restricted standard is enforced" => containers::confined;
    ROTATING: "A second server takes a service account token for ten minutes, the least there is" => containers::rotating;
    ENFORCEMENT: "A mapping is enforced seconds after kubectl, through a mounted ConfigMap, time and again" => containers::enforcement;
    FROZEN: "The policy's ConfigMap is made immutable, and a mapping deleted then keeps its caller out" => containers::frozen;
    KILLED: "The server's process is killed, and then its pod, and it comes back" => containers::killed;
    HANGING: "The server hangs, is taken out of service, and is started again" => containers::hanging;
    EVICTION: "One of two pods may be evicted, the second only when there is room" => containers::eviction;
    MISSING_IMAGE: "An image that nobody has pushed is named in the status" => containers::missing_image;
    STDIO_BACKEND: "Somebody else's MCP server stands behind Entra over stdio, tool by tool, and is killed" => backends::over_stdio;
    HTTP_BACKEND: "Another one stands there over HTTP, and is killed" => backends::over_http;
    BACKEND_IDENTITY: "A third is told with each call who makes it, and verifies that" => backend_identity::is_verified;
    PUBLIC_BACKEND: "The public mcp-server-time stands behind Entra as it is, one of its tools for one role" => public_backend::stands_behind_entra;
    ROTATED: "The second server's token is renewed, and it goes on past the first one's end" => containers::rotated;
    DEFINITIONS: "The API server itself refuses a bad McpServer and names the field" => server::definitions;
    SERVER: "An McpServer and an McpRoleMapping become a running server" => server::runs;
    FEDERATION: "The federated credential is asked for, created in Entra, and found working" => federation::comes_true;
    CHALLENGE: "Without a token there is a challenge, and metadata that leads to Entra" => callers::challenge;
    ALICE: "alice signs in, sees her tools, and reads her profile from Graph as herself" => callers::alice;
    BOB: "bob, without a role, sees nothing and is refused with the role that he lacks" => callers::bob;
    MAPPING: "A mapping lets bob in, its deletion keeps him out, and no pod restarts" => callers::mapping;
    OVERAGE: "carol, in more groups than a token can list, is let in by one of them, which Graph is asked for" => sessions::overage;
    STEP_UP: "A mapping that asks for an authentication context challenges bob, whose next sign-in satisfies it" => sessions::step_up;
    REVOKED_SESSION: "alice's session is revoked, Graph's demand reaches her client, and her next sign-in meets it" => sessions::revoked;
    TOKENS: "Every token that is not for this server is refused" => tokens::refused;
    AUTHORIZATION_SERVER: "A client that is given the URL alone registers itself and signs alice in" => authorization_server::signs_in;
    EXPOSURE: "A Gateway that no longer lets the server in is quoted, and its change of mind noticed" => edge::exposure;
    CERTIFICATE: "A certificate that has expired makes the server unready, and a new one ready again" => edge::certificate;
    CONFLICT: "A second server that names the same host is told so, without a word about the first" => edge::conflict;
    AUTOSCALING: "An autoscaler's pods are left alone, and replaced without a failed call" => pods::autoscaling;
    HAND_OVER: "The operator's leader is killed, and another replica takes over" => replicas::hand_over;
    CONVERGENCE: "Drift is put right once, foreign objects are left alone, and then nothing is written" => convergence::holds;
    REVOCATION: "The credential is removed in Entra, noticed, and restored" => federation::is_revoked_and_restored;
    DELETION: "The McpServer is deleted, and everything it owned is gone" => server::is_deleted;
}
