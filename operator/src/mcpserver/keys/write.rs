//! Writes of key epochs: creates missing ConfigMaps and Secrets, and deletes ConfigMaps of unused epochs.
//!
//! The ConfigMap comes first, because it owns the Secret. The operator has no permission to read Secrets. It tries to
//! create each Secret again after a restart, and while a pod is not ready, because the pod may wait for the Secret.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{
    Api, Client,
    api::{DeleteParams, PostParams, Preconditions},
};
use rand::{TryRng, rngs::SysRng};
use zeroize::Zeroize;

use super::{
    epochs::{Decision, Epoch},
    names::name,
    objects::{KEY_BYTES, config_map, secret},
    seen::{KnownEpoch, KnownEpochs},
};
use crate::{
    MANAGER,
    objects::owner::Owner,
    runtime::errors::{Error, code},
};

/// The pause between attempts to create a Secret while a pod is not ready.
const AGAIN: Duration = Duration::from_secs(10);

/// The writer of one McpServer's key epochs.
pub(crate) struct KeyWriter<'a> {
    pub(crate) client: &'a Client,
    pub(crate) owner: &'a Owner,
    pub(crate) known: &'a mut KnownEpochs,
}

impl KeyWriter<'_> {
    /// Creates what is missing for the epochs that pods use. `is_waiting` is true while a pod is not ready.
    pub(crate) async fn make(&mut self, decision: &Decision, is_waiting: bool) -> Result<(), Error> {
        if let Some(epoch) = &decision.made {
            let made = self.make_config_map(epoch).await?;
            self.known.insert(epoch.number, made);
        }
        for epoch in &decision.kept {
            let Some(known) = self.known.get(&epoch.number) else { continue };
            let is_due = known.secret_made.is_none_or(|made| is_waiting && made.elapsed() >= AGAIN);
            if is_due {
                self.make_secret(epoch.number, known.uid.clone()).await?;
            }
        }
        Ok(())
    }

    async fn make_config_map(&self, epoch: &Epoch) -> Result<KnownEpoch, Error> {
        let object = format!("ConfigMap {}", name(self.owner, epoch.number));
        let api = Api::<ConfigMap>::namespaced(self.client.clone(), &self.owner.namespace);
        match api.create(&parameters(), &config_map(self.owner, epoch)?).await {
            Ok(made) => {
                tracing::info!(server = %self.owner.name, namespace = %self.owner.namespace, epoch = epoch.number,
                    cause = ?epoch.cause, used_from = epoch.used_from, "created a key epoch");
                let uid = made.metadata.uid.unwrap_or_default().into();
                Ok(KnownEpoch { uid, epoch: epoch.clone(), secret_made: None })
            }
            // The watch will show its content, which counts.
            Err(error) if code(&error) == Some(409) => Err(Error::Contended { object, attempts: 1 }),
            Err(error) => Err(Error::kubernetes(format!("creating {object}"))(error)),
        }
    }

    async fn make_secret(&mut self, number: u32, config_map_uid: Box<str>) -> Result<(), Error> {
        let name = name(self.owner, number);
        let mut key = vec![0; KEY_BYTES];
        SysRng.try_fill_bytes(&mut key).map_err(|_| Error::NoRandomness)?;
        let mut secret = secret(self.owner, number, &config_map_uid, key);
        let api = Api::<Secret>::namespaced(self.client.clone(), &self.owner.namespace);
        let created = api.create(&parameters(), &secret).await.map(forget);
        forget(std::mem::take(&mut secret));
        match created {
            Ok(()) => {
                tracing::info!(server = %self.owner.name, namespace = %self.owner.namespace, secret = name,
                    "created the key of an epoch");
            }
            Err(error) if code(&error) == Some(409) => {}
            Err(error) => return Err(Error::kubernetes(format!("creating Secret {name}"))(error)),
        }
        if let Some(known) = self.known.get_mut(&number) {
            known.secret_made = Some(Instant::now());
        }
        Ok(())
    }

    /// Deletes the ConfigMaps of these epochs. The garbage collector deletes their Secrets.
    pub(crate) async fn prune(&mut self, pruned: &[u32]) -> Result<(), Error> {
        let api = Api::<ConfigMap>::namespaced(self.client.clone(), &self.owner.namespace);
        for number in pruned {
            let Some(known) = self.known.get(number) else { continue };
            let name = name(self.owner, *number);
            let preconditions = Preconditions { uid: Some(known.uid.to_string()), resource_version: None };
            let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::background() };
            match api.delete(&name, &parameters).await {
                Ok(_) => tracing::info!(server = %self.owner.name, namespace = %self.owner.namespace, epoch = number,
                    "deleted a key epoch that no pod uses"),
                Err(error) if matches!(code(&error), Some(404 | 409)) => {}
                Err(error) => return Err(Error::kubernetes(format!("deleting ConfigMap {name}"))(error)),
            }
        }
        Ok(())
    }
}

fn parameters() -> PostParams {
    PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() }
}

/// Overwrites the content of a Secret in memory.
fn forget(mut secret: Secret) {
    secret.data.iter_mut().flatten().for_each(|(_, value)| value.0.zeroize());
}
