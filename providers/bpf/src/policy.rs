//! Whether the BPF reader is used, and why not.
//!
//! Invariant: it is tried once, and given up for good: whoever holds a clone sees the same state.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vmstrobe_core::{Error, ErrorKind, Result};
use vmstrobe_host::Broker;

use super::health::BpfHealth;
use super::kernel::Kernel;
use super::offsets::BTF_DIR;

/// The conditions under which the BPF reader is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum BpfMode {
    /// Used where it is permitted, passes its test and is faster; and for what only it can read.
    #[default]
    Auto,
    /// It is used only for what nothing else can read: for reading once.
    Needed,
    /// It is never used.
    Off,
    /// It is always used; where it cannot be, there is an error.
    Require,
}

/// The status of the BPF reader; in words by `Display`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BpfStatus {
    /// It is switched off.
    Off,
    /// It has not been needed, and not been tried.
    Untried,
    /// It cannot be used, and why.
    Refused(String),
    /// It can be used; by which instructions.
    Open(String),
    /// It was used until a reading was wrong or incomplete.
    GivenUp(String),
}

impl BpfStatus {
    /// Returns the status in one word: `off`, `untried`, `refused`, `open` or `given-up`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Untried => "untried",
            Self::Refused(_) => "refused",
            Self::Open(_) => "open",
            Self::GivenUp(_) => "given-up",
        }
    }
}

impl fmt::Display for BpfStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("switched off"),
            Self::Untried => f.write_str("not tried"),
            Self::Refused(text) | Self::GivenUp(text) | Self::Open(text) => f.write_str(text),
        }
    }
}

/// A handle to the BPF reader. All clones share one state.
///
/// It reads all vCPUs in one call of a BPF program, which it generates for the statistics that are
/// selected. Opening a source needs `CAP_BPF` and `CAP_PERFMON`, of the thread that opens or of a
/// [`Broker`]; reading it needs no privilege. docs/bpf.md says what is loaded, what that
/// can see, and why it cannot write.
///
/// ```
/// use vmstrobe_bpf::{Bpf, BpfMode, BpfStatus};
/// let bpf = Bpf::new(BpfMode::Auto);
/// assert_eq!(bpf.status(), BpfStatus::Untried);
/// if let Err(error) = bpf.check() {
///     println!("everything is read by pread: {error}");
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Bpf {
    inner: Arc<Inner>,
}

/// The result of trying it: the proven kernel, or the kind and the text of the error.
type Tried = std::result::Result<Arc<Kernel>, (ErrorKind, String)>;

#[derive(Debug)]
struct Inner {
    mode: BpfMode,
    /// Loads programs: only it may have the capabilities for that.
    broker: Broker,
    /// Once it was tried, unless what kept it from being tried may pass.
    kernel: Mutex<Option<Tried>>,
    health: Arc<BpfHealth>,
}

impl Bpf {
    /// Makes a reader, which does nothing until it is needed. Each thread that opens loads its
    /// programs.
    pub fn new(mode: BpfMode) -> Self {
        Self::with_broker(mode, Broker::default())
    }

    /// As [`Bpf::new`], but programs are loaded by that broker: no other thread needs a
    /// capability for them.
    pub fn with_broker(mode: BpfMode, broker: Broker) -> Self {
        let (kernel, health) = (Mutex::default(), Arc::default());
        Self { inner: Arc::new(Inner { mode, broker, kernel, health }) }
    }

    /// Makes a reader that is never used.
    pub fn off() -> Self {
        Self::new(BpfMode::Off)
    }

    /// Returns the conditions under which it is used.
    pub fn mode(&self) -> BpfMode {
        self.inner.mode
    }

    /// Tries it now, if nobody has yet, on a guest of our own: some tens of ms.
    ///
    /// # Errors
    /// `Denied` without the right to load programs; `Unsupported` if this kernel does not take
    /// them, if they did not read what pread does, or if it is switched off; with what to do.
    pub fn check(&self) -> Result<()> {
        self.kernel().map(drop)
    }

    /// Returns its status.
    pub fn status(&self) -> BpfStatus {
        if self.inner.mode == BpfMode::Off {
            return BpfStatus::Off;
        }
        if let Some(why) = self.inner.health.why() {
            return BpfStatus::GivenUp(why);
        }
        match &*self.tried() {
            None => BpfStatus::Untried,
            Some(Ok(kernel)) => BpfStatus::Open(kernel.step().name().to_owned()),
            Some(Err((_, why))) => BpfStatus::Refused(why.clone()),
        }
    }

    /// Stops using it from the next tick on, with this reason, if a caller distrusts it.
    pub fn give_up(&self, why: &str) {
        self.inner.health.give_up_because(why);
    }

    /// Returns a warning with the reason once it has been given up, and nothing before.
    pub(crate) fn given_up(&self) -> Option<Error> {
        let text = |why| format!("the BPF reader is no longer used, and pread takes over: {why}");
        let why = self.inner.health.why()?;
        Some(Error::new(ErrorKind::Unsupported, text(why)))
    }

    /// Returns the state that all its sources share: whether it is given up, and why.
    pub(super) fn health(&self) -> &Arc<BpfHealth> {
        &self.inner.health
    }

    /// The kernel, tried out.
    ///
    /// # Errors
    /// As [`Bpf::check`].
    pub(super) fn kernel(&self) -> Result<Arc<Kernel>> {
        if self.inner.mode == BpfMode::Off {
            let text = "the BPF reader is switched off";
            return Err(Error::new(ErrorKind::Unsupported, text));
        }
        let known = self.tried().clone();
        // The broker takes the lock itself: no thread waits for the broker under it.
        let tried = known.filter(is_final).unwrap_or_else(|| {
            let this = self.clone();
            self.broker().run(move || this.tried_once())
        });
        tried.map_err(|(kind, why)| Error::new(kind, why))
    }

    /// Tries the kernel, unless that has been done by now.
    fn tried_once(&self) -> Tried {
        let mut tried = self.tried();
        match tried.take().filter(is_final) {
            Some(known) => tried.insert(known),
            None => {
                let kernel = Kernel::prove(Path::new(BTF_DIR)).map(Arc::new);
                tried.insert(kernel.map_err(|error| (error.kind(), format!("{error:#}"))))
            }
        }
        .clone()
    }

    /// Returns the broker that loads programs.
    pub fn broker(&self) -> &Broker {
        &self.inner.broker
    }

    fn tried(&self) -> MutexGuard<'_, Option<Tried>> {
        // A trial cut short by a panic has left nothing.
        self.inner.kernel.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether it need not be tried again: a lack of descriptors or memory may pass.
fn is_final(tried: &Tried) -> bool {
    !matches!(tried, Err((ErrorKind::Io, _)))
}

#[cfg(test)]
mod tests;
