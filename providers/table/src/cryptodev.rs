//! The statistics of crypto devices, in QEMU's words: what a VMM's crypto device calls.
//!
//! Names, their order, types and paths are those of `backends/cryptodev.c` (QEMU 8.0 to 10.2): an
//! operation and its bytes are counted when the device has accepted it, before it is carried out,
//! so failures count; hashes and MACs do not. They are published in a table, so that other
//! processes read them too.
//!
//! Invariant: a device has the statistics of the services it offers, and no others.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vmstrobe_core::{
    Error, ErrorKind, Object, Provider, ReadPlan, Result, Schema, Source, Target, ThreadStart,
};
use vmstrobe_host::{Broker, Host};

use crate::{CRYPTODEV, ShardedCounter, StatKey, TableObject, TableSchema, TableWriter, Tables};

/// The services that a crypto device offers: the ones of QEMU's `QCryptodevBackendServiceType` that
/// have statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CryptoServices {
    /// Symmetric ciphers: 4 statistics.
    Symmetric,
    /// Asymmetric ciphers and signatures: 8 statistics.
    Asymmetric,
    /// Both: 12 statistics.
    Both,
}

/// An operation of a crypto device: a type of algorithm, as in QEMU's `QCryptodevBackendAlgType`,
/// and what is done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CryptoOp {
    /// A symmetric cipher encrypts.
    SymEncrypt,
    /// A symmetric cipher decrypts.
    SymDecrypt,
    /// An asymmetric cipher encrypts.
    AsymEncrypt,
    /// An asymmetric cipher decrypts.
    AsymDecrypt,
    /// A signature is made.
    AsymSign,
    /// A signature is checked.
    AsymVerify,
}

use CryptoOp::{AsymDecrypt, AsymEncrypt, AsymSign, AsymVerify, SymDecrypt, SymEncrypt};

/// The operations of either kind, in the order of their statistics.
const SYMMETRIC: [CryptoOp; 2] = [SymEncrypt, SymDecrypt];
const ASYMMETRIC: [CryptoOp; 4] = [AsymEncrypt, AsymDecrypt, AsymSign, AsymVerify];

impl CryptoOp {
    fn name(self) -> &'static str {
        match self {
            SymEncrypt => "sym-encrypt",
            SymDecrypt => "sym-decrypt",
            AsymEncrypt => "asym-encrypt",
            AsymDecrypt => "asym-decrypt",
            AsymSign => "asym-sign",
            AsymVerify => "asym-verify",
        }
    }
}

impl CryptoServices {
    fn groups(self) -> &'static [&'static [CryptoOp]] {
        match self {
            Self::Symmetric => &[&SYMMETRIC],
            Self::Asymmetric => &[&ASYMMETRIC],
            Self::Both => &[&SYMMETRIC, &ASYMMETRIC],
        }
    }
}

/// The statistics of the crypto devices of this process: a provider for its own sampler, and a
/// table for everybody else's.
///
/// ```
/// use vmstrobe_core::Provider;
/// use vmstrobe_table::{CryptoOp, CryptoServices, Cryptodev};
///
/// let cryptodev = Cryptodev::new()?;
/// let device = cryptodev.device("crypto0", CryptoServices::Symmetric)?;
/// assert!(device.account(CryptoOp::SymEncrypt, 512));
/// assert!(!device.account(CryptoOp::AsymSign, 512)); // it does not offer that
/// assert_eq!(&*cryptodev.objects()?[0].path, "/objects/crypto0");
/// # Ok::<(), vmstrobe_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Cryptodev {
    table: TableWriter,
    reader: Tables,
    ids: Arc<Mutex<HashSet<String>>>,
}

/// A crypto device. Clone it into each thread that accounts: every clone counts on cache lines of
/// its own, and the device is there until the last is gone.
#[derive(Clone, Debug)]
pub struct CryptoDevice {
    /// The counts of operations and of bytes, by operation; `None` if the device does not offer it.
    counters: [Option<(ShardedCounter, ShardedCounter)>; 6],
    _listed: Arc<Listed>,
}

