//! Commands that end by themselves: `check`, `render` and `preview`.

pub(crate) mod check;
pub(crate) mod manifests;
pub(crate) mod preview;
pub(crate) mod render;
