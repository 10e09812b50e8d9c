//! The machine policy: bounds that an administrator sets for all users of local mode.
//!
//! The file's path is fixed. No flag or environment variable changes it, because the user controls both.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, de};

use super::settings::{self, CLOUDS, Settings};
use super::store::StoreKind;

/// Longest file that is read, in bytes.
const MAXIMUM_LENGTH: usize = 64 * 1024;

/// Bounds of the settings. Without a file, there are no bounds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct MachinePolicy {
    /// The file.
    #[serde(skip)]
    path: PathBuf,
    /// The allowed tenants in lower case, each only at the addresses of a known cloud. Absent means any tenant at any
    /// address.
    #[serde(deserialize_with = "tenants")]
    tenants: Option<BTreeSet<String>>,
    /// Rule for tokens in an unencrypted file.
    file_store: Rule,
    /// Rule for sign-ins with a device code.
    device_code: Rule,
    /// Rule for tools that write.
    writes: Rule,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
enum Rule {
    #[default]
    Allowed,
    Forbidden,
}

/// The reason why the policy is not usable. Local mode does not start then.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum MachinePolicyError {
    /// The file exists but cannot be read.
    #[error("the policy of this machine, {path}, cannot be read ({problem}): ask the administrator to make it readable for all users", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        problem: String,
    },
    /// The file has the wrong form.
    #[error("the policy of this machine, {path}, is not valid ({problem}): ask the administrator to correct it", path = path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// The error, with line and column.
        problem: String,
    },
}

/// A setting that the policy forbids.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the policy of this machine, {path}, forbids {forbidden}: ask the administrator to allow it, or {instead}", path = path.display())]
pub struct Forbidden {
    path: PathBuf,
    forbidden: String,
    instead: &'static str,
}

/// Returns the path of the policy.
pub fn path() -> PathBuf {
    // On Windows, only `FOLDERID_ProgramData` is more precise, and no crate here reads it. The user controls the
    // variable `ProgramData`.
    let path = match std::env::consts::OS {
        "windows" => r"C:\ProgramData\mcp-entra\local.yaml",
        "macos" => "/Library/Application Support/mcp-entra/local.yaml",
        _ => "/etc/mcp-entra/local.yaml",
    };
    path.into()
}

/// Reads the policy. Blocks.
pub fn read(path: &Path) -> Result<MachinePolicy, MachinePolicyError> {
    let unreadable =
        |error: io::Error| MachinePolicyError::Unreadable { path: path.into(), problem: error.to_string() };
    let wrong = |problem: String| MachinePolicyError::Form { path: path.into(), problem };
    let mut text = Vec::new();
    match File::open(path) {
        Ok(file) => file.take(MAXIMUM_LENGTH as u64 + 1).read_to_end(&mut text).map_err(unreadable)?,
        // A dangling link counts as unreadable, not as an absent policy.
        Err(error) if error.kind() == ErrorKind::NotFound && path.symlink_metadata().is_err() => {
            return Ok(MachinePolicy::default());
        }
        Err(error) => return Err(unreadable(error)),
    };
    if text.len() > MAXIMUM_LENGTH {
        return Err(wrong(format!("it is longer than {MAXIMUM_LENGTH} bytes")));
    }
    let policy: MachinePolicy = serde_yaml::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
    Ok(MachinePolicy { path: path.to_owned(), ..policy })
}

/// Reads the tenants. Only an absent list means any tenant.
fn tenants<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<BTreeSet<String>>, D::Error> {
    let names = Vec::<String>::deserialize(deserializer)?;
    let tenant = |name: String| {
        settings::tenant(&name).map_err(|error| de::Error::custom(format_args!("the tenant {name:?} {error}")))
    };
    names.into_iter().map(tenant).collect::<Result<_, _>>().map(Some)
}

