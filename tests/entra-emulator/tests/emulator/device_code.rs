//! The device code flow.

use entra_emulator::{Configuration, EntraEmulator, sign_in::http_client};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::world::{EMULATOR, World, claims, refusal};

const DEVICE_CODE: &str = "urn:ietf:params:oauth:grant-type:device_code";

struct Device<'a> {
    world: &'a World,
    answer: Value,
}

impl<'a> Device<'a> {
    async fn start(world: &'a World) -> Self {
        let url = format!("{}/{}/oauth2/v2.0/devicecode", EMULATOR.authority(), world.tenant);
        let scope = format!("{} offline_access openid", world.api_scope("mcp.access"));
        let form = [("client_id", world.desktop.to_string()), ("scope", scope)];
        let response = world.http.post(url).form(&form).send().await.unwrap();
        assert_eq!(response.status(), 200);
        Self { world, answer: response.json().await.unwrap() }
    }

    /// Content of the user's browser.
    async fn enter(&self, code: &str, user: &str) -> (u16, String) {
        let uri = self.answer["verification_uri"].as_str().unwrap();
        let response = self.world.http.post(uri).form(&[("otc", code), ("emulator_user", user)]).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    fn user_code(&self) -> &str {
        self.answer["user_code"].as_str().unwrap()
    }

    async fn poll(&self) -> (u16, Value) {
        self.poll_as(self.world, &self.world.desktop.to_string()).await
    }

    async fn poll_as(&self, world: &World, client: &str) -> (u16, Value) {
        let code = self.answer["device_code"].as_str().unwrap();
        world.token(&[("grant_type", DEVICE_CODE), ("client_id", client), ("device_code", code)]).await
    }
}

#[tokio::test]
async fn a_device_gets_its_users_tokens_once_after_the_code_was_entered() {
    let world = World::new();
    let device = Device::start(&world).await;
    assert!(device.answer["message"].as_str().unwrap().contains(device.user_code()));
    assert!(device.answer.get("verification_uri_complete").is_none(), "Entra has none");
    assert_eq!(refusal(&device.poll().await), (400, "authorization_pending", 70016));

    assert_eq!(device.enter("WRONG", "alice@contoso.com").await.0, 400);
    assert_eq!(device.enter(device.user_code(), "nobody@contoso.com").await.0, 400);
    assert_eq!(refusal(&device.poll().await).1, "authorization_pending");
    let typed = device.user_code().to_lowercase();
    assert_eq!(device.enter(&typed, "alice@contoso.com").await.0, 200);
    assert_eq!(device.enter(&typed, "bob@contoso.com").await.0, 400, "another user entered the code before");

    let (status, tokens) = device.poll().await;
    assert_eq!(status, 200, "{tokens}");
    assert_eq!(claims(&tokens["access_token"])["oid"], world.alice.to_string());
    assert!(tokens["refresh_token"].is_string() && tokens["id_token"].is_string());
    assert_eq!(refusal(&device.poll().await), (400, "invalid_grant", 54005));
}

#[tokio::test]
async fn a_declined_code_gives_nothing() {
    let world = World::new();
    let device = Device::start(&world).await;
    assert_eq!(device.enter(device.user_code(), "decline").await.0, 200);
    assert_eq!(refusal(&device.poll().await).1, "authorization_declined");
}

#[tokio::test]
async fn only_its_client_can_use_a_device_code() {
    let world = World::new();
    let device = Device::start(&world).await;
    device.enter(device.user_code(), "alice@contoso.com").await;
    let other = World::with(|tenant| tenant.apps[1].client_id = world.desktop);
    assert_eq!(refusal(&device.poll_as(&other, &world.desktop.to_string()).await).1, "bad_verification_code");
    assert_eq!(device.poll().await.0, 200);
}

#[tokio::test]
async fn a_device_code_expires() {
    // A separate emulator, since all tests share the clock of one.
    let emulator = EntraEmulator::start(Configuration::default(), ([127, 0, 0, 1], 0).into()).await.unwrap();
    let (tenant, client) = (Uuid::new_v4(), Uuid::new_v4());
    let directory = json!({"id": tenant, "apps": [{"clientId": client, "publicClient": true}]});
    emulator.control().add_tenant(serde_json::from_value(directory).unwrap()).unwrap();
    let http = http_client(emulator.ca_pem()).unwrap();
    let post = async |path: &str, form: &[(&str, &str)]| {
        let url = format!("{}/{tenant}/oauth2/v2.0/{path}", emulator.authority());
        let response = http.post(url).form(form).send().await.unwrap();
        (response.status().as_u16(), response.json::<Value>().await.unwrap())
    };
    let client = client.to_string();
    let (_, device) = post("devicecode", &[("client_id", &client), ("scope", "User.Read")]).await;
    let code = device["device_code"].as_str().unwrap();
    let poll =
        async || post("token", &[("grant_type", DEVICE_CODE), ("client_id", &client), ("device_code", code)]).await;
    assert_eq!(refusal(&poll().await).1, "authorization_pending");
    emulator.control().advance_clock(device["expires_in"].as_i64().unwrap());
    assert_eq!(refusal(&poll().await), (400, "expired_token", 70019));
}

#[tokio::test]
async fn the_page_asks_for_the_code() {
    let world = World::new();
    let url = format!("{}/devicelogin", EMULATOR.authority());
    let page = world.http.get(url).send().await.unwrap().text().await.unwrap();
    assert!(page.contains("name=\"otc\"") && page.contains("name=\"emulator_user\""), "{page}");
}
