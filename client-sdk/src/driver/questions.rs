//! Questions to token sources, at most one for each purpose.

use std::future::poll_fn;
use std::task::Poll;

use crate::TokenError;
use crate::machine::TokenFor;
use crate::options::TokenFuture;

/// Few at a time, so a list is enough.
#[derive(Default)]
pub(super) struct Questions(Vec<(TokenFor, TokenFuture)>);

impl Questions {
    /// Asks, in place of a question for the same that may be open.
    pub(super) fn ask(&mut self, purpose: TokenFor, answer: TokenFuture) {
        self.forget(purpose);
        self.0.push((purpose, answer));
    }

    pub(super) fn forget(&mut self, purpose: TokenFor) {
        self.0.retain(|(other, _)| *other != purpose);
    }

    pub(super) fn forget_all(&mut self) {
        self.0.clear();
    }

    /// Waits for the next answer. Cancel safe.
    pub(super) async fn next(&mut self) -> (TokenFor, Result<String, TokenError>) {
        poll_fn(|context| {
            for index in 0..self.0.len() {
                let (purpose, answer) = &mut self.0[index];
                if let Poll::Ready(result) = answer.as_mut().poll(context) {
                    let purpose = *purpose;
                    drop(self.0.swap_remove(index));
                    return Poll::Ready((purpose, result));
                }
            }
            Poll::Pending
        })
        .await
    }
}
