//! Volumes of a pod on disk: reads their sources, requests their tokens, and replaces their files as a kubelet does.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount, ServiceAccountTokenProjection, Volume};
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt};
use uuid::Uuid;

use super::files::{Content, Files, Origin, TokenKey, tokens};
use super::request;
use super::sources::{Sources, of_volumes};

/// Default lifetime of a token.
const DEFAULT_TOKEN_SECONDS: i64 = 3600;
/// Maximum age of a token. A kubelet replaces even a long-lived token after a day.
const TOKEN_MAX_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// Volumes of one pod.
pub(super) struct Volumes {
    client: Client,
    folder: PathBuf,
    address: Ipv4Addr,
    published: BTreeMap<String, Files>,
    tokens: BTreeMap<TokenKey, Token>,
}

struct Token {
    value: String,
    renewal: Timestamp,
}

impl Volumes {
    /// Creates the volumes below `folder`, one folder each, by name. Nothing exists before the first [`Volumes::sync`].
    pub(super) fn new(client: Client, folder: PathBuf, address: Ipv4Addr) -> Self {
        Self { client, folder, address, published: BTreeMap::new(), tokens: BTreeMap::new() }
    }

    /// Updates every volume. A volume that fails keeps its files and does not stop the others. The first error is
    /// returned.
    pub(super) async fn sync(&mut self, pod: &Pod) -> anyhow::Result<()> {
        let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
        let namespace = pod.namespace().unwrap_or_default();
        self.renew_tokens(pod, volumes).await?;
        let sources = Sources::fetch(&self.client, &namespace, of_volumes(volumes)).await?;
        let mut result = Ok(());
        for volume in volumes {
            let outcome = self.publish(pod, volume, &sources);
            result =
                result.and(outcome.with_context(|| format!("MountVolume.SetUp failed for volume \"{}\"", volume.name)));
        }
        result
    }

    /// Time at which the first token must be replaced.
    pub(super) fn next_renewal(&self) -> Option<Timestamp> {
        self.tokens.values().map(|token| token.renewal).min()
    }

    async fn renew_tokens(&mut self, pod: &Pod, volumes: &[Volume]) -> anyhow::Result<()> {
        for (key, projection) in tokens(volumes) {
            let due = |token: &Token| token.renewal <= Timestamp::now();
            if self.tokens.get(&key).is_none_or(due) {
                let token = request_token(&self.client, pod, projection)
                    .await
                    .with_context(|| format!("failed to fetch token for volume \"{}\"", key.0))?;
                self.tokens.insert(key, token);
            }
        }
        Ok(())
    }

    fn publish(&mut self, pod: &Pod, volume: &Volume, sources: &Sources) -> anyhow::Result<()> {
        let tokens = self.tokens.iter().map(|(key, token)| (key.clone(), token.value.clone())).collect();
        let folder = self.folder.join(&volume.name);
        let origin = Origin { pod, sources, tokens: &tokens, address: self.address };
        match origin.content(volume)? {
            Content::Empty => make_folder(&folder)?,
            Content::Files(files) if self.published.get(&volume.name) == Some(&files) => {}
            Content::Files(files) => {
                replace(&folder, &files)?;
                self.published.insert(volume.name.clone(), files);
            }
        }
        Ok(())
    }
}

async fn request_token(
    client: &Client,
    pod: &Pod,
    projection: &ServiceAccountTokenProjection,
) -> anyhow::Result<Token> {
    let spec = pod.spec.as_ref();
    let account = spec.and_then(|spec| spec.service_account_name.as_deref()).unwrap_or("default");
    let request_body = TokenRequest {
        spec: TokenRequestSpec {
            audiences: projection.audience.iter().cloned().collect(),
            expiration_seconds: Some(projection.expiration_seconds.unwrap_or(DEFAULT_TOKEN_SECONDS)),
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: Some(pod.name_any()),
                uid: pod.uid(),
            }),
        },
        ..TokenRequest::default()
    };
    let accounts = Api::<ServiceAccount>::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
    let parameters = PostParams::default();
    let issued = Timestamp::now();
    let answer = request(accounts.create_token_request(account, &parameters, &request_body)).await?;
    let status = answer.status.context("the API server answered without a token")?;
    Ok(Token { value: status.token, renewal: renewal(issued, status.expiration_timestamp.0) })
}

