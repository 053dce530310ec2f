//! The process: command line, settings, signals, metrics and systemd.

mod cli;
mod cluster;
mod drain;
mod metrics;
mod settings;
mod status;
mod systemd;
mod terminal;
mod units;
