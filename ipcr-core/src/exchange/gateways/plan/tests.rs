use bytes::Bytes;

use super::*;
use crate::dag::file::FileBuilder;

const MIB: u64 = 1 << 20;

/// Leaves of one node and the node.
fn file(leaves: usize) -> (Block, Vec<Block>) {
    let mut builder = FileBuilder::new(leaves);
    let blocks: Vec<Block> = (0..leaves).map(|at| Block::raw(format!("{at:0100}").into())).collect();
    let mut nodes: Vec<Block> = blocks.iter().flat_map(|block| builder.push(*block.cid(), 100)).collect();
    nodes.extend(builder.finish().1);
    (nodes.pop().expect("several leaves have a node"), blocks)
}

fn want(state: &mut State, cid: &Cid, now: Instant) {
    state.want(cid, Waiter::new(now).0);
}

/// Peers and gateways that are measured: so many bytes in a second.
fn measured(rates: &[u64], now: &mut Instant) -> State {
    let mut state = State::new(rates.len() - 1, *now);
    let begin = *now;
    for (source, rate) in state.sources.iter_mut().zip(rates) {
        source.usable = true;
        source.pace = Pace::new(MIB, begin);
        source.pace.asked(*rate, begin);
        *now = begin + Duration::from_secs(1);
        source.pace.received(*rate, *now);
        source.pace.settled(*rate, *now);
        source.pace.tick(*now);
    }
    state
}

/// Learns a file's node, and wants all of its leaves.
fn all(state: &mut State, node: &Block, leaves: &[Block], now: Instant) {
    state.kin.learn(node.cid(), node.data());
    leaves.iter().for_each(|leaf| want(state, leaf.cid(), now));
}

fn blocks_of(asks: &[Ask], source: usize) -> usize {
    let of = asks.iter().filter(|ask| ask.source == source);
    of.map(|ask| if let What::Run { leaves, .. } = &ask.what { leaves.len() } else { 1 }).sum()
}

#[tokio::test]
async fn wants_are_split_by_throughput_and_those_of_gateways_run_together() {
    let mut now = Instant::now();
    let mut state = measured(&[30_000, 10_000], &mut now);
    let (node, leaves) = file(200);
    all(&mut state, &node, &leaves, now);
    let asks = state.plan(now);
    let (peers, gateway) = (blocks_of(&asks, PEERS), blocks_of(&asks, 1));
    assert!((120..=170).contains(&peers), "{peers} of peers, {gateway} of the gateway");
    let runs: Vec<_> = asks
        .iter()
        .filter_map(|ask| if let What::Run { range, leaves, .. } = &ask.what { Some((range, leaves)) } else { None })
        .collect();
    assert!(!runs.is_empty());
    for (range, run) in runs {
        let (first, last) = range.unwrap();
        assert_eq!(last + 1 - first, 100 * run.len() as u64);
        assert_eq!(*leaves[usize::try_from(first / 100).unwrap()].cid().hash(), run[0]);
    }
    assert!(state.plan(now).is_empty(), "nobody is asked twice");
}

#[tokio::test]
async fn a_gateway_alone_is_asked_for_all_of_it() {
    let mut now = Instant::now();
    let mut state = measured(&[1, 100_000], &mut now);
    state.sources[PEERS].usable = false;
    let (node, leaves) = file(40);
    all(&mut state, &node, &leaves, now);
    let asks = state.plan(now);
    assert!(asks.len() <= 4 && asks.iter().all(|ask| ask.source == 1), "{asks:?}");
    assert!(blocks_of(&asks, 1) >= 25, "{asks:?}");
    // One that gives no runs has few requests at a time.
    state = measured(&[1, 100_000], &mut now);
    (state.sources[PEERS].usable, state.sources[1].runs) = (false, false);
    all(&mut state, &node, &leaves, now);
    assert_eq!(state.plan(now).len(), 4);
}

#[tokio::test]
async fn a_whole_node_is_asked_for_without_a_range() {
    let mut now = Instant::now();
    let mut state = measured(&[1, 100_000_000], &mut now);
    (state.sources[PEERS].usable, state.sources[1].window) = (false, 1);
    let (node, leaves) = file(40);
    all(&mut state, &node, &leaves, now);
    let asks = state.plan(now);
    assert!(matches!(&asks[0].what, What::Run { range: None, leaves, .. } if leaves.len() == 40), "{asks:?}");
}

#[tokio::test]
async fn what_was_refused_is_asked_of_others_and_later_again() {
    let mut now = Instant::now();
    let mut state = measured(&[MIB, MIB / 2], &mut now);
    let block = Block::raw(Bytes::from_static(b"wanted"));
    want(&mut state, block.cid(), now);
    for source in [PEERS, 1] {
        let asks = state.plan(now);
        assert!(matches!(&asks[..], [ask] if ask.source == source), "{asks:?}");
        state.ended(asks[0].job, End::Refused, now);
    }
    assert!(state.plan(now).is_empty());
    now += REFUSED;
    state.tick(now);
    assert_eq!(state.plan(now).len(), 1);
    let mut other = measured(&[MIB, MIB / 2], &mut now);
    want(&mut other, block.cid(), now);
    let first = other.plan(now);
    // It broke, which says nothing of the block: asked again.
    other.ended(first[0].job, End::Broken, now);
    assert_eq!(other.plan(now)[0].source, PEERS);
}

