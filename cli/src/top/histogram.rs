//! The histogram of the subject as bars, and over time as a heat map.
//!
//! Invariant: each bar and each row has its upper bound beside it, and the shades have their counts
//! in the title. A bucket without a count has no bar, and a cell without one is blank.

use ratatui_core::buffer::Buffer;
use ratatui_core::layout::Rect;
use ratatui_core::style::Style;
use vmstrobe::Unit;
use vmstrobe::readout::{count, duration};
use vmstrobe::view::{HeatMap, Histogram};

use super::axis::{Clock, time_labels};
use super::layout::BAR_MARGIN;
use super::look::Look;
use super::numbers::Writing;
use super::paint::{Spans, put, put_char, put_right, titled_rule};
use super::sparkline::bar;
use super::title::time_text;

/// The shades of a heat map, from few counts to many.
const SHADES: [char; 4] = ['░', '▒', '▓', '█'];
/// The columns of the count behind a bar.
const COUNT_COLUMNS: u16 = 12;

/// Draws a histogram: its title, a row for each bucket from the highest down, its quantiles.
pub(super) fn draw(buffer: &mut Buffer, area: Rect, histogram: &Histogram, look: &Look) {
    if area.height < 3 {
        return;
    }
    let theme = &look.theme;
    let is_time = histogram.desc.unit == Unit::Seconds;
    let mut title = Spans::default();
    title.push(format!("{}: below", histogram.desc.name), theme.strong);
    let mut facts = Spans::default();
    // Samples are not exactly so far apart: 10 s is 10.06 s. Fractions matter below some seconds.
    let span_ns = match histogram.span_ns {
        5_000_000_000.. => (histogram.span_ns as f64 * 1e-9).round() as u64 * 1_000_000_000,
        shorter => shorter,
    };
    facts.push(format!("last {}", time_text(span_ns)), theme.soft);
    titled_rule(buffer, area, theme.soft, &title, &facts);

    let rows = usize::from(area.height - 2);
    let shown = shown_buckets(&histogram.buckets, rows);
    let most = shown.iter().map(|(_, count)| *count).max().unwrap_or(0);
    let begin = area.x + BAR_MARGIN + 1;
    let bars = (begin, area.right().saturating_sub(COUNT_COLUMNS).max(begin));
    for (index, (bound, counted)) in shown.iter().rev().enumerate() {
        let y = area.y + 1 + u16::try_from(index).unwrap_or(u16::MAX);
        let label = bound_text(*bound, is_time);
        put_right(buffer, y, (area.x, area.x + BAR_MARGIN), &label, theme.soft);
        if *counted > 0 {
            let behind = bar(buffer, bars, y, *counted as f64 / most as f64, theme.data);
            put(buffer, behind + 1, y, area.right(), &count(*counted), theme.text);
        }
    }
    let y = area.y + 1 + u16::try_from(shown.len()).unwrap_or(u16::MAX).min(area.height - 2);
    quantiles(histogram, is_time, look).draw(buffer, area.x, y, area.right());
}

/// Returns the buckets that there is room for: those with counts, and of these the highest; filled
/// up with their neighbours.
fn shown_buckets(buckets: &[(Option<u64>, u64)], rows: usize) -> &[(Option<u64>, u64)] {
    let has_count = |(_, count): &(Option<u64>, u64)| *count > 0;
    let first = buckets.iter().position(has_count).unwrap_or(0);
    let last = buckets.iter().rposition(has_count).unwrap_or(first);
    // One bucket above the highest count, so that it is seen to be the highest, then those below.
    let end = (last + 2).min(buckets.len());
    let begin = end.saturating_sub(rows);
    let spare = first.saturating_sub(begin) / 2;
    let end = (end + spare).min(buckets.len());
    &buckets[end.saturating_sub(rows)..end]
}

fn bound_text(bound: Option<u64>, is_time: bool) -> String {
    match bound {
        Some(bound) if is_time => duration(bound as f64),
        Some(bound) => Writing { is_rate: false, is_exact: false }.number(bound as f64).text(),
        None => "∞".to_owned(),
    }
}

