//! The demo's crypto device: two threads that really encrypt and decrypt, and account for it as the
//! crypto device of a VMM does.
//!
//! Invariant: an operation is accounted for before it is carried out, as QEMU does. Deadlines are
//! absolute; what could not be done by its own is not done in a burst later, so that the device
//! never takes much more of a CPU than its few percent.

use std::f64::consts::TAU;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use aes::cipher::{BlockCipherEncrypt, KeyInit};
use aes::{Aes128, Block};
use vmstrobe::Provider;
use vmstrobe::table::{CryptoDevice, CryptoOp, CryptoServices, Cryptodev};

use crate::error::{Error, Result};

/// The device's name.
pub(super) const DEVICE: &str = "crypto0";
/// One line for users on what the device does.
pub(super) const ABOUT: &str =
    "crypto0: AES-128-CTR over 4 KiB, 500 to 1,500 times a second and back within 8 s";

/// Nothing secret is encrypted here.
const KEY: [u8; 16] = *b"vmstrobe crypto0";
const BLOCK_BYTES: usize = 16;
const OPERATION_BLOCKS: usize = 256;
const OPERATION_BYTES: u64 = (OPERATION_BLOCKS * BLOCK_BYTES) as u64;
/// Encryptions a second, in the middle.
const RATE_HZ: f64 = 1000.0;
/// By how much of it the rate goes up and down, ...
const SWELL: f64 = 0.5;
/// ... and how long that takes.
const SWELL_PERIOD_S: f64 = 8.0;
/// How often it decrypts for each time it encrypts.
const DECRYPT_SHARE: f64 = 0.5;
/// Further behind its deadline, a thread begins anew from now.
const LATE_MAX: Duration = Duration::from_millis(20);

/// The data of one operation.
type Buffer = [u128; OPERATION_BLOCKS];

/// The crypto device at work, until this is dropped.
pub(crate) struct CryptoLoad {
    provider: Arc<Cryptodev>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl CryptoLoad {
    /// Starts it, once it has decrypted what it encrypted.
    ///
    /// # Errors
    /// If the system has no memory or threads for it, or AES goes wrong here.
    pub(crate) fn start() -> Result<Self> {
        let cipher = Aes128::new(&KEY.into());
        let plain: Buffer = std::array::from_fn(|at| at as u128);
        let mut sealed = plain;
        apply(&cipher, 0, &mut sealed);
        let mut opened = sealed;
        apply(&cipher, 0, &mut opened);
        if opened != plain || sealed == plain {
            return Err(Error::failed("AES does not decrypt here what it has encrypted"));
        }
        let provider = Arc::new(Cryptodev::new()?);
        let device = provider.device(DEVICE, CryptoServices::Symmetric)?;
        let mut load = Self { provider, stop: Arc::default(), threads: Vec::new() };
        let (encrypting, mut counter) = (cipher.clone(), 0_u128);
        let encrypt = move |data: &mut Buffer| {
            counter += OPERATION_BLOCKS as u128;
            apply(&encrypting, counter, data);
        };
        let decrypt = move |data: &mut Buffer| {
            *data = sealed;
            apply(&cipher, 0, data);
        };
        load.spawn("encrypt", device.clone(), CryptoOp::SymEncrypt, 1.0, encrypt)?;
        load.spawn("decrypt", device, CryptoOp::SymDecrypt, DECRYPT_SHARE, decrypt)?;
        Ok(load)
    }

    /// Its statistics.
    pub(crate) fn provider(&self) -> Arc<dyn Provider> {
        Arc::<Cryptodev>::clone(&self.provider)
    }

    /// Starts a thread that does this again and again.
    fn spawn(
        &mut self,
        name: &str,
        device: CryptoDevice,
        op: CryptoOp,
        share: f64,
        mut work: impl FnMut(&mut Buffer) + Send + 'static,
    ) -> Result<()> {
        let stop = Arc::clone(&self.stop);
        let run = move || {
            let mut data: Buffer = [0; OPERATION_BLOCKS];
            let began = Instant::now();
            let mut next = began;
            // Relaxed: nothing is read because of the flag.
            while !stop.load(Ordering::Relaxed) {
                if device.account(op, OPERATION_BYTES) {
                    work(&mut data);
                    black_box(&data);
                }
                next += Duration::from_secs_f64(1.0 / (share * rate_hz(began.elapsed())));
                let now = Instant::now();
                if next + LATE_MAX < now {
                    next = now;
                }
                thread::sleep(next.saturating_duration_since(now));
            }
        };
        let thread = thread::Builder::new().name(format!("{DEVICE}/{name}")).spawn(run);
        let thread = thread.map_err(|error| {
            let reason = crate::out::reason(&error);
            Error::failed(format!("cannot start the crypto device's thread: {reason}"))
        })?;
        self.threads.push(thread);
        Ok(())
    }
}

impl Drop for CryptoLoad {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // It cannot panic, and if it did, a drop is no place to say so.
            let _ = thread.join();
        }
    }
}

