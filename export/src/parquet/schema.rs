//! The columns of a Parquet file.
//!
//! Invariant: a column has the type that the Arrow schema beside it promises.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use parquet::basic::{LogicalType, Repetition, TimeUnit, Type as Physical};
use parquet::errors::Result;
use parquet::schema::types::{ColumnDescPtr, SchemaDescriptor, Type as Node, TypePtr};

use crate::arrows::schema::LIST_ITEM;
use crate::columns::Columns;
use crate::heads::{ARROW_HEADS, Type};

/// The key of the Arrow schema, from which pyarrow and others have units and types.
pub(super) const ARROW_KEY: &str = "ARROW:schema";

/// Returns the columns of a file of rows.
pub(super) fn of_rows(columns: &Columns) -> Result<TypePtr> {
    let heads = ARROW_HEADS.iter();
    let heads = heads.map(|(head, name, type_)| leaf(name, *type_, head.is_nullable()));
    let statistics = columns.iter().map(|column| leaf(&column.name, Type::U64, true));
    root(heads.chain(statistics).collect::<Result<_>>()?)
}

/// Returns the columns of a file, all together.
pub(super) fn root(columns: Vec<TypePtr>) -> Result<TypePtr> {
    let root = Node::group_type_builder("vmstrobe").with_fields(columns).build()?;
    Ok(Arc::new(root))
}

/// Returns a column of values.
pub(super) fn leaf(name: &str, type_: Type, is_nullable: bool) -> Result<TypePtr> {
    let (physical, logical) = match type_ {
        Type::Time => (Physical::INT64, LogicalType::timestamp(true, TimeUnit::NANOS)),
        Type::U64 => (Physical::INT64, LogicalType::integer(64, false)),
        Type::I64 => (Physical::INT64, LogicalType::integer(64, true)),
        Type::U32 => (Physical::INT32, LogicalType::integer(32, false)),
        Type::I32 => (Physical::INT32, LogicalType::integer(32, true)),
        Type::U8 => (Physical::INT32, LogicalType::integer(8, false)),
        Type::Text(_) => (Physical::BYTE_ARRAY, LogicalType::String),
    };
    let repetition = if is_nullable { Repetition::OPTIONAL } else { Repetition::REQUIRED };
    let leaf = Node::primitive_type_builder(name, physical)
        .with_logical_type(Some(logical))
        .with_repetition(repetition);
    Ok(Arc::new(leaf.build()?))
}

/// Returns a column of lists, which may be null. Their values may not.
pub(super) fn list(name: &str, type_: Type) -> Result<TypePtr> {
    let repeated = Node::group_type_builder("list")
        .with_repetition(Repetition::REPEATED)
        .with_fields(vec![leaf(LIST_ITEM, type_, false)?])
        .build()?;
    let list = Node::group_type_builder(name)
        .with_repetition(Repetition::OPTIONAL)
        .with_logical_type(Some(LogicalType::List))
        .with_fields(vec![Arc::new(repeated)])
        .build()?;
    Ok(Arc::new(list))
}

/// Returns whether the columns of a file are these.
pub(super) fn is_same(found: &SchemaDescriptor, wanted: &SchemaDescriptor) -> bool {
    let is_same = |one: &ColumnDescPtr, other: &ColumnDescPtr| {
        let of = |column: &ColumnDescPtr| {
            (column.physical_type(), column.max_def_level(), column.max_rep_level())
        };
        one.path() == other.path() && of(one) == of(other)
    };
    found.num_columns() == wanted.num_columns()
        && found.columns().iter().zip(wanted.columns()).all(|(one, other)| is_same(one, other))
}

/// Returns the message of an Arrow schema as text.
pub(super) fn arrow_text(message: &[u8]) -> String {
    BASE64.encode(message)
}

/// Returns the message of an Arrow schema from its text.
pub(super) fn arrow_message(text: &str) -> Option<Vec<u8>> {
    BASE64.decode(text).ok()
}
