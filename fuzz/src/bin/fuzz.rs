//! What libFuzzer drives: the target that `TELEMETRY_FUZZ_TARGET` names.
#![no_main]

use std::sync::LazyLock;

use telemetry_fuzz::{Target, target};

static TARGET: LazyLock<Option<&'static Target>> =
    LazyLock::new(|| target(&std::env::var("TELEMETRY_FUZZ_TARGET").unwrap_or_default()));

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Some(target) = *TARGET {
        (target.run)(bytes);
    }
});
