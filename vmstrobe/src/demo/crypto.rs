//! The demo's crypto device: two threads that encrypt and decrypt with AES, and count their
//! operations as the crypto device of a VMM does.
//!
//! Invariant: an operation is counted before it is carried out, as in QEMU. Deadlines are absolute,
//! and operations that missed theirs are not made up in a burst, so that the device never takes
//! much more than a few percent of a CPU.

use std::f64::consts::TAU;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use aes::cipher::{BlockCipherEncrypt, KeyInit};
use aes::{Aes128, Block};
use vmstrobe_core::{Error, ErrorKind, Provider, Result, Thread, ThreadStart};
use vmstrobe_table::{CryptoDevice, CryptoOp, CryptoServices, Cryptodev};

/// The device's name.
const DEVICE: &str = "crypto0";
/// Description of the crypto device and its load, in one line.
pub const DESCRIPTION: &str =
    "crypto0: AES-128-CTR over 4 KiB, 500 to 1,500 times a second and back within 8 s";

/// A fixed key, because the data is not secret.
const KEY: [u8; 16] = *b"vmstrobe crypto0";
const BLOCK_BYTES: usize = 16;
const OPERATION_BLOCKS: usize = 256;
const OPERATION_BYTES: u64 = (OPERATION_BLOCKS * BLOCK_BYTES) as u64;
/// The mean rate of encryptions.
const RATE_HZ: f64 = 1000.0;
/// The amplitude of the rate, as a share of the mean.
const AMPLITUDE: f64 = 0.5;
/// The period of the rate.
const RATE_PERIOD_S: f64 = 8.0;
/// The number of decryptions for each encryption.
const DECRYPT_SHARE: f64 = 0.5;
/// A thread that is later than this continues from the present time.
const LATE_MAX: Duration = Duration::from_millis(20);

/// The data of one operation.
type Buffer = [u128; OPERATION_BLOCKS];

/// The running crypto device, until this is dropped.
pub(super) struct CryptoLoad {
    provider: Arc<Cryptodev>,
    stop: Arc<AtomicBool>,
    threads: Vec<Thread<()>>,
}

impl CryptoLoad {
    /// Starts the device after a self-test of AES.
    ///
    /// # Errors
    /// If the table or a thread cannot be created, or the self-test fails.
    pub(super) fn start(threads: &ThreadStart) -> Result<Self> {
        let cipher = Aes128::new(&KEY.into());
        let plain: Buffer = std::array::from_fn(|at| at as u128);
        let mut sealed = plain;
        apply_key_stream(&cipher, 0, &mut sealed);
        let mut opened = sealed;
        apply_key_stream(&cipher, 0, &mut opened);
        if opened != plain || sealed == plain {
            let text = "the self-test of AES failed: decryption did not restore the data";
            return Err(Error::new(ErrorKind::Unsupported, text));
        }
        let provider = Arc::new(Cryptodev::with_threads(threads.clone())?);
        let device = provider.device(DEVICE, CryptoServices::Symmetric)?;
        let mut load = Self { provider, stop: Arc::default(), threads: Vec::new() };
        let (encrypting, mut counter) = (cipher.clone(), 0_u128);
        let encrypt = move |data: &mut Buffer| {
            counter += OPERATION_BLOCKS as u128;
            apply_key_stream(&encrypting, counter, data);
        };
        let decrypt = move |data: &mut Buffer| {
            *data = sealed;
            apply_key_stream(&cipher, 0, data);
        };
        let encrypt = load.work(device.clone(), CryptoOp::SymEncrypt, 1.0, encrypt);
        let decrypt = load.work(device, CryptoOp::SymDecrypt, DECRYPT_SHARE, decrypt);
        load.threads.push(threads.spawn(&format!("{DEVICE}/encrypt"), encrypt)?);
        load.threads.push(threads.spawn(&format!("{DEVICE}/decrypt"), decrypt)?);
        Ok(load)
    }

    /// Returns the provider of the device's statistics.
    pub(super) fn provider(&self) -> Arc<dyn Provider> {
        Arc::<Cryptodev>::clone(&self.provider)
    }

