//! The index of the packs: [`Index`].
//!
//! One redb file: where each block is, how far each pack is indexed and how much of it is alive, and the leases. The
//! records of a pack before its indexed end that no row names are dead space; those behind it are found by scanning.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Bound;
use std::path::Path;

use redb::{ReadableTable as _, ReadableTableMetadata as _, Table, TableDefinition, TableError, WriteTransaction};

use super::record::{self, Key, Place};
use crate::store::database::{Access, Database, Failure};

/// Bytes of index pages that are kept in memory. The system caches the file as well; these count as memory of the process, and
/// fill up with what a large image writes.
const CACHE_BYTES: usize = 256 << 10;
/// Rows that are read at once.
const PAGE: usize = 4096;
/// The newest format of packs and index that this version knows.
pub(super) const FORMAT: u32 = 2;

/// Multihash -> pack, offset of the data, its length, its sum ([`Place`]).
const BLOCKS: TableDefinition<'_, &[u8], (u32, u64, u32, u32)> = TableDefinition::new("places");
/// The same in format 1, without sums.
const BLOCKS_1: TableDefinition<'_, &[u8], (u32, u64, u32)> = TableDefinition::new("blocks");
/// Pack -> [`PackRow`].
const PACKS: TableDefinition<'_, u32, (u64, u64, u64, bool)> = TableDefinition::new("packs");
/// Session, number of the row -> up to [`LEASES_PER_ROW`] multihashes. A commit deletes all rows of its session at once, and needs
/// memory for the pages that they are on.
const LEASES: TableDefinition<'_, (u64, u64), &[u8]> = TableDefinition::new("lease-rows");
const LEASES_PER_ROW: usize = 64;
/// Session -> when its leases end, in milliseconds since 1970.
const SESSIONS: TableDefinition<'_, u64, u64> = TableDefinition::new("sessions");
/// Multihashes of blocks that were found damaged and have not been added again.
const DAMAGED: TableDefinition<'_, &[u8], ()> = TableDefinition::new("damaged");
/// Facts about the store itself.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

/// What the index says about a pack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PackRow {
    /// Everything before this offset is indexed, or dead.
    pub(super) end: u64,
    /// Bytes of the records that rows name, headers included.
    pub(super) live: u64,
    /// Bytes of data in them.
    pub(super) data: u64,
    /// Nothing in it is needed any more; the file is to be deleted.
    pub(super) condemned: bool,
}

impl PackRow {
    fn from_row((end, live, data, condemned): (u64, u64, u64, bool)) -> Self {
        Self { end, live, data, condemned }
    }

    fn row(self) -> (u64, u64, u64, bool) {
        (self.end, self.live, self.data, self.condemned)
    }
}

/// Rows that say which session leases what, and until when.
#[derive(Clone, Debug)]
pub(super) struct LeaseRows {
    pub(super) session: u64,
    pub(super) until: u64,
    pub(super) keys: Vec<Key>,
}

/// One durable step.
#[derive(Debug, Default)]
pub(super) struct Step {
    /// Blocks and where they are now.
    pub(super) places: Vec<(Key, Place)>,
    /// How far packs are indexed now.
    pub(super) ends: BTreeMap<u32, u64>,
    /// Leases to add.
    pub(super) leases: Vec<LeaseRows>,
    /// Sessions whose leases go.
    pub(super) released: Vec<u64>,
    /// Copies: which block, where it was, where its copy is.
    pub(super) moved: Vec<(Key, Place, Place)>,
    /// Packs that nobody needs once this step is taken.
    pub(super) condemned: Vec<u32>,
}

impl Step {
    pub(super) fn is_empty(&self) -> bool {
        let lists = self.leases.is_empty() && self.released.is_empty() && self.condemned.is_empty();
        lists && self.places.is_empty() && self.ends.is_empty() && self.moved.is_empty()
    }
}

/// The open index.
#[derive(Debug)]
pub(super) struct Index(Database);

