//! The parts of a screen that are about one subject: charts, histogram, heat map, statistics.
//!
//! Invariant: the subject is the opened vCPU, or else the selected row; of a VM, all is summed over
//! its vCPUs.

use std::sync::Arc;

use super::charts::{Drawn, MAX_CHARTS, edges};
use super::compared::{Compared, Words};
use super::curves::CurveCell;
use super::frame::{Frame, Request};
use super::histograms::histogram;
use super::objects::{LayoutMap, ObjectId, OwnerId, Placed};
use super::position::Shown;
use super::statistics::{self, ids};
use super::table::{RowId, Still, summed};
use super::{LONG_NS, View};
use crate::history::Edges;

/// The histogram that is shown if there is one of that name; else the first that moves.
const USUAL_HISTOGRAM: &str = "halt_wait_hist";
/// The columns over which the highest rates of statistics are taken.
const HIGHEST_COLUMNS: usize = 100;
/// The shortest time of a chart, in ticks.
const MIN_SPAN_PERIODS: u64 = 20;

/// The thing that charts, histogram and statistics are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Subject {
    Owner(OwnerId),
    Object(ObjectId),
}

impl View {
    /// Returns the opened vCPU, or else the selected row.
    pub(super) fn subject(&self) -> Option<Subject> {
        if let Some(id) = self.opened {
            return Some(Subject::Object(id));
        }
        self.table.selected.map(|row| match row {
            RowId::Owner(id) => Subject::Owner(id),
            RowId::Object(id) => Subject::Object(id),
        })
    }

    /// Fills in the parts of a screen that are about the subject.
    pub(super) fn detail(
        &mut self,
        frame: &mut Frame,
        request: &Request,
        of: &Compared,
        shown: Shown,
    ) {
        let Some(subject) = self.subject() else { return };
        let ended = self.before_end(subject, of);
        let of = ended.as_ref().unwrap_or(of);
        let placed = placed(&of.now.map, subject);
        let newest_ns = self.history.span().map_or(shown.at_ns, |(_, end_ns)| end_ns);
        let edges_of =
            |span_ns, columns| edges(shown.at_ns, newest_ns, span_ns, columns, !shown.is_live);
        let charted = self.charted();
        if request.charts > 0 && request.chart_columns > 0 {
            let drawn = Drawn {
                history: &self.history,
                of,
                ids: &ids(&placed),
                edges: edges_of(self.span_ns, request.chart_columns),
                span_ns: self.span_ns,
                cursor_ns: (!shown.is_live).then_some(shown.at_ns),
            };
            let stats = &charted[..charted.len().min(request.charts)];
            frame.charts = self.charts.draw(&mut self.objects, &drawn, stats);
        }
        self.list(frame, request, of, &placed, (&charted, edges_of(self.span_ns, HIGHEST_COLUMNS)));
        let Some(name) = self.histogram_of(of, &placed) else { return };
        if request.histogram_rows > 0 {
            frame.histogram = histogram(of, &placed, &name, request.histogram_rows);
        }
        if request.heat_columns > 0 {
            let edges = edges_of(self.span_ns, request.heat_columns);
            self.heat(frame, of, &placed, &name, edges);
        }
    }

    /// Returns the last sample of a VM that has ended, so that what it was is still shown.
    fn before_end(&mut self, subject: Subject, of: &Compared) -> Option<Compared> {
        let Subject::Owner(id) = subject else { return None };
        let ended = self.objects.owner(id)?.ended.as_ref();
        let at_ns = ended.filter(|ended| of.now.at_ns() >= ended.at_ns)?.alive_ns;
        let place = self.history.find(at_ns)?;
        Some(self.compare(Shown { place, at_ns, is_live: false, is_oldest: false }))
    }

    fn list(
        &mut self,
        frame: &mut Frame,
        request: &Request,
        of: &Compared,
        placed: &[&Placed],
        (charted, highest): (&[String], Edges),
    ) {
        if request.statistics == 0 {
            return;
        }
        let shows_still = self.table.still == Still::Shown;
        let filter = self.table.filter.as_ref();
        frame.statistics_still = self.statistics.arrange(of, placed, filter, shows_still);
        frame.statistics = self.statistics.rows(
            &self.history,
            &mut self.objects,
            of,
            placed,
            charted,
            (request.statistics, highest),
        );
    }

