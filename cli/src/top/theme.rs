//! The colours of the screen: 16 by default, which follow the user's palette; more once the
//! terminal has told whether it is light or dark; none under NO_COLOR.
//!
//! Invariant: no meaning is in a colour alone. Whatever has a colour has a letter, a shape or a
//! place as well, and without colours it is bold or reversed. Values and labels have none: of the
//! 16, only bright blue, red and magenta can be read on every palette, on black and on white.

use ratatui_core::style::{Color, Modifier, Style};

/// The colours that the terminal has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Colours {
    /// None: the user has set NO_COLOR.
    None,
    /// The 16 of the user's palette.
    Sixteen,
    /// All, on a light background.
    Light,
    /// All, on a dark background.
    Dark,
}

/// The styles of the parts of the screen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Theme {
    /// Values.
    pub(super) text: Style,
    /// Titles, the rows of VMs, keys.
    pub(super) strong: Style,
    /// Labels, axes and rules.
    pub(super) soft: Style,
    /// The mean line, and bars.
    pub(super) data: Style,
    /// The band from the lowest to the highest rate.
    pub(super) band: Style,
    /// The sparklines.
    pub(super) spark: Style,
    /// Triggers, and the cursor of a view of the past.
    pub(super) trigger: Style,
    /// Marks.
    pub(super) mark: Style,
    /// The sign that the newest samples are shown.
    pub(super) live: Style,
    /// The first line while the past is shown.
    pub(super) past: Style,
    /// The selected row, over the styles of its parts.
    pub(super) selected: Style,
    /// The cells of a heat map, from few counts to many.
    pub(super) heat: [Style; 4],
}

const fn rgb(hex: u32) -> Color {
    Color::Rgb((hex >> 16) as u8, (hex >> 8) as u8, hex as u8)
}

const fn fg(colour: Color) -> Style {
    Style::new().fg(colour)
}

/// The colours of which a theme for all colours is made.
struct Palette {
    soft: u32,
    data: u32,
    band: u32,
    spark: u32,
    trigger: u32,
    mark: u32,
    live: u32,
    selected: u32,
    /// The text on the bar of the past.
    on_trigger: u32,
    heat: [u32; 4],
}

const LIGHT: Palette = Palette {
    soft: 0x59626c,
    data: 0x0b5cad,
    band: 0x85aed6,
    spark: 0x5a94cc,
    trigger: 0xb8440c,
    mark: 0x8a3ea8,
    live: 0x0f7b5f,
    selected: 0xe4eef8,
    on_trigger: 0xffffff,
    heat: [0xa3c8e8, 0x5697d0, 0x1c63ae, 0x081c40],
};

const DARK: Palette = Palette {
    soft: 0x9aa4ae,
    data: 0x78bdfa,
    band: 0x3f6485,
    spark: 0x4d8fc6,
    trigger: 0xff9d5c,
    mark: 0xd99bf0,
    live: 0x4fcfa6,
    selected: 0x23303c,
    on_trigger: 0x101316,
    heat: [0x1b528a, 0x2b7cc4, 0x66b3f0, 0xf7fcff],
};

impl Theme {
    /// Returns the theme for these colours.
    pub(super) fn of(colours: Colours) -> Self {
        match colours {
            Colours::None => Self::without_colours(),
            Colours::Sixteen => Self::sixteen(),
            Colours::Light => Self::with_palette(&LIGHT),
            Colours::Dark => Self::with_palette(&DARK),
        }
    }

    fn without_colours() -> Self {
        let (plain, bold) = (Style::new(), Style::new().add_modifier(Modifier::BOLD));
        let reversed = plain.add_modifier(Modifier::REVERSED);
        Self {
            text: plain,
            strong: bold,
            soft: plain,
            data: plain,
            band: plain,
            spark: plain,
            trigger: bold,
            mark: bold,
            live: bold,
            past: reversed.add_modifier(Modifier::BOLD),
            selected: reversed,
            heat: [plain; 4],
        }
    }

