//! Control of a running emulator, beyond the possibilities of Entra: adds tenants, reads the log, injects faults and
//! forges tokens.

use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail, ensure};
use serde_json::Value;
use uuid::Uuid;

use crate::{
    calendar::CreatedEvent,
    claims::{ClaimsRequest, Issuance},
    configuration::{App, FEDERATED_CREDENTIAL_LIMIT, FederatedCredential, RoleAssignment, Tenant},
    consent::Party,
    keys::Object,
    log::{Fault, Host, LoggedRequest},
    mail::SentMessage,
    resource::Requested,
    state::{Shared, TenantState},
};

/// A handle on a running emulator; cheap to clone, usable from any thread.
#[derive(Clone)]
pub struct Control {
    pub(crate) shared: Arc<Shared>,
}

impl Control {
    /// Adds a tenant.
    ///
    /// # Errors
    /// If its id is taken or its parts contradict each other.
    pub fn add_tenant(&self, tenant: Tenant) -> anyhow::Result<()> {
        self.shared.add_tenant(tenant)
    }

    /// Changes a tenant in place, such as a role assignment or a group's members. Nothing changes if `change` fails or
    /// its result is inconsistent.
    ///
    /// # Errors
    /// If there is no such tenant, and what `change` returns.
    pub fn change_tenant<T>(
        &self,
        tenant: Uuid,
        change: impl FnOnce(&mut Tenant) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        self.shared.change_tenant(tenant, |directory| {
            let result = change(directory)?;
            ensure!(directory.id == tenant, "a tenant's id cannot change");
            directory.validate()?;
            Ok(result)
        })
    }

    /// Trusts the authorities in a PEM bundle for requests to federated issuers.
    ///
    /// # Errors
    /// If it is not a bundle of certificates.
    pub fn trust_ca_pem(&self, pem: &str) -> anyhow::Result<()> {
        self.shared.trust(pem)
    }

    /// Adds a federated credential, from the next token request on.
    ///
    /// # Errors
    /// Same as Graph: when the app has 20 already, the name is taken or not of 3 to 120 characters, or the pair of
    /// issuer and subject exists.
    pub fn add_federated_credential(
        &self,
        tenant: Uuid,
        client_id: Uuid,
        credential: FederatedCredential,
    ) -> anyhow::Result<()> {
        self.change_app(tenant, client_id, |app| {
            let all = &mut app.federated_credentials;
            ensure!(
                all.len() < FEDERATED_CREDENTIAL_LIMIT,
                "the app {client_id} has {FEDERATED_CREDENTIAL_LIMIT} federated credentials, which is the limit"
            );
            ensure!(
                (3..=120).contains(&credential.name.chars().count()),
                "a federated credential's name has 3 to 120 characters"
            );
            ensure!(
                !all.iter().any(|known| known.name == credential.name),
                "the app {client_id} has a federated credential named {} already",
                credential.name
            );
            ensure!(
                !all.iter().any(|known| known.issuer == credential.issuer && known.subject == credential.subject),
                "the app {client_id} has a federated credential for this issuer and subject already"
            );
            all.push(credential);
            Ok(())
        })
    }