/// Encryptions a second at that time.
fn rate_hz(since_start: Duration) -> f64 {
    let turns = since_start.as_secs_f64() / SWELL_PERIOD_S;
    RATE_HZ * (1.0 + SWELL * (turns * TAU).sin())
}

/// Encrypts or decrypts in counter mode (NIST SP 800-38A, 6.5), the first block with this counter.
fn apply(cipher: &Aes128, counter: u128, data: &mut Buffer) {
    let counter = |at: usize| counter.wrapping_add(at as u128).to_be_bytes();
    let mut stream: [Block; OPERATION_BLOCKS] = std::array::from_fn(|at| counter(at).into());
    cipher.encrypt_blocks(&mut stream);
    for (block, key) in data.iter_mut().zip(stream) {
        *block ^= u128::from_be_bytes(key.into());
    }
}

#[cfg(test)]
mod tests {
    use vmstrobe::{Fanout, HealthWriter, Roster, Sampler};
    use vmstrobe::{Registry, RowState};

    use super::*;

    /// NIST SP 800-38A, F.5.1: CTR-AES128.Encrypt.
    #[test]
    fn it_is_aes_in_counter_mode() {
        let key = 0x2b7e_1516_28ae_d2a6_abf7_1588_09cf_4f3c_u128;
        let cipher = Aes128::new(&key.to_be_bytes().into());
        let mut data: Buffer = [0; OPERATION_BLOCKS];
        let (plain, sealed) = (
            [0x6bc1_bee2_2e40_9f96_e93d_7e11_7393_172a, 0xae2d_8a57_1e03_ac9c_9eb7_6fac_45af_8e51],
            [0x874d_6191_b620_e326_1bef_6864_990d_b6ce, 0x9806_f66b_7970_fdff_8617_187b_b9ff_fdff],
        );
        data[..2].copy_from_slice(&plain);
        let counter = 0xf0f1_f2f3_f4f5_f6f7_f8f9_fafb_fcfd_feff;
        apply(&cipher, counter, &mut data);
        assert_eq!(data[..2], sealed);
        apply(&cipher, counter, &mut data);
        assert_eq!((&data[..2], data[2]), (&plain[..], 0));
    }

    #[test]
    fn the_rate_swells_and_ebbs() {
        let at = |seconds| rate_hz(Duration::from_secs_f64(seconds)).round();
        let quarters = [0.0, 2.0, 4.0, 6.0, 8.0].map(at);
        assert_eq!(quarters, [1000.0, 1500.0, 1000.0, 500.0, 1000.0]);
    }

    #[test]
    fn it_works_until_it_is_dropped() {
        let load = CryptoLoad::start().expect("there are threads");
        let provider = load.provider();
        let objects = provider.objects().expect("it can be looked at");
        let [object] = &objects[..] else { panic!("one device: {objects:?}") };
        assert_eq!(&*object.path, "/objects/crypto0");
        let registry = Registry::default();
        registry.add(provider);
        let filter = vec!["cryptodev".parse().expect("it is a target")];
        let sources = Roster::new(registry, filter).open().expect("it opens");
        let (mut sampler, control) =
            Sampler::new(sources, HealthWriter::default(), Fanout::Inline).expect("it opens");
        let mut read = || {
            sampler.tick();
            control.latest().load_full()
        };
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let snapshot = read();
            let value = |name| snapshot.stat(name).find_map(|(_, value)| value.number());
            let names = ["sym-encrypt-ops", "sym-decrypt-ops", "sym-encrypt-bytes"];
            let [encrypted, decrypted, bytes] = names.map(|name| value(name).expect("it has that"));
            assert_eq!(bytes % OPERATION_BYTES, 0);
            if encrypted > 10 && decrypted > 5 {
                break;
            }
            assert!(Instant::now() < deadline, "{encrypted} and {decrypted} operations");
            thread::sleep(Duration::from_millis(2));
        }
        drop(load);
        assert!(read().objects().all(|view| view.state() == RowState::Gone));
    }
}
