"""Reads a Parquet file by programs that nobody here wrote, and compares every value.

    parquet.py RECORDING EXPECTED [ARROWS]

EXPECTED is JSON: {"columns": {NAME: [VALUE, null or list of values, ...]}, "events": [[NS, TEXT],
...], "fields": {NAME: {KEY: TEXT}}}. ARROWS is the same recording as a stream, whose columns must
have the same types and properties. Prints one line for each reader, and exits with 1 if one differs.
"""

import json
import sys

import duckdb
import pandas
import polars
import pyarrow as pa
import pyarrow.parquet


def plain(value):
    """A list of whatever kind as a list, and a null of whatever kind as None."""
    if value is None or value is pandas.NA:
        return None
    return list(value) if hasattr(value, "__iter__") and not isinstance(value, str) else value


def same(reader, name, got, want):
    assert len(got) == len(want), f"{reader}: {name} has {len(got)} values, not {len(want)}"
    for row, (one, other) in enumerate(zip(got, want)):
        assert plain(one) == other, f"{reader}: {name} is {one!r} in row {row}, not {other!r}"


def by_pyarrow(path, expected):
    table = pa.parquet.read_table(path)
    table.validate(full=True)
    assert sorted(table.schema.names) == sorted(expected["columns"]), table.schema.names
    for name, values in expected["columns"].items():
        column = table[name]
        if name == "time":
            assert column.type == pa.timestamp("ns", tz="UTC"), column.type
            column = column.cast(pa.int64())
        same("pyarrow", name, column.to_pylist(), values)
    for name, texts in expected["fields"].items():
        found = {k.decode(): v.decode() for k, v in table.schema.field(name).metadata.items()}
        assert texts.items() <= found.items(), f"{name}: {found}, not {texts}"
    file = pa.parquet.ParquetFile(path)
    events = json.loads(file.metadata.metadata[b"events"])["events"]
    events = [[event["timestamp"], event["description"]] for event in events]
    assert events == expected["events"], events
    # The chunks' own bounds hold their values.
    start = 0
    for group in range(file.metadata.num_row_groups):
        of = file.metadata.row_group(group)
        for number in range(of.num_columns):
            chunk = of.column(number)
            values = expected["columns"].get(chunk.path_in_schema)
            if values is None or not chunk.is_stats_set or not chunk.statistics.has_min_max:
                continue
            values = [v for v in values[start : start + of.num_rows] if v is not None]
            bounds = [chunk.statistics.min_raw, chunk.statistics.max_raw]
            if min(values) >= 0 and chunk.physical_type == "INT64":
                bounds = [bound % 2**64 for bound in bounds]
            if min(values) >= 0 and chunk.physical_type == "INT32":
                bounds = [bound % 2**32 for bound in bounds]
            assert bounds == [min(values), max(values)], f"{chunk.path_in_schema}: {bounds}"
            assert chunk.statistics.null_count == of.num_rows - len(values), chunk.path_in_schema
        start += of.num_rows
    return table.num_rows


def by_arrows(path, arrows):
    table = pa.parquet.read_table(path)
    stream = pa.ipc.open_stream(arrows).schema
    for field in stream:
        found = table.schema.field(field.name)
        assert found.type == field.type, f"{field.name}: {found.type}, not {field.type}"
        assert found.nullable == field.nullable, field.name
        assert (found.metadata or {}) == (field.metadata or {}), f"{field.name}: {found.metadata}"
    assert stream.metadata == table.schema.metadata, table.schema.metadata


def by_polars(path, expected):
    frame = polars.read_parquet(path)
    for name, values in expected["columns"].items():
        column = frame[name]
        if name == "time":
            assert column.dtype == polars.Datetime("ns", "UTC"), column.dtype
            column = column.cast(polars.Int64)
        same("polars", name, column.to_list(), values)


def by_pandas(path, expected):
    frame = pandas.read_parquet(path, dtype_backend="numpy_nullable")
    for name, values in expected["columns"].items():
        column = frame[name]
        if name == "time":
            assert str(column.dtype) == "datetime64[ns, UTC]", column.dtype
            column = column.astype("int64")
        same("pandas", name, column.tolist(), values)


def by_duckdb(path, expected):
    names = list(expected["columns"])
    quoted = ['"' + name.replace('"', '""') + '"' for name in names]
    quoted = ["epoch_ns(time)" if name == '"time"' else name for name in quoted]
    rows = duckdb.execute(f"select {', '.join(quoted)} from read_parquet(?)", [path]).fetchall()
    for place, name in enumerate(names):
        same("duckdb", name, [row[place] for row in rows], expected["columns"][name])


def main(path, expected, *arrows):
    with open(expected, encoding="utf-8") as file:
        expected = json.load(file)
    rows = by_pyarrow(path, expected)
    print(f"pyarrow: {rows} rows")
    for stream in arrows:
        by_arrows(path, stream)
    for reader in (by_polars, by_pandas, by_duckdb):
        reader(path, expected)
        print(f"{reader.__name__[3:]}: {rows} rows")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except AssertionError as difference:
        print(f"parquet.py: {difference}")
        sys.exit(1)
