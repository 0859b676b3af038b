//! A link between two hosts that is slow and long and loses packets: [`Link`]. It does what netem does, where the kernel has none.
//!
//! Each host has a TUN device, whose packets socat hands to this program and takes from it.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::accept::lab::{Lab, Process, inside, wait_for};
use crate::accept::namespace::Namespace;
use crate::shell::Result;
use crate::splitmix::SplitMix64;

/// The name of the device of either host.
const DEVICE: &str = "link";
/// Bytes of the largest packet.
const MTU: usize = 1500;
/// Packets that wait to be sent, as netem's own queue has them.
const QUEUE: u32 = 1000;
/// How often it is looked whether the link has ended.
const LOOK: Duration = Duration::from_millis(200);

/// What the link does to packets, in both directions alike.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    /// Bits that pass in a second.
    pub(crate) rate: u32,
    /// How much later each packet arrives.
    pub(crate) delay: Duration,
    /// One of so many packets is lost.
    pub(crate) loss: u64,
}

/// Two hosts and the link between them.
pub(crate) struct Link {
    hosts: [Namespace; 2],
    _ends: Vec<Process>,
    ended: Arc<AtomicBool>,
    lost: Arc<AtomicU64>,
}

impl Link {
    /// Makes the hosts and joins them.
    pub(crate) fn new(lab: &Lab, weather: Weather) -> Result<Self> {
        let socat = lab.peer("socat")?;
        let hosts = [Namespace::new(lab, "near")?, Namespace::new(lab, "far")?];
        let (ended, lost) = (Arc::default(), Arc::default());
        let (mut ends, mut sides) = (Vec::new(), Vec::new());
        for (number, host) in hosts.iter().enumerate() {
            let path = |what: &str| lab.path(&format!("link-{number}-{what}"));
            let (ours, theirs) = (path("in"), path("out"));
            for old in [&ours, &theirs] {
                let _ = fs::remove_file(old);
            }
            let socket = UnixDatagram::bind(&ours)?;
            socket.set_read_timeout(Some(LOOK))?;
            let mut end = inside(&host.0, &socat);
            end.arg(format!("TUN:{}/24,tun-name={DEVICE},tun-type=tun,iff-no-pi,iff-up", Self::address(number)));
            end.arg(format!("UNIX-SENDTO:{},bind={}", ours.display(), theirs.display()));
            ends.push(Process::start(&mut end, &path("log"))?);
            wait_for("a TUN device", Duration::from_secs(5), || {
                theirs.exists() && host.ip(&["link", "show", "dev", DEVICE, "up"]).is_ok()
            })?;
            sides.push((socket, theirs));
        }
        let link = Self { hosts, _ends: ends, ended, lost };
        let [(near, to_near), (far, to_far)] =
            <[(UnixDatagram, PathBuf); 2]>::try_from(sides).map_err(|_| "there are two sides")?;
        link.pass(near, to_far, weather, 1)?;
        link.pass(far, to_near, weather, 2)?;
        Ok(link)
    }

    /// Where a host is reached, 0 or 1.
    pub(crate) fn address(host: usize) -> String {
        format!("10.79.0.{}", host + 1)
    }

    /// The namespace of a host.
    pub(crate) fn host(&self, number: usize) -> &Namespace {
        &self.hosts[number]
    }

    /// Packets that were lost so far, not counting those for which the queue was too short.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Which of the kernel's ways to react to loss TCP has between the hosts.
    pub(crate) fn congestion_control(&self, name: &str) -> Result {
        // By the route: the setting of a namespace may name those only that the first one allows to everybody.
        let net = format!("{}/24", Self::address(0).replace(".0.1", ".0.0"));
        let route = ["route", "replace", &net, "dev", DEVICE, "proto", "kernel", "scope", "link", "congctl", name];
        self.hosts.iter().try_for_each(|host| host.ip(&route))
    }

    /// Passes on what comes, in threads that end with the link.
    fn pass(&self, from: UnixDatagram, to: PathBuf, weather: Weather, seed: u64) -> Result {
        let sending = UnixDatagram::unbound()?;
        let (ended, lost) = (Arc::clone(&self.ended), Arc::clone(&self.lost));
        let (sender, under_way) = mpsc::channel::<(Instant, Vec<u8>)>();
        thread::spawn(move || {
            let longest = Duration::from_secs_f64(f64::from(QUEUE) * seconds(MTU, weather.rate));
            // Every run loses the same packets.
            let (mut free, mut numbers) = (Instant::now(), SplitMix64(seed));
            let mut packet = vec![0; 64 << 10];
            while !ended.load(Ordering::Acquire) {
                let Ok(length) = from.recv(&mut packet) else { continue };
                if numbers.next().is_multiple_of(weather.loss) {
                    lost.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                let now = Instant::now();
                let leaves = free.max(now) + Duration::from_secs_f64(seconds(length, weather.rate));
                if leaves.saturating_duration_since(now) > longest {
                    continue;
                }
                free = leaves;
                if sender.send((leaves + weather.delay, packet[..length].to_vec())).is_err() {
                    return;
                }
            }
        });
        thread::spawn(move || {
            for (due, packet) in under_way {
                thread::sleep(due.saturating_duration_since(Instant::now()));
                // A host that is gone gets nothing.
                let _ = sending.send_to(&packet, &to);
            }
        });
        Ok(())
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
    }
}

/// How long so many bytes take.
fn seconds(bytes: usize, rate: u32) -> f64 {
    f64::from(u32::try_from(bytes).unwrap_or(u32::MAX)) * 8.0 / f64::from(rate)
}
