//! One HTTP/2 connection and its calls, driven by one task.
//!
//! The HTTP/2 server of hyper wants a task for each call. A call of this API is over in a few microseconds, and handing it
//! to another thread and its answer back costs more than that; so the calls stay with their connection. What waits for
//! something else (a broker away, a body that is still arriving) holds up nothing: each call is polled when it is woken.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{Stream, stream::FuturesUnordered};
use hyper::{rt::Executor, server::conn::http2};
use hyper_util::rt::TokioTimer;
use parking_lot::Mutex;

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Takes the tasks of one connection, for [`drive`] to run.
///
/// There are at most as many as the connection has streams, and a few that the connection needs for itself.
#[derive(Clone, Default)]
pub(super) struct OwnTasks {
    fresh: Arc<Mutex<Vec<Task>>>,
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for OwnTasks {
    fn execute(&self, task: F) {
        self.fresh.lock().push(Box::pin(task));
    }
}

/// Settings of an HTTP/2 connection that carries API calls.
///
/// At most 1024 calls at a time on one connection; the windows allow for 4 MiB that are on their way to calls not yet read,
/// 1 MiB of them for one call. A peer that answers no ping for 20 s is gone.
pub(super) fn settings(tasks: OwnTasks) -> http2::Builder<OwnTasks> {
    let mut settings = http2::Builder::new(tasks);
    settings
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .max_concurrent_streams(1024)
        .initial_stream_window_size(1024 * 1024)
        .initial_connection_window_size(4 * 1024 * 1024)
        .max_header_list_size(16 * 1024)
        .keep_alive_interval(Duration::from_secs(60))
        .keep_alive_timeout(Duration::from_secs(20));
    settings
}

/// Runs a connection, which gives its tasks to `tasks`, until it ends; tasks that are left then are dropped.
pub(super) async fn drive<C: Future>(connection: C, tasks: &OwnTasks) -> C::Output {
    // A task knows where to put further tasks, so that one that is left there would keep itself alive.
    let _emptied = Emptied(tasks);
    let mut connection = pin!(connection);
    let mut running = FuturesUnordered::new();
    poll_fn(|cx| {
        loop {
            if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                return Poll::Ready(ended);
            }
            running.extend(tasks.fresh.lock().drain(..));
            // What ended has left an answer behind, which the connection is to write now and not when it is woken for it.
            if !run(&mut running, cx) {
                return Poll::Pending;
            }
        }
    })
    .await
}

struct Emptied<'a>(&'a OwnTasks);

impl Drop for Emptied<'_> {
    fn drop(&mut self) {
        let left = std::mem::take(&mut *self.0.fresh.lock());
        drop(left);
    }
}

/// Polls the tasks that were woken; tells whether one of them ended.
fn run(running: &mut FuturesUnordered<Task>, cx: &mut Context<'_>) -> bool {
    let mut any_ended = false;
    while let Poll::Ready(Some(())) = Pin::new(&mut *running).poll_next(cx) {
        any_ended = true;
    }
    any_ended
}
