//! World of one case: a tenant with two users, a home folder, and a browser that waits for requests.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use entra_emulator::{App, EntraEmulator, LoggedRequest, Tenant, User};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use uuid::Uuid;

use crate::browser::Openings;
use crate::keyring::{Bus, Keyring};
use crate::tools::Tools;

/// Timeout of everything that does not wait for a user, on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// User who signs in.
pub(crate) const ALICE: &str = "alice@contoso.com";

/// Shared parts of the cases.
pub(crate) struct Lane {
    pub(crate) tools: Tools,
    pub(crate) emulator: EntraEmulator,
    folder: TempDir,
}

impl Lane {
    pub(crate) fn new(tools: Tools, emulator: EntraEmulator) -> anyhow::Result<Self> {
        let lane = Self { tools, emulator, folder: tempfile::tempdir()? };
        fs::write(lane.authorities(), lane.emulator.ca_pem())?;
        Ok(lane)
    }

    /// The file with the emulator's certificate authority.
    pub(crate) fn authorities(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }
}

/// Command that starts the server, in a client's form.
#[derive(Clone)]
pub(crate) struct Launch {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: BTreeMap<&'static str, String>,
}

impl Launch {
    /// Runs it on a machine with this policy. The path of the policy is fixed, so that a namespace has another `/etc`,
    /// which needs root or user namespaces.
    pub(crate) fn with_policy(self, world: &World<'_>, policy: &str) -> anyhow::Result<Self> {
        const SCRIPT: &str = r#"
            [ "$(id -u)" = 0 ] || user=--map-root-user
            exec unshare $user --mount sh -c '
                mount -t tmpfs tmpfs /etc && mkdir /etc/mcp-entra && cp "$1" /etc/mcp-entra/local.yaml || exit 70
                shift
                exec env PATH="$PERSONS_PATH" "$@"' sh "$@"
        "#;
        let file = world.file("local.yaml");
        fs::write(&file, policy)?;
        let mut environment = self.environment;
        let persons = environment.insert("PATH", std::env::var("PATH")?);
        environment.insert("PERSONS_PATH", persons.unwrap_or_default());
        let named = [&file, &self.program].map(|path| path.display().to_string());
        let start = ["-c", SCRIPT, "sh"].map(str::to_owned).into_iter().chain(named);
        Ok(Self { program: "/bin/sh".into(), arguments: start.chain(self.arguments).collect(), environment })
    }

    /// Starts it without a client.
    pub(crate) fn spawn(&self) -> anyhow::Result<Child> {
        Command::new(&self.program)
            .args(&self.arguments)
            .env_clear()
            .envs(&self.environment)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| self.program.display().to_string())
    }

    /// Runs it to its end.
    pub(crate) async fn run(&self) -> anyhow::Result<Output> {
        let output = tokio::time::timeout(PATIENCE, self.spawn()?.wait_with_output()).await;
        output.with_context(|| format!("{} takes too long", self.arguments.join(" ")))?.map_err(Into::into)
    }
}

/// The world of one case.
pub(crate) struct World<'a> {
    pub(crate) lane: &'a Lane,
    pub(crate) tenant: Uuid,
    /// A public client that may sign users in.
    pub(crate) client: Uuid,
    folder: TempDir,
    /// Windows that the server requests.
    pub(crate) openings: Openings,
    bus: Option<Bus>,
}

impl<'a> World<'a> {
    /// Creates a world without a secure store, whose browser can be started.
    pub(crate) async fn new(lane: &'a Lane) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut private = fs::DirBuilder::new();
        private.mode(0o700);
        for name in ["home", "data", "run", "bin"] {
            private.create(folder.path().join(name))?;
        }
        let openings = Openings::start(folder.path()).await?;
        let (tenant, client) = (Uuid::new_v4(), Uuid::new_v4());
        let world = Self { lane, tenant, client, folder, openings, bus: None };
        world.add_tenant()?;
        world.write_program("bin/xdg-open", &world.openings.script())?;
        let recorded = format!(
            "#!/bin/bash\nexec {} \"$@\" > >(/usr/bin/tee -a {}) 2>>{}\n",
            lane.tools.server.display(),
            world.file("stdout").display(),
            world.file("stderr").display()
        );
        world.write_program("server", &recorded)?;
        Ok(world)
    }

    fn add_tenant(&self) -> anyhow::Result<()> {
        let user = |name: &str, display_name: &str| User {
            oid: Uuid::new_v4(),
            user_principal_name: name.to_owned(),
            display_name: display_name.to_owned(),
            ..User::default()
        };
        let app = App {
            client_id: self.client,
            display_name: "MCP on this machine".to_owned(),
            public_client: true,
            redirect_uris: vec!["http://localhost".to_owned()],
            ..App::default()
        };
        self.lane.emulator.control().add_tenant(Tenant {
            id: self.tenant,
            apps: vec![app],
            users: vec![user("bob@contoso.com", "Bob Baker"), user(ALICE, "Alice Adams")],
            ..Tenant::default()
        })
    }