    fn sixteen() -> Self {
        let blue = fg(Color::LightBlue);
        let trigger = fg(Color::Red);
        Self {
            soft: Style::new().add_modifier(Modifier::DIM),
            data: blue,
            band: blue,
            spark: blue,
            trigger,
            mark: fg(Color::Magenta),
            past: trigger.add_modifier(Modifier::REVERSED | Modifier::BOLD),
            heat: [blue; 4],
            ..Self::without_colours()
        }
    }

    fn with_palette(palette: &Palette) -> Self {
        let Palette { soft, data, band, spark, trigger, mark, live, .. } = *palette;
        let past = fg(rgb(palette.on_trigger)).bg(rgb(trigger)).add_modifier(Modifier::BOLD);
        Self {
            soft: fg(rgb(soft)),
            data: fg(rgb(data)),
            band: fg(rgb(band)),
            spark: fg(rgb(spark)),
            trigger: fg(rgb(trigger)),
            mark: fg(rgb(mark)),
            live: fg(rgb(live)).add_modifier(Modifier::BOLD),
            past,
            selected: Style::new().bg(rgb(palette.selected)),
            heat: palette.heat.map(|shade| fg(rgb(shade))),
            ..Self::without_colours()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn styles(theme: &Theme) -> Vec<Style> {
        let Theme { text, strong, soft, data, band, spark, trigger, mark, live, past, .. } = *theme;
        let mut styles =
            vec![text, strong, soft, data, band, spark, trigger, mark, live, past, theme.selected];
        styles.extend(theme.heat);
        styles
    }

    #[test]
    fn no_color_means_none() {
        for style in styles(&Theme::of(Colours::None)) {
            assert_eq!((style.fg, style.bg), (None, None));
        }
    }

    #[test]
    fn events_and_the_past_show_without_colours() {
        let theme = Theme::of(Colours::None);
        assert!(theme.past.add_modifier.contains(Modifier::REVERSED));
        assert!(theme.selected.add_modifier.contains(Modifier::REVERSED));
        for style in [theme.mark, theme.trigger, theme.live] {
            assert!(style.add_modifier.contains(Modifier::BOLD));
        }
    }

    #[test]
    fn of_the_16_only_those_that_can_be_read_everywhere_are_used() {
        for style in styles(&Theme::of(Colours::Sixteen)) {
            let allowed = [None, Some(Color::LightBlue), Some(Color::Red), Some(Color::Magenta)];
            assert!(allowed.contains(&style.fg) && style.bg.is_none(), "{style:?}");
        }
    }

    /// Returns the contrast of two colours, as WCAG 2 defines it.
    fn contrast(a: Color, b: Color) -> f64 {
        let channel = |value: u8| {
            let share = f64::from(value) / 255.0;
            if share <= 0.03928 { share / 12.92 } else { ((share + 0.055) / 1.055).powf(2.4) }
        };
        let luminance = |colour| match colour {
            Color::Rgb(r, g, b) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b),
            _ => panic!("{colour:?} is in the user's palette"),
        };
        let (a, b) = (luminance(a), luminance(b));
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    #[test]
    fn texts_and_lines_stand_out_from_the_background() {
        for (colours, background) in [(Colours::Light, 0xffffff), (Colours::Dark, 0x101316)] {
            let theme = Theme::of(colours);
            let of = |style: Style| contrast(style.fg.expect("it has one"), rgb(background));
            for (style, least) in [
                (theme.soft, 4.5),
                (theme.trigger, 4.5),
                (theme.mark, 4.5),
                (theme.live, 4.5),
                (theme.data, 4.5),
                (theme.spark, 3.0),
            ] {
                assert!(of(style) >= least, "{colours:?}: {style:?} has {}", of(style));
            }
            let (bar, text) = (theme.past.bg.expect("it has one"), theme.past.fg);
            assert!(contrast(bar, text.expect("it has one")) >= 4.5);
            // A heat map gets ever farther from the background.
            let steps = theme.heat.map(of);
            assert!(steps.windows(2).all(|pair| pair[0] < pair[1]), "{steps:?}");
        }
    }
}
