"""A client inside the cluster: asks a model's replicas, without HTTP and without the router.

`python -m benchmarks.peers.handle_driver GCS_ADDRESS`, a process of its own. It opens the exchange
that the router opens, by the router's own code (`ServeCluster`), and reads the same bytes. It does
what each line of its input orders, answers with a line of JSON, and ends with its input.
"""

import asyncio
import sys
from contextlib import aclosing
from typing import Any

import msgspec
import ray
import uvloop

from benchmarks.load import PATH, Client, Load, Sample, read_stream, read_whole
from benchmarks.priority import client_first
from benchmarks.stacks import MODEL
from deployments.errors import RoundhouseError
from deployments.exchange import Exchange, Head
from serve_app.directory import Application, Directory
from serve_app.serve_cluster import ServeCluster


class Order(msgspec.Struct):
    """A load to warm up with, or to measure."""

    load: Load
    measured: bool


class HandleClient(Client):
    """The clients of one load on one application."""

    def __init__(self, cluster: ServeCluster, application: Application, load: Load) -> None:
        super().__init__("", load)
        self._cluster = cluster
        self._application = application
        self._number = 0

    async def _exchange(self, body: bytes, sample: Sample, began_s: float) -> None:
        self._number += 1
        asked = Exchange(PATH, body, str(self._number), MODEL)
        async with aclosing(self._cluster.exchange(self._application, asked)) as items:
            try:
                head = await anext(items)
                assert isinstance(head, Head)
                if head.status != 200:
                    sample.failure = f"status {head.status}"
                elif self._load.stream:
                    await read_stream(_pieces(items), sample, began_s)
                else:
                    read_whole(b"".join([piece async for piece in _pieces(items)]), sample)
            except RoundhouseError as error:
                sample.failure = type(error).__name__


async def _pieces(items: Any) -> Any:
    async for item in items:
        if isinstance(item, bytes):
            yield item


async def main() -> None:
    ray.init(sys.argv[1], namespace="serve", log_to_driver=False, logging_level="ERROR")
    client_first()
    cluster = ServeCluster(own_application="router")  # which has no model to ask for
    directory = Directory(cluster)
    directory.start()  # as in the router: it also asks replicas for their wires
    await directory.first_look()
    application = directory.find(MODEL)
    assert application is not None
    print("{}", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        order = msgspec.json.decode(line, type=Order)
        client = HandleClient(cluster, application, order.load)
        if order.measured:
            print(msgspec.json.encode(await client.measure()).decode(), flush=True)
        else:
            await client.warm_up()
            print("{}", flush=True)


if __name__ == "__main__":
    uvloop.run(main())
