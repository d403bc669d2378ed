//! Questions to all nodes of the cluster: the asker's part, and our answers.
//!
//! A question goes to everybody; each node answers to the asker alone. Centrifugo asks for `channels`, and for
//! `centrifuge_emulation`, which carries what clients of emulated transports send. Every question is answered at least with
//! a code, since a Centrifugo node that asks waits for all nodes it knows.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use prost::Message;
use starling_proto::api::{ChannelInfo, ChannelsRequest, ChannelsResult};
use tokio::sync::oneshot;

use super::{Local, glob::Glob};
use crate::names::NodeId;

/// The question for channels with subscribers.
pub const CHANNELS: &str = "channels";

/// There is an answer.
pub const OK: u32 = 0;
/// The question is malformed.
pub const BAD_REQUEST: u32 = 2;
/// The node does not know this question.
pub const UNKNOWN_OP: u32 = 3;

/// Questions that may be open at once. One more is not asked.
const MOST_OPEN: usize = 1024;

/// The questions of this node that are open. Whoever opens one closes it.
#[derive(Debug, Default)]
pub struct Surveys {
    last_id: u64,
    open: HashMap<u64, Open>,
}

#[derive(Debug)]
struct Open {
    /// Nodes that are expected to answer and have not yet.
    silent: BTreeSet<NodeId>,
    answers: BTreeMap<NodeId, Answer>,
    complete: Option<oneshot::Sender<()>>,
}

/// What one node answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// 0 when there is an answer in `data`.
    pub code: u32,
    /// The answer, in the form that the question has.
    pub data: Bytes,
}

/// What came of a question.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The answers, by node.
    pub answers: BTreeMap<NodeId, Answer>,
    /// Nodes that were expected to answer and did not.
    pub silent: BTreeSet<NodeId>,
}

impl Surveys {
    /// Opens a question to `nodes`: its id, and what tells when all of them have answered. `None` when too many are open.
    pub fn open(&mut self, nodes: BTreeSet<NodeId>) -> Option<(u64, oneshot::Receiver<()>)> {
        if self.open.len() >= MOST_OPEN {
            return None;
        }
        self.last_id += 1;
        let (sender, complete) = oneshot::channel();
        let mut open = Open { silent: nodes, answers: BTreeMap::new(), complete: Some(sender) };
        open.tell_when_complete();
        self.open.insert(self.last_id, open);
        Some((self.last_id, complete))
    }

    /// Takes an answer. Those to questions that are not open, second ones of a node, and those of nodes that were not
    /// expected to answer are ignored.
    pub fn answered(&mut self, id: u64, node: NodeId, answer: Answer) {
        let Some(open) = self.open.get_mut(&id) else { return };
        if open.silent.remove(&node) {
            open.answers.insert(node, answer);
            open.tell_when_complete();
        }
    }

    /// Ends a question.
    pub fn close(&mut self, id: u64) -> Outcome {
        let Some(Open { silent, answers, complete: _ }) = self.open.remove(&id) else { return Outcome::default() };
        Outcome { answers, silent }
    }
}

impl Open {
    fn tell_when_complete(&mut self) {
        if self.silent.is_empty()
            && let Some(complete) = self.complete.take()
        {
            // The asker may have given up.
            let _ = complete.send(());
        }
    }
}

/// Our answer to a question of another node.
pub fn answer(op: &str, data: Bytes, local: &dyn Local) -> Answer {
    match op {
        CHANNELS => answer_channels(data, local).unwrap_or(Answer { code: BAD_REQUEST, data: Bytes::new() }),
        _ => Answer { code: UNKNOWN_OP, data: Bytes::new() },
    }
}

fn answer_channels(data: Bytes, local: &dyn Local) -> Option<Answer> {
    let ChannelsRequest { pattern } = ChannelsRequest::decode(data).ok()?;
    let channels = match &*pattern {
        "" => local.channels(&|_| true),
        pattern => {
            let glob = Glob::new(pattern).ok()?;
            local.channels(&|name| glob.matches(name))
        }
    };
    let channels = channels.into_iter().map(|(name, num_clients)| (name, ChannelInfo { num_clients })).collect();
    Some(Answer { code: OK, data: ChannelsResult { channels }.encode_to_vec().into() })
}

/// The question for channels whose name matches a pattern.
pub fn ask_channels(pattern: Option<&str>) -> Bytes {
    ChannelsRequest { pattern: pattern.unwrap_or_default().to_owned() }.encode_to_vec().into()
}

