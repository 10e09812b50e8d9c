//! Kinds of measured requests.

use std::net::SocketAddr;

use clap::ValueEnum;
use serde_json::json;

use super::handshake::REVISION;
use super::load::Order;
use super::tenant::{BenchTenant, USERS};

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Kind {
    /// `tools/list`, of one user.
    List,
    /// `tools/call` with a request to Graph, of one user.
    Call,
    /// `tools/list` without a token, which is answered 401.
    Flood,
    /// `tools/list` of 1,000 users, each with a separate token.
    UsersList,
    /// `tools/call` with a request to Graph, of 1,000 users, each with a separate token.
    UsersCall,
}

/// The tokens of the users.
pub(super) struct Tokens(Vec<String>);

impl Tokens {
    /// Signs a token for each user.
    pub(super) fn sign(tenant: &BenchTenant) -> anyhow::Result<Self> {
        tenant.tokens(USERS).map(Self)
    }

    /// Length of the first token, in bytes.
    pub(super) fn length(&self) -> usize {
        self.0.first().map_or(0, String::len)
    }

    /// Returns the tokens of this number of users.
    fn of(&self, users: usize) -> Vec<String> {
        self.0.iter().take(users).cloned().collect()
    }
}

impl Kind {
    /// Name in the table.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::List => "tools/list",
            Self::Call => "tools/call with a request to Graph",
            Self::Flood => "401: no token",
            Self::UsersList => "tools/list of 1,000 users",
            Self::UsersCall => "tools/call of 1,000 users",
        }
    }

    /// True if the kind needs a server with authentication.
    pub(super) fn is_authenticated(self) -> bool {
        !matches!(self, Self::List | Self::Call)
    }

    /// Number of users that send it.
    fn users(self) -> usize {
        match self {
            Self::Flood => 0,
            Self::List | Self::Call => 1,
            Self::UsersList | Self::UsersCall => USERS,
        }
    }

    /// Returns an order of such requests to this server, with at least one of each user.
    pub(super) fn order(self, address: SocketAddr, tokens: &Tokens, connections: usize) -> Order {
        let call = matches!(self, Self::Call | Self::UsersCall);
        let (method, params) = match call {
            true => ("tools/call", json!({"name": "get_user_details", "arguments": {}})),
            false => ("tools/list", json!({})),
        };
        let (status, part) = match self {
            Self::Flood => (401, ""),
            Self::List | Self::UsersList => (200, "list_my_messages"),
            Self::Call | Self::UsersCall => (200, "Megan Bowen"),
        };
        Order {
            address,
            path: "/mcp".to_owned(),
            process: None,
            headers: vec![("mcp-protocol-version".to_owned(), REVISION.to_owned())],
            body: json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params}).to_string(),
            tokens: tokens.of(self.users()),
            status,
            part: part.to_owned(),
            connections,
            seconds: 0.0,
            at_least: 0,
            rate: None,
        }
    }
}
