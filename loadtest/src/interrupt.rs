//! Ctrl-C: the run ends early and still reports what it measured.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// Repeats within this time are one request: tools that run others often pass the signal on to a process that has it.
const ONE_REQUEST: Duration = Duration::from_secs(1);

/// Tells a blocking command that the user wants it to end.
#[derive(Clone, Debug, Default)]
pub struct Interrupt {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    raised: AtomicBool,
    lock: Mutex<()>,
    changed: Condvar,
}

impl Interrupt {
    /// Listens for SIGINT on a thread of its own. A second one ends the process at once, with code 130.
    ///
    /// # Errors
    ///
    /// When the thread or its runtime cannot be made.
    pub fn listen() -> anyhow::Result<Self> {
        let interrupt = Interrupt::default();
        let raised = interrupt.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        std::thread::Builder::new().name("interrupt".to_owned()).spawn(move || {
            runtime.block_on(async {
                let mut first = None;
                while tokio::signal::ctrl_c().await.is_ok() {
                    match first {
                        None => {
                            eprintln!("interrupted: finishing with a report (once more ends at once)");
                            raised.raise();
                            first = Some(Instant::now());
                        }
                        Some(first) if first.elapsed() < ONE_REQUEST => {}
                        Some(_) => std::process::exit(130),
                    }
                }
            });
        })?;
        Ok(interrupt)
    }

    /// True once the user has asked to end.
    pub fn is_raised(&self) -> bool {
        self.shared.raised.load(Ordering::Relaxed)
    }

    /// Waits for at most `duration`; true when interrupted, before or meanwhile.
    pub fn wait(&self, duration: Duration) -> bool {
        let deadline = Instant::now() + duration;
        let mut guard = self.shared.lock.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        while !self.is_raised() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.shared.changed.wait_timeout(guard, left);
            guard = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
        true
    }

    fn raise(&self) {
        let _guard = self.shared.lock.lock();
        self.shared.raised.store(true, Ordering::Relaxed);
        self.shared.changed.notify_all();
    }
}
