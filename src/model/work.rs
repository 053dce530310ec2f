//! Bounds of work for tests: that what reads untrusted input takes effort in proportion to it. Instructions are
//! counted by valgrind, not time, so that a busy machine changes nothing.

use std::env;
use std::fs;
use std::hint::black_box;
use std::process::Command;
use std::thread;

/// Set in the process that valgrind runs.
const IS_COUNTED: &str = "TINYD_WORK_IS_COUNTED";
/// What valgrind counts in; it knows the function by this name.
const COUNTED: &str = "tinyd::model::work::counted";
/// By how much the larger input is larger.
const FACTOR: usize = 8;
/// By how much its work may be: more than the factor, for sorting and the growth of buffers, and far less than its
/// square.
const WORK_FACTOR: u64 = 14;

/// Fails if the work of `run` grows faster than its input. `make` makes an input of a size; what that costs is not
/// counted. Must be all that its test does, because valgrind runs the test once more.
///
/// # Panics
/// When it does, or valgrind is not there.
#[track_caller]
pub(crate) fn assert_is_linear<I, R>(size: usize, make: impl Fn(usize) -> I, mut run: impl FnMut(I) -> R) {
    if env::var_os(IS_COUNTED).is_some() {
        for size in [size, size * FACTOR] {
            let mut input = Some(make(size));
            counted(&mut || {
                if let Some(input) = input.take() {
                    black_box(run(black_box(input)));
                }
            });
        }
        return;
    }
    let test = thread::current().name().unwrap().to_owned();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("counted");
    let mut valgrind = Command::new("valgrind");
    valgrind
        .args(["--tool=callgrind", "--quiet", "--collect-atstart=no"])
        .arg(format!("--toggle-collect={COUNTED}"))
        .arg(format!("--dump-after={COUNTED}"))
        .arg(format!("--callgrind-out-file={}", file.display()));
    valgrind
        .arg(env::current_exe().unwrap())
        .args(["--exact", &test, "--test-threads=1"])
        .env(IS_COUNTED, "1");
    let output = valgrind.output().expect("valgrind: apt-get install valgrind");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let [small, large] = [1, 2].map(|number| {
        let counted = fs::read_to_string(file.with_extension(number.to_string())).unwrap();
        let total = counted.lines().find_map(|line| line.strip_prefix("totals: ")).unwrap();
        total.trim().parse::<u64>().unwrap()
    });
    assert!(small > 0, "nothing was counted");
    assert!(
        large <= small * WORK_FACTOR,
        "{FACTOR} times the input takes {} times the work: {small} and {large} instructions",
        large / small
    );
}

#[inline(never)]
fn counted(run: &mut dyn FnMut()) {
    run();
    black_box(());
}

mod tests {
    use super::*;

    #[test]
    fn work_in_proportion_passes() {
        assert_is_linear(1_000, |size| vec![1_u64; size], |numbers| numbers.iter().sum::<u64>());
    }

    #[test]
    #[should_panic(expected = "times the input takes 6")]
    fn work_that_grows_with_the_square_fails() {
        let is_greater = |numbers: &Vec<u64>, number: u64| numbers.iter().filter(|&&other| other > number).count();
        let compare = |numbers: Vec<u64>| {
            numbers
                .iter()
                .map(|&number| is_greater(&numbers, number))
                .sum::<usize>()
        };
        assert_is_linear(100, |size| vec![1; size], compare);
        // In the process that is counted, which does not compare.
        assert!(env::var_os(IS_COUNTED).is_none(), "times the input takes 6");
    }
}
