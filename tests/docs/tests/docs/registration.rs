//! Tests of the script in `docs/entra-setup.md`: a double of the Azure CLI records the app registration that it makes, and
//! people sign in to this registration at the emulated Entra.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use documentation::{pages, repository};
use entra_emulator::sign_in::{Authority, SignIn};
use entra_emulator::{App, Configuration, EntraEmulator, Tenant, User};
use mcp_entra_crds::{McpRoleMapping, McpServer};
use serde_json::{Value, json};
use uuid::Uuid;

/// Page with the script.
const PAGE: &str = "docs/entra-setup.md";
/// Heading of the script.
const SECTION: &str = "\n## By a script\n";

/// Ids that Entra gives: of the tenant, the application, its object, its service principal, and the signed-in user.
const TENANT: Uuid = Uuid::from_u128(1);
const APP: Uuid = Uuid::from_u128(2);
const OBJECT: Uuid = Uuid::from_u128(3);
const PRINCIPAL: Uuid = Uuid::from_u128(4);
const USER: Uuid = Uuid::from_u128(5);

/// Client id of Visual Studio Code, and a redirect URI of it.
const CLIENT: (&str, &str) = ("aebc6443-996d-45c2-90f0-388ff96faa56", "http://localhost");

/// Ids of delegated permissions of Microsoft Graph, from Microsoft's permissions reference.
const PERMISSIONS: [(&str, &str); 2] =
    [("e1fe6dd8-ba31-4d61-89e7-88639da4683d", "User.Read"), ("570282fd-fa5c-430d-a7fd-fc8dc98a9dca", "Mail.Read")];

/// Double of the Azure CLI, for the commands of the script. It keeps application, service principal, permissions and
/// assignment as files, and refuses a command whose object does not exist yet. It differs from the Azure CLI with Graph:
/// objects exist at once everywhere, a command prints only what the script reads, and Graph's own checks of a body are
/// missing, except that a named scope or role must exist. Azure CLI 2.91.0 accepts the arguments of all these commands.
const AZ: &str = r#"#!/bin/bash
set -euo pipefail
graph=https://graph.microsoft.com/v1.0
json='--headers Content-Type=application/json --body'
last=${!#}
exists() { [[ -e $STATE/$1 ]] || { echo "az: there is no $1 yet" >&2; exit 1; }; }
case "$*" in
"ad app create --display-name "*" --sign-in-audience AzureADMyOrg --query appId --output tsv")
  echo '{}' >"$STATE/application"
  echo "$APP" ;;
"ad app show --id $APP --query id --output tsv")
  exists application
  echo "$OBJECT" ;;
"rest --method PATCH --url $graph/applications/$OBJECT $json @"*)
  exists application
  # Members of `api` that the body does not name stay.
  jq --slurpfile body "${last#@}" '. * $body[0]
    | [.api.preAuthorizedApplications[]?.delegatedPermissionIds[]] as $named
    | if $named - [.api.oauth2PermissionScopes[]?.id] == [] then . else error("an unknown scope") end' \
    "$STATE/application" >"$STATE/changed"
  mv "$STATE/changed" "$STATE/application" ;;
"ad app permission add --id $APP --api 00000003-0000-0000-c000-000000000000 --api-permissions "*)
  exists application
  printf '%s\n' "${@:10}" >"$STATE/requested" ;;
"ad sp create --id $APP")
  exists application
  echo false >"$STATE/principal" ;;
"ad app permission admin-consent --id $APP")
  exists principal
  cp "$STATE/requested" "$STATE/granted" ;;
"ad sp show --id $APP --query id --output tsv")
  exists principal
  echo "$PRINCIPAL" ;;
"ad sp update --id $PRINCIPAL --set appRoleAssignmentRequired="*)
  exists principal
  echo "${last#*=}" >"$STATE/principal" ;;
"ad signed-in-user show --query id --output tsv")
  echo "$SIGNED_IN" ;;
"rest --method POST --url $graph/servicePrincipals/$PRINCIPAL/appRoleAssignedTo $json @"*)
  exists principal
  jq --slurpfile application "$STATE/application" '.appRoleId as $role
    | if any($application[0].appRoles[]; .id == $role) then . else error("an unknown role") end' \
    "${last#@}" >"$STATE/assignment" ;;
"account show --query tenantId --output tsv")
  echo "$TENANT" ;;
*)
  echo "az: not one of the script's commands: $*" >&2
  exit 64 ;;
esac
"#;

/// Double of uuidgen: a random UUID, as its default is.
const UUIDGEN: &str = "#!/bin/sh\ncat /proc/sys/kernel/random/uuid\n";

/// Registration that the script made.
struct Registered {
    /// Output of the script.
    output: String,
    /// The application, as Graph has it.
    application: Value,
    /// Granted permissions of Graph, as `id=Scope`.
    granted: Vec<String>,
    /// True if only assigned users get a token.
    assignment_required: bool,
    /// The role assignment, as Graph has it.
    assignment: Value,
}

