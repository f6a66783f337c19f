"""Runs the snippets of docs/recordings.md, and checks that each gives all that was recorded.

    page.py FACTS

FACTS is JSON: {"snippets": [[LANGUAGE, TEXT], ...], "samples": N, "rows": N, "every": N, "marks":
[TEXT, ...], "exits": {PATH: [VALUE of each sample]}}. The snippets run in the current directory,
which has the files that they open. Prints one line, and exits with 1 if one gives something else.
"""

import json
import sys

import duckdb


def grown(facts):
    return {path: values[-1] - values[0] for path, values in facts["exits"].items()}


def arrow_table(got, facts):
    assert got["table"].num_rows == facts["rows"], got["table"].num_rows
    assert got["table"].schema.field("exits").metadata[b"type"] == b"cumulative"


def pandas_frame(got, facts):
    assert len(got["frame"]) == facts["rows"], len(got["frame"])
    assert str(got["frame"].exits.dtype) == "UInt64", got["frame"].exits.dtype


def pandas_rate(got, facts):
    pandas_frame(got, facts)
    values, rate = facts["exits"]["/vm/demo/vcpu[0]"], got["rate"]
    assert list(got["vcpu"].exits) == values
    assert len(rate) == facts["samples"] and (rate[1:] >= 0).all(), rate
    seconds = got["ns"].diff().sum() * 1e-9
    mean = (rate * got["ns"].diff()).sum() * 1e-9 / seconds
    assert abs(mean / ((values[-1] - values[0]) / seconds) - 1) < 1e-6, mean


def polars_exits(got, facts):
    assert got["frame"].height == facts["rows"], got["frame"].height
    exits = dict(got["exits"].drop_nulls().iter_rows())
    assert exits == grown(facts), exits


def duckdb_rows(got, facts):
    assert len(got["rows"]) == facts["rows"], len(got["rows"])
    assert all(ns > 1_700_000_000_000_000_000 for ns, *_ in got["rows"])


def torn_loop(got, facts):
    assert got["table"].num_rows == facts["rows"], got["table"].num_rows
    assert len(got["batches"]) > 1 and got["events"] == facts["marks"], got["events"]


def polars_waits(got, facts):
    assert got["frame"].height == facts["rows"], got["frame"].height
    assert got["waits"].height == facts["samples"] and got["waits"]["time"].is_sorted()


def sql_exits(got, facts):
    assert dict(got["rows"]) == grown(facts), got["rows"]


def wide_frame(got, facts):
    exits = got["exits"]
    assert len(exits) == facts["samples"], len(exits)
    for path, values in facts["exits"].items():
        assert list(exits[f"exits@{path}"]) == values, path


def csv_rows(got, facts):
    assert len(got["rows"]) == facts["every"] * len(facts["exits"]), len(got["rows"])
    for seconds, path, exits in got["exits"]:
        assert exits in facts["exits"][path], (seconds, path, exits)
    assert len(got["exits"]) == len(got["rows"])


def jsonl_rows(got, facts):
    assert got["recording"]["recording"], got["recording"]
    events = [row["text"] for row in got["rows"] if "event" in row]
    assert len(got["rows"]) - len(events) == facts["rows"] and events == facts["marks"], events
    assert got["exits"] == facts["exits"]["/vm/demo/vcpu[0]"]


def perfetto_values(got, facts):
    for path, values in facts["exits"].items():
        counter = [value for _, value in got["values"][f"exits of {path}"]]
        changes = [new for old, new in zip([None, *values], values) if old != new]
        assert counter == [value - values[0] for value in changes], path
    assert "pages_4k of /vm/demo" in got["values"], got["values"].keys()


def intervals(got, facts):
    assert got["waits"] and sum(count for count, _ in got["waits"]) > 0, got["waits"]


# A part that one snippet has, and what it must give.
CHECKS = {
    'open_stream("run.arrows").read_all()': arrow_table,
    "read_pandas(types_mapper=types.get)": pandas_rate,
    'polars.read_ipc_stream("run.arrows")': polars_exits,
    "from recording": duckdb_rows,
    "read_next_batch_with_custom_metadata": torn_loop,
    'read_table("run.parquet")': arrow_table,
    'read_parquet("run.parquet", dtype_backend': pandas_frame,
    'polars.read_parquet("run.parquet")': polars_waits,
    "exits from 'run.parquet'\").fetchall()": duckdb_rows,
    "from 'run.parquet' where vcpu is not null": sql_exits,
    'read_parquet("wide.parquet"': wide_frame,
    'open("run.csv"': csv_rows,
    'open("run.jsonl"': jsonl_rows,
    'open("run.pftrace"': perfetto_values,
    'HistogramLogReader("run.hlog"': intervals,
}


def run(language, text):
    if language == "sql":
        return {"rows": duckdb.sql(text).fetchall()}
    got = {}
    exec(compile(text, "docs/recordings.md", "exec"), got)
    return got


def run_torn(text, facts):
    """Of a file that is cut, the loop gives every whole batch, and the simple snippets nothing."""
    with open("run.arrows", "rb") as file:
        whole = file.read()
    with open("run.arrows", "wb") as file:
        file.write(whole[:-2000])
    rows = run("python", text)["table"].num_rows
    assert 0 < rows < facts["rows"], rows


def main(path):
    with open(path) as file:
        facts = json.load(file)
    checked = {}
    for language, text in facts["snippets"]:
        keys = [key for key in CHECKS if key in text]
        assert len(keys) == 1, f"{len(keys)} checks for this snippet: {text}"
        assert keys[0] not in checked, f"two snippets with: {keys[0]}"
        checked[keys[0]] = text
        CHECKS[keys[0]](run(language, text), facts)
    assert checked.keys() == CHECKS.keys(), CHECKS.keys() - checked.keys()
    run_torn(checked["read_next_batch_with_custom_metadata"], facts)
    print(f"{len(checked)} snippets")


main(*sys.argv[1:])
