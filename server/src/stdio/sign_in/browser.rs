//! The person's browser, started to open an address.

use std::io;
use std::time::Duration;

/// Time in which a launcher reports a failure. One that runs longer is probably the browser itself.
const PATIENCE: Duration = Duration::from_secs(3);

/// Opens an address in the browser. The browser gets neither standard input nor standard output.
///
/// # Errors
/// If there is no browser, or it does not start.
pub(super) async fn open(address: String) -> io::Result<()> {
    if !has_display() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "this session has no display"));
    }
    let opening = tokio::task::spawn_blocking(move || open::that_detached_with_timeout(address, PATIENCE));
    opening.await.map_err(io::Error::other)?
}

/// True if a browser could show a page. Without a display, launchers on Linux start a text browser, which nobody
/// would see.
fn has_display() -> bool {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    // `BROWSER` is set in environments without a display: VS Code's remote terminals, and WSL.
    !cfg!(target_os = "linux") || ["DISPLAY", "WAYLAND_DISPLAY", "BROWSER", "WSL_DISTRO_NAME"].into_iter().any(is_set)
}

/// Returns the program that opens a browser.
///
/// # Errors
/// A text with the next step, if there is none.
pub(in crate::stdio) fn describe() -> Result<String, String> {
    if !has_display() {
        return Err("this session has no display for a browser: sign in with --sign-in in a terminal of your desktop, or with --device-code".to_owned());
    }
    if !cfg!(target_os = "linux") {
        return Ok("the system opens its default one".to_owned());
    }
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let launchers = open::commands("http://localhost");
    let names = launchers.iter().map(std::process::Command::get_program);
    let found = names.flat_map(|name| std::env::split_paths(&paths).map(move |folder| folder.join(name)));
    let found = found.into_iter().find(|path| path.is_file());
    found
        .map(|path| format!("{} opens it", path.display()))
        .ok_or_else(|| "no program opens a browser: install xdg-utils, or sign in with --device-code".to_owned())
}
