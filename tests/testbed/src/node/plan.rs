//! Process of a container: program, arguments and environment, derived only from its spec.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, EnvVarSource, Pod};
use kube::ResourceExt;

use super::Image;
use super::account::Account;
use super::sources::{Kind, Missing, Sources, field};
use super::translate::{Translation, expand};

/// Default `PATH` of a container runtime.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Process to start.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<String>,
    pub(super) environment: BTreeMap<String, String>,
    pub(super) folder: Option<PathBuf>,
    /// Owner of the kubeconfig file in the environment.
    pub(super) account: Option<Account>,
}

/// Environment of a container that its process is planned from.
pub(super) struct Surroundings<'a> {
    pub(super) sources: &'a Sources,
    /// Folder with the pod's volumes by name.
    pub(super) volumes: &'a Path,
    /// Address of the pod.
    pub(super) address: Ipv4Addr,
}

/// Plans the process of a container and its image.
pub(super) fn process(
    pod: &Pod,
    container: &Container,
    image: &Image,
    surroundings: &Surroundings<'_>,
) -> Result<Process, Missing> {
    let Surroundings { sources, volumes, address } = *surroundings;
    let environment = environment(pod, container, sources, address)?;
    let translation = translation(container, &environment, volumes, address);
    let expanded = |text: &String| {
        let text = expand(text, |name| environment.get(name).map(String::as_str));
        translation.apply(&text)
    };
    let (program, mut arguments) = match container.command.as_deref() {
        Some([program, arguments @ ..]) => {
            (command(&expanded(program), image), arguments.iter().map(expanded).collect())
        }
        _ => (image.program.clone(), image.arguments.clone()),
    };
    arguments.extend(container.args.iter().flatten().map(expanded));
    let folder = container.working_dir.as_deref().map(|folder| PathBuf::from(translation.apply(folder)));
    let mut environment: BTreeMap<_, _> =
        environment.iter().map(|(name, value)| (name.clone(), translation.apply(value))).collect();
    let account = Account::of(container, volumes);
    let kubeconfig = account.as_ref().map(|account| ("KUBECONFIG", account.kubeconfig().display().to_string()));
    for (name, value) in [("PATH", path(image)), ("HOSTNAME", pod.name_any())].into_iter().chain(kubeconfig) {
        environment.entry(name.to_owned()).or_insert(value);
    }
    Ok(Process { program, arguments, environment, folder, account })
}

/// Resolves a command. The name of a program of the image means this program, wherever it is in the image. Any other is
/// a program of the machine.
fn command(program: &str, image: &Image) -> PathBuf {
    let program = Path::new(program);
    let named = image.programs().find(|known| known.file_name() == program.file_name());
    named.unwrap_or(program).to_owned()
}

/// Returns `PATH`: the folders of the image's programs, before those of the machine.
fn path(image: &Image) -> String {
    let folders: Vec<_> =
        image.programs().filter_map(Path::parent).map(|folder| folder.display().to_string()).collect();
    [folders.as_slice(), &[PATH.to_owned()]].concat().join(":")
}

/// Returns the variables of the container's spec. `$(NAME)` is expanded with earlier variables.
fn environment(
    pod: &Pod,
    container: &Container,
    sources: &Sources,
    address: Ipv4Addr,
) -> Result<BTreeMap<String, String>, Missing> {
    let mut environment = BTreeMap::new();
    for from in container.env_from.iter().flatten() {
        let config_map = from.config_map_ref.as_ref().map(|from| (Kind::ConfigMap, &from.name, from.optional));
        let secret = from.secret_ref.as_ref().map(|from| (Kind::Secret, &from.name, from.optional));
        let prefix = from.prefix.as_deref().unwrap_or_default();
        for (kind, name, optional) in config_map.into_iter().chain(secret) {
            for (key, value) in sources.data(kind, name, optional)?.into_iter().flatten() {
                environment.insert(format!("{prefix}{key}"), text(value));
            }
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (_, Some(source)) => referenced(pod, source, sources, address)?,
            (Some(value), None) => {
                let known = |name: &str| environment.get(name).map(String::as_str);
                Some(expand(value, known))
            }
            (None, None) => Some(String::new()),
        };
        environment.extend(value.map(|value| (variable.name.clone(), value)));
    }
    Ok(environment)
}

