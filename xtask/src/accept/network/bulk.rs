//! Two nodes that send all they can to each other by one TCP connection.

use std::thread;

use super::{Holder, serve};
use crate::accept::Figure;
use crate::accept::lab::Lab;
use crate::accept::site::require;
use crate::accept::watched::{self, STALL};
use crate::line::{Line, Quality};
use crate::shell::Result;

/// Bytes that pass in a second, in each direction: so few that whatever can be full is full all the time.
const RATE: u32 = 8 << 20;
/// The longest time in seconds without bytes: what is wanted waits behind what fills the buffers of the line.
const LIMIT: f64 = 3.0 * STALL;

/// Line 1: for about 10 s.
pub(crate) fn short(lab: &Lab) -> Result<Figure> {
    both_ways(lab, "bulk", 10)
}

/// Line 1: for about 60 s.
pub(crate) fn long(lab: &Lab) -> Result<Figure> {
    both_ways(lab, "bulk60", 60)
}

/// Each has as much for the other as the line passes in so many seconds.
fn both_ways(lab: &Lab, name: &str, seconds: usize) -> Result<Figure> {
    let size = seconds * RATE as usize;
    let [a, b] =
        [(321, 'a'), (322, 'b')].map(|(seed, letter)| Holder::start(lab, &format!("{name}-{letter}"), seed, &[size]));
    let (a, mut b) = (a?, b?);
    let port = a.address.split('/').nth(4).and_then(|port| port.parse().ok()).ok_or("the address has a port")?;
    let rate = Some(f64::from(RATE));
    let line = Line::start(port, Quality { up: rate, down: rate, ..Quality::default() })?;
    let address = line.lead(&a.address, port);
    // Only by the line do they know each other.
    drop(b.service);
    (b.service, b.address) = serve(&b.home, &["--peer", &address])?;
    let pull = |to: &Holder<'_>, from: &Holder<'_>| {
        let command = watched::command(&to.home, &[&from.reference, "--into", "none"]);
        thread::spawn(|| watched::watch(command))
    };
    let (from_a, from_b) = (pull(&b, &a), pull(&a, &b));
    let [from_a, from_b] = [from_a, from_b].map(|pull| pull.join().expect("it does not panic"));
    let (from_a, from_b) = (from_a?, from_b?);
    let connections = line.connections();
    require(connections == 1, || format!("there were {connections} connections"))?;
    let through = from_a.result["peers"][0]["address"].as_str().unwrap_or_default();
    require(through.contains(&format!("/tcp/{}", line.port)), || format!("the bytes came from {through:?}"))?;
    a.check(&b.home, &from_a.result)?;
    b.check(&a.home, &from_b.result)?;
    let mut figure = Figure::at_most(from_a.stall.max(from_b.stall), LIMIT, "s without bytes")?;
    let each = format!(", {} MiB each way in {:.1} and {:.1} s", size >> 20, from_a.seconds, from_b.seconds);
    figure.found.push_str(&each);
    Ok(figure)
}
