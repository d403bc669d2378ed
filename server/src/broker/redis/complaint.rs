//! Saying the same thing in the log once, not once per command.

use std::time::{Duration, Instant};

/// Lets one of many complaints through in ten seconds, and counts the others.
#[derive(Default)]
pub(super) struct Complaint {
    last: Option<Instant>,
    unsaid: u64,
}

impl Complaint {
    const EVERY: Duration = Duration::from_secs(10);

    /// The number of complaints that were not made since the last one, if one is due.
    pub(super) fn due(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now.duration_since(last) < Self::EVERY) {
            self.unsaid += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_complaint_in_ten_seconds_says_how_many_were_swallowed() {
        let mut complaint = Complaint::default();
        let start = Instant::now();
        assert_eq!(complaint.due(start), Some(0));
        assert_eq!(complaint.due(start + Duration::from_secs(9)), None);
        assert_eq!(complaint.due(start + Duration::from_secs(9)), None);
        assert_eq!(complaint.due(start + Duration::from_secs(10)), Some(2));
    }
}
