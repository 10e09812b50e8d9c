//! One-shot commands: `check`, `render`, `preview` and `pin`.

pub(crate) mod asked_backend;
pub(crate) mod check;
pub(crate) mod manifests;
pub(crate) mod pin;
pub(crate) mod preview;
pub(crate) mod render;
