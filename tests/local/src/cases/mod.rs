//! Cases for a person, each a function. Each plays in a world of its own, and returns what it saw.

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
    /// The behaviour that is proved, as a sentence.
    pub(crate) title: &'static str,
    /// True if the server is remote, and nothing but the emulator is shared: such cases can play at once.
    pub(crate) is_remote: bool,
    pub(crate) play: Play,
}

macro_rules! cases {
    ($($title:literal => $module:ident::$function:ident;)*) => {
        /// Every case.
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
    "The first call opens Chromium, and answers with the profile of who signs in there" => sign_in::first_call;
    "Without a browser the answer names a command, which signs in for the client" => sign_in::without_browser;
    "Another user of the machine can neither begin nor end a sign-in, and the person can" => sign_in::other_user;
    "A device code in the answer signs in from any browser" => sign_in::device_code;
    "A cancelled call leaves its sign-in to the next one" => sign_in::cancelled;
    "A closed input ends the server and its sign-in within a second" => sign_in::closed;
    "gnome-keyring keeps a sign-in over restarts" => keeping::keyring;
    "A sign-in without a keyring ends with the server, which says so" => keeping::nowhere;
    "A sign-in with a locked keyring ends with the server, which says so, and harms nothing" => keeping::locked;
    "A file keeps a sign-in over restarts for its owner alone" => keeping::file;
    "Two servers at once ask for one window" => keeping::two_at_once;
    "The TypeScript SDK lists, calls, and sees progress" => clients::typescript;
    "A call is answered before the TypeScript SDK gives it up, though nobody signs in, and its sign-in stays open" => clients::nobody_signs_in;
    "The TypeScript SDK opens the address that it is asked to, where it says that it can" => clients::url_elicitation;
    "The Inspector's command line lists and calls" => clients::inspector;
    "Every page of the authorization server works in Chromium by keyboard, at 320 pixels, in each language and in the dark" => pages::all;
    "Given the URL alone, the Python SDK signs in, refreshes, and signs in again after its session is ended" => remote::python;
    "Given the URL alone, FastMCP signs in, refreshes, and signs in again after its session is ended" => remote::fastmcp;
    "Given the URL alone, the TypeScript SDK signs in, refreshes, and signs in again after its session is ended" => remote::typescript;
    "Given the URL alone, mcp-remote signs in, refreshes, and signs in again after its session is ended" => remote::mcp_remote;
    "Given the URL alone, the Inspector signs in, refreshes, and signs in again after its session is ended" => remote::inspector;
    "The conformance suite passes the authorization server" => remote::conformance;
    "Where clients sign in at Entra, mcp-remote does with a client ID that an administrator registered" => remote::at_entra;
    "With a token, the Python SDK lists, calls, reads, cancels, and hears of a new policy" => token::python;
    "With a token, FastMCP lists, calls, reads and cancels" => token::fastmcp;
    "With a token, the first TypeScript SDK lists, calls, reads and cancels" => token::typescript;
    "With a token, the second TypeScript SDK lists, calls, reads, cancels, and hears of a new policy" => token::second_typescript;
    "With a token, mcp-remote lists, calls, reads, cancels, and hears of a new policy" => token::mcp_remote;
    "With a token, the Inspector lists, calls, reads and cancels" => token::inspector;
    "With a token, rmcp lists, calls, reads, cancels, and hears of a new policy" => token::rmcp;
    "--doctor finds all well before and after the sign-in, and what is not well" => modes::doctor;
    "--sign-out makes the next call sign in again" => modes::sign_out;
    "The policy of the machine bounds every mode but --sign-out" => modes::policy;
    "--print-config prints a command that starts the same server" => modes::print_config;
}
