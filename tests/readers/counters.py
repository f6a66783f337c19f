"""Reads a trace by Perfetto's own classes, and compares every counter with the recording that it was made of.

    counters.py RECORDING TRACE

Prints one line, and exits with 1 if a value differs.
"""

import sys
import zlib

import pyarrow as pa
from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as protos

COUNTER = protos.TrackEvent.TYPE_COUNTER


def packets(path):
    """The packets of a trace, in their order. This is the loop for traces that were cut off."""
    with open(path, "rb") as file:
        trace = protos.Trace.FromString(file.read())
    for outer in trace.packet:
        yield from protos.Trace.FromString(zlib.decompress(outer.compressed_packets)).packet


def counters(path):
    """For each counter, by statistic and object, its values: {time in ns: value}."""
    tracks, values = {}, {}
    for packet in packets(path):
        if packet.HasField("track_descriptor"):
            track = packet.track_descriptor
            assert track.uuid not in tracks, "a track is described once"
            tracks[track.uuid] = track
        event = packet.track_event
        if not packet.HasField("track_event") or event.type != COUNTER:
            continue
        ids = [event.track_uuid, *event.extra_counter_track_uuids]
        numbers = [event.counter_value, *event.extra_counter_values]
        assert len(ids) == len(numbers) <= 9, "Perfetto reads one value and eight more"
        for track, number in zip(ids, numbers):
            values.setdefault(track, {})[packet.timestamp] = number
    named = {}
    for track, numbers in values.items():
        stat, path = tracks[track].description.split(" of ", 1)
        parent = tracks[tracks[track].parent_uuid]
        assert parent.name == stat, (parent.name, stat)
        assert tracks[track].counter.y_axis_share_key.endswith("/" + stat)
        named[stat, path] = numbers
    return named


def compare(recording, trace):
    with pa.OSFile(recording) as file:
        table = pa.ipc.open_stream(file).read_all()
    kinds = {
        field.metadata[b"statistic"].decode(): field.metadata[b"type"].decode()
        for field in table.schema
        if field.metadata and b"statistic" in field.metadata
    }
    times = table.column("time").cast(pa.int64()).to_pylist()
    offsets = table.column("wall_offset_ns").to_pylist()
    paths = table.column("path").to_pylist()
    ticks = table.column("tick").to_pylist()
    found, compared = counters(trace), 0
    assert found, "there are counters"
    for stat in {stat for stat, _ in found}:
        column, state = table.column(stat).to_pylist(), {}
        for at in sorted(range(len(ticks)), key=lambda row: ticks[row]):
            value, path = column[at], paths[at]
            if value is None:
                continue
            base, last = state.get(path, (value if kinds[stat] == "cumulative" else 0, None))
            shown = found[stat, path].pop(times[at] - offsets[at], last)
            assert shown == value - base, f"{stat} of {path} is {shown}, not {value - base}"
            state[path] = (base, shown)
            compared += 1
    left = {key: values for key, values in found.items() if values}
    assert not left, f"values that were not recorded: {left}"
    print(f"perfetto: {len(found)} counters, {compared} values equal")


compare(*sys.argv[1:])