#[tokio::test]
async fn what_does_not_come_in_time_is_asked_of_others_too() {
    let mut now = Instant::now();
    let mut state = measured(&[MIB, MIB / 2], &mut now);
    let block = Block::raw(Bytes::from_static(b"wanted"));
    want(&mut state, block.cid(), now);
    let first = state.plan(now);
    assert_eq!(first[0].source, PEERS);
    now += PATIENCE.0;
    state.tick(now);
    assert!(state.plan(now).is_empty());
    now += PATIENCE.0;
    state.tick(now);
    let second = state.plan(now);
    assert!(matches!(&second[..], [ask] if ask.source == 1), "{second:?}");
    // Whoever is first ends it for all.
    assert!(state.received(1, second[0].job, &block, now).is_some());
    assert!(state.received(PEERS, first[0].job, &block, now).is_none());
    state.ended(second[0].job, End::Well, now);
    assert!(state.jobs.is_empty() && state.wants.is_empty());
    assert!(state.sources.iter().all(|source| source.requests == 0 && source.pace.seconds(0) < f64::EPSILON));
}

#[tokio::test]
async fn peers_that_are_lost_are_not_waited_for() {
    let mut now = Instant::now();
    let mut state = measured(&[MIB, MIB / 2], &mut now);
    let block = Block::raw(Bytes::from_static(b"wanted"));
    want(&mut state, block.cid(), now);
    assert_eq!(state.plan(now)[0].source, PEERS);
    state.sources[PEERS].usable = false;
    state.tick(now);
    assert_eq!(state.plan(now)[0].source, 1);
}

#[tokio::test]
async fn who_has_nothing_to_do_takes_over_from_who_has_too_much() {
    let mut now = Instant::now();
    // Nobody knows yet what the gateway can do.
    let mut state = measured(&[1000, 1], &mut now);
    state.sources[1].usable = false;
    let (node, leaves) = file(100);
    all(&mut state, &node, &leaves, now);
    assert_eq!(blocks_of(&state.plan(now), PEERS), 100);
    state.sources[1] = measured(&[1, 1_000_000], &mut now).sources.pop().unwrap();
    state.tick(now);
    let asks = state.plan(now);
    assert_eq!(blocks_of(&asks, 1), asks.len());
    assert!((1..=TAKEN_OVER).contains(&asks.len()), "{asks:?}");
    let last = *leaves[99].cid();
    assert!(asks.iter().any(|ask| matches!(ask.what, What::One(cid) if cid == last)), "the last first: {asks:?}");
}

#[tokio::test]
async fn failures_make_the_window_smaller_and_answers_larger() {
    let mut now = Instant::now();
    let mut state = measured(&[1, MIB], &mut now);
    let window = |state: &State| state.sources[1].window;
    let ask = |state: &mut State, well: bool, now: Instant| {
        let block = Block::raw(state.next.to_le_bytes().to_vec().into());
        want(state, block.cid(), now);
        let asks = state.plan(now);
        assert_eq!(asks[0].source, 1);
        if well {
            state.received(1, asks[0].job, &block, now);
        }
        state.ended(asks[0].job, if well { End::Well } else { End::Broken }, now);
        state.take(block.cid().hash(), None, now);
    };
    assert_eq!(window(&state), REQUESTS.0);
    (0..REQUESTS.0).for_each(|_| ask(&mut state, true, now));
    assert_eq!(window(&state), REQUESTS.0 + 1);
    (0..1000).for_each(|_| ask(&mut state, true, now));
    assert_eq!(window(&state), REQUESTS.1);
    (0..3).for_each(|_| ask(&mut state, false, now));
    assert_eq!(window(&state), REQUESTS.1 / 8);
    (0..3).for_each(|_| ask(&mut state, false, now));
    assert_eq!(window(&state), 1);
    assert_eq!(state.sources[1].requests, 0);
}

#[tokio::test]
async fn nobody_who_gave_up_is_asked_for() {
    let now = &mut Instant::now();
    let mut state = measured(&[MIB, MIB], now);
    let block = Block::raw(Bytes::from_static(b"wanted"));
    want(&mut state, block.cid(), *now);
    let asks = state.plan(*now);
    state.runs_in(asks[0].job, tokio::spawn(std::future::pending::<()>()).abort_handle());
    state.give_up(block.cid().hash(), *now);
    assert!(state.jobs.is_empty() && state.wants.is_empty());
    want(&mut state, block.cid(), *now);
    state.give_up(block.cid().hash(), *now);
    assert!(state.plan(*now).is_empty());
}
