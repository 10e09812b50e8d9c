//! Runs the documentation's commands of kubectl, Helm and the operator, on a control plane with the chart and the examples.
//! The story on the node runs the quickstart's commands of kubectl and Helm.

use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use documentation::{pages, repository};
use entra_emulator::{App, Tenant};
use serde_json::{Value, json};
use testbed::chart::OPERATOR;
use testbed::command_line::CommandLine;
use testbed::programs::program;
use testbed::stack::Stack;

/// Page whose commands of kubectl and Helm another test runs, from an empty cluster.
const ON_THE_NODE: &str = "docs/quickstart.md";
/// Page whose commands end with the removal of everything.
const REMOVAL: &str = "docs/operations.md";
/// Namespace of the examples.
const NAMESPACE: &str = "productivity";

/// Time limit of a command.
const LIMIT: Duration = Duration::from_secs(90);
/// Time in which a command must succeed. The operator and the node act on what earlier commands changed.
const PATIENCE: Duration = Duration::from_secs(45);

/// Command of a page.
#[derive(Clone)]
struct Documented {
    /// Page, and line of the block if it is in one.
    place: String,
    text: String,
    /// Output that the page shows; empty if it shows none. An ellipsis is a part that differs.
    output: String,
}

impl Documented {
    fn words(&self) -> Vec<String> {
        shlex::split(&self.text.replace("\\\n", " ")).unwrap_or_else(|| panic!("{}: {}", self.place, self.text))
    }

    /// True if the command runs here. `pin` does not: it asks the pod of a backend.
    fn runs_on(&self, page: &str) -> bool {
        let mut words = self.text.split_whitespace();
        if self.text.starts_with("mcp-entra-operator ") {
            return words.nth(1) != Some("pin");
        }
        page != ON_THE_NODE && words.any(|word| word == "kubectl" || word == "helm")
    }

    /// True if the command removes objects. Such commands run last.
    fn removes(&self) -> bool {
        self.words().iter().any(|word| word == "delete" || word == "uninstall")
    }

    /// True if a reader can type a code span as it is: it names an object of the examples or the chart, or a field.
    fn is_whole(&self) -> bool {
        let mut words = self.text.split([' ', '/', '=', ',']);
        words.any(|word| ["graph", NAMESPACE, "mcp-entra", "mcpserver.spec"].contains(&word))
    }
}

/// Returns the commands in blocks and the whole ones in code spans, and the code spans with a part of a command.
fn commands() -> (Vec<Documented>, Vec<Documented>) {
    let (mut whole, mut parts): (Vec<Documented>, Vec<Documented>) = (Vec::new(), Vec::new());
    for page in pages() {
        for block in page.blocks() {
            let typed = block.answered_commands().into_iter();
            let typed = typed.map(|(text, output)| Documented { place: block.place.clone(), text, output });
            whole.extend(typed.filter(|command| command.runs_on(&page.path)));
        }
        let spans = page.spans().into_iter().filter(|span| span.starts_with("kubectl ") || span.starts_with("helm "));
        let spans = spans.map(|text| Documented { place: page.path.clone(), text, output: String::new() });
        let (typed, mentioned): (Vec<_>, Vec<_>) = spans.partition(Documented::is_whole);
        whole.extend(typed);
        parts.extend(mentioned);
    }
    (whole, parts)
}

/// Removes repetitions. The last occurrence stays, after everything that its page does before it.
fn once(commands: &[Documented]) -> Vec<Documented> {
    let is_repeated = |(number, command): &(usize, &Documented)| {
        commands.iter().skip(number + 1).any(|later| later.text == command.text)
    };
    commands.iter().enumerate().filter(|entry| !is_repeated(entry)).map(|(_, command)| command.clone()).collect()
}

/// Cluster with the chart and the examples, and a folder like a checkout.
struct Cluster {
    stack: Stack,
    folder: PathBuf,
}

