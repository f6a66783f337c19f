//! `vmstrobe top`: a live table of virtual machines with charts, and the past.
//!
//! Invariant: sampling goes on whatever is shown. The terminal is as it was before however the
//! command ends.

mod look;
mod theme;
mod ascii;
mod paint;
mod numbers;
mod axis;
mod raster;
mod sparkline;
mod layout;
mod title;
mod table;
mod chart;
mod histogram;
mod lists;
mod keys;
mod prompt;
mod chooser;
mod key_line;
mod overlay;
mod screen;

mod feed;
mod keep;
mod app;
mod job;
mod background;
mod tty;
mod batch;

use std::path::Path;
use std::time::{Duration, Instant};

use vmstrobe::view::{Request, View, ViewOptions};
use vmstrobe::{Attachment, HistoryLimits, Timing};

use crate::args::{ProviderSet, SelectArgs, TopArgs};
use crate::error::{Error, Result};
use crate::out::{Out, reason, say_each};
use crate::sampling::{Replaying, Sampling};
use crate::signals::{JobFlags, StopFlag};
use crate::terminal::{has_colours, has_cursor};
use app::App;
use feed::{Feed, Recording};
use keep::Dumper;
use look::{Facts, Look};
use theme::{Colours, Theme};
use tty::Tty;

/// The time that is kept by default.
const LAST: Duration = Duration::from_secs(60);
/// The memory for a minute of samples, and for a recording.
const MINUTE_BYTES: usize = 32 << 20;
const RECORDING_BYTES: usize = 256 << 20;

/// Shows the screen, or prints tables, until the user or a signal ends it. Returns the exit status.
///
/// # Errors
/// If there is nothing to show, or no terminal to show it on.
pub(crate) fn run(args: &TopArgs, out: &mut Out) -> Result<u8> {
    if !args.batch.batch {
        check_terminal(out)?;
    }
    let (mut app, stop) = match &args.replay.file {
        Some(recording) => replay(args, recording)?,
        None => sample(args)?,
    };
    if args.batch.batch {
        return batch::run(&mut app, args.batch, &stop, out);
    }
    let last = show(&mut app, args, &stop)?;
    out.lines(last)?;
    say_each(app.dumper.finish());
    Ok(0)
}

/// Checks that there is a terminal that can show a screen.
fn check_terminal(out: &Out) -> Result<()> {
    if out.is_terminal() && has_cursor() {
        return Ok(());
    }
    Err(Error::usage("top needs a terminal: use `vmstrobe stat -i 1s`, or `vmstrobe top -b -n 5`"))
}

/// Returns the limits of what is kept.
fn limits(last: Duration) -> HistoryLimits {
    let minutes = (last.as_secs_f64() / LAST.as_secs_f64()).max(1.0);
    HistoryLimits { time: last, bytes: (MINUTE_BYTES as f64 * minutes) as usize }
}

/// Starts to sample what the user named.
fn sample(args: &TopArgs) -> Result<(App, StopFlag)> {
    let TopArgs { source, method, select, vcpus, .. } = args;
    let timing = Timing::hz(args.rate)?;
    let providers = providers(select);
    let choose = |from: &Attachment| from.select(&select.selection(vcpus)).map(|one| vec![one]);
    let Sampling { attachment, filters, stop, broker, .. } =
        Sampling::prepare((source, method), &[], providers, choose)?;
    let stop = stop.expect("signals are received if no command is measured");
    let members = attachment.members().iter();
    let members = members.filter_map(|one| Some((one.pid?, one.name.clone()))).collect();
    let vm = match source.demo {
        true => Some(vmstrobe::demo::NAME.to_owned()),
        false => attachment.main().map(|member| member.name.clone()),
    };
    let session = attachment.start(filters, timing)?;
    let limits = limits(args.last.unwrap_or(LAST));
    let dumper = Dumper::new(vm.clone(), broker);
    let mut view = View::new(ViewOptions { limits, vm });
    view.take(session.first())?;
    let facts = facts(args, session.first().window().middle_ns());
    let feed = Feed::Session(Box::new(session));
    let mut app = App::new(view, feed, look(args, Colours::None), facts);
    (app.members, app.dumper) = (members, dumper);
    Ok((app, stop))
}

