//! Benches of ipcr: see the `benches` and `examples` folders. Here is what they share.

use std::error::Error;

/// What the programs end with.
pub type Result<T = ()> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Parts of a second in which the kernel counts processor time.
const TICKS: u32 = 100;

/// Processor seconds of this process (proc(5), `stat`).
///
/// # Errors
/// When the kernel does not tell.
pub fn cpu() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit_once(')').ok_or("a stat line names the program")?.1;
    let ticks: u32 = fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u32>().ok()).sum();
    Ok(f64::from(ticks) / f64::from(TICKS))
}

/// The header of a file in a tar.
///
/// # Panics
/// When the name has more than 100 bytes.
pub fn tar_header(name: &str, size: usize) -> [u8; 512] {
    let mut header = [0; 512];
    header[..100][..name.len()].copy_from_slice(name.as_bytes());
    header[100..107].copy_from_slice(b"0000644");
    header[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
    header[148..156].fill(b' ');
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    header
}
