//! The numbers of one screen, put together.
//!
//! Invariant: only what the request has room for is computed.

use std::ops::Range;
use std::sync::Arc;

use vmstrobe_core::Target;
use vmstrobe_export::Event;

use super::columns::Defaults;
use super::compared::{Compared, Sample};
use super::details::{Subject, spark_stat};
use super::frame::{
    Cell, EventMark, Frame, Header, Moment, Request, Ring, Row, RowKind, ShownStat, TableState,
};
use super::objects::OwnerId;
use super::position::Shown;
use super::table::{RowId, summed};
use super::{RATE_NS, View};

/// The most samples of which the median width of windows is taken.
const MEDIAN_SAMPLES: usize = 4096;

impl View {
    /// Returns the numbers of one screen.
    pub fn frame(&mut self, request: &Request) -> Frame {
        self.history.close();
        let Some(shown) = self.position.shown(&self.history) else { return self.nothing() };
        self.note_ends();
        let of = self.compare(shown);
        self.defaults = Defaults::of(&of.now.map.layout);
        if self.baseline.is_none() {
            self.baseline = Some(Arc::clone(&of.now.snapshot));
        }
        let state = self.table.arrange(&self.objects, &of, &self.defaults, request.table_columns);
        let columns = self.table.headings(&of);
        let range = self.table.scroll(request.table_rows);
        let selected = self.table.selected_index().filter(|at| range.contains(at));
        let mut rows = self.rows(&of, range.clone());
        let spark = self.spark(&of, request, &mut rows);
        let subject = self.subject();
        let mut frame = Frame {
            moment: self.moment(shown, &of.now),
            header: self.header(&of),
            columns,
            spark,
            rows: rows.into_iter().map(|(_, row)| row).collect(),
            selected: selected.map(|at| at - range.start),
            rows_total: self.table.rows.len(),
            rows_above: range.start,
            table_state: state,
            subject: subject.and_then(|subject| self.names(subject, &of.now)),
            is_opened: self.opened.is_some(),
            focus: self.focus,
            ring: self.ring(shown),
            amounts: self.table.amounts,
            is_exact: self.is_exact,
            events: self.newest_events(request.events),
            ..self.nothing()
        };
        self.detail(&mut frame, request, &of, shown);
        self.request = *request;
        frame
    }

    /// Returns rows of the table without sparklines. Those of a VM that has ended have its last
    /// numbers.
    fn rows(&mut self, of: &Compared, range: Range<usize>) -> Vec<(RowId, Row)> {
        let ids = self.table.rows[range].to_vec();
        let mut rows = Vec::with_capacity(ids.len());
        for id in ids {
            let Some(mut row) = self.table.row(&self.objects, of, id) else { continue };
            if let (RowId::Owner(id), RowKind::Vm { ended_wall_ns: Some(_), .. }) = (id, row.kind) {
                row.cells = self.last_cells(id).unwrap_or(row.cells);
            }
            rows.push((id, row));
        }
        rows
    }

    /// Returns the last numbers of a VM that has ended, if they were computed while the samples of
    /// that time were held.
    fn last_cells(&mut self, id: OwnerId) -> Option<Vec<Cell>> {
        let what = (self.table.shown.clone(), self.table.amounts);
        if let Some((of, cells)) = self.last_cells.get(&id)
            && *of == what
        {
            return Some(cells.clone());
        }
        let at_ns = self.objects.owner(id)?.ended.as_ref()?.alive_ns;
        let place = self.history.find(at_ns)?;
        let of = self.compare(Shown { place, at_ns, is_live: false, is_oldest: false });
        let map = Arc::clone(&of.now.map);
        let cells = self.table.cells(&of, summed(&map, map.owner(id)?));
        self.last_cells.retain(|&id, _| self.objects.owner(id).is_some());
        self.last_cells.insert(id, (what, cells.clone()));
        Some(cells)
    }

    fn spark(&mut self, of: &Compared, request: &Request, rows: &mut [(RowId, Row)]) -> ShownStat {
        let Some(stat) = spark_stat(self, of) else { return ShownStat::default() };
        let (history, objects) = (&self.history, &mut self.objects);
        self.sparks.fill(history, objects, of, &stat, request.spark_cells, rows)
    }

    fn newest_events(&self, room: usize) -> Vec<EventMark> {
        let mut events: Vec<EventMark> = self.history.events().rev().take(room).map(mark).collect();
        events.reverse();
        events
    }

