//! Kaltura's API on the admin listener.

mod bad_input;
mod client_habits;
pub mod clients;
mod destinations;
mod formats;
mod guide;
mod imports;
mod links;
mod listing;
mod multirequest;
mod request_bounds;
mod sessions;
