use proptest::prelude::*;

use super::*;

/// One random edit.
#[derive(Clone, Debug)]
enum Op {
    Push(usize, usize, usize),
    PutReferrer(usize, usize),
    RemoveTag(usize, usize),
    RemoveDigest(usize, usize),
    RemoveImage(usize),
    Describe(usize, usize),
}

const IMAGES: [&str; 4] = ["app", "team", "team/app", "team/app/deep"];
const TAGS: [&str; 3] = ["1", "latest", "v2.0"];
const SEEDS: usize = 5;

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (0..IMAGES.len(), 0..TAGS.len(), 0..SEEDS).prop_map(|(i, t, s)| Op::Push(i, t, s)),
        2 => (0..IMAGES.len(), 0..SEEDS).prop_map(|(i, s)| Op::PutReferrer(i, s)),
        2 => (0..IMAGES.len(), 0..TAGS.len()).prop_map(|(i, t)| Op::RemoveTag(i, t)),
        2 => (0..IMAGES.len(), 0..SEEDS).prop_map(|(i, s)| Op::RemoveDigest(i, s)),
        1 => (0..IMAGES.len()).prop_map(Op::RemoveImage),
        1 => (0..IMAGES.len(), 0..3_usize).prop_map(|(i, d)| Op::Describe(i, d)),
    ]
}

fn stored_image(hub: &Hub, seed: usize) -> StoredImage {
    match seed {
        0 => hub.index(&["linux/amd64", "linux/arm64"], "0"),
        1 => hub.index(&["windows/amd64", "linux/amd64"], "0"),
        seed => hub.image("linux/amd64", &seed.to_string()),
    }
}

fn edit(hub: &Hub, op: &Op, at: i64) -> Edit {
    match *op {
        Op::Push(image, tag, seed) => set_tag(IMAGES[image], TAGS[tag], &stored_image(hub, seed), at),
        Op::PutReferrer(image, seed) => {
            let subject = stored_image(hub, seed).root;
            put(IMAGES[image], &hub.referrer(&subject, "note"), at)
        }
        Op::RemoveTag(image, tag) => remove_tag(IMAGES[image], TAGS[tag]),
        Op::RemoveDigest(image, seed) => remove_digest(IMAGES[image], stored_image(hub, seed).root.digest),
        Op::RemoveImage(image) => remove_image(IMAGES[image]),
        Op::Describe(image, text) => describe(IMAGES[image], ["", "one", "two"][text], ["", "x", "y"][text]),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever is done, the registry has no contradiction, all of its directories are those of a fresh build, what is
    /// derived equals what is derived anew, tags name what they were last set to, and doing it all at once gives the same.
    #[test]
    fn edits_equal_a_rebuild(ops in proptest::collection::vec(op(), 1..30)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut hub = Hub::new().await;
            let mut model: BTreeMap<(&str, &str), Digest> = BTreeMap::new();
            let mut done = Vec::new();
            for (at, op) in (0..).zip(&ops) {
                let edit = edit(&hub, op, at);
                if hub.edit(std::slice::from_ref(&edit)).await.is_err() {
                    continue;
                }
                done.push(edit);
                match *op {
                    Op::Push(image, tag, seed) => {
                        model.insert((IMAGES[image], TAGS[tag]), stored_image(&hub, seed).root.digest);
                    }
                    Op::RemoveTag(image, tag) => drop(model.remove(&(IMAGES[image], TAGS[tag]))),
                    Op::RemoveDigest(image, seed) => {
                        let digest = stored_image(&hub, seed).root.digest;
                        model.retain(|(name, _), named| *name != IMAGES[image] || *named != digest);
                    }
                    Op::RemoveImage(image) => model.retain(|(name, _), _| *name != IMAGES[image]),
                    Op::PutReferrer(..) | Op::Describe(..) => {}
                }
            }
            hub.assert_sound().await;
            for image in IMAGES {
                for tag in TAGS {
                    let found = hub.find(image, tag).await.ok().and_then(|found| found.digest());
                    prop_assert_eq!(found, model.get(&(image, tag)).copied());
                }
            }
            let mut again = Hub::new().await;
            again.store = hub.store.clone();
            again.reader = hub.reader.clone();
            again.edit(&done).await.unwrap();
            prop_assert_eq!(again.root, hub.root);
            for image in IMAGES {
                let _ = hub.edit(&[remove_image(image)]).await;
            }
            prop_assert_eq!(hub.root, Hub::new().await.root);
            Ok(())
        })?;
    }

    /// Images that do not meet give the same registry in any order.
    #[test]
    fn the_order_of_pushes_leaves_no_trace(order in Just((0..12_usize).collect::<Vec<_>>()).prop_shuffle()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut roots = Vec::new();
            for order in [(0..12).collect(), order] {
                let mut hub = Hub::new().await;
                for n in order {
                    let image = stored_image(&hub, n % SEEDS);
                    hub.push(IMAGES[n % 4], TAGS[n / 4], &image, i64::try_from(n).unwrap()).await;
                }
                roots.push(hub.root);
            }
            prop_assert_eq!(roots[0], roots[1]);
            Ok(())
        })?;
    }
}
