//! The properties of a statistic as texts, for formats that keep them beside a column.
//!
//! The words are QAPI's; one that QAPI does not have is `type-9`, `unit-9` or `base-9`, as
//! [`StatType`] and [`Scale::text`] write it.
//!
//! Invariant: a statistic that was written as texts is read back equal, also one of a newer kernel.

use vmstrobe_core::{Base, Desc, Scale, StatType, Unit};

/// The keys, in the order in which they are written.
const KEYS: [&str; 8] =
    ["statistic", "type", "unit", "base", "exponent", "bucket_size", "buckets", "flags"];

/// Returns the properties of a statistic, without those that say nothing.
pub(crate) fn write(desc: &Desc) -> Vec<(String, String)> {
    let unit = match desc.unit {
        Unit::Unknown(number) => Some(format!("unit-{number}")),
        unit => unit.name().map(str::to_owned),
    };
    let base = match desc.scale.base {
        Base::Unknown(number) => format!("base-{number}"),
        base => base.value().map(|value| value.to_string()).unwrap_or_default(),
    };
    let nonzero = |number: u32| (number != 0).then(|| number.to_string());
    let texts = [
        Some(desc.name.to_string()),
        Some(desc.stat_type.to_string()),
        Some(unit.unwrap_or_else(|| "none".to_owned())),
        Some(base),
        Some(desc.scale.exponent.to_string()),
        nonzero(desc.bucket_size),
        nonzero(u32::from(desc.size) * u32::from(super::is_bucketed(desc))),
        nonzero(desc.other_flags),
    ];
    let pairs = KEYS.into_iter().zip(texts);
    pairs.filter_map(|(key, text)| Some((key.to_owned(), text?))).collect()
}

/// Returns the statistic that these properties give, with the offset 0; `None` if one is missing or
/// has no meaning.
pub(crate) fn read<'a>(get: impl Fn(&str) -> Option<&'a str>) -> Option<Desc> {
    let number = |key| get(key).map_or(Some(0), |text| text.parse::<u32>().ok());
    let size = get("buckets").map_or(Some(1), |text| text.parse().ok());
    let exponent = get("exponent")?.parse().ok()?;
    Some(Desc {
        name: get("statistic")?.into(),
        stat_type: stat_type(get("type")?)?,
        unit: unit(get("unit")?)?,
        scale: Scale { base: base(get("base")?)?, exponent },
        other_flags: number("flags")?,
        size: size.filter(|&size| size > 0)?,
        offset: 0,
        bucket_size: number("bucket_size")?,
    })
}

fn stat_type(text: &str) -> Option<StatType> {
    (0..16).map(StatType::from_bits).find(|stat_type| stat_type.to_string() == text)
}

fn unit(text: &str) -> Option<Unit> {
    let units = (0..16).map(|bits| Unit::from_bits(bits << 4));
    let mut named = units.filter(|unit| match unit {
        Unit::None => text == "none",
        Unit::Unknown(number) => text == format!("unit-{number}"),
        unit => unit.name() == Some(text),
    });
    named.next()
}

fn base(text: &str) -> Option<Base> {
    let bases = (0..16).map(|bits| Base::from_bits(bits << 8));
    let mut named = bases.filter(|base| match base {
        Base::Unknown(number) => text == format!("base-{number}"),
        base => base.value().is_some_and(|value| text == value.to_string()),
    });
    named.next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_statistic_survives_the_way_there_and_back() {
        for bits in 0..0x1000 {
            let desc = Desc {
                stat_type: StatType::from_bits(bits),
                unit: Unit::from_bits(bits),
                scale: Scale { base: Base::from_bits(bits), exponent: bits as i16 - 99 },
                other_flags: bits << 20,
                size: bits as u16 % 3 + 1,
                bucket_size: bits % 5,
                ..Desc::counter("a\"b", 0)
            };
            let pairs = write(&desc);
            let get = |key: &str| pairs.iter().find(|(k, _)| k == key).map(|(_, text)| &**text);
            assert_eq!(read(get), Some(desc));
        }
    }

    #[test]
    fn a_statistic_without_meaning_is_refused() {
        let pairs = write(&Desc { size: 3, ..Desc::counter("a", 0) });
        for (key, text) in [("type", "x"), ("unit", ""), ("base", "11"), ("buckets", "0")] {
            let get = |asked: &str| match asked == key {
                true => Some(text),
                false => pairs.iter().find(|(k, _)| k == asked).map(|(_, text)| &**text),
            };
            assert_eq!(read(get), None, "{key}={text}");
        }
    }
}