impl Cluster {
    async fn start() -> anyhow::Result<Self> {
        let stack = Stack::start(&|_| ()).await?;
        let folder = stack.folder().join("documentation");
        std::fs::create_dir_all(folder.join("bin"))?;
        let programs = [
            ("kubectl", stack.control_plane.kubectl()),
            ("helm", stack.helm().await?.program().to_owned()),
            ("mcp-entra-operator", program("mcp-entra-operator")?),
        ];
        let programs = programs.map(|(name, path)| (format!("bin/{name}"), path));
        let folders = ["charts", "crds"].map(|name| (name.to_owned(), repository(name)));
        for (link, target) in programs.into_iter().chain(folders) {
            symlink(target.canonicalize()?, folder.join(&link)).with_context(|| format!("link {link}"))?;
        }
        std::fs::write(folder.join("values.yaml"), stack.values().to_string())?;
        std::fs::copy(stack.control_plane.kubeconfig(), folder.join("kubeconfig"))?;
        let app = App { client_id: text(&server()?, "/spec/entra/clientId")?.parse()?, ..App::default() };
        let id = text(&server()?, "/spec/entra/tenantId")?.parse()?;
        let tenant = Tenant { id, domains: vec![], apps: vec![app], users: vec![], groups: vec![] };
        stack.entra.control().add_tenant(tenant)?;
        stack.install().await?;
        let cluster = Self { stack, folder };
        cluster.bash(&format!("kubectl config set-context --current --namespace {NAMESPACE}")).await?;
        Ok(cluster)
    }

    /// Applies what readers of the pages have: the examples, with an authorization server, a cluster mapping, and a
    /// service account of their own.
    async fn apply_examples(&self) -> anyhow::Result<()> {
        let mut server = server()?;
        let entra = &self.stack.entra;
        server["spec"]["entra"]["endpoints"] = json!({"authority": entra.authority(), "graph": entra.graph()});
        server["spec"]["entra"]["trustBundle"] = json!({"name": "entra-ca"});
        server["spec"]["authorizationServer"] = json!({"sessionStore": {"memory": {}}});
        let mut manifests = String::new();
        for name in ["1-namespace.yaml", "3-mapping.yaml", "4-guardrails.yaml"] {
            manifests += &format!("---\n{}", example(name)?);
        }
        let trust = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "entra-ca", "namespace": NAMESPACE},
            "data": {"ca.crt": entra.ca_pem()},
        });
        let account = json!({
            "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "shared", "namespace": NAMESPACE},
        });
        manifests += &format!("---\n{trust}\n---\n{account}\n---\n{server}\n");
        self.stack.kubectl(&["apply", "-f", "-"], Some(&manifests)).await.map(drop)
    }

    /// Runs commands as a reader does, and returns their output.
    async fn bash(&self, command: &str) -> anyhow::Result<String> {
        let mut bash = tokio::process::Command::new("bash");
        bash.current_dir(&self.folder)
            .env_clear()
            .env("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", self.folder.join("bin").display()))
            .env("HOME", &self.folder)
            .env("KUBECONFIG", self.folder.join("kubeconfig"));
        CommandLine::new("bash", bash, &["-euo", "pipefail", "-c", command], LIMIT).succeed(None).await
    }

    /// Runs a command until it succeeds and prints something. Every command of the pages does, and one that names
    /// nothing that exists prints nothing.
    async fn run(&self, command: &Documented) -> anyhow::Result<()> {
        let begin = Instant::now();
        loop {
            let outcome = self.attempt(command).await;
            if outcome.is_ok() || begin.elapsed() > PATIENCE {
                return outcome.with_context(|| command.place.clone());
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    async fn attempt(&self, command: &Documented) -> anyhow::Result<()> {
        let words = command.words();
        if words.iter().any(|word| word == "exec") {
            return self.can_execute(&words).await;
        }
        let output = self.bash(&self.with_names(&command.text).await?).await?;
        ensure!(!output.trim().is_empty() && !output.contains("items: []"), "{} finds nothing", command.text);
        let shown = command.output.trim();
        ensure!(
            shown.contains('…') || output.contains(shown),
            "{} does not print what the page shows:\n{output}",
            command.text
        );
        Ok(())
    }

    /// Replaces the beginning of a claim's name, which ends with an ellipsis, by the name.
    async fn with_names(&self, command: &str) -> anyhow::Result<String> {
        let Some(begin) = command.split_whitespace().find_map(|word| word.strip_suffix('…')) else {
            return Ok(command.to_owned());
        };
        let (namespace, _) = OPERATOR;
        let names = self.bash(&format!("kubectl get configmaps --namespace {namespace} --output name")).await?;
        let mut names = names.lines().filter_map(|name| name.strip_prefix("configmap/"));
        let name = names.find(|name| name.starts_with(begin)).with_context(|| format!("no ConfigMap {begin}…"))?;
        Ok(command.replace(&format!("{begin}…"), name))
    }

    /// Checks the parts of a `kubectl exec`, which the node cannot do: the workload, the container, the entry point of its
    /// image, and the files that the program is given.
    async fn can_execute(&self, words: &[String]) -> anyhow::Result<()> {
        let end = words.iter().position(|word| word == "--").context("exec without --")?;
        let (exec, inside) = words.split_at(end);
        let (program, arguments) = inside[1..].split_first().context("exec without a program")?;
        let flag = exec.iter().position(|word| word == "--container").context("exec without --container")?;
        let (name, mut get) = (&exec[flag + 1], exec.to_vec());
        get.drain(flag..flag + 2);
        let get: Vec<_> = get.iter().map(|word| if word == "exec" { "get" } else { word }).collect();
        let workload: Value = serde_json::from_str(&self.bash(&format!("{} --output json", get.join(" "))).await?)?;
        let pod = &workload["spec"]["template"]["spec"];
        let container = named(&pod["containers"], name)?;
        let image = text(container, "/image")?;
        let entry_point = image.split([':', '@']).next().and_then(|image| image.rsplit('/').next());
        ensure!(program.strip_prefix('/') == entry_point, "{image} has another program than {program}");
        for file in arguments.iter().filter(|argument| argument.starts_with('/')) {
            let (folder, key) = file.rsplit_once('/').context("a folder")?;
            let mut mounts = container["volumeMounts"].as_array().into_iter().flatten();
            let mount =
                mounts.find(|mount| mount["mountPath"] == folder).with_context(|| format!("no mount {folder}"))?;
            let volume = named(&pod["volumes"], text(mount, "/name")?)?;
            let config_map = text(volume, "/configMap/name")?;
            let get = format!("kubectl --namespace {NAMESPACE} get configmap {config_map} --output json");
            let config_map: Value = serde_json::from_str(&self.bash(&get).await?)?;
            ensure!(config_map["data"][key].is_string(), "{file} is not mounted");
        }
        Ok(())
    }

    /// Checks a part of a command: its verb, and the flags of the verb.
    async fn check_part(&self, part: &Documented) -> anyhow::Result<()> {
        let words = part.words();
        let [program, verb, ..] = &words[..] else { bail!("{} has no verb", part.text) };
        let help = self.bash(&format!("{program} {verb} --help")).await?;
        ensure!(help.contains(&format!("{program} {verb}")), "{program} has no {verb}");
        for flag in words.iter().filter(|word| word.starts_with("--")) {
            let name = flag.split('=').next().unwrap_or_default();
            ensure!(help.contains(name), "{program} {verb} has no {name}");
        }
        Ok(())
    }
}

/// Returns the item of a list with this name.
fn named<'a>(list: &'a Value, name: &str) -> anyhow::Result<&'a Value> {
    let mut items = list.as_array().into_iter().flatten();
    items.find(|item| item["name"] == name).with_context(|| format!("nothing has the name {name}"))
}

