//! What the REST root and the journal are told of the agent at its start.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use telemetry_tsdb::db::Db;

use crate::api::v1::{Facts, ProgramFact, ProgramState};
use crate::bpf::{self, Family, Kernel};
use crate::config::Config;
use crate::journal::{Journal, Keeper, News};
use crate::store::Latest;

/// The facts of this run.
pub(super) fn facts(kernel: &Kernel, tick: Duration) -> Facts {
    Facts {
        started: Some(SystemTime::now()),
        version: env!("CARGO_PKG_VERSION"),
        revision: env!("TELEMETRY_REVISION"),
        kernel_release: std::fs::read_to_string("/proc/sys/kernel/osrelease")
            .map(|release| release.trim().to_owned())
            .unwrap_or_default(),
        tick,
        programs: kernel.programs.iter().map(program).collect(),
        fields_missing: kernel.missing_fields.iter().map(|field| (*field).to_owned()).collect(),
    }
}

fn program(state: &bpf::ProgramState) -> ProgramFact {
    let bpf::ProgramState { program, loaded: _, attached, error } = state;
    let family = match program.family {
        Family::Identity => "identity",
        Family::Scheduler => "scheduler",
        Family::Block => "block",
        Family::Network => "network",
    };
    let state = match error.as_deref() {
        _ if *attached => ProgramState::Attached,
        Some(bpf::DISABLED) => ProgramState::Disabled,
        error => ProgramState::Failed(error.unwrap_or("not attached").to_owned()),
    };
    ProgramFact { family, name: program.name, hook: program.hook, variant: program.variant, state }
}

/// The journal's keeper, on disk unless everything is in memory alone.
pub(super) fn keeper(keeper: Keeper, config: &Config, (db, latest): (&Arc<Db>, &Arc<Latest>)) -> Keeper {
    let keeper = keeper.watching(Arc::clone(db), Arc::clone(latest));
    if config.store.memory_only { keeper } else { keeper.on_disk(&config.data_dir) }
}

/// Tells the journal that the agent has begun, and which programs do not count.
pub(super) fn tell_start(journal: &Journal, facts: &Facts) {
    journal.tell(&News::AgentStarted { version: facts.version });
    for program in &facts.programs {
        if let ProgramState::Failed(reason) = &program.state {
            journal.tell(&News::HookFailed {
                program: program.name.to_owned(),
                hook: program.hook.to_owned(),
                reason: reason.clone(),
            });
        }
    }
}