/// The listing of a device, which its clones share; the last one drops the object and frees the id.
#[derive(Debug)]
struct Listed {
    id: String,
    ids: Arc<Mutex<HashSet<String>>>,
    _object: TableObject,
}

/// The keys of an operation's two counts: of operations and of bytes.
type Keys = (StatKey<ShardedCounter>, StatKey<ShardedCounter>);

impl Cryptodev {
    /// Makes a table without devices.
    ///
    /// # Errors
    /// `Io` if the system has no memory or no thread for it.
    pub fn new() -> Result<Self> {
        Self::with_threads(ThreadStart::default())
    }

    /// As [`Cryptodev::new`], with its thread started so.
    ///
    /// # Errors
    /// As [`Cryptodev::new`] and [`ThreadStart::spawn`].
    pub fn with_threads(threads: ThreadStart) -> Result<Self> {
        let host = Host::new(Broker::default(), threads);
        let (table, reader) = (TableWriter::new(CRYPTODEV)?, Tables::on_host(host)?);
        reader.add_own(&table)?;
        Ok(Self { table, reader, ids: Arc::default() })
    }

    /// Adds the device `/objects/<id>`, which offers these services.
    ///
    /// # Errors
    /// `Unsupported` if there is one of that id, or the id is empty or has a '/', `TooLarge` if it
    /// is too long or there is no room for another.
    pub fn device(&self, id: &str, services: CryptoServices) -> Result<CryptoDevice> {
        if id.is_empty() || id.contains('/') {
            let text = format!("'{id}' cannot be the id of an object of QEMU's");
            return Err(Error::new(ErrorKind::Unsupported, text));
        }
        let mut ids = lock(&self.ids);
        if ids.contains(id) {
            let text = format!("there is /objects/{id} already: drop it first");
            return Err(Error::new(ErrorKind::Unsupported, text));
        }
        let (schema, keys) = schema(services);
        let object = self.table.add(&format!("/objects/{id}"), &schema)?;
        let counters =
            keys.map(|keys| keys.map(|(ops, bytes)| (object.get(ops), object.get(bytes))));
        ids.insert(id.to_owned());
        let (id, ids) = (id.to_owned(), Arc::clone(&self.ids));
        Ok(CryptoDevice { counters, _listed: Arc::new(Listed { id, ids, _object: object }) })
    }

    /// Returns the table, for an `FdServer` for instance.
    pub fn table(&self) -> &TableWriter {
        &self.table
    }
}

impl CryptoDevice {
    /// Counts an operation that was accepted, and the bytes of its source. False, and nothing is
    /// counted, if the device does not offer it.
    #[inline]
    pub fn account(&self, op: CryptoOp, bytes: u64) -> bool {
        let Some((ops, op_bytes)) = &self.counters[op as usize] else { return false };
        ops.add(1);
        op_bytes.add(bytes);
        true
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        lock(&self.ids).remove(&self.id);
    }
}

fn lock(ids: &Mutex<HashSet<String>>) -> MutexGuard<'_, HashSet<String>> {
    // A set that is changed by one call: no panic leaves it half done.
    ids.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The statistics of such devices, and by operation the keys of those that it has.
fn schema(services: CryptoServices) -> (TableSchema, [Option<Keys>; 6]) {
    let mut schema = TableSchema::new(Target::Cryptodev);
    let mut keys = [None; 6];
    for group in services.groups() {
        // First all counts of operations, then all of bytes. QEMU gives neither a unit.
        let mut define = |what: &str| -> Vec<_> {
            let names = group.iter().map(|op| format!("{}-{what}", op.name()));
            names.map(|name| schema.sharded_counter(name.as_str())).collect()
        };
        let (ops, bytes) = (define("ops"), define("bytes"));
        for ((op, ops), bytes) in group.iter().zip(ops).zip(bytes) {
            keys[*op as usize] = Some((ops, bytes));
        }
    }
    (schema, keys)
}

impl Provider for Cryptodev {
    fn name(&self) -> &str {
        CRYPTODEV
    }

    /// All twelve statistics, whatever the devices have: as QEMU, also without any device.
    fn schemas(&self) -> Result<Vec<Arc<Schema>>> {
        Ok(vec![schema(CryptoServices::Both).0.schema(CRYPTODEV)])
    }

