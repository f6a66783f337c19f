//! The first message of a stream: the columns with their properties, and the metadata.
//!
//! Invariant: columns and metadata that were written are read back equal, and a schema that was
//! read has complete statistics, so that a layout can be made of it.

use std::collections::HashMap;

use super::flat::{Field as Part, Flat, Link};
use super::message;
use super::table::Table;
use crate::columns::with_offsets;
use crate::columns::{Column, Columns, KeptSchema, Place, is_bucketed, is_equal, properties};
use crate::error::{Error, Result};
use crate::heads::{ARROW_HEADS, Head, Type};
use crate::limits::{MAX_COLUMNS, MAX_SCHEMAS};
use crate::metadata::{FORMAT, FORMAT_KEY, Metadata};
use vmstrobe_core::Desc;

/// Arrow's numbers of the types, from `format/Schema.fbs`.
const INT: u8 = 2;
const UTF8: u8 = 5;
const TIMESTAMP: u8 = 10;
const LIST: u8 = 12;
const NANOSECONDS: i16 = 3;
/// The name that Parquet and Arrow give to the values of a list.
pub(crate) const LIST_ITEM: &str = "element";

/// A column of a file: a head, or the statistic of that number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileColumn {
    Head(Head, Type),
    Statistic(usize),
}

/// A column of an Arrow schema.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) is_nullable: bool,
    pub(crate) type_: Type,
    /// Whether each value is a list of that type.
    pub(crate) is_list: bool,
    pub(crate) pairs: Vec<(String, String)>,
}

/// Returns the message of the schema of a recording.
pub(crate) fn write(columns: &Columns, metadata: &Metadata) -> Vec<u8> {
    let field = |name: &str, is_nullable, type_, pairs| Field {
        name: name.to_owned(),
        is_nullable,
        type_,
        is_list: false,
        pairs,
    };
    let heads = ARROW_HEADS.iter();
    let heads =
        heads.map(|&(head, name, type_)| field(name, head.is_nullable(), type_, Vec::new()));
    let statistics = columns.iter();
    let statistics =
        statistics.map(|column| field(&column.name, true, Type::U64, column_pairs(column)));
    let fields: Vec<Field> = heads.chain(statistics).collect();
    let mut all = metadata.pairs();
    all.extend(columns.schemas().iter().enumerate().flat_map(|(number, kept)| {
        let provider = kept.schema.provider().to_owned();
        let texts = [
            ("name", kept.name.to_string()),
            ("provider", provider),
            ("target", kept.schema.target().name().to_owned()),
        ];
        texts.map(|(key, text)| (format!("schema.{number}.{key}"), text))
    }));
    write_fields(&fields, &all)
}

/// Returns the message of a schema of any columns.
pub(crate) fn write_fields(fields: &[Field], pairs: &[(String, String)]) -> Vec<u8> {
    let (mut flat, schema) = message::begin_schema();
    // Readers of Parquet take the metadata of the file if there is none here.
    let metadata = if pairs.is_empty() { Part::Absent } else { Part::Link };
    let parts = [Part::I16(0), Part::Link, metadata];
    let [_, at, metadata] = flat.table(schema, parts);
    let links = flat.tables(at, fields.len());
    for (link, field) in links.into_iter().zip(fields) {
        write_field(&mut flat, link, field);
    }
    if !pairs.is_empty() {
        flat.metadata(metadata, pairs);
    }
    let mut out = Vec::new();
    message::append(&mut out, &flat.finish(), &[]);
    out
}

fn write_field(flat: &mut Flat, at: Link, field: &Field) {
    let (number, dictionary) = match field.type_ {
        _ if field.is_list => (LIST, Part::Absent),
        Type::Time => (TIMESTAMP, Part::Absent),
        Type::Text(_) => (UTF8, Part::Link),
        _ => (INT, Part::Absent),
    };
    let parts = [
        Part::Link,
        Part::U8(field.is_nullable.into()),
        Part::U8(number),
        Part::Link,
        dictionary,
        Part::Link,
        Part::Link,
    ];
    let [name_link, _, _, type_link, dictionary, children, metadata] = flat.table(at, parts);
    flat.string(name_link, &field.name);
    match field.type_ {
        _ if field.is_list => {
            flat.table(type_link, []);
        }
        Type::Time => {
            let [_, zone] = flat.table(type_link, [Part::I16(NANOSECONDS), Part::Link]);
            flat.string(zone, "UTC");
        }
        Type::Text(of) => {
            flat.table(type_link, []);
            let parts = [Part::I64(of.id()), Part::Link, Part::U8(0)];
            let [_, index, _] = flat.table(dictionary, parts);
            int(flat, index, Type::I32);
        }
        number => int(flat, type_link, number),
    }
    let items = flat.tables(children, usize::from(field.is_list));
    for item in items {
        let name = LIST_ITEM.to_owned();
        let (type_, pairs) = (field.type_, Vec::new());
        write_field(flat, item, &Field { name, is_nullable: false, type_, is_list: false, pairs });
    }
    flat.metadata(metadata, &field.pairs);
}

