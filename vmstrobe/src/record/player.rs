//! A recording as a provider: one of its samples, or each when it is due.
//!
//! Invariant: a tick takes no lock, waits for nobody and allocates nothing: it copies from the
//! newest sample, in which each object has its place. A row has the state that was recorded in the
//! first tick that sees a sample, and is aged in later ones.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use vmstrobe_core::{
    Object, Provider, ReadPlan, Registry, RowState, Rows, Schema, Source, Thread, ThreadStart,
};
use vmstrobe_export::Metadata;
use vmstrobe_sampler::{Latest, now_ns};

use super::pace::{Due, Pace, run_at};
use super::replay::{Moment, Replay};
use super::replay_session::cut;
use super::stage::{Shown, Stage};
use crate::attachment::Attachment;
use crate::error::{Error, Result};
use crate::member::Member;
use crate::notice::{Notice, Notices};
use crate::sources::Options;

/// The name of the provider. The statistics are those of the recorded providers.
const PROVIDER: &str = "recording";
const NS_PER_MS: u64 = 1_000_000;

/// A recording as a provider.
#[derive(Debug)]
struct Player {
    schemas: Vec<Arc<Schema>>,
    shown: Arc<Shown>,
    /// Dropped to end the thread.
    stop: Option<Sender<()>>,
    /// The thread that shows each sample when it is due.
    thread: Option<Thread<()>>,
}

/// Copies the rows of some objects from the newest sample.
struct PlayerSource {
    latest: Latest,
    /// The place of each object; `None` for one that the recording does not have.
    places: Box<[Option<usize>]>,
    /// The recorded word of each word of a row.
    words: Box<[usize]>,
    /// The sample of the last tick, and when it was seen first.
    seen: Option<(u64, u64)>,
}

impl Attachment {
    /// Opens one sample of a recording, to be read.
    ///
    /// # Errors
    /// If the recording cannot be opened or read up to there, or has no sample then.
    pub fn recorded(path: &Path, moment: Moment, options: &Options) -> Result<Self> {
        let replay = Replay::open_by(path, options.bpf.broker())?;
        let (schemas, metadata) = (replay.schemas(), replay.metadata().clone());
        let (sample, end) = replay.find(moment)?;
        let mut stage = Stage::new(path.to_owned());
        stage.show(&sample)?;
        let shown = Arc::clone(stage.shown());
        let player = Player { schemas, shown, stop: None, thread: None };
        let notices = Notices::default();
        end.and_then(|end| cut(path, end)).into_iter().for_each(|cut| notices.add(cut));
        Ok(attached(player, path, &metadata, notices, options))
    }

    /// Replays a recording at a pace: whoever reads finds the sample that is due. Behind the end,
    /// the last values stay, and [`Attachment::has_ended`] returns true.
    ///
    /// # Errors
    /// If the recording cannot be opened, or has no sample; if no thread can be had.
    pub fn replayed(path: &Path, pace: Pace, options: &Options) -> Result<Self> {
        let replay = Replay::open_by(path, options.bpf.broker())?;
        let (metadata, notices) = (replay.metadata().clone(), Notices::default());
        let player = Player::start(replay, pace, &notices, &options.threads)?;
        Ok(attached(player, path, &metadata, notices, options))
    }
}

/// Returns an attachment to a recording and nothing else.
fn attached(
    player: Player,
    path: &Path,
    metadata: &Metadata,
    notices: Notices,
    options: &Options,
) -> Attachment {
    let file = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let name = metadata.vm.clone().unwrap_or(file);
    let title = format!("the recording {}", path.display());
    let members = vec![Member::recording(title, name, Arc::clone(&player.shown.is_over))];
    let registry = Registry::default();
    registry.add(Arc::new(player));
    let mut attachment = Attachment::of(registry).with_options(options);
    (attachment.members, attachment.notices) = (members, notices);
    attachment
}