    fn objects(&self) -> Result<Vec<Object>> {
        self.reader.objects()
    }

    fn open(&self, objects: &[Object], plan: &Arc<ReadPlan>) -> Result<Vec<Box<dyn Source>>> {
        self.reader.open(objects, plan)
    }
}

#[cfg(test)]
mod tests {
    use vmstrobe_core::{RowState, StatType, Unit};
    use vmstrobe_testing::{open_all, tick};

    use super::*;

    /// `query-stats-schemas` of QEMU 10.0.2, from its last statistic to its first.
    const TWELVE: [&str; 12] = [
        "sym-encrypt-ops",
        "sym-decrypt-ops",
        "sym-encrypt-bytes",
        "sym-decrypt-bytes",
        "asym-encrypt-ops",
        "asym-decrypt-ops",
        "asym-sign-ops",
        "asym-verify-ops",
        "asym-encrypt-bytes",
        "asym-decrypt-bytes",
        "asym-sign-bytes",
        "asym-verify-bytes",
    ];

    fn names(schema: &Schema) -> Vec<&str> {
        schema.descs().iter().map(|desc| &*desc.name).collect()
    }

    #[test]
    fn the_vocabulary_is_qemus() {
        let cryptodev = Cryptodev::new().unwrap();
        let schemas = cryptodev.schemas().unwrap();
        assert_eq!((schemas.len(), names(&schemas[0])), (1, TWELVE.to_vec()));
        assert_eq!((schemas[0].provider(), schemas[0].target()), ("cryptodev", &Target::Cryptodev));
        for desc in schemas[0].descs() {
            assert_eq!((desc.stat_type, desc.unit), (StatType::Cumulative, Unit::None));
            assert_eq!((desc.scale.exponent, desc.size), (0, 1));
        }
    }

    #[test]
    fn a_device_has_what_it_offers() {
        let cryptodev = Cryptodev::new().unwrap();
        let device = |id, services| cryptodev.device(id, services).unwrap();
        let devices = [
            device("c0", CryptoServices::Symmetric),
            device("c1", CryptoServices::Asymmetric),
            device("c2", CryptoServices::Both),
        ];
        let objects = cryptodev.objects().unwrap();
        let listed = objects.iter().map(|object| (&*object.path, names(&object.schema)));
        let want = [
            ("/objects/c0", TWELVE[..4].to_vec()),
            ("/objects/c1", TWELVE[4..].to_vec()),
            ("/objects/c2", TWELVE.to_vec()),
        ];
        assert_eq!(listed.collect::<Vec<_>>(), want);
        for op in SYMMETRIC {
            assert_eq!(devices.each_ref().map(|device| device.account(op, 1)), [true, false, true]);
        }
        for op in ASYMMETRIC {
            assert_eq!(devices.each_ref().map(|device| device.account(op, 1)), [false, true, true]);
        }
    }

    #[test]
    fn operations_and_bytes_are_counted_on_every_thread() {
        let cryptodev = Cryptodev::new().unwrap();
        let device = cryptodev.device("c0", CryptoServices::Symmetric).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let device = device.clone();
                scope.spawn(move || {
                    (0..1000).for_each(|_| assert!(device.account(SymEncrypt, 16)));
                    assert!(device.account(SymDecrypt, 5));
                });
            }
        });
        let objects = cryptodev.objects().unwrap();
        let mut sources = open_all(&cryptodev, &objects);
        let want = (vec![RowState::Good], vec![4000, 4, 64_000, 20]);
        assert_eq!(tick(&mut *sources[0], 4), want);
    }

    #[test]
    fn an_id_is_one_devices_at_a_time() {
        let cryptodev = Cryptodev::new().unwrap();
        let device = cryptodev.device("c0", CryptoServices::Both).unwrap();
        let clone = device.clone();
        drop(device);
        for id in ["c0", "", "a/b"] {
            let error = cryptodev.device(id, CryptoServices::Both).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{id}");
        }
        drop(clone);
        assert!(cryptodev.objects().unwrap().is_empty());
        assert!(cryptodev.device("c0", CryptoServices::Symmetric).is_ok());
    }
}
