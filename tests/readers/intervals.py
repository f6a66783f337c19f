"""Reads an interval log by HdrHistogram's reader, and compares it with the recording made beside it.

    intervals.py RECORDING LOG STATISTIC

Prints one line, and exits with 1 if a count differs.
"""

import sys

import pyarrow as pa
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader


def grown(recording, stat):
    """How much each bucket grew in the whole recording, over all objects."""
    with pa.OSFile(recording) as file:
        table = pa.ipc.open_stream(file).read_all()
    paths, ticks = table.column("path").to_pylist(), table.column("tick").to_pylist()
    order = sorted(range(len(ticks)), key=lambda row: ticks[row])
    counts = []
    for bucket in range(64):
        if f"{stat}_{bucket}" not in table.schema.names:
            break
        column, first, last = table.column(f"{stat}_{bucket}").to_pylist(), {}, {}
        for row in order:
            if column[row] is not None:
                first.setdefault(paths[row], column[row])
                last[paths[row]] = column[row]
        counts.append(sum(last[path] - first[path] for path in last))
    return counts


def logged(log):
    """The counts of all intervals, by bucket: for all objects together, and by tag."""
    sums = {None: {}}
    reader = HistogramLogReader(log, HdrHistogram(1, 1 << 50, 2))
    while True:
        interval = reader.get_next_interval_histogram()
        if interval is None:
            return sums
        counts = sums.setdefault(interval.get_tag(), {})
        for item in interval.get_recorded_iterator():
            bucket = item.value_iterated_to.bit_length()
            counts[bucket] = counts.get(bucket, 0) + item.count_at_value_iterated_to


def compare(recording, log, stat):
    want, got = grown(recording, stat), logged(log)
    tags = {tag: counts for tag, counts in got.items() if tag}
    for bucket, count in enumerate(want):
        assert got[None].get(bucket, 0) == count, f"bucket {bucket}: {got[None]}, not {want}"
        by_tag = sum(counts.get(bucket, 0) for counts in tags.values())
        assert by_tag == count, f"bucket {bucket} by tag: {by_tag}, not {count}"
    assert sum(want) > 0, "something was counted"
    print(f"hdrhistogram: {sum(want)} values in {len(tags)} tags and their sum")


compare(*sys.argv[1:])