fn int(flat: &mut Flat, at: Link, type_: Type) {
    let is_signed = matches!(type_, Type::I32 | Type::I64);
    flat.table(at, [Part::I32(8 * type_.bytes() as i32), Part::U8(is_signed.into())]);
}

/// Returns the properties of a column's statistic, its provider, and its places in schemas.
fn column_pairs(column: &Column) -> Vec<(String, String)> {
    let mut pairs = properties::write(&column.desc);
    pairs.push(("provider".into(), column.provider.to_string()));
    pairs.extend(column.bucket.map(|bucket| ("bucket".into(), bucket.to_string())));
    let places = column.places.iter().map(|place| format!("{}:{}", place.schema, place.stat));
    pairs.push(("schemas".into(), places.collect::<Vec<_>>().join(",")));
    pairs
}

/// Reads the message of the schema of a recording, as [`write`] makes it.
///
/// # Errors
/// As [`read`].
#[cfg(feature = "parquet")]
pub(crate) fn read_message(bytes: &[u8]) -> Result<(Metadata, Columns)> {
    let broken = || Error::not_a_recording("its schema is no message of Arrow's format");
    let header = bytes.strip_prefix(&message::MARKER).and_then(|rest| rest.get(4..));
    let header = header.ok_or_else(broken)?;
    let message = message::Message::parse(header).map_err(Error::not_a_recording)?;
    let message::Header::Schema(schema) = message.header else { return Err(broken()) };
    let (metadata, columns, _) = read(schema, header.len())?;
    Ok((metadata, columns))
}

/// Reads the schema of a recording: its metadata, its columns, and the columns of the file.
///
/// # Errors
/// `NotARecording` if it is the schema of something else, `TooLarge` if it exceeds a limit.
pub(super) fn read(
    schema: Table<'_>,
    header_bytes: usize,
) -> Result<(Metadata, Columns, Vec<FileColumn>)> {
    let broken = || Error::not_a_recording("its schema is no table of Arrow's format");
    let mut budget = header_bytes;
    let pairs = schema.metadata(2, &mut budget).ok_or_else(broken)?;
    let format = pairs.iter().find(|(key, _)| key == FORMAT_KEY).map(|(_, text)| &**text);
    match format {
        Some(FORMAT) => {}
        Some(other) => {
            let reason = format!("its format is {other}, and this version reads {FORMAT}");
            return Err(Error::not_a_recording(reason));
        }
        None => return Err(Error::not_a_recording(format!("its schema has no {FORMAT_KEY}"))),
    }
    if schema.i16(0) != Some(0) {
        return Err(Error::not_a_recording("its numbers are big-endian"));
    }
    let fields = schema.vector(1, 4).ok_or_else(broken)?;
    Error::check("the number of columns", fields.len(), MAX_COLUMNS + ARROW_HEADS.len())?;
    let mut columns = Vec::new();
    let mut file_columns = Vec::with_capacity(fields.len());
    for index in 0..fields.len() {
        let field = fields.table(index).ok_or_else(broken)?;
        let name = field.string(0).ok_or_else(broken)?;
        let wrong = || Error::not_a_recording(format!("it has no such column as {name}"));
        let head = ARROW_HEADS.iter().find(|(_, known, _)| *known == name);
        let type_ = head.map_or(Type::U64, |(_, _, type_)| *type_);
        if !is_of_type(field, type_) {
            return Err(Error::not_a_recording(format!("its column {name} has another type")));
        }
        if let Some(&(head, _, type_)) = head {
            let column = FileColumn::Head(head, type_);
            if file_columns.contains(&column) {
                return Err(wrong());
            }
            file_columns.push(column);
            continue;
        }
        budget = budget.checked_sub(name.len()).ok_or_else(broken)?;
        let pairs = field.metadata(6, &mut budget).ok_or_else(broken)?;
        file_columns.push(FileColumn::Statistic(columns.len()));
        columns.push(column(name, &pairs).ok_or_else(wrong)?);
    }
    let missing = ARROW_HEADS
        .iter()
        .find(|(head, _, type_)| !file_columns.contains(&FileColumn::Head(*head, *type_)));
    if let Some((_, name, _)) = missing {
        return Err(Error::not_a_recording(format!("it has no column {name}")));
    }
    let schemas = schemas(&pairs, &columns)?;
    Ok((Metadata::from_pairs(&pairs), Columns::from_parts(schemas, columns), file_columns))
}

