//! The sparklines: for each row, the highest 10 ms rate of one statistic in each cell.
//!
//! Invariant: every stretch counts in one cell. The vCPUs of a VM share a scale; the sum over them,
//! which is higher, has its own.

use std::collections::HashMap;
use std::sync::Arc;

use super::LONG_NS;
use super::columns::chart_title;
use super::compared::{Compared, Words, factor};
use super::curves::{CurveCell, Curves, Width};
use super::frame::{Row, ShownStat};
use super::objects::{LayoutMap, ObjectId, Objects, OwnerId};
use super::table::RowId;
use crate::history::{Edges, Envelope, History};

/// The sparklines of all objects.
#[derive(Debug, Default)]
pub(super) struct Sparks {
    curves: Option<Curves>,
    /// The sample and the statistic that the curves are of, and the VMs that had ended by then.
    of: Option<(Arc<LayoutMap>, Arc<str>, Vec<OwnerId>)>,
    /// The objects of the curves, and the number of each one's series.
    series: HashMap<ObjectId, usize>,
    /// The series of each owner.
    of_owners: HashMap<OwnerId, Vec<usize>>,
}

impl Sparks {
    /// Fills in the sparklines of rows.
    pub(super) fn fill(
        &mut self,
        history: &History,
        objects: &mut Objects,
        of: &Compared,
        stat: &str,
        cells: usize,
        rows: &mut [(RowId, Row)],
    ) -> ShownStat {
        let mut placed = of.now.map.placed.iter();
        let desc = placed.find_map(|placed| match of.now.words(placed, stat) {
            Words::Read(desc, _) => Some(desc),
            _ => None,
        });
        let shown = ShownStat { title: chart_title(stat, desc), span_ns: LONG_NS };
        if cells == 0 {
            return shown;
        }
        let factor = desc.map_or(1.0, factor);
        let edges = Edges::until(of.now.at_ns(), LONG_NS, cells);
        let width = Width::wide(history.period_ns().unwrap_or(0));
        self.enrol(objects, &of.now.map, stat, width);
        let Some(curves) = &mut self.curves else { return shown };
        curves.update(history, objects, edges, usize::MAX);
        for (id, row) in rows.iter_mut() {
            let one;
            let series: &[usize] = match id {
                RowId::Owner(id) => self.of_owners.get(id).map_or(&[], |series| series),
                RowId::Object(id) => {
                    one = self.series.get(id).copied();
                    one.as_slice()
                }
            };
            // The last cell goes on beyond the moment that is shown.
            let stretches = curves.sum(series, edges);
            let stretches = stretches.take_while(|&(_, end_ns, _)| end_ns <= of.now.at_ns());
            let envelope = Envelope::new(stretches, edges);
            let columns = envelope.columns.into_iter();
            row.spark = columns.map(|column| Some(column?.max * factor)).collect();
        }
        let until_now = Edges { end_ns: of.now.at_ns(), ..edges };
        self.scale(objects, until_now, factor, rows);
        shown
    }

    /// Gives each row the top of its scale.
    fn scale(&self, objects: &Objects, edges: Edges, factor: f64, rows: &mut [(RowId, Row)]) {
        let Some(curves) = &self.curves else { return };
        let mut of_owners: HashMap<OwnerId, f64> = HashMap::new();
        for (id, row) in rows {
            let own = || row.spark.iter().copied().flatten().fold(0.0, f64::max);
            row.spark_max = match id {
                RowId::Owner(_) => own(),
                RowId::Object(id) => {
                    let Some(owner) = objects.get(*id).map(|known| known.owner) else { continue };
                    *of_owners.entry(owner).or_insert_with(|| {
                        let series = self.of_owners.get(&owner).into_iter().flatten();
                        let highest = series.filter_map(|&series| curves.highest(series, edges));
                        highest.fold(0.0, f64::max) * factor
                    })
                }
            };
        }
    }

    /// Lists the objects of which there are sparklines: those of the sample, and those of VMs that
    /// have ended.
    fn enrol(&mut self, objects: &Objects, map: &Arc<LayoutMap>, stat: &str, width: Width) {
        let ended: Vec<OwnerId> = objects.ended().map(|(owner, ..)| owner).collect();
        let is_same = self.of.as_ref().is_some_and(|(of, name, gone)| {
            Arc::ptr_eq(of, map) && **name == *stat && *gone == ended
        });
        if is_same && self.curves.as_ref().is_some_and(|curves| curves.has_width(width)) {
            return;
        }
        let mut ids: Vec<ObjectId> = map.placed.iter().map(|placed| placed.id).collect();
        ids.extend(ended.iter().flat_map(|&owner| objects.of_owner(owner)));
        ids.sort_unstable();
        ids.dedup();
        self.series = ids.iter().enumerate().map(|(series, &id)| (id, series)).collect();
        self.of_owners.clear();
        for (series, id) in ids.iter().enumerate() {
            if let Some(known) = objects.get(*id) {
                self.of_owners.entry(known.owner).or_default().push(series);
            }
        }
        let stat: Arc<str> = stat.into();
        let cells = ids.into_iter().enumerate();
        let cells =
            cells.map(|(series, object)| CurveCell { object, stat: Arc::clone(&stat), series });
        Curves::kept(&mut self.curves, cells.collect(), width);
        self.of = Some((Arc::clone(map), stat, ended));
    }
}
