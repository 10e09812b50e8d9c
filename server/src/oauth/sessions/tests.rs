use mcp_entra_policy::{KeyEpoch, KeyEpochs};

use super::super::clients::ClientKind;
use super::super::scopes::AskedScopes;
use super::super::session::{Person, SessionClient};
use super::super::store::MemoryStore;
use super::*;
use crate::entra::EntraTokens;

fn keeper(store: &Arc<MemoryStore>, epochs: &[u32]) -> SessionKeeper {
    let epochs = epochs.iter().map(|number| KeyEpoch { number: *number, used_from: 0 }).collect();
    let ring = KeyRing::for_test(
        &KeyEpochs { registration: 1, epochs, after_compromise: None },
        "https://mcp.contoso.com/graph",
    );
    let (ring, policy) = (Arc::new(ring), Arc::new(PolicyStore::new("policy.json".into())));
    let sealer = Sealer::new(Arc::clone(&ring));
    SessionKeeper::new(Records::new(store.clone(), sealer.clone()), sealer, ring, policy)
}

fn session() -> Session {
    let client = SessionClient {
        id: "client".to_owned(),
        reference: "client".to_owned(),
        name: "Client".to_owned(),
        kind: ClientKind::Listed,
    };
    let person = Person {
        tenant_id: "tenant".to_owned(),
        object_id: "alice".to_owned(),
        username: "alice@contoso.com".to_owned(),
        guest: false,
        scopes: [].into(),
        roles: [].into(),
        groups: None,
        contexts: [].into(),
    };
    let tokens = EntraTokens { account: None, access_token: "token".into(), refresh_token: None };
    Session::begin(client, person, AskedScopes::default(), &tokens, 1_000)
}

#[tokio::test]
async fn a_session_begins_once_and_not_after_its_end() {
    let store = Arc::<MemoryStore>::default();
    let keeper = keeper(&store, &[1]);
    assert!(keeper.begin("id", session()).await.unwrap().is_some());
    assert!(keeper.begin("id", session()).await.unwrap().is_none());
    keeper.end("id").await.unwrap();
    assert!(keeper.begin("id", session()).await.unwrap().is_none());
    keeper.end("never begun").await.unwrap();
    assert!(keeper.begin("never begun", session()).await.unwrap().is_none());
    assert!(keeper.read("id").await.unwrap().is_none() && keeper.read("never begun").await.unwrap().is_none());
}

#[tokio::test]
async fn a_refresh_under_way_does_not_open_a_session_that_ends_meanwhile() {
    let store = Arc::<MemoryStore>::default();
    let keeper = keeper(&store, &[1]);
    let begun = keeper.begin("id", session()).await.unwrap().unwrap();
    let read = keeper.read("id").await.unwrap().unwrap();
    keeper.end("id").await.unwrap();
    assert!(keeper.replace("id", &read, begun).await.unwrap().is_none());
    assert!(keeper.read("id").await.unwrap().is_none());
}
