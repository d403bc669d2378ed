//! What a scenario is worth: plays it, compares, and looks at the lists.

use anyhow::Result;

use crate::{
    diff::{self, Difference},
    json::Json,
    lists::Lists,
    run::{Stage, play},
    scenario::Golden,
    server::EndedEarly,
};

/// A scenario that passes although it is on a list is played as often again before that is believed.
const REPLAYS: usize = 2;

/// Lines of a server's log that are shown where it gave no answer.
const LAST_WORDS: usize = 4;

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Verdict {
    Passed,
    /// Differs in what the recorded server does by accident.
    Quirk,
    /// Differs on purpose, as `differs.txt` says.
    Differs,
    /// Fails, as `waiting.txt` says.
    Waiting,
    Failed,
}

pub(crate) struct Outcome {
    pub(crate) verdict: Verdict,
    /// Readable differences, or what went wrong.
    pub(crate) report: String,
    /// What the server wrote.
    pub(crate) log: String,
}

/// How a transcript compares with its golden.
enum Comparison {
    Same,
    Different(Vec<Difference>),
    /// The server refused to start, which the recorded one did not.
    Refused(String),
    /// There is no transcript.
    Broken(String),
}

pub(crate) async fn judge(stage: &Stage, golden: &Golden, lists: &Lists) -> Outcome {
    let (comparison, log) = compare(stage, golden).await;
    let (verdict, note) = verdict(stage, golden, lists, &comparison).await;
    Outcome { verdict, report: report(&note, &comparison, &log), log }
}

/// The verdict with a line that says more about it.
async fn verdict(stage: &Stage, golden: &Golden, lists: &Lists, comparison: &Comparison) -> (Verdict, String) {
    let name = &golden.scenario.name;
    if let Some(capability) = lists.waits_for(name) {
        if comparison.is_failure(golden) || !passes_again(stage, golden).await {
            return (Verdict::Waiting, format!("waits for: {capability}"));
        }
        return (Verdict::Failed, "it passes: take it off waiting.txt".to_owned());
    }
    if let Some(differs) = lists.differs(name) {
        let as_listed = match comparison {
            Comparison::Same if passes_again(stage, golden).await => {
                return (Verdict::Failed, "it differs no more: take it off differs.txt".to_owned());
            }
            Comparison::Same => true,
            Comparison::Different(differences) => differences.iter().all(|difference| differs.covers(difference)),
            Comparison::Refused(_) => differs.covers_everything(),
            Comparison::Broken(_) => false,
        };
        if as_listed {
            return (Verdict::Differs, differs.why().to_owned());
        }
        return (Verdict::Failed, "it differs in more than differs.txt says".to_owned());
    }
    match (comparison, &golden.scenario.quirk) {
        (Comparison::Same, _) => (Verdict::Passed, String::new()),
        (Comparison::Different(_) | Comparison::Refused(_), Some(quirk)) => (Verdict::Quirk, format!("quirk: {quirk}")),
        (Comparison::Different(_) | Comparison::Refused(_), None) | (Comparison::Broken(_), _) => {
            (Verdict::Failed, String::new())
        }
    }
}

async fn passes_again(stage: &Stage, golden: &Golden) -> bool {
    for _ in 0..REPLAYS {
        if compare(stage, golden).await.0.is_failure(golden) {
            return false;
        }
    }
    true
}

async fn compare(stage: &Stage, golden: &Golden) -> (Comparison, String) {
    let played = play(stage, golden).await;
    (Comparison::of(&golden.transcript, played.transcript), played.log)
}

impl Comparison {
    fn of(golden: &[Json], transcript: Result<Vec<Json>>) -> Self {
        match transcript {
            Ok(transcript) if is_same(golden, &transcript) => Self::Same,
            Ok(transcript) => Self::Different(diff::transcripts(golden, &transcript)),
            Err(e) if e.downcast_ref().is_some_and(EndedEarly::is_refusal) => Self::Refused(e.to_string()),
            Err(e) => Self::Broken(format!("{e:#}")),
        }
    }

    /// A quirk excuses another answer, but not that there is none.
    fn is_failure(&self, golden: &Golden) -> bool {
        match self {
            Self::Same => false,
            Self::Different(_) | Self::Refused(_) => golden.scenario.quirk.is_none(),
            Self::Broken(_) => true,
        }
    }
}

fn is_same(golden: &[Json], transcript: &[Json]) -> bool {
    golden.len() == transcript.len() && golden.iter().zip(transcript).all(|(left, right)| diff::same(left, right))
}

fn report(note: &str, comparison: &Comparison, log: &str) -> String {
    let mut lines = Vec::new();
    if !note.is_empty() {
        lines.push(note.to_owned());
    }
    match comparison {
        Comparison::Same => {}
        Comparison::Refused(why) | Comparison::Broken(why) => {
            lines.push(why.clone());
            lines.extend(last_lines(log, LAST_WORDS).map(|line| format!("    {line}")));
        }
        Comparison::Different(differences) if differences.is_empty() => {
            lines.push("the steps are the same, their order is not".to_owned());
        }
        Comparison::Different(differences) => {
            for difference in differences {
                let mut own = difference.lines.iter();
                lines.extend(own.next().cloned());
                lines.extend(own.map(|line| format!("    {line}")));
            }
        }
    }
    lines.join("\n")
}

/// The end of a text.
pub(crate) fn last_lines(text: &str, count: usize) -> impl Iterator<Item = &str> {
    let skipped = text.lines().count().saturating_sub(count);
    text.lines().skip(skipped)
}
