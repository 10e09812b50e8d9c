//! Cases, one function each. Each plays in its own world, and returns its evidence.

mod clients;
mod keeping;
mod modes;
mod pages;
mod remote;
mod sign_in;
mod token;

use std::future::Future;
use std::pin::Pin;

use e2e::report::Evidence;

use crate::world::World;

type Play = for<'w> fn(&'w mut World<'_>) -> Pin<Box<dyn Future<Output = anyhow::Result<Evidence>> + 'w>>;

/// One case.
pub(crate) struct Case {
    /// The tested behaviour, as a sentence.
    pub(crate) title: &'static str,
    /// True if the server is remote, so that only the emulator is shared. Such cases can play in parallel.
    pub(crate) is_remote: bool,
    pub(crate) play: Play,
}

macro_rules! cases {
    ($($title:literal => $module:ident::$function:ident;)*) => {
        /// All cases.
        pub(crate) const CASES: &[Case] = &[
            $(Case {
                title: $title,
                is_remote: matches!(stringify!($module).as_bytes(), b"remote" | b"token"),
                play: |world| Box::pin($module::$function(world)),
            },)*
        ];
    };
}

cases! {
    "The first call opens Chromium, and returns the profile of the user who signs in there" => sign_in::first_call;
    "Without a browser the answer names a command that signs in for the client" => sign_in::without_browser;
    "Only the user who started the server can begin and end a sign-in, no other user of the machine" => sign_in::other_user;
    "A device code in the answer signs in from any browser" => sign_in::device_code;
    "The next call continues the sign-in of a cancelled call" => sign_in::cancelled;
    "A closed input ends the server and its sign-in within a second" => sign_in::closed;
    "gnome-keyring stores a sign-in across restarts" => keeping::keyring;
    "A sign-in without a keyring ends with the server, which reports it" => keeping::nowhere;
    "A sign-in with a locked keyring ends with the server, which reports it, and the keyring is unchanged" => keeping::locked;
    "A file stores a sign-in across restarts, and only its owner can read it" => keeping::file;
    "Two parallel servers open one window" => keeping::two_at_once;
    "The TypeScript SDK lists, calls, and sees progress" => clients::typescript;
    "Without a sign-in, a call is answered before the TypeScript SDK's timeout, and its sign-in stays open" => clients::nobody_signs_in;
    "The TypeScript SDK opens the requested address if it declares that it can" => clients::url_elicitation;
    "The Inspector's command line lists and calls" => clients::inspector;
    "Every page of the authorization server works in Chromium by keyboard, at 320 pixels, in each language and in dark mode" => pages::all;
    "With only the URL, the Python SDK signs in, refreshes, and signs in again after its session is ended" => remote::python;
    "With only the URL, FastMCP signs in, refreshes, and signs in again after its session is ended" => remote::fastmcp;
    "With only the URL, the TypeScript SDK signs in, refreshes, and signs in again after its session is ended" => remote::typescript;
    "With only the URL, mcp-remote signs in, refreshes, and signs in again after its session is ended" => remote::mcp_remote;
    "With only the URL, the Inspector signs in, refreshes, and signs in again after its session is ended" => remote::inspector;
    "The conformance suite passes the authorization server" => remote::conformance;
    "With sign-in at Entra, mcp-remote uses a client ID that an administrator registered" => remote::at_entra;
    "With a token, the Python SDK lists, calls, reads, cancels, and hears of a new policy" => token::python;
    "With a token, FastMCP lists, calls, reads and cancels" => token::fastmcp;
    "With a token, the first TypeScript SDK lists, calls, reads and cancels" => token::typescript;
    "With a token, the second TypeScript SDK lists, calls, reads, cancels, and hears of a new policy" => token::second_typescript;
    "With a token, mcp-remote lists, calls, reads, cancels, and hears of a new policy" => token::mcp_remote;
    "With a token, the Inspector lists, calls, reads and cancels" => token::inspector;
    "With a token, rmcp lists, calls, reads, cancels, and hears of a new policy" => token::rmcp;
    "--doctor passes before and after the sign-in, and finds problems" => modes::doctor;
    "--sign-out makes the next call sign in again" => modes::sign_out;
    "The policy of the machine restricts every mode except --sign-out" => modes::policy;
    "--print-config prints a command that starts the same server" => modes::print_config;
}
