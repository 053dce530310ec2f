//! Kaltura's API on the admin listener.

mod audit;
mod bad_input;
mod client_habits;
mod destinations;
mod formats;
mod imports;
mod links;
mod listing;
mod multirequest;
mod policy;
mod new_ids;
mod request_bounds;
mod sessions;
mod starts;