fn text<'a>(value: &'a Value, pointer: &str) -> anyhow::Result<&'a str> {
    value.pointer(pointer).and_then(Value::as_str).with_context(|| format!("no {pointer}"))
}

fn example(name: &str) -> anyhow::Result<String> {
    std::fs::read_to_string(repository("crds/examples").join(name)).with_context(|| format!("read {name}"))
}

fn server() -> anyhow::Result<Value> {
    Ok(serde_yaml::from_str(&example("2-server.yaml")?)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_of_kubectl_helm_and_the_operator_acts_on_what_an_installation_has() -> anyhow::Result<()> {
    let (whole, parts) = commands();
    let (removals, others): (Vec<_>, Vec<_>) = whole.into_iter().partition(Documented::removes);
    let (all, removals): (Vec<_>, Vec<_>) =
        removals.into_iter().partition(|removal| removal.place.starts_with(REMOVAL));
    assert!(others.len() >= 15 && removals.len() >= 3 && all.len() >= 5 && parts.len() >= 10);

    let cluster = Cluster::start().await?;
    cluster.apply_examples().await?;
    for command in once(&others) {
        cluster.run(&command).await?;
    }
    for part in once(&parts) {
        cluster.check_part(&part).await.with_context(|| part.place.clone())?;
    }
    for removal in once(&removals) {
        cluster.run(&removal).await?;
    }
    cluster.apply_examples().await?;
    for removal in once(&all) {
        cluster.run(&removal).await?;
    }
    let left = cluster.bash("kubectl get namespaces,customresourcedefinitions --output name").await?;
    assert!(!left.contains(OPERATOR.0) && !left.contains("mcp-entra.dev"), "{left}");
    Ok(())
}
