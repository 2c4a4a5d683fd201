"""A report: notes and tables, on a terminal or as a section of RESULTS.md."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.table import Table

RESULTS = Path(__file__).with_name("RESULTS.md")
INTRODUCTION = """\
# Results

Written by `python -m benchmarks ... --write`; benchmarks/README.md says how to read them.
"""


@dataclass(frozen=True, slots=True)
class Report:
    """What one command found. `name` is the command; `chart` a file beside RESULTS.md, if any."""

    name: str
    notes: Sequence[str]
    tables: Sequence[Table]
    chart: str = ""

    def as_text(self) -> str:
        return "\n\n".join([*(table.as_text() for table in self.tables), "\n".join(self.notes)])

    def as_markdown(self) -> str:
        notes = "\n".join(f"- {note}" for note in self.notes)
        tables = (table.as_markdown() for table in self.tables)
        chart = [f"![{self.name}]({self.chart})"] if self.chart else []
        return "\n\n".join([f"## `python -m benchmarks {self.name}`", notes, *chart, *tables])


def write(report: Report, file: Path = RESULTS) -> None:
    """Puts the report into the file, in place of an earlier one of the same name."""
    begin, end = f"<!-- begin {report.name} -->", f"<!-- end {report.name} -->"
    section = f"{begin}\n{report.as_markdown()}\n{end}\n"
    text = file.read_text() if file.exists() else INTRODUCTION
    earlier = re.compile(re.escape(begin) + ".*?" + re.escape(end) + "\n", re.DOTALL)
    if earlier.search(text):
        text = earlier.sub(lambda _: section, text)
    else:
        text += "\n" + section
    file.write_text(text)


def number(value: float | None, sign: bool = False) -> str:
    """A figure with as many digits as it is worth; `-` for one that is not there."""
    if value is None:
        return "-"
    if isinstance(value, int):
        return str(value)
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
