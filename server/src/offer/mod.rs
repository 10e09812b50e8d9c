//! The interface of what this server offers to its callers. Knows neither HTTP nor a revision of the protocol.

mod offered;

pub use offered::{Offered, OfferedTool};
