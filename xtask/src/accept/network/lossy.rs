//! Line 5: over a long line that loses packets, an image comes as fast as a file by TCP.

use std::fs;
use std::time::{Duration, Instant};

use super::Holder;
use super::link::{Link, Weather};
use crate::accept::Figure;
use crate::accept::lab::{Lab, Process, inside};
use crate::accept::site::{require, same, text};
use crate::bench::median;
use crate::shell::{Result, run};

/// 100 Mbit in a second, 50 ms there and back, and one packet of a thousand lost.
const WEATHER: Weather = Weather { rate: 100_000_000, delay: Duration::from_millis(25), loss: 1000 };
/// Bytes of the image, and of the file.
const BYTES: usize = 40_000_000;
/// What TCP may do about loss: the best that there is for such a line, where the kernel has it, and what most hosts do.
const CONTROLS: [&str; 2] = ["bbr", "cubic"];
/// How fast a pull has to be beside one TCP copy.
const SHARE: f64 = 0.7;
/// How long a pull may take at most, in seconds: 3.2 of them are the line's.
const SECONDS: f64 = 12.0;
/// Where the copy is sent from.
const PORT: u16 = 9000;

/// Beside the best congestion control that TCP has on this machine.
pub(crate) fn beside_best(lab: &Lab) -> Result<Figure> {
    beside(lab, 1)
}

/// Beside each.
pub(crate) fn beside_all(lab: &Lab) -> Result<Figure> {
    beside(lab, CONTROLS.len())
}

/// Medians of three.
fn beside(lab: &Lab, controls: usize) -> Result<Figure> {
    let link = Link::new(lab, WEATHER)?;
    let mut home = lab.home(&format!("lossy-a{controls}"));
    home.flags = vec!["--network".into(), "lan".into()];
    home.namespace = Some(link.host(0).0.clone());
    let holder = Holder::start_at(home, &Link::address(0), 412, &[BYTES])?;
    let quic = holder.quic.clone().ok_or("the holder is not reached by QUIC")?;
    let known = fs::read_to_string("/proc/sys/net/ipv4/tcp_available_congestion_control")?;
    let known: Vec<&str> = known.split_whitespace().collect();
    let controls: Vec<&str> = CONTROLS.into_iter().filter(|control| known.contains(control)).take(controls).collect();
    require(!controls.is_empty(), || format!("TCP has none of {CONTROLS:?} here"))?;
    let (mut copies, mut pulls) = (vec![Vec::new(); controls.len()], Vec::new());
    for _ in 0..3 {
        for (control, copies) in controls.iter().zip(&mut copies) {
            link.congestion_control(control)?;
            copies.push(copy(lab, &link)?);
        }
        pulls.push(pull(lab, &link, &holder, &quic)?);
    }
    require(link.lost() > 0, || "no packet was lost".into())?;
    let pull = median(&pulls, |seconds| *seconds);
    let copies: Vec<f64> = copies.iter().map(|copies| median(copies, |seconds| *seconds)).collect();
    let shares = controls.iter().zip(&copies);
    let shares = shares.map(|(control, copy)| format!("{:.2} of one TCP copy ({control}, {copy:.1} s)", copy / pull));
    // Without BBR to compare with, it is all the same nothing that CUBIC could do.
    require(pull < SECONDS, || format!("a pull took {pull:.1} s, limit {SECONDS}"))?;
    let found = format!("{pull:.1} s, {}", shares.collect::<Vec<_>>().join(", "));
    require(copies.iter().all(|copy| copy / pull >= SHARE), || format!("{found}, limit {SHARE}"))?;
    Ok(Figure { found, limit: format!(">= {SHARE}") })
}

/// One file by TCP; the seconds.
fn copy(lab: &Lab, link: &Link) -> Result<f64> {
    let (file, copy) = (lab.path("lossy.file"), lab.path("lossy.copy"));
    fs::write(&file, vec![0x5a; BYTES])?;
    let socat = lab.peer("socat")?;
    let mut sender = inside(&link.host(0).0, &socat);
    sender.arg("-u").arg(format!("OPEN:{}", file.display())).arg(format!("TCP-LISTEN:{PORT},reuseaddr"));
    let _sender = Process::start(&mut sender, &lab.path("lossy.log"))?;
    let mut receiver = inside(&link.host(1).0, &socat);
    let from = format!("TCP:{}:{PORT},retry=50,interval=0.05", Link::address(0));
    receiver.args(["-u", &from]).arg(format!("OPEN:{},creat,trunc", copy.display()));
    let begin = Instant::now();
    run(&mut receiver)?;
    let seconds = begin.elapsed().as_secs_f64();
    same("the bytes of the copy", &fs::metadata(&copy)?.len(), &fs::metadata(&file)?.len())?;
    fs::remove_file(file)?;
    fs::remove_file(copy)?;
    Ok(seconds)
}

/// One image by QUIC; the seconds of the whole command.
fn pull(lab: &Lab, link: &Link, holder: &Holder<'_>, quic: &str) -> Result<f64> {
    let mut home = lab.home("lossy-b");
    home.flags = ["--network", "lan", "--peer", quic].map(str::to_owned).into();
    home.namespace = Some(link.host(1).0.clone());
    let begin = Instant::now();
    let pulled = home.json(&["pull", &holder.reference, "--into", "none"])?;
    let seconds = begin.elapsed().as_secs_f64();
    let by = text(&pulled["peers"][0], "address")?;
    require(by.contains("/quic-v1"), || format!("the bytes came by {by}"))?;
    holder.check(&home, &pulled)?;
    fs::remove_dir_all(&home.dir)?;
    Ok(seconds)
}
