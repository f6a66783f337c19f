//! The schemas of one table by what they were made of, so that equal descriptors are parsed once;
//! and the count of what a look would make this process hold.
//!
//! Invariant: what a table makes this process hold is counted before it is made, from the lengths
//! of its names and the number of its objects, and claimed of its owner's share. What is over a
//! limit is refused, and leaves nothing behind.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::mem::size_of;
use std::sync::Arc;

use vmstrobe_core::wire::{self, Header};
use vmstrobe_core::{Desc, Error, ErrorKind, Result, Schema};

use super::budget::{Claim, Cost, Share};
use super::format::{Segment, Slot, malformed, utf8};

/// The most different descriptors of one table.
pub const MAX_TABLE_DESCS: usize = 65_536;

/// The bytes that an object takes beside its path: for its place in the table, in the list of all
/// and in the maps by key and path, which grow by doubling.
const OBJECT_BYTES: usize = 512;
/// The number of copies of a path: one of the object and one in the set of paths that are taken;
/// for a moment also one in the previous list, and one in the list that is given out.
const PATH_COPIES: usize = 4;
/// The bytes that a schema takes beside its descriptors and their names.
const SCHEMA_BYTES: usize = 256;
/// The bytes that the allocator adds to a name, rounding included.
const NAME_BYTES: usize = 32;
/// The bytes of a directory that are read in the time that an object, or a descriptor, is parsed.
const PARSE_WORK: usize = 512;
/// Bytes of a descriptor before its name.
const DESC_BYTES: usize = 16;

/// Schemas of the last look and of this one, by two hashes of the bytes that they were made of.
#[derive(Debug)]
pub(crate) struct Schemas {
    known: HashMap<[u64; 2], Known>,
    /// Keyed at random, so that no writer can find two blocks of one hash.
    hashers: [RandomState; 2],
    look: u64,
    /// Descriptors that this look has met.
    descs: usize,
    /// Bytes of the schemas that this look has met, and of the objects of this try.
    schemas_bytes: usize,
    objects_bytes: usize,
    /// Bytes that this look has read, or could have in the time that it took.
    work: usize,
    /// The bytes that the last successful look holds.
    kept: u64,
    claim: Claim,
    share: Share,
}

#[derive(Debug)]
struct Known {
    schema: Arc<Schema>,
    bytes: usize,
    /// The look that met it last.
    look: u64,
}

impl Schemas {
    /// Makes an empty set of schemas, for a table of the owner with that share.
    pub(crate) fn new(share: &Share) -> Self {
        Self {
            known: HashMap::new(),
            hashers: Default::default(),
            look: 0,
            descs: 0,
            schemas_bytes: 0,
            objects_bytes: 0,
            work: 0,
            kept: 0,
            claim: share.claim(Cost::Held, 0).expect("nothing is always there"),
            share: share.clone(),
        }
    }

    /// Begins a look. Forgets what the last one did not meet: also what it took for descriptors in
    /// a directory that was being changed.
    pub(super) fn begin(&mut self) {
        self.known.retain(|_, known| known.look == self.look);
        self.look += 1;
        (self.descs, self.schemas_bytes, self.work) = (0, 0, 0);
    }

    /// Begins to read the directory, from its first slot on.
    pub(super) fn begin_try(&mut self) {
        self.objects_bytes = 0;
    }

    /// Notes so many bytes that this look has read, or could have in the time that it took.
    pub(super) fn note_work(&mut self, bytes: usize) {
        self.work = self.work.saturating_add(bytes);
    }

    /// Ends a look. One that was refused leaves nothing behind, and what was there before stays
    /// counted.
    pub(super) fn end(&mut self, is_taken: bool) {
        if is_taken {
            self.kept = (self.schemas_bytes + self.objects_bytes) as u64;
        } else {
            self.known.clear();
        }
        let kept = self.kept.min(self.claim.count());
        self.claim.resize(kept).expect("a claim can always become smaller");
        self.share.worked(self.work as u64);
    }

    /// The path and the schema of an object.
    ///
    /// # Errors
    /// `Malformed` if a name or the path is not UTF-8, and as [`wire::parse`]; `TooLarge` if there
    /// are more than [`MAX_TABLE_DESCS`] descriptors, or the owner's share does not suffice.
    pub(super) fn parse(
        &mut self,
        header: &Header,
        id: &[u8],
        descs: &[u8],
        segment: &Segment,
        slot: &Slot,
    ) -> Result<(String, Arc<Schema>)> {
        let path = path(id)?;
        self.note_work(id.len() + descs.len() + PARSE_WORK);
        self.objects_bytes += OBJECT_BYTES + PATH_COPIES * path.len();
        self.claim()?;
        let block = (slot.target.name(), header.name_size, descs);
        let key = self.hashers.each_ref().map(|hasher| hasher.hash_one(block));
        let known = self.known.get_mut(&key);
        if known.as_ref().is_none_or(|known| known.look != self.look) {
            // Descriptors that will be left out count too: they have to be held and looked at like
            // the others.
            self.descs += header.num_desc as usize + 1;
        }
        if self.descs > MAX_TABLE_DESCS {
            let text = format!("a table with over {MAX_TABLE_DESCS} different descriptors");
            return Err(Error::new(ErrorKind::TooLarge, text));
        }
        if let Some(known) = known {
            if known.look != self.look {
                known.look = self.look;
                self.schemas_bytes += known.bytes;
            }
            let schema = Arc::clone(&known.schema);
            self.claim()?;
            return Ok((path, schema));
        }
        let bytes = schema_bytes(header, descs)?;
        self.note_work(header.num_desc as usize * PARSE_WORK);
        self.schemas_bytes += bytes;
        self.claim()?;
        let block = wire::parse(header, id, descs, &segment.provider, slot.target.clone())?;
        let known = Known { schema: Arc::clone(&block.schema), bytes, look: self.look };
        self.known.insert(key, known);
        Ok((path, block.schema))
    }

    /// Claims what this look holds so far, if that is more than what was claimed.
    fn claim(&mut self) -> Result<()> {
        let bytes = (self.schemas_bytes + self.objects_bytes) as u64;
        if bytes > self.claim.count() { self.claim.resize(bytes) } else { Ok(()) }
    }
}

impl Default for Schemas {
    fn default() -> Self {
        Self::new(&Share::default())
    }
}

/// Returns the bytes that a schema of these descriptors will take.
///
/// # Errors
/// `Malformed` if a name is not UTF-8.
fn schema_bytes(header: &Header, descs: &[u8]) -> Result<usize> {
    let mut bytes = SCHEMA_BYTES;
    for desc in descs.chunks_exact(DESC_BYTES + header.name_size as usize) {
        let name = &desc[DESC_BYTES..];
        // One without an end is left out.
        let Some(end) = name.iter().position(|&byte| byte == 0) else { continue };
        utf8(&name[..end], "the name of a statistic")?;
        bytes += size_of::<Desc>() + NAME_BYTES + end;
    }
    Ok(bytes)
}

/// The path in an id string.
fn path(id: &[u8]) -> Result<String> {
    let end = id.iter().position(|&byte| byte == 0).filter(|&end| end > 0);
    let end = end.ok_or_else(|| malformed("an object has no path"))?;
    Ok(utf8(&id[..end], "the path of an object")?.to_owned())
}