/// Returns the providers to read: with the scheduler's statistics of vCPUs, from which steal comes,
/// unless something else is asked for.
fn providers(select: &SelectArgs) -> ProviderSet {
    let is_of_vcpus = select.target.as_deref().is_none_or(|target| target == "vcpu");
    match select.providers() {
        ProviderSet::WithoutSched if is_of_vcpus && select.of.provider.is_none() => {
            ProviderSet::WithSched
        }
        providers => providers,
    }
}

/// Starts to play a recording.
fn replay(args: &TopArgs, recording: &Path) -> Result<(App, StopFlag)> {
    let Replaying { replay, options, stop } =
        Replaying::prepare(recording, &args.select, &args.vcpus)?;
    let vm = replay.metadata().vm.clone();
    let time = args.last.unwrap_or(Duration::MAX);
    let bytes = args.last.map_or(RECORDING_BYTES, |last| limits(last).bytes);
    let dumper = Dumper::new(vm.clone(), options.bpf.broker().clone());
    let mut view = View::of_recording(ViewOptions { limits: HistoryLimits { time, bytes }, vm });
    let feed = Recording::start(replay, args.replay.speed, &options.threads, &mut view)?;
    let start_ns = view.frame(&Request::default()).ring.begin_ns;
    let recording = Some(feed::name_of(recording));
    let facts = Facts { recording, ..facts(args, start_ns) };
    let look = look(args, Colours::None);
    let mut app = App::new(view, Feed::Recording(Box::new(feed)), look, facts);
    app.dumper = dumper;
    Ok((app, stop))
}

fn facts(args: &TopArgs, start_ns: u64) -> Facts {
    let redraw_hz = if args.batch.batch { 0.0 } else { args.screen.redraw };
    Facts { redraw_hz, start_ns, ..Facts::default() }
}

fn look(args: &TopArgs, colours: Colours) -> Look {
    let theme = Theme::of(colours);
    Look { theme, marker: args.screen.marker(), is_ascii: args.screen.ascii }
}

/// Shows the screen until it is left. Returns the lines that it leaves behind.
fn show(app: &mut App, args: &TopArgs, stop: &StopFlag) -> Result<Vec<String>> {
    let jobs = JobFlags::listen()?;
    let (mut tty, colours) = Tty::open(has_colours()).map_err(|error| {
        Error::failed(format!("the terminal cannot be used: {}", reason(&error)))
    })?;
    app.look = look(args, colours);
    let mut last = Vec::new();
    let period = Duration::from_secs_f64(1.0 / args.screen.redraw);
    let mut due = Instant::now();
    let mut has_news = true;
    while !app.is_over && !stop.is_set() && !tty.is_closed() {
        has_news |= app.feed.take(&mut app.view)?;
        app.tell();
        if jobs.take_stop() {
            tty.leave();
            job::stop();
        }
        if jobs.take_go_on() || tty.is_left() {
            tty.enter().map_err(|error| Error::failed(reason(&error)))?;
            has_news = true;
        }
        if Instant::now() >= due && has_news {
            last = draw(app, &mut tty);
            (due, has_news) = (Instant::now() + period, false);
        }
        let wait = due.saturating_duration_since(Instant::now());
        let wait = if has_news { wait } else { app.feed.look_period() };
        let mut event = tty.event(wait.min(app.feed.look_period()));
        while let Some(one) = event {
            app.event(&one);
            // A key is answered at once.
            (due, has_news) = (Instant::now(), true);
            event = tty.event(Duration::ZERO);
        }
    }
    if tty.is_closed() || !args.screen.keep_screen {
        last.clear();
    }
    Ok(last)
}

/// Draws the screen, and returns its lines.
fn draw(app: &mut App, tty: &mut Tty) -> Vec<String> {
    if std::mem::take(&mut app.must_redraw) {
        tty.forget();
    }
    let area = tty.area();
    let is_large_enough = app.prepare(area);
    let mut lines = Vec::new();
    tty.draw(|buffer| {
        match app.scene() {
            Some(scene) if is_large_enough => screen::draw(buffer, &scene),
            _ => screen::draw_too_small(buffer),
        }
        lines = batch::lines(buffer);
    });
    lines
}

#[cfg(test)]
mod testing;
