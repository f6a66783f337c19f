#!/usr/bin/env python3
"""Exits per second of each vCPU, sampled 1000 times a second, as a picture.

plot.py SOCKET FILE.svg [SECONDS]       SOCKET: that of `vmstrobe serve --qmp SOCKET -p PID`
"""
import itertools, json, socket, sys

address, file, seconds = (*sys.argv[1:], 10)[:3]
wanted = {"target": "vcpu", "providers": [{"provider": "kvm", "names": ["exits"]}], "rate": 1000}
qmp = socket.socket(socket.AF_UNIX)
qmp.connect(address)
for request in {"execute": "qmp_capabilities"}, {"execute": "stats-subscribe", "arguments": wanted}:
    qmp.sendall(json.dumps(request).encode())
lines = map(json.loads, qmp.makefile())
_greeting, _agreed, subscribed = itertools.islice(lines, 3)
vcpus = subscribed["return"]["groups"][0]["objects"]
events = itertools.islice(lines, 10 * int(seconds))  # each has the samples of 100 ms
samples = [sample for event in events for sample in event["data"]["samples"]][::20]
times = [(sample["begin-ns"] - samples[0]["begin-ns"]) / 1e9 for sample in samples]
counts = zip(*([exits for exits, in sample["values"]] for sample in samples))
rates = [[(b - a) / (u - t) for a, b, t, u in zip(c, c[1:], times, times[1:])] for c in counts]
peak, end = max(map(max, rates)) or 1, times[-1]
svg = f'<path d="M0 0H1000M0 400H1000" stroke="#ccc"/><text y="-8">{peak:,.0f} exits per second</text>'
svg += f'<text y="420">0</text><text x="1000" y="420" text-anchor="end">{end:.1f} s</text>'
for at, (vcpu, line) in enumerate(zip(vcpus, rates)):
    points = (f"{1000 * t / end:.1f},{400 - 400 * rate / peak:.1f}" for t, rate in zip(times[1:], line))
    colour = f"hsl({210 + 360 * at // len(vcpus)}, 70%, 45%)"
    svg += f'<polyline points="{" ".join(points)}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
    svg += f'<text x="1012" y="{20 * at + 12}" fill="{colour}">{vcpu.split("/")[-1]}</text>'
head = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="-30 -40 1170 480" font-family="sans-serif">'
open(file, "w").write(f"{head}{svg}</svg>\n")