    fn heat(
        &mut self,
        frame: &mut Frame,
        of: &Compared,
        placed: &[&Placed],
        name: &str,
        edges: Edges,
    ) {
        let Some(desc) = statistics::desc(of, placed, name) else { return };
        let stat: Arc<str> = name.into();
        let cell = |object| CurveCell { object, stat: Arc::clone(&stat), series: 0 };
        let cells = ids(placed).into_iter().map(cell).collect();
        let (history, objects) = (&self.history, &mut self.objects);
        frame.heat_map = self.heat.map(history, objects, cells, &desc, edges);
    }

    /// Returns the statistics of charts, the first of which has a chart if there is room for one.
    pub(super) fn charted(&self) -> Vec<String> {
        let mut names = self.charted.clone().unwrap_or_else(|| self.defaults.charted());
        names.truncate(MAX_CHARTS);
        names
    }

    /// Charts the selected statistic, or no longer does. A histogram has a pane of its own.
    pub(super) fn toggle_chart(&mut self) {
        let Some(name) = self.statistics.selected.clone() else { return };
        if self.last_histograms.contains(&name) {
            self.histogram_stat = Some(name);
            return;
        }
        let mut names = self.charted();
        match names.iter().position(|known| *known == name) {
            Some(at) => {
                names.remove(at);
            }
            None => names.insert(0, name),
        }
        names.truncate(MAX_CHARTS);
        self.charted = Some(names);
    }

    /// Returns the histogram that is shown: the chosen one, the usual one, or the first.
    fn histogram_of(&mut self, of: &Compared, placed: &[&Placed]) -> Option<String> {
        let layout = of.now.snapshot.layout();
        self.last_histograms.clear();
        for part in placed.iter().flat_map(|placed| &placed.parts) {
            let plan = &layout.groups()[part.group].plan;
            for column in plan.columns() {
                let desc = &plan.schema().descs()[column.desc];
                let is_new = self.last_histograms.iter().all(|known| **known != *desc.name);
                if desc.stat_type.is_histogram() && is_new {
                    self.last_histograms.push(desc.name.to_string());
                }
            }
        }
        let chosen = self.histogram_stat.as_deref();
        let is_there = |name: &&str| self.last_histograms.iter().any(|known| known == name);
        let name = chosen.filter(is_there).or_else(|| Some(USUAL_HISTOGRAM).filter(is_there));
        name.map(str::to_owned).or_else(|| self.last_histograms.first().cloned())
    }

    /// Makes the time of charts half or twice as long.
    pub(super) fn zoom(&mut self, is_in: bool) {
        let period_ns = self.history.period_ns().unwrap_or(1_000_000);
        let least_ns = period_ns.saturating_mul(MIN_SPAN_PERIODS).min(LONG_NS);
        let most_ns = u64::try_from(self.history.limits().time.as_nanos()).unwrap_or(u64::MAX);
        let span_ns = if is_in { self.span_ns / 2 } else { self.span_ns.saturating_mul(2) };
        self.span_ns = span_ns.clamp(least_ns, most_ns.max(LONG_NS));
    }
}

/// Returns the objects of a subject.
fn placed(map: &LayoutMap, subject: Subject) -> Vec<&Placed> {
    match subject {
        Subject::Object(id) => map.find(id).into_iter().collect(),
        Subject::Owner(id) => {
            let owner = map.owner(id).into_iter();
            owner.flat_map(|owner| summed(map, owner)).collect()
        }
    }
}

/// Returns the statistic of which sparklines are: the one that the table is sorted by if it counts,
/// or else the first that a chart shows.
pub(super) fn spark_stat(view: &View, of: &Compared) -> Option<String> {
    let sorted = view.table.sorted_by().and_then(|(kind, _)| match kind {
        super::frame::ColumnKind::Amount(name) => Some(name),
        _ => None,
    });
    let counts = |name: &String| {
        let mut placed = of.now.map.placed.iter();
        placed.any(|placed| match of.now.words(placed, name) {
            Words::Read(desc, _) => super::compared::counts(desc),
            _ => false,
        })
    };
    sorted.filter(counts).or_else(|| view.defaults.charted().into_iter().next())
}
