//! The disk store under conditions that a process cannot show to itself: `kill -9`, and a disk that is full.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail and tell like tests")]

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use ipcr_core::dag::block::Block;
use ipcr_core::kind::ErrorKind;
use ipcr_core::limits;
use ipcr_core::port::blocks::{BlockStore as _, Live};
use ipcr_core::port::table::{Change, Space, Table as _};
use ipcr_core::store::Home;

const CHILD: &str = "IPCR_TEST_STORE_CHILD";

fn block(seed: u64, len: usize) -> Block {
    // Cheap bytes that do not repeat.
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    Block::raw((0..len.div_ceil(8)).flat_map(next).take(len).collect())
}

fn live<'b>(blocks: impl IntoIterator<Item = &'b Block>) -> Live {
    let mut live = Live::default();
    for block in blocks {
        live.insert(block.cid());
    }
    live
}

/// Not a test by itself: what the killed process of the next test does.
#[tokio::test]
#[ignore = "a child process that kill_nine_loses_nothing_that_was_committed starts and kills"]
async fn writes_until_killed() {
    let Some(folder) = std::env::var_os(CHILD) else { return };
    let home = Home::open(Path::new(&folder), Duration::ZERO).unwrap();
    let (store, table) = (home.blocks().unwrap(), home.table().unwrap());
    let session = store.begin(limits::LEASE).await.unwrap();
    for round in 0.. {
        let blocks = (0..20).map(|at| block(round * 20 + at, 50_000)).collect();
        session.put(blocks).await.unwrap();
        if round % 3 == 2 {
            session.commit().await.unwrap();
            let key = round.to_be_bytes().to_vec();
            table.write(vec![Change::Put(Space::Trust, key, vec![])]).await.unwrap();
            println!("committed {round}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_nine_loses_nothing_that_was_committed() {
    let folder = tempfile::tempdir().unwrap();
    for attempt in 1..=3_u64 {
        let path = folder.path().join(attempt.to_string());
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "writes_until_killed", "--ignored", "--nocapture"])
            .env(CHILD, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut committed = None;
        let mut wanted = 2 * attempt;
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            if let Some(round) = line.unwrap().split("committed ").nth(1).and_then(|round| round.parse::<u64>().ok()) {
                committed = Some(round);
                wanted -= 1;
                if wanted == 0 {
                    std::thread::sleep(Duration::from_millis(7 * attempt));
                    child.kill().unwrap();
                    break;
                }
            }
        }
        child.wait().unwrap();
        let committed = committed.expect("the child got somewhere");
        let home = Home::open(&path, Duration::from_secs(5)).unwrap();
        let (store, table) = (home.blocks().unwrap(), home.table().unwrap());
        let report = store.check(true).await.unwrap();
        assert!(report.damaged.is_empty() && report.problems.is_empty(), "{report:?}");
        for seed in 0..(committed + 1) * 20 {
            let block = block(seed, 50_000);
            assert_eq!(store.get(block.cid()).await.unwrap().as_ref(), Some(block.data()), "block {seed}");
        }
        let rounds = table.scan(Space::Trust, b"").await.unwrap();
        assert!(rounds.iter().any(|(key, _)| *key == committed.to_be_bytes()));
        // What was written after the last commit is leased, and every block can be added.
        let before = store.usage().await.unwrap().blocks;
        let pinned: Vec<Block> = (0..before + 40).map(|seed| block(seed, 50_000)).collect();
        store.sweep(&live(&pinned[..10]), true).await.unwrap();
        assert!(store.usage().await.unwrap().blocks < before);
        let session = store.begin(limits::LEASE).await.unwrap();
        session.put(pinned.clone()).await.unwrap();
        session.commit().await.unwrap();
        let cids: Vec<_> = pinned.iter().map(|block| *block.cid()).collect();
        assert!(store.has(&cids).await.unwrap().into_iter().all(|held| held));
    }
}

/// A small file system of its own, where this user may mount one.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(path: &Path, mebibytes: u32) -> Option<Self> {
        std::fs::create_dir_all(path).unwrap();
        let size = format!("size={mebibytes}m");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(path).output();
        mount.is_ok_and(|output| output.status.success()).then(|| Self(path.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn full_disks_are_told_and_survived() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(&folder.path().join("disk"), 24) else {
        println!("SKIPPED: this user may not mount a small file system");
        return;
    };
    let path = disk.0.join("home");
    let home = Home::open(&path, Duration::ZERO).unwrap();
    let (store, table) = (home.blocks().unwrap(), home.table().unwrap());
    let kept: Vec<Block> = (0..50).map(|seed| block(seed, 100_000)).collect();
    let session = store.begin(limits::LEASE).await.unwrap();
    session.put(kept.clone()).await.unwrap();
    session.commit().await.unwrap();
    drop(session);
    table.write(vec![Change::Put(Space::Registry, b"root".to_vec(), b"one".to_vec())]).await.unwrap();

    // Blocks of all sizes until nothing fits any more, not even an index page.
    let session = store.begin(limits::LEASE).await.unwrap();
    let mut seed = 1000;
    for size in [1 << 20, 100_000, 4000, 100] {
        loop {
            seed += 1;
            let outcome = session.put(vec![block(seed, size)]).await;
            if let Err(error) = outcome {
                assert_eq!(error.kind(), ErrorKind::DiskFull, "{error:?}");
                break;
            }
        }
    }
    let refused = session.commit().await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::DiskFull, "{refused:?}");
    let large = vec![7; 4 << 20];
    let refused = table.write(vec![Change::Put(Space::Registry, b"root".to_vec(), large)]).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::DiskFull, "{refused:?}");
    for block in &kept {
        assert_eq!(store.get(block.cid()).await.unwrap().as_ref(), Some(block.data()));
    }
    assert_eq!(table.get(Space::Registry, b"root").await.unwrap().unwrap(), b"one");
    drop((session, store, table, home));

    // It still opens, reads, and gives space back.
    let home = reopen(&path).await;
    let (store, table) = (home.blocks().unwrap(), home.table().unwrap());
    for block in &kept {
        assert_eq!(store.get(block.cid()).await.unwrap().as_ref(), Some(block.data()));
    }
    assert_eq!(table.get(Space::Registry, b"root").await.unwrap().unwrap(), b"one");
    store.sweep(&live(&kept), false).await.unwrap();
    let usage = store.usage().await.unwrap();
    assert_eq!((usage.blocks, usage.bytes), (50, 5_000_000));
    assert!(usage.disk_bytes < 8_000_000, "{usage:?}");
    let session = store.begin(limits::LEASE).await.unwrap();
    session.put((2000..2100).map(|seed| block(seed, 100_000)).collect()).await.unwrap();
    session.commit().await.unwrap();
    table.write(vec![Change::Put(Space::Registry, b"root".to_vec(), b"two".to_vec())]).await.unwrap();
    let report = store.check(true).await.unwrap();
    assert!(report.damaged.is_empty() && report.problems.is_empty(), "{report:?}");
    let mut names: Vec<_> = path.read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["blocks", "index.redb", "lock", "tables.redb", "version"]);
}

async fn reopen(path: &Path) -> Home {
    let path = path.to_owned();
    tokio::task::spawn_blocking(move || Home::open(&path, Duration::from_secs(10)).unwrap()).await.unwrap()
}
