//! What a process costs, from `/proc`: processor time and memory, of the server and of the generator itself.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;

/// Reads the costs of one process.
#[derive(Clone, Copy, Debug)]
pub struct ProcessProbe {
    pid: u32,
}

/// Processor time of a process at one moment.
///
/// Two clocks: the scheduler's nanoseconds of every living thread (`/proc/PID/task/*/schedstat`), and the ticks of the
/// whole process, ended threads included (`/proc/PID/stat`). The first is used as long as no thread has ended between
/// two readings, because a tick is 10 ms.
#[derive(Clone, Debug)]
pub struct CpuReading {
    threads: HashMap<u32, u64>,
    ticks: u64,
}

/// Memory of a process.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct MemoryReading {
    /// Resident bytes, what `VmRSS` says.
    pub resident_bytes: u64,
    /// The part that is neither files nor shared memory.
    pub anonymous_bytes: u64,
}

impl ProcessProbe {
    /// A probe of the process `pid`.
    ///
    /// # Errors
    ///
    /// When the process cannot be read: it does not exist or belongs to another user.
    pub fn new(pid: u32) -> anyhow::Result<Self> {
        let probe = ProcessProbe { pid };
        probe.cpu().and(probe.memory().map(drop)).with_context(|| format!("process {pid} cannot be read"))?;
        Ok(probe)
    }

    /// A probe of this process.
    pub fn own() -> Self {
        ProcessProbe { pid: std::process::id() }
    }

    /// The processor time used so far.
    ///
    /// # Errors
    ///
    /// When the process is gone.
    pub fn cpu(&self) -> io::Result<CpuReading> {
        let mut threads = HashMap::new();
        for entry in fs::read_dir(format!("/proc/{}/task", self.pid))? {
            let Some(thread) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            // A thread may end between listing and reading.
            if let Ok(time) = thread_time(&format!("/proc/{}/task/{thread}/schedstat", self.pid)) {
                threads.insert(thread, time);
            }
        }
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid))?;
        // Fields are counted after the command name, which may hold anything, in parentheses.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = [11, 12].iter().filter_map(|&at| fields.get(at)?.parse::<u64>().ok()).sum();
        Ok(CpuReading { threads, ticks })
    }

    /// Context switches of all living threads so far.
    ///
    /// # Errors
    ///
    /// When the process is gone.
    pub fn context_switches(&self) -> io::Result<u64> {
        let mut switches = 0;
        for entry in fs::read_dir(format!("/proc/{}/task", self.pid))? {
            // A thread may end between listing and reading.
            let Ok(status) = fs::read_to_string(entry?.path().join("status")) else { continue };
            let counts = status.lines().filter_map(|line| line.split_once("voluntary_ctxt_switches:"));
            switches += counts.filter_map(|(_, count)| count.trim().parse::<u64>().ok()).sum::<u64>();
        }
        Ok(switches)
    }

    /// Open descriptors.
    ///
    /// # Errors
    ///
    /// When the process is gone or belongs to another user.
    pub fn descriptors(&self) -> io::Result<u64> {
        Ok(fs::read_dir(format!("/proc/{}/fd", self.pid))?.count() as u64)
    }

    /// The memory used now.
    ///
    /// # Errors
    ///
    /// When the process is gone.
    pub fn memory(&self) -> io::Result<MemoryReading> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) * 1024
        };
        Ok(MemoryReading { resident_bytes: field("VmRSS:"), anonymous_bytes: field("RssAnon:") })
    }
}

impl CpuReading {
    /// Processor time between an earlier reading and this one.
    pub fn since(&self, earlier: &CpuReading) -> Duration {
        let none_ended = earlier.threads.keys().all(|thread| self.threads.contains_key(thread));
        if none_ended && self.threads.values().any(|&time| time > 0) {
            let times = self.threads.iter();
            let spent = times.map(|(thread, time)| time.saturating_sub(*earlier.threads.get(thread).unwrap_or(&0)));
            return Duration::from_nanos(spent.sum());
        }
        let ticks = self.ticks.saturating_sub(earlier.ticks);
        Duration::from_nanos(ticks * (1_000_000_000 / rustix::param::clock_ticks_per_second().max(1)))
    }
}

impl CpuReading {
    /// Processor time of the one thread that used most between an earlier reading and this one.
    pub fn busiest_thread_since(&self, earlier: &CpuReading) -> Duration {
        let times = self.threads.iter();
        let spent = times.map(|(thread, time)| time.saturating_sub(*earlier.threads.get(thread).unwrap_or(&0)));
        Duration::from_nanos(spent.max().unwrap_or(0))
    }
}

/// Processor time of the calling thread so far; zero where the kernel does not tell.
pub fn own_thread_time() -> Duration {
    Duration::from_nanos(thread_time("/proc/thread-self/schedstat").unwrap_or(0))
}

fn thread_time(path: &str) -> io::Result<u64> {
    let text = fs::read_to_string(path)?;
    Ok(text.split_whitespace().next().and_then(|time| time.parse().ok()).unwrap_or(0))
}

/// Raises the soft limit of descriptors to the hard one and returns it.
pub fn raise_descriptor_limit() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Failure leaves the old limit, which is then what the caller is told.
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let now = if raised.is_ok() { limit.maximum } else { limit.current };
    now.unwrap_or(u64::MAX)
}

/// The kernel's release, for provenance.
pub fn kernel_release() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_processor_time_grows_with_work_and_never_shrinks() {
        let probe = ProcessProbe::own();
        let before = probe.cpu().expect("own process");
        let mut mixed = 1u64;
        while own_thread_time() < Duration::from_millis(20) {
            mixed = std::hint::black_box(mixed.wrapping_mul(31));
        }
        let after = probe.cpu().expect("own process");
        assert!(after.since(&before) > Duration::ZERO);
        assert!(probe.memory().expect("own process").resident_bytes > 0);
        assert!(probe.descriptors().expect("own process") > 2);
        assert!(probe.context_switches().expect("own process") > 0);
    }

    #[test]
    fn an_ended_thread_makes_the_reading_fall_back_to_ticks() {
        let earlier = CpuReading { threads: HashMap::from([(1, 5_000), (2, 7_000)]), ticks: 10 };
        let later = CpuReading { threads: HashMap::from([(1, 6_000), (3, 500)]), ticks: 12 };
        assert!(later.since(&earlier) >= Duration::from_millis(2));
        let alive = CpuReading { threads: HashMap::from([(1, 6_000), (2, 7_000), (3, 500)]), ticks: 12 };
        assert_eq!(alive.since(&earlier), Duration::from_nanos(1_500));
    }

    #[test]
    fn an_absent_process_is_an_error_with_its_number() {
        let error = ProcessProbe::new(u32::MAX).expect_err("no such process");
        assert!(format!("{error:#}").contains("4294967295"));
    }
}
