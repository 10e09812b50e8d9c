//! Files of a volume, derived from its spec and the objects that it refers to.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::{
    DownwardAPIVolumeFile, KeyToPath, Pod, ServiceAccountTokenProjection, Volume, VolumeProjection,
};

use super::sources::{Data, Kind, Missing, Sources, field};

/// Default mode of files, as in every such volume of Kubernetes.
const DEFAULT_MODE: i32 = 0o644;

/// Files of a volume by their path in it.
pub(super) type Files = BTreeMap<PathBuf, File>;

/// Content and permission bits of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct File {
    pub(super) content: Vec<u8>,
    pub(super) mode: u32,
}

/// Content of a volume on the node.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// Empty folder for writes of the pod's processes.
    Empty,
    /// Files that are replaced atomically.
    Files(Files),
}

/// Token of a pod's volume: the volume's name and the token's path in it.
pub(super) type TokenKey = (String, String);

/// Tokens that the volumes project.
pub(super) fn tokens(volumes: &[Volume]) -> impl Iterator<Item = (TokenKey, &ServiceAccountTokenProjection)> {
    volumes.iter().flat_map(|volume| {
        let sources = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
        sources
            .filter_map(|source| source.service_account_token.as_ref())
            .map(|token| ((volume.name.clone(), token.path.clone()), token))
    })
}

/// Sources of the volumes of a pod.
pub(super) struct Origin<'a> {
    pub(super) pod: &'a Pod,
    pub(super) sources: &'a Sources,
    pub(super) tokens: &'a BTreeMap<TokenKey, String>,
    /// Address of the pod.
    pub(super) address: Ipv4Addr,
}

impl Origin<'_> {
    /// Returns the content of `volume`.
    pub(super) fn content(&self, volume: &Volume) -> Result<Content, Missing> {
        if volume.empty_dir.is_some() {
            return Ok(Content::Empty);
        }
        let mut files = Files::new();
        if let Some(from) = &volume.config_map {
            let data = self.sources.data(Kind::ConfigMap, &from.name, from.optional)?;
            let mode = from.default_mode;
            files.extend(selected(Kind::ConfigMap, data, from.items.as_deref(), from.optional, mode)?);
        } else if let Some(from) = &volume.secret {
            let name = from.secret_name.as_deref().unwrap_or_default();
            let data = self.sources.data(Kind::Secret, name, from.optional)?;
            let mode = from.default_mode;
            files.extend(selected(Kind::Secret, data, from.items.as_deref(), from.optional, mode)?);
        } else if let Some(from) = &volume.downward_api {
            files.extend(self.downward(from.items.as_deref(), from.default_mode)?);
        } else if let Some(from) = &volume.projected {
            for source in from.sources.iter().flatten() {
                files.extend(self.projected(&volume.name, source, from.default_mode)?);
            }
        } else {
            return Err(Missing::Unsupported("this kind of volume"));
        }
        Ok(Content::Files(files))
    }

    fn projected(&self, volume: &str, source: &VolumeProjection, mode: Option<i32>) -> Result<Files, Missing> {
        let mut files = Files::new();
        if let Some(from) = &source.config_map {
            let data = self.sources.data(Kind::ConfigMap, &from.name, from.optional)?;
            files.extend(selected(Kind::ConfigMap, data, from.items.as_deref(), from.optional, mode)?);
        }
        if let Some(from) = &source.secret {
            let data = self.sources.data(Kind::Secret, &from.name, from.optional)?;
            files.extend(selected(Kind::Secret, data, from.items.as_deref(), from.optional, mode)?);
        }
        if let Some(from) = &source.downward_api {
            files.extend(self.downward(from.items.as_deref(), mode)?);
        }
        if let Some(from) = &source.service_account_token {
            let token = self.tokens.get(&(volume.to_owned(), from.path.clone()));
            let token = token.ok_or(Missing::Unsupported("a token it did not request"))?;
            files.insert(PathBuf::from(&from.path), file(token.as_bytes(), None, mode));
        }
        if source.cluster_trust_bundle.is_some() {
            return Err(Missing::Unsupported("cluster trust bundles"));
        }
        Ok(files)
    }

    fn downward(&self, items: Option<&[DownwardAPIVolumeFile]>, default_mode: Option<i32>) -> Result<Files, Missing> {
        let mut files = Files::new();
        for item in items.into_iter().flatten() {
            let selector = item.field_ref.as_ref().ok_or(Missing::Unsupported("resourceFieldRef"))?;
            let value = field(self.pod, selector, self.address)?;
            files.insert(PathBuf::from(&item.path), file(value.as_bytes(), item.mode, default_mode));
        }
        Ok(files)
    }
}