impl Player {
    /// Starts the thread, and waits until it shows the first sample. It notes what it cannot read.
    fn start(replay: Replay, pace: Pace, notices: &Notices, threads: &ThreadStart) -> Result<Self> {
        let (path, schemas) = (replay.path().to_owned(), replay.schemas());
        let stage = Stage::new(path.clone());
        let shown = Arc::clone(stage.shown());
        let (stop, stopped) = channel();
        let (is_shown, first) = sync_channel(1);
        let notices = notices.clone();
        let thread = threads.spawn("vmstrobe-replay", move || {
            play(replay, pace, &stopped, stage, is_shown, &notices);
        })?;
        let player = Self { schemas, shown, stop: Some(stop), thread: Some(thread) };
        match first.recv() {
            Ok(result) => result.map(|()| player),
            Err(_) => Err(Error::NothingRecorded { path }),
        }
    }
}

/// Shows each sample when it is due. Sends on `is_shown` that the first is shown, or the error
/// because of which there is none; a later error is noted.
fn play(
    replay: Replay,
    pace: Pace,
    stopped: &Receiver<()>,
    mut stage: Stage,
    is_shown: SyncSender<Result<()>>,
    notices: &Notices,
) {
    let path = replay.path().to_owned();
    let mut is_shown = Some(is_shown);
    // Sending fails only if the starter has gone, and with it the other end of `stopped`.
    let ended = run_at(replay, pace, stopped, |due| {
        let Due::Sample(sample) = due else { return Ok(true) };
        stage.show(&sample)?;
        let _ = is_shown.take().map(|is_shown| is_shown.send(Ok(())));
        Ok(true)
    });
    match (ended, is_shown) {
        (Ok(end), _) => {
            end.and_then(|end| cut(&path, end)).into_iter().for_each(|cut| notices.add(cut));
        }
        (Err(error), None) => notices.add(Notice::DamagedRecording(error)),
        (Err(error), Some(is_shown)) => {
            let _ = is_shown.send(Err(error));
        }
    }
    stage.shown().end();
}

impl Drop for Player {
    fn drop(&mut self) {
        self.stop = None;
        // It fails only if the thread panicked, and then the panic hook has said so.
        let _ = self.thread.take().map(Thread::join);
    }
}

impl Provider for Player {
    fn name(&self) -> &str {
        PROVIDER
    }

    fn schemas(&self) -> vmstrobe_core::Result<Vec<Arc<Schema>>> {
        Ok(self.schemas.clone())
    }

    fn objects(&self) -> vmstrobe_core::Result<Vec<Object>> {
        Ok(self.shown.objects())
    }

    fn open(
        &self,
        objects: &[Object],
        plan: &Arc<ReadPlan>,
    ) -> vmstrobe_core::Result<Vec<Box<dyn Source>>> {
        let place = |object: &Object| self.shown.place(object.key, plan.schema());
        Ok(vec![Box::new(PlayerSource {
            latest: self.shown.latest(),
            places: objects.iter().map(place).collect(),
            // A recorded row has all words of its schema, one after the other.
            words: plan.kept().collect(),
            seen: None,
        })])
    }
}

impl Source for PlayerSource {
    fn rows(&self) -> usize {
        self.places.len()
    }

    fn read(&mut self, rows: Rows<'_>) {
        let Self { latest, places, words, seen } = self;
        let (sample, now_ns) = (latest.load(), now_ns());
        let age_ms = match *seen {
            Some((tick, since_ns)) if tick == sample.tick() => {
                Some((now_ns.saturating_sub(since_ns)) / NS_PER_MS)
            }
            _ => {
                *seen = Some((sample.tick(), now_ns));
                None
            }
        };
        rows.fill_from(places, |place, row| {
            let Some(view) = place.and_then(|place| sample.object_at(place, 0)) else {
                return RowState::Gone;
            };
            let recorded = view.words();
            for (to, &from) in row.iter_mut().zip(words.iter()) {
                // A row without values has no words either.
                *to = recorded.get(from).copied().unwrap_or(0);
            }
            age_ms.map_or(view.state(), |age_ms| aged(view.state(), age_ms))
        });
    }
}