fn page() -> String {
    std::fs::read_to_string(repository(PAGE)).unwrap()
}

fn script() -> String {
    let page = pages().into_iter().find(|page| page.path == PAGE).unwrap();
    let mut blocks = page.blocks().into_iter().filter(|block| block.language == "sh");
    let script = blocks.next().unwrap_or_else(|| panic!("{PAGE} has no script"));
    assert!(blocks.next().is_none(), "{PAGE} has more than one script");
    script.text
}

/// Runs the script in an empty folder. An unset variable ends it.
fn run(script: &str) -> Result<Registered, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let state = path("state");
    for name in ["bin", "state"] {
        std::fs::create_dir(path(name)).unwrap();
    }
    for (name, text) in [("az", AZ), ("uuidgen", UUIDGEN)] {
        let program = path("bin").join(name);
        std::fs::write(&program, text).unwrap();
        std::fs::set_permissions(program, PermissionsExt::from_mode(0o755)).unwrap();
    }
    let mut bash = Command::new("bash");
    bash.args(["-eu", "-c", script]).current_dir(folder.path()).env_clear();
    bash.env("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", path("bin").display())).env("STATE", &state);
    let ids = [("TENANT", TENANT), ("APP", APP), ("OBJECT", OBJECT), ("PRINCIPAL", PRINCIPAL), ("SIGNED_IN", USER)];
    bash.envs(ids.map(|(name, id)| (name, id.to_string())));
    let output = bash.output().unwrap();
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let read = |name: &str| read(&state, name);
    Ok(Registered {
        output: String::from_utf8(output.stdout).unwrap(),
        application: serde_json::from_str(&read("application")).unwrap(),
        granted: read("granted").lines().map(str::to_owned).collect(),
        assignment_required: read("principal").trim() == "true",
        assignment: serde_json::from_str(&read("assignment")).unwrap(),
    })
}

fn read(state: &Path, name: &str) -> String {
    std::fs::read_to_string(state.join(name)).unwrap_or_else(|error| panic!("the script makes no {name}: {error}"))
}

/// Returns the members of this name of each item of a list.
fn each<'a>(list: &'a Value, member: &str) -> Vec<&'a Value> {
    list.as_array().unwrap().iter().map(|item| &item[member]).collect()
}

impl Registered {
    /// Names of the granted permissions of Graph.
    fn scopes_of_graph(&self) -> Vec<&str> {
        let name = |granted: &String| {
            let id = granted.strip_suffix("=Scope").unwrap();
            PERMISSIONS
                .iter()
                .find(|(known, _)| *known == id)
                .unwrap_or_else(|| panic!("{id} is no known permission"))
                .1
        };
        self.granted.iter().map(name).collect()
    }

    /// Returns the registration for the emulator, which refuses unknown values.
    fn app(&self) -> App {
        let (graph, api) = (&self.application, &self.application["api"]);
        let scope = &api["oauth2PermissionScopes"][0];
        let clients = api["preAuthorizedApplications"].as_array().unwrap().iter();
        let clients = clients.filter(|client| client["delegatedPermissionIds"] == json!([scope["id"]]));
        let roles = graph["appRoles"].as_array().unwrap();
        let assigned = roles.iter().find(|role| role["id"] == self.assignment["appRoleId"]).unwrap();
        let roles: Vec<_> = roles
            .iter()
            .map(|role| json!({"value": role["value"], "allowedMemberTypes": role["allowedMemberTypes"]}))
            .collect();
        let app = json!({
            "clientId": APP,
            "identifierUris": graph["identifierUris"],
            "requestedAccessTokenVersion": api["requestedAccessTokenVersion"],
            "scopes": each(&api["oauth2PermissionScopes"], "value"),
            "appRoles": roles,
            "preAuthorizedClients": clients.map(|client| &client["appId"]).collect::<Vec<_>>(),
            "optionalClaims": each(&graph["optionalClaims"]["accessToken"], "name"),
            "groupMembershipClaims": graph["groupMembershipClaims"],
            "grantedGraphScopes": self.scopes_of_graph(),
            "roleAssignments": [{"principal": self.assignment["principalId"], "role": assigned["value"]}],
            "assignmentRequired": self.assignment_required,
            "consent": "admin_only",
        });
        serde_json::from_value(app).unwrap()
    }
}

fn person(oid: Uuid, name: &str) -> User {
    let user = json!({"oid": oid, "userPrincipalName": name, "displayName": name});
    serde_json::from_value(user).unwrap()
}