    /// Returns the work of a thread that repeats this operation at its share of the rate.
    fn work(
        &self,
        device: CryptoDevice,
        op: CryptoOp,
        share: f64,
        mut work: impl FnMut(&mut Buffer) + Send + 'static,
    ) -> impl FnOnce() + Send + 'static {
        let stop = Arc::clone(&self.stop);
        move || {
            let mut data: Buffer = [0; OPERATION_BLOCKS];
            let began = Instant::now();
            let mut next = began;
            // Relaxed: the flag guards no other data.
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
        }
    }
}

impl Drop for CryptoLoad {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A panic of the thread has been reported already.
            let _ = thread.join();
        }
    }
}

/// Returns the rate of encryptions at this time.
fn rate_hz(since_start: Duration) -> f64 {
    let turns = since_start.as_secs_f64() / RATE_PERIOD_S;
    RATE_HZ * (1.0 + AMPLITUDE * (turns * TAU).sin())
}

/// Encrypts or decrypts in counter mode (NIST SP 800-38A, 6.5), the first block with this counter.
fn apply_key_stream(cipher: &Aes128, counter: u128, data: &mut Buffer) {
    let counter = |at: usize| counter.wrapping_add(at as u128).to_be_bytes();
    let mut stream: [Block; OPERATION_BLOCKS] = std::array::from_fn(|at| counter(at).into());
    cipher.encrypt_blocks(&mut stream);
    for (block, key) in data.iter_mut().zip(stream) {
        *block ^= u128::from_be_bytes(key.into());
    }
}

#[cfg(test)]
mod tests {
    use vmstrobe_core::{Registry, RowState};
    use vmstrobe_sampler::{Fanout, HealthWriter, Roster, Sampler};

    use super::*;

    /// NIST SP 800-38A, F.5.1: CTR-AES128.Encrypt.
    #[test]
    fn the_cipher_is_aes_in_counter_mode() {
        let key = 0x2b7e_1516_28ae_d2a6_abf7_1588_09cf_4f3c_u128;
        let cipher = Aes128::new(&key.to_be_bytes().into());
        let mut data: Buffer = [0; OPERATION_BLOCKS];
        let (plain, sealed) = (
            [0x6bc1_bee2_2e40_9f96_e93d_7e11_7393_172a, 0xae2d_8a57_1e03_ac9c_9eb7_6fac_45af_8e51],
            [0x874d_6191_b620_e326_1bef_6864_990d_b6ce, 0x9806_f66b_7970_fdff_8617_187b_b9ff_fdff],
        );
        data[..2].copy_from_slice(&plain);
        let counter = 0xf0f1_f2f3_f4f5_f6f7_f8f9_fafb_fcfd_feff;
        apply_key_stream(&cipher, counter, &mut data);
        assert_eq!(data[..2], sealed);
        apply_key_stream(&cipher, counter, &mut data);
        assert_eq!((&data[..2], data[2]), (&plain[..], 0));
    }

    #[test]
    fn the_rate_is_a_sine_wave() {
        let at = |seconds| rate_hz(Duration::from_secs_f64(seconds)).round();
        let quarters = [0.0, 2.0, 4.0, 6.0, 8.0].map(at);
        assert_eq!(quarters, [1000.0, 1500.0, 1000.0, 500.0, 1000.0]);
    }

    #[test]
    fn the_device_runs_until_it_is_dropped() {
        let load = CryptoLoad::start(&ThreadStart::default()).expect("a thread can be started");
        let provider = load.provider();
        let objects = provider.objects().expect("the provider has a table");
        let [object] = &objects[..] else { panic!("one device: {objects:?}") };
        assert_eq!(&*object.path, "/objects/crypto0");
        let registry = Registry::default();
        registry.add(provider);
        let filter = vec!["cryptodev".parse().expect("cryptodev is a target")];
        let sources = Roster::new(registry, filter).open().expect("the table can be opened");
        let (mut sampler, control) = Sampler::new(sources, HealthWriter::default(), Fanout::Inline)
            .expect("a sampler can be created");
        let mut read = || {
            sampler.tick();
            control.latest().load_full()
        };
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let snapshot = read();
            let value = |name| snapshot.stat(name).find_map(|(_, value)| value.number());
            let names = ["sym-encrypt-ops", "sym-decrypt-ops", "sym-encrypt-bytes"];
            let [encrypted, decrypted, bytes] =
                names.map(|name| value(name).expect("the device has it"));
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