/// Returns the state of a row that was seen before.
fn aged(state: RowState, age_ms: u64) -> RowState {
    let add = |before_ms: u32| {
        let age_ms = u64::from(before_ms).saturating_add(age_ms);
        RowState::Aged(u32::try_from(age_ms).unwrap_or(u32::MAX))
    };
    match state {
        RowState::Good => add(0),
        RowState::Aged(before_ms) => add(before_ms),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use vmstrobe_core::{Filter, Target};
    use vmstrobe_sampler::Catalog;

    use super::super::testing::recording_of;
    use super::super::testing::{damaged, recording, sample, words, words_of};
    use super::*;

    fn all() -> Filter {
        Filter::all(Target::Vcpu)
    }

    #[test]
    fn a_sample_is_read_as_it_was_recorded() {
        let file = recording(10, 4);
        let options = Options::default();
        for (moment, tick) in [(Moment::Last, 10), (Moment::After(Duration::from_millis(2)), 3)] {
            let mut recorded = Attachment::recorded(file.path(), moment, &options).expect("it is");
            let read = recorded.read(&all()).expect("it can be read");
            assert_eq!(words_of(&read), words(tick));
            assert!(!recorded.has_ended() && recorded.notices().is_empty());
            let main = recorded.main().map(|member| member.name.clone());
            assert_eq!(main.as_deref(), Some("web"));
            let some = recorded.read(&"vcpu: level, wait_hist".parse().expect("it is a filter"));
            let want = [words(tick)[2..4].to_vec(), vec![words(tick)[5]]].concat();
            assert_eq!(words_of(&some.expect("it can be read"))[..3], want);
        }
    }

    #[test]
    fn rows_without_values_say_so() {
        let rows = [(0, Some([1; 6])), (1, None)];
        let file = recording_of([sample(1, &rows)].into_iter(), 1);
        let mut recorded = Attachment::recorded(file.path(), Moment::Last, &Options::default());
        let read = recorded.as_mut().expect("it is").read(&all()).expect("it can be read");
        let states: Vec<RowState> = read.objects().map(|view| view.state()).collect();
        assert_eq!(states, [RowState::Good, RowState::Gone]);
    }

    #[test]
    fn the_last_values_stay_and_age() {
        let file = recording(50, 10);
        let options = Options::default();
        let replayed = Attachment::replayed(file.path(), Pace::Times(10.0), &options);
        let mut replayed = replayed.expect("it can be replayed");
        assert_eq!(replayed.objects().expect("they are known").len(), 2);
        let deadline = Instant::now() + Duration::from_secs(30);
        while !replayed.has_ended() {
            assert!(Instant::now() < deadline, "it takes 5 ms");
            let read = replayed.read(&all()).expect("it can be read");
            // Each read is of one sample, whichever is due.
            let tick = read.objects().next().map(|view| view.words()[0] / 10).expect("it has one");
            assert_eq!(words_of(&read), words(tick));
        }
        let (catalog, _) = Catalog::look(replayed.registry());
        let mut reader = catalog.reader(&all()).expect("it can be opened");
        for want in [RowState::Good, RowState::Aged(0)] {
            let read = reader.read().expect("it can be read");
            assert_eq!(words_of(read), words(50));
            let same = |state| std::mem::discriminant(&state) == std::mem::discriminant(&want);
            assert!(read.objects().all(|view| same(view.state())), "{read:?}");
        }
        assert_eq!(aged(RowState::Aged(u32::MAX), 5), RowState::Aged(u32::MAX));
        assert_eq!(aged(RowState::Torn, 5), RowState::Torn);
    }

    #[test]
    fn damage_is_noted() {
        let file = damaged(100, 10);
        let options = Options::default();
        let replayed = Attachment::replayed(file.path(), Pace::Max, &options);
        let replayed = replayed.expect("its begin is good");
        let deadline = Instant::now() + Duration::from_secs(30);
        while !replayed.has_ended() {
            assert!(Instant::now() < deadline, "it takes no time");
        }
        let notices = replayed.notices();
        assert!(matches!(notices[..], [Notice::DamagedRecording(_)]), "{notices:?}");
        assert!(Attachment::recorded(file.path(), Moment::Last, &options).is_err());
    }
}
