"""What the library `qemu.qmp` gets from a QMP server: a line of JSON on standard output for each thing.

    library.py SOCKET [stream]
"""
import asyncio
import json
import sys

from qemu.qmp import ExecuteError, QMPClient

FILTER = {"target": "vcpu", "providers": [{"provider": "kvm", "names": ["exits", "halt_wait_hist"]}]}


def tell(**what):
    print(json.dumps(what, sort_keys=True), flush=True)


async def refused(client, command, arguments):
    try:
        await client.execute(command, arguments)
    except ExecuteError as error:
        return [error.error_class, str(error)]
    return None


async def ask(client):
    """What QEMU answers too."""
    tell(version=client.greeting.QMP.version["qemu"])
    tell(version=(await client.execute("query-version"))["qemu"])
    tell(stats=await client.execute("query-stats", FILTER))
    for target in ("vm", "vcpu", "cryptodev"):
        tell(target=target, stats=await client.execute("query-stats", {"target": target}))
    tell(schemas=await client.execute("query-stats-schemas"))
    text = {"command-line": "info stats vcpu exits", "cpu-index": 1}
    tell(text=await client.execute("human-monitor-command", text))
    tell(refused=await refused(client, "query-stats", {"target": "vm", "vcpus": []}))
    tell(refused=await refused(client, "no-such-command", {}))
    # The library gives each an id and sorts the replies by it.
    names = ("exits", "halt_exits", "irq_exits", "blocking") * 10
    ask_for = lambda name: {"target": "vcpu", "providers": [{"provider": "kvm", "names": [name]}]}
    queries = (client.execute("query-stats", ask_for(name)) for name in names)
    replies = await asyncio.gather(*queries)
    tell(at_once=[reply[0]["stats"][0]["name"] for reply in replies] == list(names))


async def stream(client):
    """Samples as they come, while other queries are answered; then no more."""
    with client.listener("STATS_SAMPLES") as samples:
        subscribed = await client.execute("stats-subscribe", {**FILTER, "rate": 1000, "batch": 50})
        tell(subscribed=subscribed)
        for _ in range(4):
            event = await asyncio.wait_for(samples.get(), 10)
            tell(event=dict(event))
            await client.execute("query-stats", FILTER)
        await client.execute("stats-unsubscribe", {"subscription": subscribed["subscription"]})
        samples.clear()
        await asyncio.sleep(0.2)
        tell(after_the_end=len(samples.clear()))


async def main(socket, what):
    client = QMPClient("tests")
    await client.connect(socket)
    try:
        await (stream if what == ["stream"] else ask)(client)
    finally:
        await client.disconnect()


asyncio.run(asyncio.wait_for(main(sys.argv[1], sys.argv[2:]), 40))
