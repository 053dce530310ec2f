//! What the black-box benchmarks share: servers as processes of their own, load generators, measuring and reporting.
//!
//! Nothing in here knows how tinyd works inside: it is started as an operator starts it, and asked over HTTP.

#![allow(dead_code, reason = "each benchmark uses its own part of the rig")]

pub(crate) mod beside;
pub(crate) mod beside_loads;
pub(crate) mod browsing;
pub(crate) mod bursts;
pub(crate) mod contest;
pub(crate) mod cpu;
pub(crate) mod disk;
pub(crate) mod downloads;
pub(crate) mod floor;
pub(crate) mod followers;
pub(crate) mod http;
pub(crate) mod interrupt;
pub(crate) mod latency;
pub(crate) mod links;
pub(crate) mod loads;
pub(crate) mod machine;
pub(crate) mod nats;
pub(crate) mod open_loop;
pub(crate) mod origin;
pub(crate) mod plot;
pub(crate) mod postgres;
pub(crate) mod process;
pub(crate) mod proxies;
pub(crate) mod report;
pub(crate) mod slow;
pub(crate) mod stores;
pub(crate) mod tinyd;
pub(crate) mod tls;
pub(crate) mod visitors;
pub(crate) mod wrk;

/// What every benchmark takes besides its own options.
#[derive(Debug, clap::Args)]
pub(crate) struct CargoArgs {
    /// Passed by `cargo bench`
    #[arg(long, hide = true)]
    pub(crate) bench: bool,
}

impl CargoArgs {
    /// Whether to measure at all. `cargo test --all-targets` runs benchmarks too, without the argument.
    pub(crate) fn is_wanted(&self) -> bool {
        if !self.bench {
            report::say("nothing is measured without --bench: run it by `cargo bench --bench NAME`");
        }
        self.bench
    }
}
