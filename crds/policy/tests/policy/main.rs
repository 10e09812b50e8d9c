//! Tests of policy documents and decisions.
#![cfg(test)] // without it, clippy treats functions that tests share as non-test code

mod denies_and_registrations;
mod grants;
mod patterns_and_documents;

use mcp_entra_policy::*;
use uuid::Uuid;

const READS: Operation<'_> = Operation::Tool { name: "get_user_details", writes: false };
const WRITES: Operation<'_> = Operation::Tool { name: "send_mail", writes: true };
const SALES: &str = "3f0c0000-0000-0000-0000-000000000001";
const DAEMON: &str = "77aa0000-0000-0000-0000-000000000002";
const OURS: &str = "1c2d0000-0000-4000-8000-000000000004";
const OTHER: &str = "1c2d0000-0000-4000-8000-000000000005";
const CLIENT: &str = "77aa0000-0000-0000-0000-000000000003";

fn set<S: FromIterator<String>>(names: &[&str]) -> S {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn groups(ids: &[&str]) -> CompactSet<Uuid> {
    ids.iter().map(|id| id.parse::<Uuid>().unwrap()).collect()
}

fn tools(patterns: &[&str]) -> Primitives {
    Primitives { tools: patterns.iter().map(|pattern| Pattern((*pattern).into())).collect(), ..Primitives::default() }
}

fn grant(name: &str, to: Subject, patterns: &[&str]) -> Grant {
    Grant {
        mapping: MappingReference { namespace: Some("productivity".into()), name: "readers".into() },
        name: name.into(),
        registration: None,
        to: vec![to],
        require: Requirements::default(),
        graph: GraphAccess::OnBehalfOf,
        allow: tools(patterns),
    }
}

fn requiring(scopes: &[&str], context: Option<&str>, mut grant: Grant) -> Grant {
    grant.require = Requirements { scopes: set(scopes), authentication_context: context.map(str::to_owned) };
    grant
}

fn deny(name: &str, to: Option<Subject>, patterns: &[&str]) -> Deny {
    Deny {
        mapping: MappingReference { namespace: None, name: "guardrails".into() },
        name: name.into(),
        registration: None,
        to: to.map(|subject| vec![subject]),
        forbid: tools(patterns),
    }
}

fn role(name: &str) -> Subject {
    Subject::AppRole { role: name.into(), callers: [CallerKind::User].into() }
}

fn role_of_anybody(name: &str) -> Subject {
    Subject::AppRole { role: name.into(), callers: [CallerKind::User, CallerKind::Application].into() }
}

fn sales() -> Subject {
    Subject::Group { id: SALES.into(), display_name: Some("Sales".into()) }
}

fn the_daemon() -> Subject {
    Subject::Application { client_id: DAEMON.into() }
}

fn user(roles: &[&str], ids: Option<&[&str]>) -> Caller {
    Caller {
        registration: Registration::Known(OURS.into()),
        kind: CallerKind::User,
        client_id: CLIENT.into(),
        roles: set(roles),
        groups: ids.map_or(Groups::Unknown, |ids| Groups::Known(groups(ids))),
        scopes: set(&["mcp.access"]),
        authentication_contexts: CompactSet::default(),
    }
}

fn application(client_id: &str, roles: &[&str]) -> Caller {
    Caller {
        kind: CallerKind::Application,
        client_id: client_id.into(),
        scopes: CompactSet::default(),
        ..user(roles, None)
    }
}

fn decide(grants: Vec<Grant>, caller: &Caller) -> Decision {
    CompiledPolicy { denies: vec![], grants, ..CompiledPolicy::default() }.decide(caller, READS)
}

fn ways(decision: Decision) -> Ways {
    match decision {
        Decision::Refused(Refusal::NotGranted(ways)) => ways,
        other => panic!("{other:?}"),
    }
}

fn granting(decision: &Decision) -> &str {
    match decision {
        Decision::Allowed { grant, .. } => grant,
        Decision::Refused(refusal) => panic!("{refusal:?}"),
    }
}