    /// A file of this world.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes an executable script.
    pub(crate) fn write_program(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let path = self.file(name);
        fs::write(&path, text)?;
        Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
    }

    /// Gives the world a session bus with a keyring, instead of the current one.
    pub(crate) async fn set_keyring(&mut self, keyring: Keyring) -> anyhow::Result<()> {
        if let Some(bus) = self.bus.take() {
            bus.stop().await?;
        }
        self.bus = Some(Bus::start(self, keyring).await?);
        Ok(())
    }

    /// Returns the server for this world's tenant, with more arguments. Its output is recorded.
    pub(crate) fn server(&self, more: &[&str]) -> Launch {
        Launch { program: self.file("server"), ..self.unrecorded(more) }
    }

    /// Returns the server for this world's tenant, without recording.
    pub(crate) fn unrecorded(&self, more: &[&str]) -> Launch {
        let (emulator, authorities) = (&self.lane.emulator, self.lane.authorities());
        let arguments = [
            "local",
            &format!("--tenant={}", self.tenant),
            &format!("--client-id={}", self.client),
            &format!("--authority={}", emulator.authority()),
            &format!("--graph-url={}", emulator.graph()),
            &format!("--trust-bundle={}", authorities.display()),
        ];
        let arguments = arguments.into_iter().chain(more.iter().copied()).map(str::to_owned).collect();
        Launch { program: self.lane.tools.server.clone(), arguments, environment: self.environment() }
    }

    /// Environment of the user's programs.
    pub(crate) fn environment(&self) -> BTreeMap<&'static str, String> {
        let folders = [("HOME", "home"), ("XDG_DATA_HOME", "data"), ("XDG_RUNTIME_DIR", "run"), ("PATH", "bin")];
        let folders = folders.map(|(variable, folder)| (variable, self.file(folder).display().to_string()));
        let bus = self.bus.as_ref().map(|bus| ("DBUS_SESSION_BUS_ADDRESS", bus.address.clone()));
        // Without a display the server uses no browser. Nothing is shown there: Chromium has no window.
        let display = ("DISPLAY", ":0".to_owned());
        folders.into_iter().chain(bus).chain([display]).collect()
    }

    /// Environment of a client that gets the URL of a server, and opens the user's browser itself.
    pub(crate) fn environment_with_https(&self) -> anyhow::Result<BTreeMap<&'static str, String>> {
        let trusted = self.file("trusted.pem").display().to_string();
        let browser = self.file("bin/xdg-open").display().to_string();
        let path = format!("{}:{}", self.file("bin").display(), std::env::var("PATH")?);
        let mut environment = self.environment();
        // With a display, xdg-open uses the desktop before $BROWSER.
        environment.remove("DISPLAY");
        environment.extend([("PATH", path), ("BROWSER", browser), ("NODE_EXTRA_CA_CERTS", trusted.clone())]);
        environment.extend([("SSL_CERT_FILE", trusted)]);
        Ok(environment)
    }

    /// The requests of this world's tenant, oldest first.
    pub(crate) fn requests(&self) -> Vec<LoggedRequest> {
        let requests = self.lane.emulator.control().requests();
        requests.into_iter().filter(|request| request.tenant == Some(self.tenant)).collect()
    }

    /// Returns the number of sign-ins that resulted in tokens.
    pub(crate) fn sign_ins(&self) -> usize {
        let is_sign_in = |request: &LoggedRequest| {
            request.status == 200 && request.grant_type.as_deref().is_some_and(|grant| grant != "refresh_token")
        };
        self.requests().into_iter().filter(is_sign_in).count()
    }

    /// Standard output of all servers of this world.
    pub(crate) fn stdout(&self) -> anyhow::Result<String> {
        read(&self.file("stdout"))
    }

    /// File for the logs of all programs in this world, opened for appending.
    pub(crate) fn log(&self) -> anyhow::Result<fs::File> {
        Ok(fs::File::options().create(true).append(true).open(self.file("stderr"))?)
    }

    /// Logs of the servers, the clients and the keyring of this world.
    pub(crate) fn stderr(&self) -> anyhow::Result<String> {
        read(&self.file("stderr"))
    }

    /// Fails unless there were this many windows of the browser and sign-ins so far.
    pub(crate) fn expect(&self, windows: usize, sign_ins: usize) -> anyhow::Result<()> {
        let seen = (self.openings.count()?, self.sign_ins());
        ensure!(seen == (windows, sign_ins), "{windows} windows and {sign_ins} sign-ins are expected, not {seen:?}");
        Ok(())
    }
}

/// Returns the text of a file, which may be absent.
fn read(path: &Path) -> anyhow::Result<String> {
    match fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8(bytes)?),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(error.into()),
    }
}
