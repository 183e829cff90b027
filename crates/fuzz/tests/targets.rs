//! Runs the targets' bodies on a stable toolchain.

use ringfort_fuzz::source::Source;
use ringfort_fuzz::{TARGETS, Target};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// Inputs of each kind, for each target. Shorter ones first, because their failures are easier to read.
const INPUTS: u64 = 3000;
const MAX_INPUT_BYTES: u64 = 400;

/// A sequence that looks random (splitmix64, Steele et al. 2014), the same in each run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn bytes(&mut self, len: u64) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

/// Runs a body. If it fails, prints the input in hexadecimal, from which a file for the fuzzer or the regression tests
/// can be made.
fn run(target: &Target, input: &[u8]) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (target.body)(input))) {
        let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
        eprintln!("target {} fails for these bytes, which are hexadecimal: {hex}", target.name);
        std::panic::resume_unwind(panic);
    }
}

fn each_input(each: impl Fn(&Target, &mut Random, &[u8])) {
    for target in TARGETS {
        let mut random = Random(1);
        for round in 0..INPUTS {
            let decisions = random.bytes(1 + round * MAX_INPUT_BYTES / INPUTS);
            each(target, &mut random, &decisions);
        }
    }
}

#[test]
fn random_bytes() {
    each_input(|target, _, decisions| run(target, decisions));
}

#[test]
fn valid_encodings() {
    each_input(|target, _, decisions| run(target, &(target.seed)(decisions)));
}

#[test]
fn damaged_encodings() {
    each_input(|target, random, decisions| {
        let mut damaged = (target.seed)(decisions).to_vec();
        Source::new(&random.bytes(24)).damage(&mut damaged);
        run(target, &damaged);
    });
}

#[test]
fn inputs_that_failed_once() {
    let regressions = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/regressions");
    for directory in std::fs::read_dir(regressions).unwrap() {
        let directory = directory.unwrap();
        let name = directory.file_name();
        let target = TARGETS.iter().find(|target| name == target.name).expect("a directory is named like its target");
        for input in std::fs::read_dir(directory.path()).unwrap() {
            run(target, &std::fs::read(input.unwrap().path()).unwrap());
        }
    }
}
