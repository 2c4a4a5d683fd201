"""The tensors of a checkpoint, each read when it is asked for, and counted.

transformers takes them as the state dict of a model, and reads several at a time. What stays as it
is, is the file itself, mapped into memory; what is cast or quantised is read past the page cache
and let go of: mapped, it would take its bytes for as long as its file is open. Pickles are read by
torch's restricted unpickler, which builds tensors and runs nothing.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import safe_open

from deployments.errors import StartError
from deployments.huggingface.streaming.layout import DTYPES, can_be_viewed
from deployments.huggingface.streaming.preparing import read
from deployments.huggingface.streaming.reader import Reader
from deployments.placement.header import StoredTensor, damaged, read_header
from deployments.progress import Progress, Report, Shard

logger = logging.getLogger(__name__)

LOADING = "loading weights"
NUM_LOG_LINES = 10
SAFETENSORS = ".safetensors"
GB = 1e9

Read = Callable[[], torch.Tensor]


class Tally:
    """Counts the bytes that are read of each file, reports them, and logs now and then."""

    def __init__(self, sizes: Mapping[str, int], report: Report) -> None:
        self._done = dict.fromkeys(sizes, 0)
        self._sizes = dict(sizes)
        self._report = report
        self._lock = threading.Lock()
        self._num_logged = 0
        self.add(next(iter(sizes)), 0)

    def add(self, file: str, num_bytes: int) -> None:
        """Counts bytes of a file; from any thread."""
        with self._lock:
            # A tensor that two names share is read twice, and counted once.
            self._done[file] = min(self._done[file] + num_bytes, self._sizes[file])
            progress = self._progress()
            self._report(progress)
            self._log(progress)

    def finish(self) -> None:
        """Counts what is left: what lies between tensors, or what the model had no use for."""
        for file, size in self._sizes.items():
            self.add(file, size)

    def _progress(self) -> Progress:
        done = self._done
        shards = (Shard(file, done[file], size) for file, size in self._sizes.items())
        return Progress(LOADING, tuple(shards))

    def _log(self, progress: Progress) -> None:
        # Rounded down: the last line is for the last byte.
        percent = 100 * progress.done_bytes // max(1, progress.total_bytes)
        due = percent * NUM_LOG_LINES // 100
        if due <= self._num_logged:
            return
        self._num_logged = due
        num_done = sum(shard.done_bytes == shard.total_bytes for shard in progress.shards)
        logger.info(
            "%s: %d %%, %.2f of %.2f GB, %d of %d files",
            progress.stage,
            percent,
            progress.done_bytes / GB,
            progress.total_bytes / GB,
            num_done,
            len(progress.shards),
        )


class CountedTensor:
    """A tensor, or safetensors' slice of a file that would become one, counted when it is read.

    transformers indexes it with `[...]`, and asks it whatever it would ask either.
    """

    def __init__(self, source: Any, file: str, tally: Tally) -> None:
        self._source = source
        self._file = file
        self._tally = tally
        self._read: Read | None = None

    def read_by(self, read: Read) -> None:
        """From now on, `read` brings it."""
        self._read = read

    def __getitem__(self, index: Any) -> torch.Tensor:
        tensor: torch.Tensor = self._source[index] if self._read is None else self._read()[index]
        self._tally.add(self._file, tensor.numel() * tensor.element_size())
        return tensor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def peek(self) -> torch.Tensor:
        """The tensor, uncounted: for one that is not to be read."""
        tensor: torch.Tensor = self._source[...]
        return tensor


@contextmanager
def opened(files: Sequence[Path], report: Report) -> Iterator[dict[str, CountedTensor]]:
    """Every tensor of some files by its name, readable inside the block.

    Raises: StartError for a pickle that is more than tensors.
    """
    tally = Tally({file.name: file.stat().st_size for file in files}, report)
    with ExitStack() as stack:
        weights: dict[str, CountedTensor] = {}
        for file in files:
            for name, source in _sources(file, stack).items():
                weights[name] = CountedTensor(source, file.name, tally)
        yield weights
        tally.finish()


@contextmanager
def converted(
    files: Sequence[Path], weights: Mapping[str, CountedTensor], kept: torch.dtype | None
) -> Iterator[None]:
    """Inside, the weights that are not of the type `kept` come into memory that nothing else holds.

    Raises: OSError.
    """
    stored = [t for file in files if file.suffix == SAFETENSORS for t in read_header(file)]
    apart = [t for t in stored if can_be_viewed(t) and DTYPES[t.dtype] != kept]
    reader = Reader({tensor.file for tensor in apart})
    try:
        for tensor in apart:
            weights[tensor.name].read_by(partial(_read, tensor, reader))
        yield
    finally:
        reader.close()


def _read(tensor: StoredTensor, reader: Reader) -> torch.Tensor:
    """Raises: WeightsLost."""
    return read({tensor.name: tensor}, reader)[tensor.name]


def stored_dtype(weights: Mapping[str, CountedTensor]) -> torch.dtype:
    """The type in which weights lie in their files."""
    types = (weight.peek().dtype for weight in weights.values())
    return next((dtype for dtype in types if dtype.is_floating_point), torch.float32)


def _sources(file: Path, stack: ExitStack) -> dict[str, Any]:
    if file.suffix == SAFETENSORS:
        opened_file = stack.enter_context(safe_open(file, framework="pt"))
        return {name: opened_file.get_slice(name) for name in opened_file.keys()}  # noqa: SIM118
    return {name: t for name, t in _unpickled(file).items() if isinstance(t, torch.Tensor)}


def _unpickled(file: Path) -> dict[str, Any]:
    with file.open("rb") as opened_file:
        mapped = opened_file.read(2) == b"PK"  # files of torch before 1.6 cannot be mapped
    try:
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
    except UnpicklingError as exc:
        raise StartError(
            f"{file} is damaged, or holds more than weights, which this backend does not load: it "
            "could run code. Download it again, or convert it where you trust it: load the model "
            "with transformers, and call save_pretrained."
        ) from exc
    except (RuntimeError, EOFError) as exc:  # what torch raises for a broken archive
        raise damaged(file, "cannot be read by torch") from exc
    if not isinstance(content, dict):
        raise damaged(file, "holds no weights by name")
    return content
