//! Certificates that tinyd orders itself (ACME, RFC 8555): the account, orders with their challenges, and renewal.
//!
//! Alone names instant-acme and rcgen. A certificate authority that is down, slow or hostile costs an order and nothing
//! else: the last good certificate stays in service.

mod challenges;
mod exchange;
mod folder;
mod keeper;
mod order;
mod problem;
mod schedule;
mod settings;

pub use challenges::Challenges;
pub use folder::{AcmeFolder, Origin};
pub use keeper::Acme;
pub use settings::{
    AcmeSettings, ChallengeKind, check_directory, check_domain, check_email, check_profile, normal_domain,
};
