//! Free TCP ports, known before a server binds them.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, TcpListener},
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Result, bail};

/// Below the range from which systems take the local ports of outgoing connections: a port from there, free when it was
/// chosen, may belong to a connection of another scenario when the server binds it.
const RANGE: Range<u16> = 12_000..32_000;

/// Hands out each port to one user at a time.
#[derive(Default)]
pub(crate) struct Ports(Mutex<BTreeSet<u16>>);

/// A port that is ours until this is dropped.
pub(crate) struct Port {
    number: u16,
    owner: Arc<Ports>,
}

impl Ports {
    /// A port at random, so that two runs at the same time hardly ever choose the same one.
    pub(crate) fn take(self: &Arc<Self>) -> Result<Port> {
        for _ in 0..1000 {
            let number = rand::random_range(RANGE);
            let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if !taken.contains(&number) && TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                taken.insert(number);
                return Ok(Port { number, owner: self.clone() });
            }
        }
        bail!("no free port in {RANGE:?}")
    }
}

impl Port {
    pub(crate) fn number(&self) -> u16 {
        self.number
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.owner.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
    }
}