/// Channels and numbers of their subscribers in an answer; `None` when it is none.
pub fn channels_in(answer: Answer) -> Option<BTreeMap<String, u32>> {
    let Answer { code: OK, data } = answer else { return None };
    let ChannelsResult { channels } = ChannelsResult::decode(data).ok()?;
    Some(channels.into_iter().map(|(name, ChannelInfo { num_clients })| (name, num_clients)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        error::{Disconnect, Unsubscribed},
        names::ChannelName,
        node::{Counts, Target},
    };

    fn id(node: &str) -> NodeId {
        NodeId(node.into())
    }

    fn ok(data: &'static str) -> Answer {
        Answer { code: OK, data: Bytes::from_static(data.as_bytes()) }
    }

    #[test]
    fn a_question_is_complete_when_all_have_answered() {
        let mut surveys = Surveys::default();
        let (survey, mut complete) = surveys.open([id("a"), id("b")].into()).unwrap();
        surveys.answered(survey, id("a"), ok("1"));
        assert!(complete.try_recv().is_err());
        surveys.answered(survey, id("b"), ok("2"));
        assert_eq!(complete.try_recv(), Ok(()));
        let outcome = surveys.close(survey);
        assert_eq!(outcome.answers, [(id("a"), ok("1")), (id("b"), ok("2"))].into());
        assert!(outcome.silent.is_empty());
    }

    #[test]
    fn a_question_to_nobody_is_complete_at_once() {
        let (_, mut complete) = Surveys::default().open(BTreeSet::new()).unwrap();
        assert_eq!(complete.try_recv(), Ok(()));
    }

    #[test]
    fn closing_early_names_the_silent_nodes() {
        let mut surveys = Surveys::default();
        let (survey, _complete) = surveys.open([id("a"), id("b")].into()).unwrap();
        surveys.answered(survey, id("b"), ok(""));
        assert_eq!(surveys.close(survey).silent, [id("a")].into());
    }

    #[test]
    fn late_repeated_and_unasked_answers_change_nothing() {
        let mut surveys = Surveys::default();
        let (first, _complete) = surveys.open([id("a"), id("b")].into()).unwrap();
        surveys.answered(first, id("a"), ok("1"));
        surveys.answered(first, id("a"), ok("2"));
        surveys.answered(first, id("stranger"), ok("3"));
        surveys.answered(first + 1, id("b"), ok("4"));
        assert_eq!(surveys.close(first), Outcome { answers: [(id("a"), ok("1"))].into(), silent: [id("b")].into() });
        surveys.answered(first, id("b"), ok("5"));
        assert_eq!(surveys.close(first), Outcome::default());
        assert_eq!(surveys.open(BTreeSet::new()).unwrap().0, first + 1);
    }

    #[test]
    fn there_is_an_end_to_open_questions() {
        let mut surveys = Surveys::default();
        for _ in 0..MOST_OPEN {
            assert!(surveys.open(BTreeSet::new()).is_some());
        }
        assert!(surveys.open(BTreeSet::new()).is_none());
        surveys.close(1);
        assert!(surveys.open(BTreeSet::new()).is_some());
    }

    /// A node with two channels.
    struct Two;

    impl Local for Two {
        fn disconnect(&self, _: &Target, _: &Disconnect, _: &[String]) {}
        fn unsubscribe(&self, _: &Target, _: Option<&ChannelName>, _: &Unsubscribed) {}
        fn subscribe(&self, _: &Target, _: &std::sync::Arc<crate::session::ServerSubscription>) {}

        fn refresh(&self, _: &Target, _: &std::sync::Arc<crate::session::ServerRefresh>) {}

        fn channels(&self, matches: &dyn Fn(&str) -> bool) -> BTreeMap<String, u32> {
            let all = [("news".to_owned(), 1), ("cl:x".to_owned(), 2)];
            all.into_iter().filter(|(name, _)| matches(name)).collect()
        }
        fn counts(&self) -> Counts {
            Counts::default()
        }
    }

    #[test]
    fn the_question_for_channels_is_answered() {
        let all = answer(CHANNELS, ask_channels(None), &Two);
        assert_eq!(channels_in(all), Some([("news".to_owned(), 1), ("cl:x".to_owned(), 2)].into()));
        let some = answer(CHANNELS, ask_channels(Some("cl:*")), &Two);
        assert_eq!(channels_in(some), Some([("cl:x".to_owned(), 2)].into()));
    }

    #[test]
    fn what_cannot_be_answered_is_answered_with_a_code() {
        assert_eq!(answer(CHANNELS, Bytes::from_static(b"\xff"), &Two).code, BAD_REQUEST);
        assert_eq!(answer(CHANNELS, ask_channels(Some("[a")), &Two).code, BAD_REQUEST);
        assert_eq!(answer("centrifuge_emulation", Bytes::new(), &Two).code, UNKNOWN_OP);
        assert_eq!(channels_in(Answer { code: UNKNOWN_OP, data: Bytes::new() }), None);
        assert_eq!(channels_in(ok("\u{7f}")), None);
    }
}