/// Returns the keys that `items` name, or all.
fn selected(
    kind: Kind,
    data: Option<&Data>,
    items: Option<&[KeyToPath]>,
    optional: Option<bool>,
    default_mode: Option<i32>,
) -> Result<Files, Missing> {
    let Some(data) = data else {
        return Ok(Files::new());
    };
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        let all = data.iter().map(|(key, content)| (PathBuf::from(key), file(content, None, default_mode)));
        return Ok(all.collect());
    };
    let mut files = Files::new();
    for item in items {
        match data.get(&item.key) {
            Some(content) => {
                files.insert(PathBuf::from(&item.path), file(content, item.mode, default_mode));
            }
            None if optional == Some(true) => {}
            None => return Err(Missing::Item(kind, item.key.clone())),
        }
    }
    Ok(files)
}

fn file(content: &[u8], mode: Option<i32>, default_mode: Option<i32>) -> File {
    let mode = mode.or(default_mode).unwrap_or(DEFAULT_MODE);
    File { content: content.to_vec(), mode: u32::try_from(mode).unwrap_or_default() & 0o777 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::path::Path;

    fn sources() -> Sources {
        let data = BTreeMap::from([("a".to_owned(), b"1".to_vec()), ("b".to_owned(), b"2".to_vec())]);
        Sources(BTreeMap::from([((Kind::ConfigMap, "c".to_owned()), data)]))
    }

    fn content_of(volume: Value) -> Result<Content, Missing> {
        let pod: Pod = serde_json::from_value(json!({ "metadata": { "name": "p", "labels": { "l": "v" } } })).unwrap();
        let volume: Volume = serde_json::from_value(volume).unwrap();
        let tokens = BTreeMap::from([(("v".to_owned(), "token".to_owned()), "jwt".to_owned())]);
        let (pod, sources, tokens, address) = (&pod, &sources(), &tokens, Ipv4Addr::LOCALHOST);
        Origin { pod, sources, tokens, address }.content(&volume)
    }

    fn files_of(volume: Value) -> Files {
        match content_of(volume).unwrap() {
            Content::Files(files) => files,
            Content::Empty => panic!("files expected"),
        }
    }

    #[test]
    fn a_config_map_volume_holds_every_key_with_the_default_mode() {
        let files = files_of(json!({ "name": "v", "configMap": { "name": "c", "defaultMode": 0o440 } }));
        assert_eq!(files.len(), 2);
        assert_eq!(files[Path::new("a")], File { content: b"1".to_vec(), mode: 0o440 });
    }

    #[test]
    fn items_select_keys_paths_and_modes() {
        let items = json!([{ "key": "b", "path": "deep/b", "mode": 0o600 }]);
        let files = files_of(json!({ "name": "v", "configMap": { "name": "c", "items": items } }));
        let expected = File { content: b"2".to_vec(), mode: 0o600 };
        assert_eq!(files, Files::from([(PathBuf::from("deep/b"), expected)]));
    }

    #[test]
    fn a_missing_source_is_an_error_unless_optional() {
        let missing = content_of(json!({ "name": "v", "configMap": { "name": "no" } })).unwrap_err();
        assert_eq!(missing.to_string(), "configmap \"no\" not found");
        let items = json!([{ "key": "no", "path": "x" }]);
        let missing = content_of(json!({ "name": "v", "configMap": { "name": "c", "items": items } })).unwrap_err();
        assert_eq!(missing.to_string(), "references non-existent configmap key: no");
        for optional in
            [json!({ "name": "no", "optional": true }), json!({ "name": "c", "optional": true, "items": items })]
        {
            assert_eq!(files_of(json!({ "name": "v", "configMap": optional })), Files::new());
        }
    }

    #[test]
    fn a_projected_volume_joins_its_sources() {
        let files = files_of(json!({ "name": "v", "projected": { "defaultMode": 0o400, "sources": [
            { "serviceAccountToken": { "path": "token", "audience": "a" } },
            { "configMap": { "name": "c", "items": [{ "key": "a", "path": "a.txt" }] } },
            { "downwardAPI": { "items": [{ "path": "labels", "fieldRef": { "fieldPath": "metadata.labels" } }] } }
        ] } }));
        let content = |path: &str| String::from_utf8(files[Path::new(path)].content.clone()).unwrap();
        assert_eq!([content("token"), content("a.txt"), content("labels")], ["jwt", "1", "l=\"v\""]);
        assert_eq!(files[Path::new("token")].mode, 0o400);
    }

    #[test]
    fn an_empty_dir_is_empty_and_other_kinds_are_refused() {
        assert_eq!(content_of(json!({ "name": "v", "emptyDir": {} })), Ok(Content::Empty));
        let refused = content_of(json!({ "name": "v", "hostPath": { "path": "/" } }));
        assert_eq!(refused, Err(Missing::Unsupported("this kind of volume")));
    }
}