/// Returns the value of `valueFrom`; `None` if it is optional and absent.
fn referenced(
    pod: &Pod,
    source: &EnvVarSource,
    sources: &Sources,
    address: Ipv4Addr,
) -> Result<Option<String>, Missing> {
    if let Some(selector) = &source.field_ref {
        return field(pod, selector, address).map(Some);
    }
    let config_map = source.config_map_key_ref.as_ref();
    let secret = source.secret_key_ref.as_ref();
    let (kind, name, key, optional) = match (config_map, secret) {
        (Some(from), _) => (Kind::ConfigMap, &from.name, &from.key, from.optional),
        (None, Some(from)) => (Kind::Secret, &from.name, &from.key, from.optional),
        (None, None) => return Err(Missing::Unsupported("this kind of valueFrom")),
    };
    match sources.data(kind, name, optional)?.and_then(|data| data.get(key)) {
        Some(value) => Ok(Some(text(value))),
        None if optional == Some(true) => Ok(None),
        None => Err(Missing::Key {
            kind,
            namespace: pod.namespace().unwrap_or_default(),
            name: name.clone(),
            key: key.clone(),
        }),
    }
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).into_owned()
}

fn translation(
    container: &Container,
    environment: &BTreeMap<String, String>,
    volumes: &Path,
    address: Ipv4Addr,
) -> Translation {
    let mounts = container.volume_mounts.iter().flatten().map(|mount| {
        let expression = mount.sub_path_expr.as_deref();
        let expanded = expression.map(|path| expand(path, |name| environment.get(name).map(String::as_str)));
        let inside = expanded.or_else(|| mount.sub_path.clone()).unwrap_or_default();
        // Joining an empty path would add a slash.
        let volume = volumes.join(&mount.name);
        let folder = if inside.is_empty() { volume } else { volume.join(inside) };
        (mount.mount_path.clone(), folder)
    });
    Translation::new(mounts, address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn plan(container: Value, sources: &Sources) -> Result<Process, Missing> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": "p", "namespace": "n" },
            "spec": { "containers": [container] }
        }))
        .unwrap();
        let image = Image::from("/target/server").args(["serve"]).with_program("/tools/shim");
        let container = &pod.spec.as_ref().unwrap().containers[0];
        let (volumes, address) = (Path::new("/v"), Ipv4Addr::new(127, 244, 1, 2));
        process(&pod, container, &image, &Surroundings { sources, volumes, address })
    }

    fn planned(container: Value) -> Process {
        plan(container, &Sources::default()).unwrap()
    }

    fn sources() -> Sources {
        let data = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.as_bytes().to_vec())]);
        Sources(BTreeMap::from([
            ((Kind::ConfigMap, "c".to_owned()), data("COLOUR", "green")),
            ((Kind::Secret, "s".to_owned()), data("word", "hush")),
        ]))
    }

    #[test]
    fn arguments_follow_the_images_own_and_a_command_replaces_them() {
        let process = planned(json!({ "name": "c", "args": ["--port", "80"] }));
        assert_eq!(process.program, Path::new("/target/server"));
        assert_eq!(process.arguments, ["serve", "--port", "80"]);
        let process = planned(json!({ "name": "c", "command": ["/bin/sh", "-c"], "args": ["exit 0"] }));
        assert_eq!(process.program, Path::new("/bin/sh"));
        assert_eq!(process.arguments, ["-c", "exit 0"]);
    }

    #[test]
    fn a_command_may_name_a_program_by_its_path_in_the_image() {
        let process = planned(json!({ "name": "c", "command": ["/usr/bin/server", "check"] }));
        assert_eq!(process.program, Path::new("/target/server"));
        assert_eq!(process.arguments, ["check"]);
        let process = planned(json!({ "name": "c", "command": ["/shim", "install"] }));
        assert_eq!(process.program, Path::new("/tools/shim"));
        assert_eq!(process.arguments, ["install"], "the entry point's own arguments are not the other program's");
    }

    #[test]
    fn programs_of_the_image_are_found_by_name_before_the_machines() {
        let process = planned(json!({ "name": "c" }));
        assert!(process.environment["PATH"].starts_with("/target:/tools:/usr/local/sbin:"), "{process:?}");
    }

    #[test]
    fn variables_expand_earlier_variables_and_arguments_expand_all() {
        let process = planned(json!({
            "name": "c",
            "env": [
                { "name": "EARLY", "value": "$(LATE)" },
                { "name": "LATE", "value": "x" },
                { "name": "BOTH", "value": "$(LATE)-$$(LATE)" }
            ],
            "args": ["$(BOTH)", "$(NONE)"]
        }));
        assert_eq!(process.environment["EARLY"], "$(LATE)");
        assert_eq!(process.environment["BOTH"], "x-$(LATE)");
        assert_eq!(process.arguments, ["serve", "x-$(LATE)", "$(NONE)"]);
    }

    #[test]
    fn the_environment_has_only_the_variables_of_the_spec_and_the_runtime() {
        let process = planned(json!({ "name": "c", "env": [{ "name": "A", "value": "1" }] }));
        let names: Vec<_> = process.environment.keys().map(String::as_str).collect();
        assert_eq!(names, ["A", "HOSTNAME", "PATH"]);
        assert_eq!(process.environment["HOSTNAME"], "p");
    }

    #[test]
    fn values_come_from_config_maps_secrets_and_the_pod() {
        let process = plan(
            json!({
                "name": "c",
                "envFrom": [{ "prefix": "X_", "configMapRef": { "name": "c" } }],
                "env": [
                    { "name": "WORD", "valueFrom": { "secretKeyRef": { "name": "s", "key": "word" } } },
                    { "name": "ME", "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } },
                    { "name": "X_COLOUR", "value": "not $(X_COLOUR)" },
                    { "name": "GONE", "valueFrom": { "secretKeyRef": { "name": "s", "key": "k", "optional": true } } },
                    { "name": "GONE2", "valueFrom": { "configMapKeyRef": { "name": "no", "key": "k", "optional": true } } }
                ]
            }),
            &sources(),
        )
        .unwrap();
        assert_eq!(process.environment["WORD"], "hush");
        assert_eq!(process.environment["ME"], "127.244.1.2");
        assert_eq!(process.environment["X_COLOUR"], "not green");
        assert!(!process.environment.contains_key("GONE"));
        assert!(!process.environment.contains_key("GONE2"));
    }

    #[test]
    fn missing_values_are_reported_in_the_kubelets_words() {
        let missing = |source: Value| {
            let container = json!({ "name": "c", "env": [{ "name": "A", "valueFrom": source }] });
            plan(container, &sources()).unwrap_err().to_string()
        };
        assert_eq!(missing(json!({ "configMapKeyRef": { "name": "no", "key": "k" } })), "configmap \"no\" not found");
        assert_eq!(
            missing(json!({ "secretKeyRef": { "name": "s", "key": "k" } })),
            "couldn't find key k in Secret n/s"
        );
    }

    #[test]
    fn a_container_with_a_mounted_account_token_gets_a_kubeconfig_file() {
        let process = planned(json!({
            "name": "c",
            "volumeMounts": [
                { "name": "kube-api-access-x", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount" }
            ]
        }));
        assert_eq!(process.environment["KUBECONFIG"], "/v/kube-api-access-x.kubeconfig");
    }

    #[test]
    fn mount_paths_and_all_interfaces_are_rewritten_once_in_arguments_and_environment() {
        let process = planned(json!({
            "name": "c",
            "env": [{ "name": "TOKEN", "value": "/var/run/secrets/t/token" }],
            "args": ["--token=$(TOKEN)", "--part=/one.yaml", "0.0.0.0:80"],
            "workingDir": "/var/run/secrets/t",
            "volumeMounts": [
                { "name": "token", "mountPath": "/var/run/secrets/t" },
                { "name": "config", "mountPath": "/one.yaml", "subPath": "a.yaml" }
            ]
        }));
        assert_eq!(process.environment["TOKEN"], "/v/token/token");
        assert_eq!(process.arguments, ["serve", "--token=/v/token/token", "--part=/v/config/a.yaml", "127.244.1.2:80"]);
        assert_eq!(process.folder.as_deref(), Some(Path::new("/v/token")));
    }
}
