//! Plays every recorded scenario against the server and compares what it answers with what Centrifugo 6.9.1 answered.
//!
//! ```text
//! cargo test --test transcripts                               all scenarios
//! cargo test --test transcripts -- 'subscribe/*' frame/batch  some, by name or glob
//! cargo test --test transcripts -- --list                     names and what they check
//!                                  --verbose                  also how waiting scenarios and quirks differ, and what
//!                                                             the server wrote in the failed ones
//!                                  --write-waiting            write waiting.txt anew from what fails
//!                                  --no-lists                 as if both lists were empty
//! STARLING_TRANSCRIPT_JOBS=4                                  scenarios played at once (default 8; they mostly wait)
//! STARLING_TRANSCRIPT_SERVER='COMMAND {config}'               play another server, or another build of this one
//! ```
//!
//! Scenarios are in `tests/vectors/transcripts`, whose README defines them, their goldens and how both are compared.
//! Each has a server process, ports and a folder of its own, and none is tried again when it fails: a scenario that
//! fails now and then is a defect.
//!
//! Two lists beside this file name the exceptions. `waiting.txt` has the scenarios that cannot pass yet and the
//! capability that each waits for; they are played too, and one that passes fails the run until it is taken off the
//! list, so that the list can only shrink. `differs.txt` has those in which this server answers otherwise on purpose,
//! in which steps, and why. Scenarios whose golden is an accident of the recorded server bear the member `quirk`: they
//! may differ, and fail only when there is no answer at all.
//!
//! The last line says `N passed, N failed, N skipped`; skipped are those that differ and may.

mod arguments;
mod backend;
mod connection;
mod delta;
mod diff;
mod http1;
mod json;
mod lists;
mod message;
mod normalise;
mod ports;
mod run;
mod scenario;
mod server;
mod socket;
mod steps;
mod tokens;
mod variables;
mod verdict;

use std::{collections::BTreeMap, process::ExitCode, sync::Arc, time::Instant};

use anyhow::Result;
use tokio::{
    runtime,
    signal::unix::{SignalKind, signal},
    sync::Semaphore,
    task::JoinSet,
};

use self::{
    arguments::Arguments,
    lists::Lists,
    message::Schema,
    run::Stage,
    scenario::Golden,
    server::CommandLine,
    verdict::{Outcome, Verdict, judge, last_lines},
};