/// Returns the claims of an access token for the scope of the server.
async fn claims(entra: &EntraEmulator, user: &str) -> anyhow::Result<Value> {
    let (client, redirect_uri) = CLIENT;
    let scope = format!("api://{APP}/mcp.access");
    let sign_in = SignIn {
        authority: &Authority::from(entra),
        tenant: TENANT,
        client: client.parse()?,
        redirect_uri,
        user,
        scopes: &[&scope],
        claims: None,
    };
    let token = sign_in.tokens().await?.access_token;
    let payload = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap())?;
    Ok(serde_json::from_slice(&payload)?)
}

fn example<K: serde::de::DeserializeOwned>(name: &str) -> K {
    serde_yaml::from_str(&std::fs::read_to_string(repository("crds/examples").join(name)).unwrap()).unwrap()
}

#[tokio::test]
async fn with_the_scripts_registration_its_user_gets_the_token_that_the_examples_demand_and_nobody_else_does() {
    let registered = run(&script()).unwrap();
    assert_eq!(registered.assignment["resourceId"], json!(PRINCIPAL));
    let (client, redirect_uri) = CLIENT;
    let client = App {
        client_id: client.parse().unwrap(),
        public_client: true,
        redirect_uris: vec![redirect_uri.to_owned()],
        ..App::default()
    };
    let entra = EntraEmulator::start(Configuration::default(), ([127, 0, 0, 1], 0).into()).await.unwrap();
    let users = vec![person(USER, "me@contoso.com"), person(Uuid::from_u128(6), "other@contoso.com")];
    let apps = vec![registered.app(), client];
    entra.control().add_tenant(Tenant { id: TENANT, domains: vec![], apps, users, groups: vec![] }).unwrap();

    let claims_of_me = claims(&entra, "me@contoso.com").await.unwrap();
    let server: McpServer = example("2-server.yaml");
    assert_eq!((&claims_of_me["ver"], &claims_of_me["aud"]), (&json!("2.0"), &json!(APP)));
    assert_eq!(claims_of_me["scp"], json!(server.spec.entra.required_scopes.join(" ")));
    let mapping: McpRoleMapping = example("3-mapping.yaml");
    let subjects = serde_json::to_value(&mapping.spec.grants[0].to).unwrap();
    assert_eq!(claims_of_me["roles"], json!([subjects[0]["appRole"]]));
    let refusal = claims(&entra, "other@contoso.com").await.unwrap_err().to_string();
    assert!(refusal.contains("AADSTS50105"), "{refusal}");
}

#[test]
fn the_script_grants_the_permissions_of_the_example_and_asks_for_groups_and_idtyp() {
    let registered = run(&script()).unwrap();
    let server: McpServer = example("2-server.yaml");
    assert_eq!(json!(registered.scopes_of_graph()), serde_json::to_value(&server.spec).unwrap()["graph"]["scopes"]);
    let application = &registered.application;
    assert_eq!(each(&application["optionalClaims"]["accessToken"], "name"), ["groups", "idtyp"]);
    assert_eq!(application["groupMembershipClaims"], "SecurityGroup");
    assert!(application["passwordCredentials"].is_null() && application["keyCredentials"].is_null());
}

#[test]
fn the_script_prints_the_two_ids_of_an_mcp_server() {
    let output: Value = serde_yaml::from_str(&run(&script()).unwrap().output).unwrap();
    assert_eq!(output, json!({"clientId": APP, "tenantId": TENANT}));
    let mut server = serde_json::to_value(example::<Value>("2-server.yaml")).unwrap();
    for (name, id) in output.as_object().unwrap() {
        assert!(server["spec"]["entra"][name].is_string(), "spec.entra has no {name}");
        server["spec"]["entra"][name] = id.clone();
    }
    serde_json::from_value::<McpServer>(server).unwrap();
}

#[test]
fn the_portals_steps_name_what_the_script_sets() {
    let registered = run(&script()).unwrap();
    let page = page();
    let (portal, _) = page.split_once(SECTION).unwrap();
    let application = &registered.application;
    let mut names = each(&application["api"]["preAuthorizedApplications"], "appId");
    names.extend(each(&application["api"]["oauth2PermissionScopes"], "value"));
    names.extend(each(&application["appRoles"], "value"));
    names.extend(each(&application["optionalClaims"]["accessToken"], "name"));
    let names = names.into_iter().map(|name| name.as_str().unwrap()).chain(registered.scopes_of_graph());
    for name in names {
        assert!(portal.contains(&format!("`{name}`")), "the portal's steps do not name {name}");
    }
}

#[test]
fn a_script_in_another_order_or_with_an_unset_variable_fails() {
    let script = script();
    let without = |line: &str| {
        assert!(script.contains(line), "{line}");
        run(&script.replacen(line, "true", 1)).err().unwrap_or_else(|| panic!("nothing needs {line}"))
    };
    assert!(without("az ad sp create --id \"$CLIENT_ID\"").contains("there is no principal yet"));
    assert!(without("SCOPE_ID=$(uuidgen)").contains("SCOPE_ID: unbound variable"));
}