/// Returns the time of a token's replacement: at 80 % of its lifetime, and within a day.
fn renewal(issued: Timestamp, expires: Timestamp) -> Timestamp {
    let life = Duration::try_from(expires.duration_since(issued)).unwrap_or_default();
    let wait = life.mul_f64(0.8).min(TOKEN_MAX_AGE);
    issued.checked_add(wait).unwrap_or(issued)
}

fn make_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Replaces all files of a volume atomically, in a kubelet's layout. The files are in their own folder, the link
/// `..data` points to it, and every name in the volume is a link through `..data`. Replacing this link changes all
/// files. A program that watches the volume sees the same as on a real node.
fn replace(volume: &Path, files: &Files) -> io::Result<()> {
    make_folder(volume)?;
    let data = volume.join("..data");
    let old = fs::read_link(&data).ok();
    let new = format!("..{}_{}", Timestamp::now().strftime("%Y_%m_%d_%H_%M_%S"), Uuid::new_v4().simple());
    for (path, file) in files {
        let path = volume.join(&new).join(path);
        path.parent().map(make_folder).transpose()?;
        fs::write(&path, &file.content)?;
        fs::set_permissions(&path, Permissions::from_mode(file.mode))?;
    }
    make_folder(&volume.join(&new))?;
    let swap = volume.join("..data_tmp");
    // A link from a failed attempt would prevent the next one.
    let _ = fs::remove_file(&swap);
    symlink(&new, &swap)?;
    fs::rename(&swap, &data)?;
    let names: Vec<_> = files.keys().filter_map(|path| path.components().next()).collect();
    for name in &names {
        let link = volume.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new("..data").join(name), &link)?;
        }
    }
    for entry in fs::read_dir(volume)? {
        let name = entry?.file_name();
        let internal = name.to_string_lossy().starts_with("..");
        if !internal && !names.contains(&Component::Normal(&name)) {
            fs::remove_file(volume.join(&name))?;
        }
    }
    old.map(|old| fs::remove_dir_all(volume.join(old))).transpose()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::files::File;
    use super::*;

    fn files(entries: &[(&str, &str)]) -> Files {
        let file = |content: &str| File { content: content.as_bytes().to_vec(), mode: 0o640 };
        entries.iter().map(|(path, content)| (PathBuf::from(path), file(content))).collect()
    }

    #[test]
    fn files_are_replaced_through_one_link_as_on_a_real_node() {
        let folder = tempfile::tempdir().unwrap();
        let volume = folder.path().join("v");
        replace(&volume, &files(&[("a", "1"), ("deep/b", "2")])).unwrap();
        let first = fs::read_link(volume.join("..data")).unwrap();
        assert_eq!(fs::read_link(volume.join("a")).unwrap(), Path::new("..data/a"));
        assert_eq!(fs::read_to_string(volume.join("deep/b")).unwrap(), "2");
        let mode = fs::metadata(volume.join("a")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);

        replace(&volume, &files(&[("a", "new"), ("c", "3")])).unwrap();
        assert_eq!(fs::read_to_string(volume.join("a")).unwrap(), "new");
        assert_ne!(fs::read_link(volume.join("..data")).unwrap(), first);
        let mut names: Vec<_> = fs::read_dir(&volume)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.starts_with("..2"))
            .collect();
        names.sort();
        assert_eq!(names, ["..data", "a", "c"], "files that left the volume are removed from the folder");
        assert!(!volume.join(first).exists(), "the replaced files are removed");
    }

    #[test]
    fn an_empty_volume_is_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        replace(&folder.path().join("v"), &Files::new()).unwrap();
        assert!(folder.path().join("v/..data").is_dir());
    }

    #[test]
    fn a_token_is_due_at_four_fifths_of_its_life_and_after_a_day_at_the_latest() {
        let issued: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        for (expires, expected) in [
            ("2026-01-01T00:10:00Z", "2026-01-01T00:08:00Z"),
            ("2026-01-01T01:00:00Z", "2026-01-01T00:48:00Z"),
            ("2026-01-05T00:00:00Z", "2026-01-02T00:00:00Z"),
            ("2025-12-31T00:00:00Z", "2026-01-01T00:00:00Z"),
        ] {
            let expected: Timestamp = expected.parse().unwrap();
            assert_eq!(renewal(issued, expires.parse().unwrap()), expected, "expires {expires}");
        }
    }
}
