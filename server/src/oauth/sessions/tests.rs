use mcp_entra_policy::{KeyEpoch, KeyEpochs};

use super::super::clients::ClientKind;
use super::super::scopes::AskedScopes;
use super::super::session::{Person, SessionClient};
use super::super::store::{MemoryStore, Store, StoreError};
use super::*;
use crate::entra::EntraTokens;

/// A store that yields after each taken value, like a remote store.
#[derive(Default)]
struct Remote(MemoryStore);

#[async_trait]
impl Store for Remote {
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.0.get(key).await
    }

    async fn put_new(&self, key: &str, value: &[u8], life: Duration) -> Result<bool, StoreError> {
        self.0.put_new(key, value, life).await
    }

    async fn take(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let taken = self.0.take(key).await;
        tokio::task::yield_now().await;
        taken
    }

    async fn compare_and_set(
        &self,
        key: &str,
        expected: &[u8],
        value: &[u8],
        life: Duration,
    ) -> Result<bool, StoreError> {
        self.0.compare_and_set(key, expected, value, life).await
    }
}

fn keeper(store: &Arc<Remote>, epochs: &[u32]) -> SessionKeeper {
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
    let store = Arc::<Remote>::default();
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
    let store = Arc::<Remote>::default();
    let keeper = keeper(&store, &[1]);
    let begun = keeper.begin("id", session()).await.unwrap().unwrap();
    let read = keeper.read("id").await.unwrap().unwrap();
    keeper.end("id").await.unwrap();
    assert!(keeper.replace("id", &read, begun).await.unwrap().is_none());
    assert!(keeper.read("id").await.unwrap().is_none());
}

#[tokio::test]
async fn a_session_that_is_ended_while_it_begins_stays_ended() {
    let store = Arc::<Remote>::default();
    let (replaying, redeeming) = (keeper(&store, &[1]), keeper(&store, &[1]));
    let (ended, begun) = tokio::join!(replaying.end("id"), redeeming.begin("id", session()));
    ended.unwrap();
    begun.unwrap();
    assert!(redeeming.read("id").await.unwrap().is_none(), "the session of a replayed code is open");
}

#[tokio::test]
async fn a_person_can_sign_in_after_the_epoch_of_their_list_is_gone() {
    let store = Arc::<Remote>::default();
    keeper(&store, &[1]).begin("before", session()).await.unwrap();
    let later = keeper(&store, &[2]);
    assert!(later.begin("after", session()).await.is_ok_and(|session| session.is_some()));
    let listed = later.of_person("tenant", "alice").await.unwrap();
    assert_eq!(Vec::from_iter(listed.iter().map(|(id, _)| id.as_str())), ["after"]);
}

#[tokio::test]
async fn an_unreadable_session_does_not_hide_other_sessions_of_its_user() {
    let store = Arc::<Remote>::default();
    keeper(&store, &[1]).begin("before", session()).await.unwrap();
    keeper(&store, &[1, 2]).begin("after", session()).await.unwrap();
    let listed = keeper(&store, &[2]).of_person("tenant", "alice").await.unwrap();
    assert_eq!(Vec::from_iter(listed.iter().map(|(id, _)| id.as_str())), ["after"]);
}
