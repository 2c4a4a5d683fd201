"""How far a download from the hub is, by the progress bars that the hub's library makes.

It makes three: for the bytes that were received, for those that are there, and for the files.
"""

from typing import Any

from tqdm import tqdm

from deployments.progress import Progress, Report, Shard

DOWNLOADING = "downloading"
COUNTED = "Reconstructing"  # how the bar of the bytes that are there begins


def bar_for(report: Report) -> type[Any]:
    """A class of bars that report instead of drawing themselves."""

    class Bar(tqdm):  # type: ignore[misc] # tqdm has no types
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self._is_counted = str(kwargs.get("desc", "")).startswith(COUNTED)
            super().__init__(*args, **{**kwargs, "disable": True})

        def update(self, n: float | None = 1) -> None:
            self.n += n or 0
            if self._is_counted and self.total:
                done = min(int(self.n), int(self.total))
                report(Progress(DOWNLOADING, (Shard("all files", done, int(self.total)),)))

    return Bar
