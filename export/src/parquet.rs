//! `.parquet`: Apache Parquet, in about half of the size of `.arrows`.
//!
//! Files of rows have the columns of [`arrows`](crate::arrows) and their schema, under the key that
//! Arrow's readers look for (`ARROW:schema`), so that those show units and properties. The metadata
//! is there too as keys of the footer, and `events` is a text of JSON. Wide files have a column for
//! each statistic of each object; see [`wide`].
//!
//! | columns | encoding |
//! |---|---|
//! | statistics that move | DELTA_BINARY_PACKED |
//! | statistics that hardly move, heads | dictionary, written from their runs |
//! | `tick` | DELTA_BINARY_PACKED: they count up |
//!
//! All are compressed by zstd. A row group is one layout: all ticks of its first object, then all
//! ticks of its second. A file can be read once its footer was written, which is at its end.
//!
//! Invariant: columns are written one after the other from the changes, and a reader trusts no
//! number.

mod hybrid;
mod codec;
mod schema;
mod events;
mod file;
mod dictionary;
mod chunks;
mod pending;
mod group;
mod rows;
mod wide;
mod decode;
mod header;
mod pages;
mod values;
mod footer;
mod reader;

pub use self::reader::ParquetReader;
pub use self::rows::ParquetWriter;
pub use self::wide::WideParquetWriter;
