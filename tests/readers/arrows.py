"""Reads a recording by programs that nobody here wrote, and compares every value.

    arrows.py RECORDING EXPECTED

EXPECTED is JSON: {"finished": bool, "batches": [{"columns": {NAME: [VALUE or null, ...]},
"events": {KEY: TEXT}}, ...]}. Prints one line for each reader, and exits with 1 if one differs.
"""

import json
import sys

import duckdb
import pandas
import polars
import pyarrow as pa


def plain(column):
    """The values of an Arrow column; a time is its number of ns."""
    if pa.types.is_timestamp(column.type):
        assert column.type == pa.timestamp("ns", tz="UTC"), column.type
        column = column.cast(pa.int64())
    return column.to_pylist()


def batches(path):
    """The whole batches of a stream, and the error at its end. This is the loop for torn files."""
    out, error = [], None
    with pa.OSFile(path) as file:
        reader = pa.ipc.open_stream(file)
        while True:
            try:
                out.append(reader.read_next_batch_with_custom_metadata())
            except StopIteration:
                break
            except (pa.ArrowInvalid, OSError) as torn:
                error = torn
                break
    return out, error


def same(reader, name, got, want):
    assert len(got) == len(want), f"{reader}: {name} has {len(got)} values, not {len(want)}"
    for row, (one, other) in enumerate(zip(got, want)):
        assert one == other, f"{reader}: {name} is {one!r} in row {row}, not {other!r}"


def by_pyarrow(path, expected):
    got, error = batches(path)
    assert (error is None) == expected["finished"], error
    assert len(got) == len(expected["batches"]), f"{len(got)} batches"
    for (batch, metadata), want in zip(got, expected["batches"]):
        batch.validate(full=True)
        for name, values in want["columns"].items():
            same("pyarrow", name, plain(batch.column(name)), values)
        assert set(batch.schema.names) == set(want["columns"]), batch.schema.names
        pairs = {k.decode(): v.decode() for k, v in dict(metadata or {}).items()}
        assert pairs == want["events"], pairs
    return got


def whole(expected):
    """The columns of all batches, one after the other."""
    first = expected["batches"][0]["columns"]
    return {name: [v for b in expected["batches"] for v in b["columns"][name]] for name in first}


def by_polars(path, expected):
    frame = polars.read_ipc_stream(path, use_pyarrow=False)
    for name, values in whole(expected).items():
        column = frame[name]
        if column.dtype == polars.Datetime("ns", "UTC"):
            column = column.cast(polars.Int64)
        same("polars", name, column.to_list(), values)


def by_pandas(path, expected):
    # Without the mapper, a column with nulls would become one of floats.
    types = {pa.uint64(): pandas.UInt64Dtype()}
    frame = pa.ipc.open_stream(path).read_pandas(types_mapper=types.get)
    want = whole(expected)
    assert str(frame["time"].dtype) == "datetime64[ns, UTC]", frame["time"].dtype
    same("pandas", "time", frame["time"].astype("int64").tolist(), want["time"])
    for name in frame.columns:
        if name == "path" or frame[name].dtype == "UInt64":
            values = [None if v is pandas.NA else v for v in frame[name].tolist()]
            same("pandas", name, values, want[name])


def by_duckdb(path, expected):
    recording = pa.ipc.open_stream(path)  # DuckDB finds it by its name
    rows = duckdb.sql("select epoch_ns(time), tick, path from recording").fetchall()
    want = whole(expected)
    for place, name in enumerate(("time", "tick", "path")):
        same("duckdb", name, [row[place] for row in rows], want[name])


def main(path, expected):
    with open(expected, encoding="utf-8") as file:
        expected = json.load(file)
    rows = sum(batch.num_rows for batch, _ in by_pyarrow(path, expected))
    print(f"pyarrow: {rows} rows")
    # These give nothing of a torn stream.
    if expected["finished"]:
        for reader in (by_polars, by_pandas, by_duckdb):
            reader(path, expected)
            print(f"{reader.__name__[3:]}: {rows} rows")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except AssertionError as difference:
        print(f"arrows.py: {difference}")
        sys.exit(1)