impl Index {
    /// Opens or makes the file; the second value is its format.
    pub(super) fn open(path: &Path, access: Access) -> Result<(Self, u32), Failure> {
        let database = Database::open(path, CACHE_BYTES, access)?;
        let found = database.read(|transaction| match transaction.open_table(META) {
            Ok(table) => Ok(table.get("format")?.map(|value| value.value())),
            Err(TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(error.into()),
        })?;
        let Some(found) = found else {
            database.write(|transaction| {
                transaction.open_table(BLOCKS)?;
                transaction.open_table(PACKS)?;
                transaction.open_table(LEASES)?;
                transaction.open_table(SESSIONS)?;
                transaction.open_table(META)?.insert("format", u64::from(FORMAT))?;
                Ok(())
            })?;
            return Ok((Self(database), FORMAT));
        };
        if found == 1 {
            upgrade(&database)?;
            return Ok((Self(database), FORMAT));
        }
        Ok((Self(database), u32::try_from(found).unwrap_or(u32::MAX)))
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Where these blocks are, in their order.
    pub(super) fn places(&self, keys: &[Key]) -> Result<Vec<Option<Place>>, Failure> {
        self.0.read(|transaction| {
            let table = transaction.open_table(BLOCKS)?;
            let find = |key: &Key| Ok(table.get(&key.to_bytes()[..])?.map(|row| place(row.value())));
            keys.iter().map(find).collect()
        })
    }

    /// The blocks behind `after`, in the order of their multihashes; at most [`PAGE`], and none at the end.
    pub(super) fn page(&self, after: Option<&Key>) -> Result<Vec<(Key, Place)>, Failure> {
        let from = after.map(Key::to_bytes);
        self.0.read(|transaction| {
            let table = transaction.open_table(BLOCKS)?;
            let begin = from.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            let rows = table.range::<&[u8]>((begin, Bound::Unbounded))?;
            let mut page = Vec::new();
            for row in rows.take(PAGE) {
                let (key, value) = row?;
                let Ok(key) = Key::from_bytes(key.value()) else {
                    return Err(redb::StorageError::Corrupted("a key that is no multihash".into()).into());
                };
                page.push((key, place(value.value())));
            }
            Ok(page)
        })
    }

    /// Number of blocks.
    pub(super) fn count(&self) -> Result<u64, Failure> {
        self.0.read(|transaction| Ok(transaction.open_table(BLOCKS)?.len()?))
    }

    /// All packs that have a row.
    pub(super) fn packs(&self) -> Result<BTreeMap<u32, PackRow>, Failure> {
        self.0.read(|transaction| {
            let mut packs = BTreeMap::new();
            for row in transaction.open_table(PACKS)?.iter()? {
                let (pack, value) = row?;
                packs.insert(pack.value(), PackRow::from_row(value.value()));
            }
            Ok(packs)
        })
    }

    /// Blocks that were found damaged.
    pub(super) fn damaged(&self) -> Result<HashSet<Key>, Failure> {
        self.0.read(|transaction| {
            let table = match transaction.open_table(DAMAGED) {
                Ok(table) => table,
                // Nothing ever was.
                Err(TableError::TableDoesNotExist(_)) => return Ok(HashSet::new()),
                Err(error) => return Err(error.into()),
            };
            let mut keys = HashSet::new();
            for row in table.iter()? {
                keys.extend(Key::from_bytes(row?.0.value()));
            }
            Ok(keys)
        })
    }

    /// Notes which blocks are damaged, and which are not any more.
    pub(super) fn note_damaged(&self, damaged: &[Key], well: &[Key]) -> Result<(), Failure> {
        self.0.write(|transaction| {
            let mut table = transaction.open_table(DAMAGED)?;
            for key in damaged {
                table.insert(&key.to_bytes()[..], ())?;
            }
            for key in well {
                table.remove(&key.to_bytes()[..])?;
            }
            Ok(())
        })
    }

    /// When the leases of each session end.
    pub(super) fn sessions(&self) -> Result<HashMap<u64, u64>, Failure> {
        self.0.read(|transaction| {
            let table = transaction.open_table(SESSIONS)?;
            table.iter()?.map(|row| row.map(|(id, until)| (id.value(), until.value())).map_err(Failure::from)).collect()
        })
    }

    /// The blocks that these sessions lease.
    pub(super) fn leased(&self, sessions: &HashSet<u64>) -> Result<HashSet<Key>, Failure> {
        self.0.read(|transaction| {
            let mut keys = HashSet::new();
            for row in transaction.open_table(LEASES)?.iter()? {
                let (key, hashes) = row?;
                if sessions.contains(&key.value().0) {
                    let mut hashes = hashes.value();
                    while !hashes.is_empty() {
                        let key = Key::read(&mut hashes);
                        keys.insert(key.map_err(|_| redb::StorageError::Corrupted("a row of leases".into()))?);
                    }
                }
            }
            Ok(keys)
        })
    }

    /// Takes one durable step.
    pub(super) fn apply(&self, step: &Step) -> Result<(), Failure> {
        self.0.write(|transaction| {
            let mut rows = Rows::open(transaction)?;
            for (key, place) in &step.places {
                rows.set(key, *place)?;
            }
            for (key, old, new) in &step.moved {
                if rows.get(key)? == Some(*old) {
                    rows.set(key, *new)?;
                }
            }
            for (pack, end) in &step.ends {
                rows.packs.entry(*pack).or_default().end = *end;
            }
            for pack in &step.condemned {
                let row = rows.packs.entry(*pack).or_default();
                // Whoever asks for this is wrong, and the step is not taken.
                if row.live > 0 {
                    return Err(redb::StorageError::Corrupted("a pack with living blocks was condemned".into()).into());
                }
                row.condemned = true;
            }
            rows.finish(transaction)?;
            release(transaction, &step.released)?;
            let mut leases = transaction.open_table(LEASES)?;
            let mut sessions = transaction.open_table(SESSIONS)?;
            for lease in &step.leases {
                sessions.insert(lease.session, lease.until)?;
                let last = leases.range(rows_of(lease.session))?.next_back().transpose()?;
                let next = last.map_or(0, |(row, _)| row.value().1 + 1);
                for (row, keys) in (next..).zip(lease.keys.chunks(LEASES_PER_ROW)) {
                    let hashes: Vec<u8> = keys.iter().flat_map(Key::to_bytes).collect();
                    leases.insert((lease.session, row), &hashes[..])?;
                }
            }
            Ok(())
        })
    }

    /// Removes blocks and the leases of `released`; answers how many blocks with how many bytes there were.
    pub(super) fn remove(&self, keys: &[Key], released: &[u64]) -> Result<(u64, u64), Failure> {
        self.0.write(|transaction| {
            let mut rows = Rows::open(transaction)?;
            let mut removed = (0, 0);
            for key in keys {
                if let Some(place) = rows.unset(key)? {
                    removed.0 += 1;
                    removed.1 += u64::from(place.len);
                }
            }
            rows.finish(transaction)?;
            release(transaction, released)?;
            Ok(removed)
        })
    }

    /// Lets packs end earlier; no row names anything behind.
    pub(super) fn cut(&self, ends: &BTreeMap<u32, u64>) -> Result<(), Failure> {
        self.0.write(|transaction| {
            let mut table = transaction.open_table(PACKS)?;
            for (pack, end) in ends {
                let row = table.get(pack)?.map(|row| PackRow::from_row(row.value()));
                if let Some(row) = row.filter(|row| row.end > *end) {
                    table.insert(pack, PackRow { end: *end, ..row }.row())?;
                }
            }
            Ok(())
        })
    }

    /// Forgets packs whose files are gone.
    pub(super) fn forget(&self, packs: &[u32]) -> Result<(), Failure> {
        self.0.write(|transaction| {
            let mut table = transaction.open_table(PACKS)?;
            for pack in packs {
                table.remove(pack)?;
            }
            Ok(())
        })
    }
}

/// Makes an index of format 1 one of format 2. What it names is read as before, by its hash.
fn upgrade(database: &Database) -> Result<(), Failure> {
    database.write(|transaction| {
        let mut rows = transaction.open_table(BLOCKS)?;
        for row in transaction.open_table(BLOCKS_1)?.iter()? {
            let (key, value) = row?;
            let (pack, offset, len) = value.value();
            rows.insert(key.value(), (pack, offset, len, record::UNKNOWN))?;
        }
        transaction.delete_table(BLOCKS_1)?;
        transaction.open_table(META)?.insert("format", 2)?;
        Ok(())
    })
}

fn place((pack, offset, len, sum): (u32, u64, u32, u32)) -> Place {
    Place { pack, offset, len, sum }
}

/// The rows of [`LEASES`] of one session.
fn rows_of(session: u64) -> std::ops::RangeInclusive<(u64, u64)> {
    (session, 0)..=(session, u64::MAX)
}

fn release(transaction: &WriteTransaction, released: &[u64]) -> Result<(), Failure> {
    let mut leases = transaction.open_table(LEASES)?;
    let mut sessions = transaction.open_table(SESSIONS)?;
    for session in released {
        sessions.remove(session)?;
        leases.retain_in(rows_of(*session), |_, _| false)?;
    }
    Ok(())
}

/// The rows of blocks, with the packs' sums kept in step.
struct Rows<'t> {
    blocks: Table<'t, &'static [u8], (u32, u64, u32, u32)>,
    damaged: Table<'t, &'static [u8], ()>,
    packs: BTreeMap<u32, PackRow>,
    before: BTreeMap<u32, PackRow>,
}

impl<'t> Rows<'t> {
    fn open(transaction: &'t WriteTransaction) -> Result<Self, Failure> {
        let mut packs = BTreeMap::new();
        for row in transaction.open_table(PACKS)?.iter()? {
            let (pack, value) = row?;
            packs.insert(pack.value(), PackRow::from_row(value.value()));
        }
        let (blocks, damaged) = (transaction.open_table(BLOCKS)?, transaction.open_table(DAMAGED)?);
        Ok(Self { blocks, damaged, before: packs.clone(), packs })
    }

