//! Runs the tests whose tools work on this machine. Filters, `--list` and `--exact` work as in libtest.

use std::process::ExitCode;

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use crate::network;
use crate::tool::Tool;

/// A test, and the tools that it needs.
#[derive(Clone, Copy)]
pub struct Test {
    pub name: &'static str,
    pub tools: &'static [Tool],
    pub body: fn(),
}

/// `test!(module::name, Tool, …)`
macro_rules! test {
    ($body:path, $($tool:ident),+) => {
        $crate::harness::Test {
            name: stringify!($body),
            tools: &[$($crate::tool::Tool::$tool),+],
            body: $body,
        }
    };
}
pub(crate) use test;

pub fn run(tests: &[Test]) -> ExitCode {
    let trials = tests
        .iter()
        .map(|&test| Trial::ignorable_test(test.name, move || test.run()));
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}

impl Test {
    fn run(self) -> Result<Completion, Failed> {
        // Inside the network, the outer process has checked the tools.
        if !network::is_inside() {
            let missing = self.tools.iter().filter(|tool| !tool.works()).map(|tool| tool.need());
            let missing: Vec<_> = missing.collect();
            if !missing.is_empty() {
                let reason = format!("needs {}", missing.join("; "));
                let is_failure = std::env::var_os("TINYD_TESTS").is_some_and(|tests| tests == "all");
                return if is_failure {
                    Err(reason.into())
                } else {
                    Ok(Completion::ignored_with(reason))
                };
            }
            if self.tools.contains(&Tool::Network) {
                network::run(self.name);
                return Ok(Completion::Completed);
            }
        }
        (self.body)();
        Ok(Completion::Completed)
    }
}
