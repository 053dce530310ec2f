//! Signing in: secrets, the limit of failed attempts, and links that sign in once. Shared by all that starts sessions.

mod links;
mod starts;

pub use links::Grant;
pub use starts::{OtherPartner, SessionStarts, StartRefused};
