//! Command lines of backends.

use std::path::PathBuf;
use std::process::Stdio;

use tokio::process::Command;

/// A program with its arguments and variables.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The absolute path of the program.
    pub program: PathBuf,
    /// Its arguments, without the program.
    pub args: Vec<String>,
    /// Variables that it needs besides `PATH`.
    pub env: Vec<(String, String)>,
}

impl Launch {
    /// A command in its own process group, with pipes for stdin and stdout. stderr is discarded. The process is killed
    /// when its handle is dropped; its child processes are not.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.args).env_clear().envs(self.env.iter().map(|(name, value)| (name, value)));
        command.envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        command.process_group(0).kill_on_drop(true);
        command
    }

    /// The program and its arguments in one list.
    ///
    /// # Panics
    /// If the program's path is not UTF-8.
    #[must_use]
    #[expect(clippy::expect_used, reason = "paths of the tests' own programs are UTF-8")]
    pub fn words(&self) -> Vec<String> {
        let program = self.program.to_str().expect("the path is UTF-8").to_owned();
        std::iter::once(program).chain(self.args.iter().cloned()).collect()
    }
}
