"""Reads recordings with hostile names in every format, and compares the names.

    hostile.py FACTS

FACTS is JSON: {"paths": [TEXT, TEXT], "stats": [PLAIN, HISTOGRAM, LONG], "vm": TEXT, "mark": TEXT,
"ticks": N}. The recordings are in the current directory. Prints one line for each format, and exits
with 1 if a name differs.
"""

import csv
import json
import sys
import zlib

import polars
import pyarrow as pa
import pyarrow.parquet
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace

csv.field_size_limit(1 << 24)


def unguarded(cell):
    """A text as it was: CSV has a ' before what a spreadsheet would take for a formula."""
    return cell[1:] if cell[:2] in ("'=", "'+", "'-", "'@") else cell


def columns(facts):
    plain, histogram, long = facts["stats"]
    return {plain, long, *(f"{histogram}_{bucket}" for bucket in range(4))}


def rows(table, facts):
    assert columns(facts) <= set(table.schema.names), "a column is missing"
    assert table["path"].to_pylist().count(facts["paths"][0]) == facts["ticks"]
    assert set(table["path"].to_pylist()) == set(facts["paths"]), "paths differ"
    assert facts["vm"] in table["vm"].to_pylist(), "the VM's name differs"
    assert table[facts["stats"][0]].null_count == 0


def arrows(facts):
    reader, events = pa.ipc.open_stream("a.arrows"), []
    batches = []
    while True:
        try:
            batch, metadata = reader.read_next_batch_with_custom_metadata()
        except StopIteration:
            break
        batches.append(batch)
        events += [value for key, value in dict(metadata or {}).items() if key.endswith(b".text")]
    rows(pa.Table.from_batches(batches), facts)
    assert events == [facts["mark"].encode()], "the mark differs"
    assert polars.read_ipc_stream("a.arrows").height == 2 * facts["ticks"]


def parquet(facts):
    rows(pa.parquet.read_table("a.parquet"), facts)
    metadata = pa.parquet.read_metadata("a.parquet").metadata
    (event,) = json.loads(metadata[b"events"])["events"]
    assert event["description"] == facts["mark"], "the mark differs"
    assert polars.read_parquet("a.parquet").height == 2 * facts["ticks"]


def wide(facts):
    table = pa.parquet.read_table("wide.parquet")
    assert table.num_rows == facts["ticks"], table.num_rows
    plain, histogram, long = facts["stats"]
    for path in facts["paths"]:
        for name in f"{plain}@{path}", f"{histogram}@{path}:buckets", f"{long}@{path}":
            assert table[name].null_count == 0, "a column is missing"
    metadata = table.schema.field(f"{plain}@{facts['paths'][1]}").metadata
    assert metadata[b"metric"].decode() == plain and metadata[b"path"].decode() == facts["paths"][1]


def text_csv(facts):
    with open("a.csv", newline="", encoding="utf-8") as file:
        names, *found = csv.reader(file, strict=True)
    names = [unguarded(name) for name in names]
    assert columns(facts) <= set(names), "a column is missing"
    assert all(len(row) == len(names) for row in found), "a row has other cells"
    paths = [unguarded(row[names.index("path")]) for row in found]
    assert len(paths) == 2 * facts["ticks"] + 1 and set(paths) == {"", *facts["paths"]}
    assert {unguarded(row[names.index("text")]) for row in found} == {"", facts["mark"]}


def jsonl(facts):
    with open("a.jsonl", encoding="utf-8") as file:
        head, *found = [json.loads(line) for line in file]
    assert head["recording"], head
    assert len(found) == 2 * facts["ticks"] + 1, len(found)
    assert {row.get("path") for row in found} == {None, *facts["paths"]}
    assert all(set(row["stats"]) == set(facts["stats"]) for row in found if "stats" in row)
    assert [row["text"] for row in found if "event" in row] == [facts["mark"]]


def perfetto(facts):
    with open("a.pftrace", "rb") as file:
        outer = Trace.FromString(file.read()).packet
    inner = [Trace.FromString(zlib.decompress(one.compressed_packets)).packet for one in outer]
    tracks = {packet.track_descriptor.description for packets in inner for packet in packets}
    for stat in facts["stats"][0], facts["stats"][2]:
        for path in facts["paths"]:
            assert f"{stat} of {path}" in tracks, "a track is missing"
    names = {packet.track_event.name for packets in inner for packet in packets}
    assert any(facts["mark"] in name for name in names), "the mark differs"


def main(path):
    with open(path) as file:
        facts = json.load(file)
    for read in arrows, parquet, wide, text_csv, jsonl, perfetto:
        read(facts)
        print(f"{read.__name__}: the names are the same")


main(*sys.argv[1:])
