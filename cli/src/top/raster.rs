//! Dots in characters: several columns and rows of them in each cell of the screen.
//!
//! Invariant: a cell shows the dots that were set in it and no others, and tells whether any of
//! them is of the mean line.

use ratatui_core::symbols::pixel::{OCTANTS, QUADRANTS};

use crate::args::Marker;

/// The bit of each dot of a character in braille, row by row.
const BRAILLE: [u8; 8] = [0x01, 0x08, 0x02, 0x10, 0x04, 0x20, 0x40, 0x80];

impl Marker {
    /// Returns the columns and rows of dots in a cell.
    pub(super) fn dots(self) -> (usize, usize) {
        match self {
            Self::Braille | Self::Octant => (2, 4),
            Self::Block => (2, 2),
            Self::Ascii => (1, 1),
        }
    }

    /// Returns the character with these dots: bit `2 * row + column`.
    fn character(self, dots: u8, has_mean: bool) -> char {
        match self {
            Self::Braille => {
                let bits = BRAILLE.iter().enumerate();
                let bits = bits.filter(|(dot, _)| dots >> dot & 1 == 1).map(|(_, bit)| bit);
                char::from_u32(0x2800 + bits.map(|&bit| u32::from(bit)).sum::<u32>())
                    .expect("all of U+2800 to U+28FF are characters")
            }
            Self::Octant => OCTANTS[usize::from(dots)],
            Self::Block => QUADRANTS[usize::from(dots & 0xf)],
            Self::Ascii if has_mean => '#',
            Self::Ascii => ':',
        }
    }
}

/// The dots of a chart.
#[derive(Clone, Debug)]
pub(super) struct Raster {
    marker: Marker,
    cells_across: usize,
    cells_down: usize,
    /// The dots of the mean line and of the band, of each cell, row by row.
    mean: Vec<u8>,
    band: Vec<u8>,
}

/// A cell that has dots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dots {
    pub(super) character: char,
    /// True if the mean line goes through the cell.
    pub(super) has_mean: bool,
}

impl Raster {
    /// Creates one without dots, for so many cells.
    pub(super) fn new(marker: Marker, cells_across: usize, cells_down: usize) -> Self {
        let cells = cells_across * cells_down;
        Self { marker, cells_across, cells_down, mean: vec![0; cells], band: vec![0; cells] }
    }

    /// Returns the number of columns of dots.
    pub(super) fn columns(&self) -> usize {
        self.cells_across * self.marker.dots().0
    }

    /// Returns the number of rows of dots.
    pub(super) fn rows(&self) -> usize {
        self.cells_down * self.marker.dots().1
    }

    /// Sets the dots of a column between two rows, which are counted from the bottom.
    pub(super) fn set_mean(&mut self, column: usize, from: usize, to: usize) {
        for row in from.min(to)..=from.max(to) {
            if let Some((cell, bit)) = self.place(column, row) {
                self.mean[cell] |= bit;
            }
        }
    }

    /// Sets every second dot of a column between two rows, so that the band is not taken for the
    /// line.
    pub(super) fn set_band(&mut self, column: usize, from: usize, to: usize) {
        let is_sparse = self.marker != Marker::Ascii;
        for row in from.min(to)..=from.max(to) {
            if is_sparse && (row + column) % 2 == 1 {
                continue;
            }
            if let Some((cell, bit)) = self.place(column, row) {
                self.band[cell] |= bit;
            }
        }
    }

    /// Returns the cell of a dot, and its bit there.
    fn place(&self, column: usize, row: usize) -> Option<(usize, u8)> {
        if column >= self.columns() || row >= self.rows() {
            return None;
        }
        let (across, down) = self.marker.dots();
        let from_top = self.rows() - 1 - row;
        let cell = from_top / down * self.cells_across + column / across;
        Some((cell, 1 << (from_top % down * 2 + column % across)))
    }

    /// Returns the dots of a cell, if it has any. Rows are counted from the top.
    pub(super) fn cell(&self, column: usize, row: usize) -> Option<Dots> {
        let cell = row * self.cells_across + column;
        let (mean, band) = (*self.mean.get(cell)?, *self.band.get(cell)?);
        let has_mean = mean != 0;
        let is_empty = column >= self.cells_across || mean | band == 0;
        (!is_empty).then(|| {
            let character = self.marker.character(mean | band, has_mean);
            Dots { character, has_mean }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(raster: &Raster, row: usize) -> String {
        let cells = (0..raster.cells_across).map(|column| raster.cell(column, row));
        cells.map(|dots| dots.map_or(' ', |dots| dots.character)).collect()
    }

    #[test]
    fn a_line_has_all_dots_and_a_band_every_second() {
        for (marker, want) in [
            (Marker::Braille, ["⡇⠨", "⡇⠨"]),
            (Marker::Octant, ["▌\u{1cd1a}", "▌\u{1cd1a}"]),
            (Marker::Block, ["▌▝", "▌▝"]),
            (Marker::Ascii, ["#:", "#:"]),
        ] {
            let mut raster = Raster::new(marker, 2, 2);
            let top = raster.rows() - 1;
            raster.set_mean(0, top, 0);
            raster.set_band(raster.columns() - 1, 0, top);
            assert_eq!([text(&raster, 0), text(&raster, 1)], want, "{marker:?}");
            assert!(raster.cell(0, 0).is_some_and(|dots| dots.has_mean));
            assert!(raster.cell(1, 0).is_some_and(|dots| !dots.has_mean));
        }
    }

    #[test]
    fn each_dot_has_its_own_place() {
        let mut seen = std::collections::BTreeSet::new();
        for column in 0..2 {
            for row in 0..4 {
                let mut raster = Raster::new(Marker::Braille, 1, 1);
                raster.set_mean(column, row, row);
                seen.insert(text(&raster, 0));
            }
        }
        let one_dot = ["⠁", "⠂", "⠄", "⠈", "⠐", "⠠", "⡀", "⢀"].map(str::to_owned);
        assert_eq!(seen, one_dot.into());
    }

    #[test]
    fn dots_outside_are_left_out() {
        let mut raster = Raster::new(Marker::Braille, 2, 1);
        raster.set_mean(9, 0, 3);
        raster.set_band(0, 7, 100);
        assert_eq!(text(&raster, 0), "  ");
        assert_eq!((raster.cell(2, 0), raster.cell(0, 1)), (None, None));
        let empty = Raster::new(Marker::Braille, 0, 0);
        assert_eq!((empty.columns(), empty.rows(), empty.cell(0, 0)), (0, 0, None));
    }
}