/// Lines of a server's log that `--verbose` shows of a failed scenario.
const LOG_LINES: usize = 100;

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(e) => {
            println!("transcripts: {e:#}\n0 passed, 1 failed");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode> {
    let arguments = Arguments::parse()?;
    let goldens: Vec<_> = scenario::load_all()?.into_iter().map(Arc::new).collect();
    let lists = Arc::new(if arguments.lists { Lists::load()? } else { Lists::default() });
    let problems = if arguments.write_waiting { Vec::new() } else { lists.problems(&goldens) };
    let mut wanted: Vec<_> = goldens.into_iter().filter(|golden| arguments.wants(&golden.scenario.name)).collect();
    if arguments.list {
        for golden in &wanted {
            println!("{:<44} {}", golden.scenario.name, golden.scenario.checks);
        }
        return Ok(ExitCode::SUCCESS);
    }
    // The few that wait for many seconds must not begin last.
    wanted.sort_by_key(|golden| std::cmp::Reverse(golden.waits().as_secs() / 4));
    // Neither may these wait for one another's turn.
    wanted.sort_by_key(|golden| golden.answers_in_time());

    let schema = Arc::new(Schema::load()?);
    let stage = Arc::new(Stage { command: CommandLine::from_environment()?, ports: Arc::default(), schema });
    let runtime = runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcomes = runtime.block_on(async {
        tokio::select! {
            outcomes = play_all(stage, &wanted, &lists, arguments.jobs) => Ok(outcomes),
            () = ended_by_signal() => anyhow::bail!("ended by a signal"),
        }
    })?;
    if arguments.write_waiting {
        let played = wanted.iter().zip(&outcomes);
        let failed = played.filter(|(golden, _)| lists.differs(&golden.scenario.name).is_none()).map(|(golden, o)| {
            let stays = match o.verdict {
                Verdict::Waiting => true,
                Verdict::Failed => lists.waits_for(&golden.scenario.name).is_none(),
                Verdict::Passed | Verdict::Quirk | Verdict::Differs => false,
            };
            (golden.scenario.name.clone(), stays)
        });
        let count = lists.write_waiting(&failed.collect())?;
        println!("waiting.txt has {count} entries now");
        return Ok(ExitCode::SUCCESS);
    }
    Ok(report(&wanted, &outcomes, &problems, arguments.verbose))
}

/// Outcomes in the order of the scenarios. Prints a line for each area when its last scenario has ended.
async fn play_all(stage: Arc<Stage>, wanted: &[Arc<Golden>], lists: &Arc<Lists>, jobs: u32) -> Vec<Outcome> {
    let started = Instant::now();
    let gate = Arc::new(Semaphore::new(jobs as usize));
    let mut runs = JoinSet::new();
    for (at, golden) in wanted.iter().enumerate() {
        let (stage, golden, lists, gate) = (stage.clone(), golden.clone(), lists.clone(), gate.clone());
        runs.spawn(async move {
            let places = if golden.answers_in_time() { jobs } else { 1 };
            let _turn = gate.acquire_many(places).await.expect("the gate is never closed");
            (at, judge(&stage, &golden, &lists).await)
        });
    }
    let mut outcomes: Vec<Option<Outcome>> = wanted.iter().map(|_| None).collect();
    while let Some(ended) = runs.join_next().await {
        let (at, outcome) = ended.expect("no run panics");
        outcomes[at] = Some(outcome);
        let area = wanted[at].area();
        let of_area = || wanted.iter().zip(&outcomes).filter(|(golden, _)| golden.area() == area);
        if of_area().all(|(_, outcome)| outcome.is_some()) {
            let tally = Tally::of(of_area().filter_map(|(_, outcome)| outcome.as_ref()));
            println!("{:>4} s  {area:<12} {tally}", started.elapsed().as_secs());
        }
    }
    outcomes.into_iter().map(|outcome| outcome.expect("every run has ended")).collect()
}

/// When somebody wants an end. The servers are children of ours and are killed as their handles are dropped.
async fn ended_by_signal() {
    let kinds = [SignalKind::interrupt(), SignalKind::terminate()];
    let [Ok(mut interrupt), Ok(mut terminate)] = kinds.map(signal) else { return std::future::pending().await };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

fn report(wanted: &[Arc<Golden>], outcomes: &[Outcome], problems: &[String], verbose: bool) -> ExitCode {
    let mut named: Vec<_> = wanted.iter().map(|golden| &golden.scenario).zip(outcomes).collect();
    named.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
    for (scenario, outcome) in &named {
        let heading = match outcome.verdict {
            Verdict::Failed => "FAILED",
            Verdict::Quirk if verbose => "quirk",
            Verdict::Differs if verbose => "differs",
            Verdict::Waiting if verbose => "waiting",
            Verdict::Passed | Verdict::Quirk | Verdict::Differs | Verdict::Waiting => continue,
        };
        println!("\n{heading} {}: {}", scenario.name, scenario.checks);
        outcome.report.lines().for_each(|line| println!("    {line}"));
        if verbose && outcome.verdict == Verdict::Failed && !outcome.log.is_empty() {
            println!("    the server wrote, at last:");
            last_lines(&outcome.log, LOG_LINES).for_each(|line| println!("    {line}"));
        }
    }
    for problem in problems {
        println!("\nFAILED {problem}");
    }
    let mut tally = Tally::of(outcomes);
    if !problems.is_empty() {
        *tally.0.entry("failed").or_default() += problems.len();
    }
    let more = if verbose || tally.0.keys().all(|name| *name == "passed") { "" } else { "; --verbose tells more" };
    println!("\n{tally}{more}");
    let count = |verdict: &str| tally.0.get(verdict).copied().unwrap_or_default();
    let (passed, failed) = (count("passed"), count("failed"));
    match count("waiting") + count("different on purpose") + count("quirks") {
        0 => println!("{passed} passed, {failed} failed"),
        skipped => println!("{passed} passed, {failed} failed, {skipped} skipped"),
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// How many there are of each verdict.
struct Tally(BTreeMap<&'static str, usize>);

impl Tally {
    fn of<'a>(outcomes: impl IntoIterator<Item = &'a Outcome>) -> Self {
        let mut counts = BTreeMap::new();
        for outcome in outcomes {
            let name = match outcome.verdict {
                Verdict::Passed => "passed",
                Verdict::Quirk => "quirks",
                Verdict::Differs => "different on purpose",
                Verdict::Waiting => "waiting",
                Verdict::Failed => "failed",
            };
            *counts.entry(name).or_default() += 1;
        }
        Self(counts)
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let order = ["passed", "quirks", "different on purpose", "waiting", "failed"];
        let present = order.iter().filter_map(|name| Some((name, self.0.get(name).filter(|count| **count > 0)?)));
        let words: Vec<_> = present.map(|(name, count)| format!("{count} {name}")).collect();
        f.write_str(&words.join(", "))
    }
}
