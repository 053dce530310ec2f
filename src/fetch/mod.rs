//! The content of a destination in place of a redirect (`goto` with `proxy=true`), and never a way into the network that
//! the appliance stands in.
//!
//! Alone names rustls, hickory and hyper's client. Knows no links: it is given a URL.

mod settings;

pub use settings::{Authorities, FOLLOW_MAX, FetchSettings, HostPattern, InvalidHost};
