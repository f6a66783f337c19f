//! Samples that come one after the other: of a session that samples, or of a recording that is
//! replayed. What measures or shows samples takes either.
//!
//! Invariant: times are on the clock of the samples, so that what is decided by them is the same
//! for a recording at any pace.

use std::sync::Arc;
use std::time::Duration;

use vmstrobe_core::Snapshot;
use vmstrobe_export::Event;
use vmstrobe_sampler::now_ns;

use super::replay_session::ReplaySession;
use crate::error::Result;
use crate::member::Member;
use crate::notice::Notice;
use crate::read_status::ReadStatus;
use crate::session::Session;

/// Samples that come one after the other.
///
/// ```no_run
/// use std::time::Duration;
/// use vmstrobe::{SampleStream, Tally};
///
/// fn measure_rest(stream: &mut impl SampleStream) -> Tally {
///     let mut tally = Tally::new(stream.first());
///     while !stream.is_finished() {
///         while let Some(sample) = stream.recv(Duration::from_millis(50)) {
///             tally.add(&sample);
///         }
///     }
///     tally
/// }
/// ```
pub trait SampleStream {
    /// Returns the first sample. Those that are received come behind it.
    fn first(&self) -> &Arc<Snapshot>;

    /// Returns the time from one tick to the next, in ns; 0 if it is not known.
    fn period_ns(&self) -> u64;

    /// Returns the present on the clock of the samples, in ns of `CLOCK_MONOTONIC`.
    fn now_ns(&self) -> u64;

    /// Returns the next sample, if one comes in time.
    fn recv(&self, timeout: Duration) -> Option<Arc<Snapshot>>;

    /// Returns the next sample, if it is there.
    fn try_recv(&self) -> Option<Arc<Snapshot>>;

    /// Returns the number of samples that came faster than they were received, and are lost.
    fn lost_samples(&self) -> u64;

    /// Returns true once no more samples come than are there already.
    fn is_finished(&self) -> bool;

    /// Returns true once every member has ended, as [`Session::has_ended`] does.
    fn has_ended(&self) -> bool;

    /// Returns the members that have ended since the last call.
    fn newly_ended(&mut self) -> Vec<Member>;

    /// Takes the notices that have come up since the last call.
    fn notices(&mut self) -> Vec<Notice>;

    /// Takes the marks and triggers up to the sample that was received last, of a recording.
    fn events(&mut self) -> Vec<Event>;

    /// Returns how objects of KVM were read in the newest sample, if that is known.
    fn read_status(&mut self) -> Option<ReadStatus>;

    /// Notes that nobody will wait for samples that are not due yet.
    fn end_soon(&mut self);

    /// Ends the stream, and takes one sample more if that is possible at any time.
    ///
    /// # Errors
    /// As [`SampleStream::stop`].
    fn take_last(&mut self) -> Result<()>;

    /// Ends the stream. Samples that came before can still be received.
    ///
    /// # Errors
    /// The error that ended it.
    fn stop(&mut self) -> Result<()>;
}

impl SampleStream for Session {
    fn first(&self) -> &Arc<Snapshot> {
        Self::first(self)
    }

    fn period_ns(&self) -> u64 {
        Self::period_ns(self)
    }

    fn now_ns(&self) -> u64 {
        now_ns()
    }

    fn recv(&self, timeout: Duration) -> Option<Arc<Snapshot>> {
        Self::recv(self, timeout)
    }

    fn try_recv(&self) -> Option<Arc<Snapshot>> {
        Self::try_recv(self)
    }

    fn lost_samples(&self) -> u64 {
        Self::lost_samples(self)
    }

    fn is_finished(&self) -> bool {
        Self::is_finished(self)
    }

    fn has_ended(&self) -> bool {
        Self::has_ended(self)
    }

    fn newly_ended(&mut self) -> Vec<Member> {
        Self::newly_ended(self)
    }

    fn notices(&mut self) -> Vec<Notice> {
        Self::notices(self)
    }

    /// Returns none: they go to those who record.
    fn events(&mut self) -> Vec<Event> {
        Vec::new()
    }

    fn read_status(&mut self) -> Option<ReadStatus> {
        Self::read_status(self)
    }

    /// Does nothing: the next sample is due within a tick, or one is taken on purpose.
    fn end_soon(&mut self) {}

    fn take_last(&mut self) -> Result<()> {
        Self::stop(self)?.tick();
        Ok(())
    }

    fn stop(&mut self) -> Result<()> {
        Self::stop(self).map(|_| ())
    }
}

impl SampleStream for ReplaySession {
    fn first(&self) -> &Arc<Snapshot> {
        Self::first(self)
    }

    fn period_ns(&self) -> u64 {
        Self::period_ns(self)
    }

    fn now_ns(&self) -> u64 {
        Self::now_ns(self)
    }

    fn recv(&self, timeout: Duration) -> Option<Arc<Snapshot>> {
        Self::recv(self, timeout)
    }

    fn try_recv(&self) -> Option<Arc<Snapshot>> {
        Self::try_recv(self)
    }

    /// Returns 0: a reader that is slow slows the replay.
    fn lost_samples(&self) -> u64 {
        0
    }

    fn is_finished(&self) -> bool {
        Self::is_finished(self)
    }

    fn has_ended(&self) -> bool {
        Self::is_finished(self)
    }

    /// Returns none: the members of a recording are not known, only its objects.
    fn newly_ended(&mut self) -> Vec<Member> {
        Vec::new()
    }

    fn notices(&mut self) -> Vec<Notice> {
        Self::notices(self)
    }

    fn events(&mut self) -> Vec<Event> {
        Self::events(self)
    }

    fn read_status(&mut self) -> Option<ReadStatus> {
        None
    }

    fn end_soon(&mut self) {
        Self::end(self);
    }

    fn take_last(&mut self) -> Result<()> {
        Self::stop(self)
    }

    fn stop(&mut self) -> Result<()> {
        Self::stop(self)
    }
}
