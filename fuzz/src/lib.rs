//! Fuzz targets: every decoder of bytes or text that did not come from us a moment ago.
//!
//! A target takes any bytes and must neither panic nor hang nor ask for memory without bound; where what was decoded
//! can be written again, it must come back the same. `cargo xtask fuzz` drives them by libFuzzer with the address
//! sanitizer; the test beside drives them by mutated seeds on every machine. A new target is one function here or in a
//! file of its own, and one line in [`TARGETS`].
#![forbid(unsafe_code)]
#![expect(clippy::expect_used, reason = "a panic is how a target says that a promise is broken")]

mod api;
mod attribution;
mod input;
mod mutate;
mod query;
mod sealed;
mod serve;
mod store;

pub use mutate::Mutator;

/// One decoder.
pub struct Target {
    /// What it is called on the command line.
    pub name: &'static str,
    /// Takes any bytes.
    pub run: fn(&[u8]),
    /// Good ones to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub static TARGETS: &[Target] = &[
    Target { name: "log-segment", run: store::log_segment, seeds: store::log_segments },
    Target { name: "log-body", run: store::log_body, seeds: store::log_bodies },
    Target { name: "log-row", run: store::log_row, seeds: store::log_rows },
    Target { name: "chunk-cells", run: store::chunk_cells, seeds: store::chunks },
    Target { name: "chunk-floats", run: store::chunk_floats, seeds: store::float_chunks },
    Target { name: "chunk-times", run: store::chunk_times, seeds: store::time_chunks },
    Target { name: "block-file", run: store::block_file, seeds: store::block_files },
    Target { name: "file-index", run: store::file_index, seeds: store::file_indexes },
    Target { name: "sealed-log", run: sealed::log, seeds: sealed::logs },
    Target { name: "sealed-block", run: sealed::block, seeds: sealed::blocks },
    Target { name: "sealed-index", run: sealed::index, seeds: sealed::indexes },
    Target { name: "serve-log", run: serve::log, seeds: serve::logs },
    Target { name: "serve-files", run: serve::files, seeds: serve::pairs_of_files },
    Target { name: "promql-parse", run: query::parse, seeds: query::queries },
    Target { name: "cgroup-path", run: attribution::cgroup_path, seeds: attribution::cgroup_paths },
    Target { name: "container-file", run: attribution::container_file, seeds: attribution::container_files },
    Target { name: "remote-write", run: api::remote_write, seeds: api::writes },
    Target { name: "remote-read", run: api::remote_read, seeds: api::reads },
    Target { name: "otlp", run: api::otlp, seeds: api::exports },
    Target { name: "web-file", run: api::web_file, seeds: api::web_files },
    Target { name: "promql-evaluate", run: query::evaluate, seeds: query::queries },
];

/// The target of this name.
#[must_use]
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mutated seeds a target: seconds on any machine.
    const MUTATIONS: usize = 3000;

    #[test]
    fn no_target_minds_what_it_is_fed() {
        for target in TARGETS {
            let seeds = (target.seeds)();
            assert!(!seeds.is_empty(), "{} has no seed", target.name);
            let mut mutator = Mutator::new(7);
            (target.run)(&[]);
            seeds.iter().for_each(|seed| (target.run)(seed));
            for _ in 0..MUTATIONS {
                (target.run)(&mutator.next(&seeds));
            }
        }
    }
}