fn quantiles(histogram: &Histogram, is_time: bool, look: &Look) -> Spans {
    let theme = &look.theme;
    let mut line = Spans::default();
    for (name, bound) in [(" p50 ", histogram.p50), ("  p99 ", histogram.p99)] {
        let text = match bound {
            None => "–".to_owned(),
            Some(bound) => format!("≤ {}", bound_text(bound, is_time)),
        };
        line.push(name, theme.soft);
        line.push(text, theme.text);
    }
    line.push(format!("  {} in all", count(histogram.count)), theme.text);
    line
}

/// Draws a heat map: its title with the meaning of the shades, a row for each bucket, the times.
pub(super) fn draw_heat_map(
    buffer: &mut Buffer,
    area: Rect,
    map: &HeatMap,
    (span_ns, clock): ((u64, u64), Clock),
    look: &Look,
) {
    if area.height < 3 || area.width <= BAR_MARGIN + 1 {
        return;
    }
    let theme = &look.theme;
    let bounds = shade_bounds(map.count_max);
    let mut title = Spans::default();
    title.push("over time", theme.strong);
    let mut facts = Spans::default();
    facts.push("in a cell:", theme.soft);
    for ((shade, bound), style) in SHADES.iter().zip(bounds).zip(theme.heat) {
        facts.push(format!("  {shade}"), style);
        facts.push(format!(" {}", bound_text(Some(bound), false)), theme.soft);
    }
    titled_rule(buffer, area, theme.soft, &title, &facts);

    let rows = usize::from(area.height - 2);
    let totals: Vec<(Option<u64>, u64)> = map
        .bounds
        .iter()
        .enumerate()
        .map(|(bucket, bound)| {
            let counts = map.columns.iter().filter_map(|column| column.get(bucket));
            (*bound, counts.fold(0_u64, |sum, count| sum.saturating_add(*count)))
        })
        .collect();
    let shown = shown_buckets(&totals, rows);
    let first = totals.iter().position(|total| shown.first().is_some_and(|one| one.0 == total.0));
    let first = first.unwrap_or(0);
    let begin = area.x + BAR_MARGIN + 1;
    for (index, (bound, _)) in shown.iter().enumerate() {
        let up = u16::try_from(index).unwrap_or(u16::MAX) + 2;
        let y = area.bottom().saturating_sub(up);
        let label = format!("< {}", bound_text(*bound, map.is_time));
        put_right(buffer, y, (area.x, area.x + BAR_MARGIN), &label, theme.soft);
        for (x, column) in (begin..area.right()).zip(&map.columns) {
            let counted = column.get(first + index).copied().unwrap_or(0);
            if let Some((shade, style)) = shade_of(counted, bounds, theme.heat) {
                put_char(buffer, x, y, shade, style);
            }
        }
    }
    let y = area.bottom() - 1;
    for label in time_labels(clock, span_ns, usize::from(area.right() - begin)) {
        let x = begin + u16::try_from(label.column).unwrap_or(u16::MAX);
        put(buffer, x, y, area.right(), &label.text, theme.soft);
    }
}

/// Returns the least counts of the shades: 1, then steps of one factor up to the highest count.
fn shade_bounds(count_max: u64) -> [u64; 4] {
    let factor = (count_max.max(1) as f64).powf(1.0 / 4.0);
    let mut bounds = [1, 2, 3, 4].map(|step| {
        let bound = factor.powi(step - 1);
        // In 1, 2 and 5 times a power of ten, which can be remembered.
        let power = 10_f64.powi(bound.log10().floor() as i32);
        let round = [1.0, 2.0, 5.0, 10.0].into_iter().rfind(|round| round * power <= bound * 1.01);
        (round.unwrap_or(1.0) * power) as u64
    });
    for index in 1..bounds.len() {
        bounds[index] = bounds[index].max(bounds[index - 1].saturating_add(1));
    }
    bounds
}

fn shade_of(count: u64, bounds: [u64; 4], styles: [Style; 4]) -> Option<(char, Style)> {
    let shade = bounds.iter().rposition(|bound| count >= *bound)?;
    Some((SHADES[shade], styles[shade]))
}