    /// Removes a federated credential, from the next token request on.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn remove_federated_credential(&self, tenant: Uuid, client_id: Uuid, name: &str) -> anyhow::Result<()> {
        self.change_app(tenant, client_id, |app| {
            let before = app.federated_credentials.len();
            app.federated_credentials.retain(|known| known.name != name);
            ensure!(
                app.federated_credentials.len() < before,
                "the app {client_id} has no federated credential named {name}"
            );
            Ok(())
        })
    }

    /// Delays the effect of changes to the tenant's federated credentials, as Entra does for a while, until
    /// [`Self::propagate`].
    ///
    /// # Errors
    /// If there is no such tenant.
    pub fn hold_propagation(&self, tenant: Uuid) -> anyhow::Result<()> {
        self.shared.hold_propagation(tenant, true)
    }

    /// Applies the changes since [`Self::hold_propagation`], and all later ones.
    ///
    /// # Errors
    /// If there is no such tenant.
    pub fn propagate(&self, tenant: Uuid) -> anyhow::Result<()> {
        self.shared.hold_propagation(tenant, false)
    }

    fn change_app<T>(
        &self,
        tenant: Uuid,
        client_id: Uuid,
        change: impl FnOnce(&mut App) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        self.change_tenant(tenant, |directory| {
            let app = directory.apps.iter_mut().find(|app| app.client_id == client_id);
            change(app.with_context(|| format!("no app {client_id} in the tenant {tenant}"))?)
        })
    }

    /// The latest 4096 requests, oldest first.
    pub fn requests(&self) -> Vec<LoggedRequest> {
        self.shared.lock().log.list()
    }

    /// The number of requests of a tenant to a host that are not answered yet.
    pub fn on_their_way(&self, host: Host, tenant: Uuid) -> usize {
        self.shared.lock().log.on_their_way(host, tenant)
    }

    /// The latest 4096 messages sent with `sendMail`, oldest first.
    pub fn sent_messages(&self) -> Vec<SentMessage> {
        self.shared.lock().sent.list()
    }

    /// The latest 4096 events that were created, oldest first.
    pub fn created_events(&self) -> Vec<CreatedEvent> {
        self.shared.lock().created.list()
    }

    /// Answers some of the next requests with a fault. Of overlapping faults, the earliest is used up first.
    ///
    /// # Errors
    /// If 1000 faults wait already.
    pub fn inject(&self, fault: Fault) -> anyhow::Result<()> {
        self.shared.lock().add_fault(fault)
    }

    /// Removes all faults, including those of other tests.
    pub fn clear_faults(&self) {
        self.shared.lock().faults().clear();
    }

    /// Revokes the sign-in sessions of a user. All earlier refresh tokens, Graph tokens (continuous access evaluation)
    /// and browser sessions of the user become void.
    ///
    /// # Errors
    /// If there is no such tenant.
    pub fn revoke(&self, tenant: Uuid, user: Uuid) -> anyhow::Result<()> {
        self.shared.revoke(tenant, user)
    }

    /// Disables an account, or enables it again. A disabled user cannot sign in, and no refresh token works.
    ///
    /// # Errors
    /// If there is no such tenant or user.
    pub fn set_account_enabled(&self, tenant: Uuid, user: Uuid, enabled: bool) -> anyhow::Result<()> {
        self.change_tenant(tenant, |directory| {
            let found = directory.users.iter_mut().find(|known| known.oid == user);
            found.with_context(|| format!("no user {user} in the tenant {tenant}"))?.account_enabled = enabled;
            Ok(())
        })
    }

    /// Assigns a user, a group or an application to an app, from the next token on.
    ///
    /// # Errors
    /// If there is no such tenant, app or role.
    pub fn assign(&self, tenant: Uuid, client_id: Uuid, assignment: RoleAssignment) -> anyhow::Result<()> {
        self.change_app(tenant, client_id, |app| {
            app.role_assignments.push(assignment);
            Ok(())
        })
    }

    /// Removes all assignments of a user, a group or an application to an app, from the next token on.
    ///
    /// # Errors
    /// If there is no such tenant or app, or no such assignment.
    pub fn unassign(&self, tenant: Uuid, client_id: Uuid, principal: Uuid) -> anyhow::Result<()> {
        self.change_app(tenant, client_id, |app| {
            let before = app.role_assignments.len();
            app.role_assignments.retain(|known| known.principal != principal);
            ensure!(app.role_assignments.len() < before, "{principal} is not assigned to the app {client_id}");
            Ok(())
        })
    }

    /// Consents to a client for a user, or without one for all users of the tenant, as an administrator does. `scope`
    /// has the format of an authorization request, possibly of several resources.
    ///
    /// # Errors
    /// If the tenant, the client, the user or a scope does not exist.
    pub fn grant_consent(&self, tenant: Uuid, client: Uuid, user: Option<Uuid>, scope: &str) -> anyhow::Result<()> {
        let known = self.tenant(tenant)?;
        let app = known.directory.app(client).with_context(|| format!("no app {client}"))?;
        if let Some(user) = user {
            known.directory.user(user).with_context(|| format!("no user {user}"))?;
        }
        let asked = Requested::parse_all(scope, &known.directory, &self.shared.graph);
        let asked = asked.map_err(|error| anyhow!("the scope {scope}: {error}"))?;
        self.shared.lock().consents.grant(Party { tenant, client, user }, app, &asked);
        Ok(())
    }

    /// Withdraws the consents of a user to a client. Without a user, it withdraws those for all users. Consents of the
    /// configuration stay: see [`Self::change_tenant`].
    ///
    /// # Errors
    /// If there is no such tenant.
    pub fn withdraw_consent(&self, tenant: Uuid, client: Uuid, user: Option<Uuid>) -> anyhow::Result<()> {
        self.tenant(tenant)?;
        self.shared.lock().consents.withdraw(Party { tenant, client, user });
        Ok(())
    }

    /// Signs the tenant's tokens with a new key from now on. The last keys stay published.
    ///
    /// # Errors
    /// If there is no such tenant.
    pub fn roll_signing_key(&self, tenant: Uuid) -> anyhow::Result<()> {
        self.shared.roll_signing_key(tenant)
    }

    /// Publishes only the current signing key. Tokens of earlier keys no longer verify.
    ///
    /// # Errors
    /// If there is no such tenant.
    pub fn withdraw_old_signing_keys(&self, tenant: Uuid) -> anyhow::Result<()> {
        self.shared.withdraw_old_signing_keys(tenant)
    }

    /// Refuses connections to a host and closes the open ones, for all tenants at once. Returns after the change.
    pub async fn close(&self, host: Host) {
        self.shared.door(host).set_open(false).await;
    }

    /// Reverts [`Self::close`]. Returns when the host can be reached.
    pub async fn open(&self, host: Host) {
        self.shared.door(host).set_open(true).await;
    }

    /// Moves the emulator's clock, for all tenants at once.
    pub fn advance_clock(&self, seconds: i64) {
        self.shared.advance_clock(seconds);
    }

    /// Signs `claims` as the tenant does, under its usual header with `header_overrides` in it (`null` removes a
    /// member). A `kid` of another published key (that of Microsoft's tenant for personal accounts is one) signs
    /// with that key; any other `kid` with the tenant's own. `alg` may be `RS256`, `none` (no signature), or
    /// `HS256` (the public key's PEM as the secret).
    ///
    /// # Errors
    /// If there is no such tenant, or no such `alg`.
    pub fn sign(&self, tenant: Uuid, header_overrides: &Value, claims: &Value) -> anyhow::Result<String> {
        let tenant = self.tenant(tenant)?;
        let consumers = &self.shared.consumers_key;
        let kid = header_overrides.get("kid").and_then(Value::as_str).unwrap_or_default();
        let key = match tenant.key(kid) {
            Some(key) => key,
            None if kid == consumers.kid => consumers,
            None => tenant.signing_key()?,
        };
        let mut header = key.header();
        for (name, value) in header_overrides.as_object().into_iter().flatten() {
            if value.is_null() {
                header.remove(name);
            } else {
                header.insert(name.clone(), value.clone());
            }
        }
        key.sign(&header, claims)
    }

    /// Claims of the access token that `client` would get for a user. A test can change them and sign the result.
    ///
    /// # Errors
    /// If the tenant, the client, the user or the scope does not exist.
    pub fn user_claims(&self, tenant: Uuid, client: Uuid, user: &str, scope: &str) -> anyhow::Result<Object> {
        let tenant = self.tenant(tenant)?;
        let directory = &tenant.directory;
        let found = directory.find_user(user).with_context(|| format!("no user {user}"))?;
        let requested = self.requested(&tenant, scope)?;
        let issuance = self.issuance(&tenant, client)?;
        let scopes = requested.asked_by(issuance.client);
        Ok(issuance.user_token(&requested, &scopes, found, &ClaimsRequest::default()))
    }

    /// The claims of the access token that `client` would get as itself, for a scope such as `api://…/.default`.
    ///
    /// # Errors
    /// If the tenant, the client or the resource does not exist.
    pub fn application_claims(&self, tenant: Uuid, client: Uuid, scope: &str) -> anyhow::Result<Object> {
        let tenant = self.tenant(tenant)?;
        let requested = self.requested(&tenant, scope)?;
        Ok(self.issuance(&tenant, client)?.application_token(&requested))
    }

    /// The claims of the ID token that `client` would get for a user.
    ///
    /// # Errors
    /// If the tenant, the client or the user does not exist.
    pub fn id_token_claims(&self, tenant: Uuid, client: Uuid, user: &str) -> anyhow::Result<Object> {
        let tenant = self.tenant(tenant)?;
        let found = tenant.directory.find_user(user).with_context(|| format!("no user {user}"))?;
        Ok(self.issuance(&tenant, client)?.id_token(found, None))
    }

    /// Access token for a user, without a sign-in.
    ///
    /// # Errors
    /// Same as [`Self::user_claims`].
    pub fn mint_user_access_token(
        &self,
        tenant: Uuid,
        client: Uuid,
        user: &str,
        scope: &str,
    ) -> anyhow::Result<String> {
        let claims = Value::Object(self.user_claims(tenant, client, user, scope)?);
        let known = self.tenant(tenant)?;
        known.sign(self.requested(&known, scope)?.resource, &claims)
    }

    fn tenant(&self, id: Uuid) -> anyhow::Result<Arc<TenantState>> {
        self.shared.tenant(id).with_context(|| format!("no tenant {id}"))
    }

    fn requested<'t>(&self, tenant: &'t TenantState, scope: &str) -> anyhow::Result<Requested<'t>> {
        match Requested::parse(scope, &tenant.directory, &self.shared.graph) {
            Ok(requested) => Ok(requested),
            Err(error) => bail!("the scope {scope}: {error}"),
        }
    }

    fn issuance<'a>(&'a self, tenant: &'a TenantState, client: Uuid) -> anyhow::Result<Issuance<'a>> {
        let app = tenant.directory.app(client);
        let client = app.with_context(|| format!("no app {client}"))?;
        Ok(Issuance {
            authority: &self.shared.authority,
            tenant: &tenant.directory,
            client,
            authenticated: !client.public_client,
            now: self.shared.now(),
            issue: self.shared.next_issue(),
        })
    }
}