fn is_of_type(field: Table<'_>, type_: Type) -> bool {
    let is_int = |table: Table<'_>, wanted: Type| {
        let is_signed = matches!(wanted, Type::I32 | Type::I64);
        table.i32(0) == Some(8 * wanted.bytes() as i32) && table.bool(1) == Some(is_signed)
    };
    let Some(inner) = field.table(3) else { return false };
    let number = field.u8(2);
    match type_ {
        Type::Time => number == Some(TIMESTAMP) && inner.i16(0) == Some(NANOSECONDS),
        Type::Text(of) => {
            let dictionary = field.table(4);
            let index = dictionary.and_then(|dictionary| dictionary.table(1));
            number == Some(UTF8)
                && dictionary.is_some_and(|dictionary| dictionary.i64(0) == Some(of.id()))
                && index.is_some_and(|index| is_int(index, Type::I32))
        }
        wanted => number == Some(INT) && !field.has(4) && is_int(inner, wanted),
    }
}

/// Returns the column that these properties give.
fn column(name: &str, pairs: &[(String, String)]) -> Option<Column> {
    let get = |wanted: &str| pairs.iter().find(|(key, _)| key == wanted).map(|(_, text)| &**text);
    let desc = properties::read(get)?;
    let bucket: Option<u16> = match get("bucket") {
        None => None,
        Some(text) => Some(text.parse().ok()?),
    };
    let is_consistent = bucket.is_some() == is_bucketed(&desc) && bucket.unwrap_or(0) < desc.size;
    let places = get("schemas")?.split(',').map(|place| {
        let (schema, stat) = place.split_once(':')?;
        Some(Place { schema: schema.parse().ok()?, stat: stat.parse().ok()? })
    });
    let places: Vec<Place> = places.collect::<Option<_>>()?;
    let provider = get("provider")?.into();
    let column = Column { name: name.into(), desc, provider, bucket, places };
    is_consistent.then_some(column)
}

/// Returns the schemas, each with the statistics whose columns say that they are its own.
fn schemas(pairs: &[(String, String)], columns: &[Column]) -> Result<Vec<KeptSchema>> {
    let texts: HashMap<&str, &str> = pairs.iter().map(|(key, text)| (&**key, &**text)).collect();
    // By schema and statistic, all buckets.
    let mut stats: HashMap<(usize, usize), Vec<&Column>> = HashMap::new();
    for column in columns {
        for place in &column.places {
            stats.entry((place.schema, place.stat)).or_default().push(column);
        }
    }
    let mut schemas = Vec::new();
    loop {
        let number = schemas.len();
        let get = |key: &str| texts.get(&*format!("schema.{number}.{key}")).copied();
        let Some(((name, provider), target)) = get("name").zip(get("provider")).zip(get("target"))
        else {
            break;
        };
        Error::check("the number of kinds of object", number + 1, MAX_SCHEMAS)?;
        let count = (0..).take_while(|&stat| stats.contains_key(&(number, stat))).count();
        let descs: Option<Vec<Desc>> =
            (0..count).map(|stat| whole(&stats.remove(&(number, stat))?, provider)).collect();
        let wrong = || Error::not_a_recording(format!("a statistic of {name} is incomplete"));
        let schema = with_offsets(provider, target, descs.ok_or_else(wrong)?);
        schemas.push(KeptSchema { name: name.into(), schema });
    }
    if stats.is_empty() {
        return Ok(schemas);
    }
    Err(Error::not_a_recording("it has columns of a schema that it does not describe"))
}

/// Returns the statistic of these columns, if they are all its buckets in order.
fn whole(columns: &[&Column], provider: &str) -> Option<Desc> {
    let desc = &columns.first()?.desc;
    let is_bucket = |(number, column): (usize, &&Column)| {
        usize::from(column.bucket.unwrap_or(0)) == number
            && is_equal(&column.desc, desc)
            && *column.provider == *provider
    };
    let is_whole = columns.len() == usize::from(desc.size);
    (is_whole && columns.iter().enumerate().all(is_bucket)).then(|| desc.clone())
}