    fn get(&self, key: &Key) -> Result<Option<Place>, Failure> {
        Ok(self.blocks.get(&key.to_bytes()[..])?.map(|row| place(row.value())))
    }

    fn set(&mut self, key: &Key, place: Place) -> Result<(), Failure> {
        let old = self.blocks.insert(&key.to_bytes()[..], (place.pack, place.offset, place.len, place.sum))?;
        let old = old.map(|row| self::place(row.value()));
        self.damaged.remove(&key.to_bytes()[..])?;
        self.count(key, old, Some(place));
        Ok(())
    }

    fn unset(&mut self, key: &Key) -> Result<Option<Place>, Failure> {
        let old = self.blocks.remove(&key.to_bytes()[..])?.map(|row| place(row.value()));
        self.damaged.remove(&key.to_bytes()[..])?;
        self.count(key, old, None);
        Ok(old)
    }

    fn count(&mut self, key: &Key, old: Option<Place>, new: Option<Place>) {
        let overhead = record::overhead(key);
        if let Some(old) = old {
            let pack = self.packs.entry(old.pack).or_default();
            pack.live = pack.live.saturating_sub(overhead + u64::from(old.len));
            pack.data = pack.data.saturating_sub(u64::from(old.len));
        }
        if let Some(new) = new {
            let pack = self.packs.entry(new.pack).or_default();
            pack.live += overhead + u64::from(new.len);
            pack.data += u64::from(new.len);
        }
    }

    fn finish(self, transaction: &WriteTransaction) -> Result<(), Failure> {
        let mut table = transaction.open_table(PACKS)?;
        for (pack, row) in &self.packs {
            if self.before.get(pack) != Some(row) {
                table.insert(pack, row.row())?;
            }
        }
        Ok(())
    }
}