impl MachinePolicy {
    /// Refuses settings that the policy forbids.
    pub fn bound(&self, settings: &Settings) -> Result<(), Forbidden> {
        let forbidden = |forbidden, instead| Err(Forbidden { path: self.path.clone(), forbidden, instead });
        let Settings { tenant, authority, graph_url, store, device_code, .. } = settings;
        if let Some(tenants) = &self.tenants {
            if !tenants.contains(tenant) {
                return forbidden(format!("the tenant {tenant}"), "name the tenant in the same way as the policy");
            }
            // At other addresses, a tenant with this name is a different one.
            if !CLOUDS.iter().any(|(_, cloud)| cloud.authority() == authority && cloud.graph() == graph_url) {
                let addresses = format!("the addresses {authority} and {graph_url}, which do not belong to one cloud");
                return forbidden(addresses, "remove --authority and --graph-url");
            }
        }
        if self.file_store == Rule::Forbidden && *store == StoreKind::File {
            return forbidden("tokens in a plain file".to_owned(), "choose --token-store os or memory");
        }
        if self.device_code == Rule::Forbidden && *device_code {
            return forbidden("sign-ins with a device code".to_owned(), "remove --device-code");
        }
        match settings.writing().next() {
            Some(tool) if self.writes == Rule::Forbidden => {
                forbidden(format!("tools that write ({tool})"), "remove --allow")
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use mcp_entra_policy::Cloud;

    use super::*;

    const GUID: &str = "8f6b1c52-0d4e-4c0a-9b7f-2a1d3e4f5a6b";

    fn settings() -> Settings {
        Settings {
            tenant: "contoso.com".into(),
            client_id: GUID.into(),
            authority: Cloud::Public.authority().into(),
            graph_url: Cloud::Public.graph().into(),
            scopes: ["User.Read".to_owned()].into(),
            tools: ["get_user_details".to_owned()].into(),
            aliases: [].into(),
            store: StoreKind::Os,
            device_code: false,
            trust_bundle: None,
            log_file: None,
            audit_file: None,
        }
    }

    fn read_text(text: &str) -> Result<MachinePolicy, MachinePolicyError> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("local.yaml");
        std::fs::write(&file, text).unwrap();
        read(&file)
    }

    #[test]
    fn each_field_bounds_its_setting_and_no_other() {
        let settings = settings();
        let in_file = Settings { store: StoreKind::File, ..settings.clone() };
        let in_memory = Settings { store: StoreKind::Memory, ..settings.clone() };
        let by_device = Settings { device_code: true, ..settings.clone() };
        let tools = ["get_user_details".to_owned(), "send_mail".to_owned()].into();
        let writing = Settings { tools, ..settings.clone() };
        let by_guid = Settings { tenant: GUID.into(), ..settings.clone() };
        let authority = Settings { authority: "https://login.example".into(), ..settings.clone() };
        let graph = Settings { graph_url: "https://graph.example".into(), ..settings.clone() };
        let mixed = Settings { graph_url: Cloud::China.graph().into(), ..settings.clone() };
        let in_china = Settings { authority: Cloud::China.authority().into(), ..mixed.clone() };
        let in_dod = Settings {
            authority: Cloud::USGovDoD.authority().into(),
            graph_url: Cloud::USGovDoD.graph().into(),
            ..settings.clone()
        };
        let elsewhere = [&authority, &graph, &mixed];
        let named = [&settings, &in_file, &in_memory, &by_device, &writing, &in_china, &in_dod];
        let all = [&named[..], &elsewhere, &[&by_guid]].concat();
        let upper = format!("tenants: [{}]", GUID.to_uppercase());
        for (text, refused) in [
            ("{}", &[][..]),
            ("# writes: Forbidden", &[]),
            ("fileStore: Allowed\ndeviceCode: Allowed\nwrites: Allowed", &[]),
            ("tenants: [Contoso.COM]", &[&elsewhere[..], &[&by_guid]].concat()),
            (&upper, &[&named[..], &elsewhere].concat()),
            ("tenants: []", &all),
            ("fileStore: Forbidden", &[&in_file]),
            ("deviceCode: Forbidden", &[&by_device]),
            ("writes: Forbidden", &[&writing]),
        ] {
            let policy = read_text(text).unwrap();
            for settings in &all {
                let bound = policy.bound(settings);
                assert_eq!(bound.is_err(), refused.contains(settings), "{text}: {bound:?}");
                if let Err(error) = bound {
                    let error = error.to_string();
                    assert!(error.contains("local.yaml") && error.contains("ask the administrator"), "{error}");
                }
            }
        }
    }

    #[test]
    fn a_policy_that_is_not_there_bounds_nothing() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read(&folder.path().join("local.yaml")), Ok(MachinePolicy::default()));
        assert_eq!(read(&folder.path().join("no-folder/local.yaml")), Ok(MachinePolicy::default()));
    }

    #[test]
    fn a_policy_that_is_wrong_in_any_way_keeps_local_mode_from_starting() {
        for (text, part) in [
            ("tenants: [contoso.com", "line 2 column 1"),
            ("fileStore: Forbidden\nwrite: Forbidden", "line 2 column 1"),
            ("path: /", "unknown field"),
            ("fileStore: forbidden", "forbidden"),
            ("writes:", "line 1"),
            ("deviceCode: false", ""),
            ("writes: Forbidden\nwrites: Allowed", "duplicate"),
            ("tenants: contoso.com", "line 1 column 10"),
            ("tenants: [common]", "\"common\" means many tenants"),
            ("tenants: [contoso]", "\"contoso\" is neither"),
            ("- a", ""),
        ] {
            let error = read_text(text).expect_err(text).to_string();
            assert!(error.contains(part) && error.contains("local.yaml"), "{text}: {error}");
            assert!(error.contains("ask the administrator") && !error.contains('\n'), "{text}: {error}");
        }
        let policy = read_text("tenants:");
        assert!(policy.is_err() || policy.unwrap().bound(&settings()).is_err(), "a list that was forgotten allows all");
    }

    #[test]
    fn a_policy_that_cannot_be_read_keeps_local_mode_from_starting() {
        let folder = tempfile::tempdir().unwrap();
        let error = read(folder.path()).unwrap_err();
        assert!(matches!(error, MachinePolicyError::Unreadable { .. }), "{error}");
        #[cfg(unix)]
        {
            let link = folder.path().join("local.yaml");
            std::os::unix::fs::symlink("nowhere", &link).unwrap();
            let error = read(&link).unwrap_err();
            assert!(matches!(error, MachinePolicyError::Unreadable { .. }), "{error}");
        }
    }

    #[test]
    fn a_policy_is_read_up_to_its_limit() {
        let text = |length: usize| "writes: Forbidden\n".to_owned() + &"#".repeat(length - 18);
        assert!(read_text(&text(MAXIMUM_LENGTH)).is_ok());
        let error = read_text(&text(MAXIMUM_LENGTH + 1)).unwrap_err();
        assert!(error.to_string().contains("longer than 65536 bytes"), "{error}");
    }
}
