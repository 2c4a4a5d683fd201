"""Slots on a GPU that a stream of its own fills from RAM, ahead of the layers' turns.

Layers in RAM lie in one pinned slab for good; layers on disk come through a pinned ring. Copying a
layer waits, on the device, for the event that its slot is free; computing it waits, on the device,
for the event that it has been copied. The host waits for the device nowhere but where a slot of the
disk's ring is to be overwritten, and there a thread of its own does.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import torch
from torch import Tensor

from deployments.huggingface.streaming.layout import Layout, on_device
from deployments.huggingface.streaming.reader import Reader
from deployments.huggingface.streaming.ring import Ring, allocate
from deployments.placement.arrangement import PAGE_BYTES, Tier

NUM_SLOTS = 2


class Slab:
    """Pinned memory with layers that stay in RAM: one allocation, which torch would round up to a
    power of two, layer by layer, if there were many."""

    def __init__(self, layouts: Sequence[Layout], reader: Reader) -> None:
        """Reads the layers. Raises: WeightsLost."""
        self._starts, end = [], 0
        for layout in layouts:
            self._starts.append(end)
            end += -(-layout.num_bytes // PAGE_BYTES) * PAGE_BYTES
        self._memory = allocate(end, is_pinned=True)
        self._sizes = [layout.num_bytes for layout in layouts]
        memory = memoryview(self._memory.numpy())
        blocks = [
            block
            for layout, start in zip(layouts, self._starts, strict=True)
            for block in reader.read(layout.ranges, memory[start : start + layout.num_bytes])
        ]
        for block in blocks:
            block.result()

    def bytes_of(self, layer: int) -> Tensor:
        """A layer's bytes."""
        start = self._starts[layer]
        return self._memory[start : start + self._sizes[layer]]


class DeviceRing:
    """For one thread, which uses the layers; has `Ring`'s methods."""

    def __init__(
        self,
        layouts: Sequence[Layout],
        tiers: Sequence[Tier],
        num_disk_slots: int,
        reader: Reader,
        device: torch.device,
    ) -> None:
        """Reads what stays in RAM, and begins to copy. Raises: WeightsLost."""
        self._layouts = layouts
        self._on_device = [on_device(layout) for layout in layouts]
        in_ram = [n for n, tier in enumerate(tiers) if tier is Tier.RAM]
        on_disk = [n for n, tier in enumerate(tiers) if tier is not Tier.RAM]
        self._place = {n: i for kind in (in_ram, on_disk) for i, n in enumerate(kind)}
        self._in_ram = set(in_ram)
        self._slab = Slab([layouts[n] for n in in_ram], reader) if in_ram else None
        disk_layouts = [layouts[n] for n in on_disk]
        self._disk = Ring(disk_layouts, num_disk_slots, reader, is_pinned=True) if on_disk else None
        num_bytes = max(layout.num_bytes for layout in layouts)
        self._slots = [
            torch.empty(num_bytes, dtype=torch.uint8, device=device) for _ in range(NUM_SLOTS)
        ]
        self._holds: list[int | None] = [None] * NUM_SLOTS
        self._stream = torch.cuda.Stream(device)
        self._stream.wait_stream(torch.cuda.current_stream(device))  # what had this memory before
        for slot in self._slots:
            slot.record_stream(
                self._stream
            )  # nor is it given to others while copies are on their way
        self._copied = [torch.cuda.Event() for _ in self._slots]
        self._freed = [torch.cuda.Event() for _ in self._slots]
        self._sent: list[Future[None] | None] = [None] * NUM_SLOTS
        self._sender = ThreadPoolExecutor(1, thread_name_prefix="weights-sender")
        self._is_held = False
        for layer in range(min(NUM_SLOTS, len(layouts))):
            self._fill(layer)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Inside, the slots keep the first layers, whichever are asked for. Raises: WeightsLost."""
        for layer in range(min(NUM_SLOTS, len(self._layouts))):
            self.acquire(layer)
        self._is_held = True
        try:
            yield
        finally:
            self._is_held = False

    @property
    def num_slots(self) -> int:
        """How many slots there are on the device."""
        return len(self._slots)

    def views(self, layer: int) -> dict[str, Tensor]:
        """The tensors of a layer, where they will be whenever it is used."""
        slot = self._slots[layer % NUM_SLOTS]
        return {view.name: view.of(slot) for view in self._on_device[layer].views}

    def acquire(self, layer: int) -> None:
        """Lets the current stream wait for a layer. Raises: WeightsLost."""
        if self._is_held:
            return
        slot = layer % NUM_SLOTS
        if self._holds[slot] != layer:
            self._freed[slot].record()
            self._fill(layer)
        if (sent := self._sent[slot]) is not None:
            try:
                sent.result()
            except BaseException:
                self._holds[slot] = None
                raise
        torch.cuda.current_stream().wait_event(self._copied[slot])

    def release(self, layer: int) -> None:
        """Lets a layer's slot be filled with the next that has it, once what is queued is done."""
        if self._is_held:
            return
        slot, following = layer % NUM_SLOTS, layer + NUM_SLOTS
        following = following if following < len(self._layouts) else slot
        if following != layer:
            self._freed[slot].record()
            self._fill(following)

    def _fill(self, layer: int) -> None:
        slot = layer % NUM_SLOTS
        if (earlier := self._sent[slot]) is not None:
            earlier.exception()  # after an aborted step: copies to a slot keep their order
        self._holds[slot] = layer
        if layer in self._in_ram:
            self._sent[slot] = None
            assert self._slab is not None
            self._copy(layer, self._slab.bytes_of(self._place[layer]))
        else:
            sent: Future[None] = Future()
            self._sent[slot] = sent
            self._sender.submit(self._send, layer, sent)

    def _send(self, layer: int, sent: Future[None]) -> None:
        """Copies a layer that comes from disk, and lets its slot in RAM be filled anew."""
        assert self._disk is not None
        place = self._place[layer]
        try:
            self._disk.acquire(place)
            self._copy(layer, self._disk.bytes_of(place))
        except BaseException as exc:  # noqa: BLE001 - it is raised where the layer is acquired
            sent.set_exception(exc)
            return
        # Not the slot's own event, which the next copy to it records anew; and without spinning.
        done = torch.cuda.Event(blocking=True)
        done.record(self._stream)
        sent.set_result(None)
        done.synchronize()
        self._disk.release(place)

    def _copy(self, layer: int, source: Tensor) -> None:
        slot = layer % NUM_SLOTS
        with torch.cuda.stream(self._stream):
            self._stream.wait_event(self._freed[slot])
            for piece in self._on_device[layer].pieces:
                target = self._slots[slot][piece.target : piece.target + piece.num_bytes]
                begin = piece.source
                target.copy_(source[begin : begin + piece.num_bytes], non_blocking=True)
            self._copied[slot].record(self._stream)
