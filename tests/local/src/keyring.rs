//! Session bus with gnome-keyring, which the bus starts with the first request to the Secret Service.

use std::fs;
use std::process::Stdio;

use anyhow::Context;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::world::{PATIENCE, World};

/// The state of the keyring.
#[derive(Clone, Copy)]
pub(crate) enum Keyring {
    /// Unlocked, as after a login with the password.
    Unlocked,
    /// Locked, as after a login without the password. Prompts have no user.
    Locked,
}

impl Keyring {
    fn script(self) -> &'static str {
        match self {
            Self::Unlocked => {
                "#!/bin/sh\nprintf password | exec gnome-keyring-daemon --unlock --foreground --components=secrets\n"
            }
            Self::Locked => "#!/bin/sh\nexec gnome-keyring-daemon --start --foreground --components=secrets\n",
        }
    }
}

/// A running bus; it and its keyring end with this value.
pub(crate) struct Bus {
    /// `DBUS_SESSION_BUS_ADDRESS`
    pub(crate) address: String,
    daemon: Child,
}

impl Bus {
    /// Starts a bus. Its services find the user's files.
    pub(crate) async fn start(world: &World<'_>, keyring: Keyring) -> anyhow::Result<Self> {
        world.write_program("keyring", keyring.script())?;
        let services = world.file("data/dbus-1/services");
        fs::create_dir_all(&services)?;
        let program = world.file("keyring");
        let service = format!("[D-BUS Service]\nName=org.freedesktop.secrets\nExec={}\n", program.display());
        fs::write(services.join("org.freedesktop.secrets.service"), service)?;
        let mut daemon = Command::new("dbus-daemon")
            .args(["--session", "--nofork", "--nopidfile", "--print-address=1"])
            .arg(format!("--address=unix:path={}", world.file("run/bus").display()))
            .env_remove("DBUS_SESSION_BUS_ADDRESS")
            .env_remove("DISPLAY")
            .envs(world.environment().into_iter().filter(|(name, _)| *name != "PATH"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(world.log()?)
            .kill_on_drop(true)
            .spawn()
            .context("dbus-daemon")?;
        let stdout = daemon.stdout.take().context("a pipe")?;
        let line = tokio::time::timeout(PATIENCE, BufReader::new(stdout).lines().next_line()).await;
        let address = line.context("dbus-daemon prints no address")??.context("dbus-daemon has ended")?;
        Ok(Self { address, daemon })
    }

    /// Ends it.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        Ok(self.daemon.kill().await?)
    }
}
