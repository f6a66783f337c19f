#!/usr/bin/env python3
"""Exits per second of each vCPU, sampled 1000 times a second, as a picture.

plot.py SOCKET FILE.svg [SECONDS]       SOCKET: that of `vmstrobe serve --qmp SOCKET -p PID`
"""
import json, socket, sys
from itertools import islice
from pathlib import Path

address, file, seconds = (*sys.argv[1:], 10)[:3]
wanted = {"target": "vcpu", "providers": [{"provider": "kvm", "names": ["exits"]}], "rate": 1000}
qmp = socket.socket(socket.AF_UNIX)
qmp.connect(address)
for request in {"execute": "qmp_capabilities"}, {"execute": "stats-subscribe", "arguments": wanted}:
    qmp.sendall(json.dumps(request).encode())
lines = map(json.loads, qmp.makefile())
_greeting, _agreed, subscribed = islice(lines, 3)
vcpus = subscribed["return"]["groups"][0]["objects"]
events = islice(lines, 10 * int(seconds))  # each has the samples of 100 ms
samples = [sample for event in events for sample in event["data"]["samples"]]

samples = [sample for sample in samples[::20] if None not in sample["values"]]  # means of 20 ms
times = [(sample["begin-ns"] - samples[0]["begin-ns"]) / 1e9 for sample in samples]
counts = zip(*([exits for exits, in sample["values"]] for sample in samples))
rates = [[(b - a) / (u - t) for a, b, t, u in zip(c, c[1:], times, times[1:])] for c in counts]
peak, end = max(map(max, rates)) or 1, times[-1]
x, y = lambda time: 1000 * time / end, lambda rate: 400 - 400 * rate / peak
text = '<text x="{:.1f}" y="{:.1f}" fill="{}" text-anchor="{}">{}</text>'.format


def ticks(end):
    step = float(f"{end / 4:.0e}")  # four of them or so, of one digit
    return [step * n for n in range(int(end / step) + 1)]


svg = ['<svg xmlns="http://www.w3.org/2000/svg" viewBox="-80 -50 1180 500" font-size="14"']
svg += ['font-family="sans-serif" stroke-width="1.5" stroke-linejoin="round">']
svg += [f'<path d="M0 {y(rate):.1f}h1000" stroke="#ddd"/>' for rate in ticks(peak)]
svg += [text(-10, y(rate) + 5, "#777", "end", f"{rate:,.0f}") for rate in ticks(peak)]
svg += [text(x(time), 425, "#777", "middle", f"{time:g} s") for time in ticks(end)]
svg += [text(0, -20, "#333", "start", "exits per second")]
for at, (vcpu, line) in enumerate(zip(vcpus, rates)):
    colour = f"hsl({210 + 360 * at // len(vcpus)} 70% 45%)"
    points = " ".join(f"{x(time):.1f},{y(rate):.1f}" for time, rate in zip(times[1:], line))
    svg += [f'<polyline points="{points}" fill="none" stroke="{colour}"/>']
    svg += [text(1010, 20 * at + 12, colour, "start", vcpu.split("/")[-1])]
Path(file).write_text("\n".join(svg + ["</svg>\n"]))
