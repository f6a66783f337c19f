"""Reads recordings in CSV and lines of JSON by programs that nobody here wrote, and compares them.

    text.py CSV JSONL EXPECTED

EXPECTED is JSON: [{"tick": N, "path": TEXT, "vm": TEXT, "vcpu": N or null, "state": TEXT,
"values": {NAME OF COLUMN: N or null}, "stats": N}, ...], a row for each object and tick.
"""

import csv
import json
import sys

import duckdb
import pandas
import polars


def text(cell):
    """A text as it was: CSV has a ' before what a spreadsheet would take for a formula."""
    is_guarded = cell[:1] == "'" and (cell[1:2] in "=+-@" or cell[1:2] < " ")
    return cell[1:] if is_guarded and len(cell) > 1 else cell


def same(reader, row, got, want):
    assert got == want, f"{reader}: row {row} has {got!r}, not {want!r}"


def by_csv(path, expected):
    with open(path, newline="", encoding="utf-8") as file:
        names, *rows = csv.reader(file, strict=True)
    names = [text(name) for name in names]
    assert len(rows) == len(expected), f"{len(rows)} rows"
    for number, (row, want) in enumerate(zip(rows, expected)):
        assert len(row) == len(names), f"row {number} has {len(row)} cells"
        cells = dict(zip(names, row))
        for name in ("tick", "path", "vm", "vcpu", "state"):
            value = want[name]
            same("csv", number, text(cells[name]), "" if value is None else str(value))
        for name, value in want["values"].items():
            same("csv", number, cells[name], "" if value is None else str(value))
    return len(rows)


def by_frames(path, expected):
    """The number of rows, and the ticks, of readers that guess types."""
    ticks = [want["tick"] for want in expected]
    same("pandas", "all", pandas.read_csv(path)["tick"].tolist(), ticks)
    texts = polars.read_csv(path, infer_schema=False)["tick"].to_list()
    same("polars", "all", texts, [str(tick) for tick in ticks])
    # It is told the dialect: line breaks within the names mislead its guess.
    dialect = {"sep": ",", "quotechar": '"', "escapechar": '"', "lineterminator": "\\r\\n"}
    rows = duckdb.read_csv(path, all_varchar=True, header=True, **dialect)
    same("duckdb", "all", [int(row[0]) for row in rows.project("tick").fetchall()], ticks)


def by_json(path, expected):
    with open(path, encoding="ascii") as file:
        head, *rows = map(json.loads, file)
    assert "vmstrobe.format" in head["recording"], head
    assert len(rows) == len(expected), f"{len(rows)} rows"
    for number, (row, want) in enumerate(zip(rows, expected)):
        for name in ("tick", "path", "vm", "vcpu", "state"):
            same("json", number, row.get(name), want[name])
        same("json", number, len(row.get("stats", {})), want["stats"])


def main(csv_path, json_path, expected):
    with open(expected, encoding="utf-8") as file:
        expected = json.load(file)
    print(f"csv: {by_csv(csv_path, expected)} rows")
    by_frames(csv_path, expected)
    by_json(json_path, expected)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except AssertionError as difference:
        print(f"text.py: {difference}")
        sys.exit(1)
