//! Who may sign in: secrets, and the limit of failed attempts. Shared by everything that starts sessions.

mod starts;

pub use starts::{SessionStarts, StartRefused};