    /// Returns the screen without a sample.
    fn nothing(&self) -> Frame {
        Frame {
            moment: Moment::Live { wall_ns: 0 },
            header: Header { has_ended: self.has_ended, ..Header::default() },
            columns: Vec::new(),
            spark: ShownStat::default(),
            rows: Vec::new(),
            selected: None,
            rows_total: 0,
            rows_above: 0,
            table_state: TableState::Empty,
            subject: None,
            is_opened: false,
            focus: 0,
            charts: Vec::new(),
            histogram: None,
            heat_map: None,
            statistics: Vec::new(),
            statistics_still: 0,
            events: Vec::new(),
            ring: Ring::default(),
            amounts: self.table.amounts,
            is_exact: self.is_exact,
            filter: self.table.filter.as_ref().map(|filter| filter.text().to_owned()),
        }
    }

    fn moment(&self, shown: Shown, now: &Sample) -> Moment {
        let wall_ns = now.snapshot.window().wall_ns();
        if shown.is_live {
            return Moment::Live { wall_ns };
        }
        let newest_ns = self.history.span().map_or(shown.at_ns, |(_, end_ns)| end_ns);
        Moment::Back {
            wall_ns,
            ago_ns: newest_ns - shown.at_ns,
            is_playing: self.position.is_playing,
            is_oldest: shown.is_oldest,
        }
    }

    fn header(&self, of: &Compared) -> Header {
        let map = &of.now.map;
        let (mut vms, mut vcpus) = (0, 0);
        for owner in &map.owners {
            let is_vm = self.objects.owner(owner.id).is_some_and(|owner| owner.is_vm);
            let lives = summed(map, owner).filter(|placed| !of.now.is_gone(placed));
            let lives: Vec<_> = lives.collect();
            vms += usize::from(is_vm && !lives.is_empty());
            let is_vcpu = |id| self.objects.get(id).is_some_and(|it| it.target == Target::Vcpu);
            vcpus += lives.iter().filter(|placed| is_vcpu(placed.id)).count();
        }
        let ended = self.objects.ended();
        let period_ns = self.history.period_ns().filter(|period_ns| *period_ns > 0);
        Header {
            vms,
            vcpus,
            vms_ended: ended.filter(|(.., ended)| of.now.at_ns() >= ended.at_ns).count(),
            rate_hz: period_ns.map_or(0.0, |period_ns| 1e9 / period_ns as f64),
            lost_samples: self.lost_samples,
            window_ns_median: self.window_ns_median(of.now.at_ns()),
            has_ended: self.has_ended,
        }
    }

    /// Returns the median time of a reading, of the last second.
    fn window_ns_median(&self, at_ns: u64) -> Option<u64> {
        let from_ns = at_ns.saturating_sub(RATE_NS);
        let batches = self.history.later_than(from_ns);
        let windows = batches.flat_map(|batch| batch.windows());
        let of_second = windows
            .skip_while(|window| window.middle_ns() <= from_ns)
            .take_while(|window| window.middle_ns() <= at_ns);
        let widths = of_second.map(|window| window.end_ns.saturating_sub(window.begin_ns));
        let mut widths: Vec<u64> = widths.take(MEDIAN_SAMPLES).collect();
        let middle = widths.len() / 2;
        (!widths.is_empty()).then(|| *widths.select_nth_unstable(middle).1)
    }

    /// Returns the names of a subject: `demo` and `vCPU 2`, or `demo` and `4 vCPUs`.
    fn names(&self, subject: Subject, now: &Sample) -> Option<(String, String)> {
        match subject {
            Subject::Object(id) => {
                let known = self.objects.get(id)?;
                let owner = self.objects.owner(known.owner)?.label.to_string();
                let name = match known.target {
                    Target::Vcpu => format!("vCPU {}", known.name),
                    _ => known.name.to_string(),
                };
                Some((owner, name))
            }
            Subject::Owner(id) => {
                let owner = self.objects.owner(id)?;
                let placed = now.map.owner(id).map(|owner| owner.objects.len());
                let ended = owner.ended.as_ref().map(|ended| ended.vcpus);
                let count = placed.or(ended).unwrap_or(0);
                let kind = if owner.is_vm { "vCPU" } else { "object" };
                let plural = if count == 1 { "" } else { "s" };
                Some((owner.label.to_string(), format!("{count} {kind}{plural}")))
            }
        }
    }

    fn ring(&self, shown: Shown) -> Ring {
        let (begin_ns, end_ns) = self.history.span().unwrap_or((shown.at_ns, shown.at_ns));
        Ring {
            begin_ns,
            end_ns,
            at_ns: shown.at_ns,
            limit_ns: self.history.limits().time.as_nanos() as u64,
            bytes: self.history.bytes(),
            events: self.history.events().map(mark).collect(),
        }
    }
}

/// Returns an event as it is shown.
pub(super) fn mark(event: &Event) -> EventMark {
    EventMark {
        at_ns: event.monotonic_ns,
        wall_ns: event.wall_ns(),
        kind: event.kind.clone(),
        text: event.text.clone(),
    }
}
