//! Tests of the session without Entra.

use super::super::store::Owner;
use super::*;
use crate::entra::Registration;

#[tokio::test]
async fn a_sign_out_does_nothing_while_another_process_works_on_the_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let [authority, graph_url, tenant, client_id] =
        ["https://login.example", "https://graph.example", "contoso.example", "client"].map(str::to_owned);
    let http = crate::inputs::http_client(None).unwrap();
    let registration =
        Registration { authority: authority.clone(), tenant: tenant.clone(), client_id: client_id.clone() };
    let client = PublicClient::new(http, registration, &graph_url, &[]).unwrap();
    let owner = Owner { authority, graph_url, tenant, client_id };
    let store = TokenStore::new(StoreKind::File, folder.path().join("data"), owner);
    let session = Session::new(client, BTreeSet::new(), store.clone());
    let account = Account { tenant_id: "t".to_owned(), object_id: "o".to_owned(), username: "ann".to_owned() };
    let issued_at = Timestamp::now();
    store.write(&KeptTokens { account, issued_at, refresh_token: "r".into(), access: None }).await.unwrap();

    let lock = store.lock(LockPurpose::Tokens, Duration::ZERO).await.unwrap();
    let error = session.end(Duration::ZERO).await.unwrap_err();
    assert!(matches!(error, StoreError::Busy) && error.to_string().ends_with("and try again"), "{error}");
    assert!(store.read().await.unwrap().is_some());
    drop(lock);
    assert!(session.end(PATIENCE).await.unwrap());
    assert!(store.read().await.unwrap().is_none());
}
