"""What each command of the command line may be told."""

import argparse
from pathlib import Path

from benchmarks.peers.paths import PATHS


def quick(command: argparse.ArgumentParser) -> None:
    repeated(command)
    _add_minutes(command, "that would end later")


def huggingface(command: argparse.ArgumentParser) -> None:
    repeated(command, 9)
    _add_minutes(command, "later", 7.0)
    command.add_argument(
        "--starts",
        type=_positive,
        default=3,
        metavar="N",
        help="of the servers, the repetitions spread over them; default: %(default)s",
    )
    command.add_argument(
        "--engines-only", action="store_true", help="without the servers and their clients"
    )


def peers(command: argparse.ArgumentParser) -> None:
    repeated(command, 2)
    command.add_argument(
        "--minutes",
        type=float,
        default=20.0,
        metavar="M",
        help="begin no repetition of a path but its first that would end after its share of them; "
        "default: %(default)g; two repetitions take about 15, of engine and api alone about 11",
    )
    command.add_argument(
        "--only",
        type=_paths,
        default=PATHS,
        metavar="PATH,...",
        help=f"of {', '.join(PATHS)}; default: all",
    )
    command.add_argument(
        "--loads",
        type=_words,
        default=(),
        metavar="WORD,...",
        help="only loads whose names have one of these in them: c=32,prompt",
    )


def scale(command: argparse.ArgumentParser) -> None:
    repeated(command)
    command.add_argument(
        "--running",
        type=_positive,
        default=8,
        metavar="N",
        help="models that have a replica, a process of 100 MB; default: %(default)s",
    )


def capacity(command: argparse.ArgumentParser) -> None:
    command.add_argument("files", type=Path, nargs="+", metavar="FILE", help="of --output")
    for option, default, what in (
        ("--requests-per-s", 10_000, "answers of one token"),
        ("--tokens-per-s", 100_000, "in streams"),
        ("--tokens-per-answer", 64, "of those streams"),
        ("--use", 0.7, "how busy a CPU may be on average"),
    ):
        command.add_argument(
            option, type=float, default=default, help=f"{what}; default: %(default)g"
        )
    _add_outputs(command)


def offload(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--folder", type=Path, help="where 6 GB may lie meanwhile; default: TMPDIR")
    add("--layers", type=_positive, default=30, metavar="N", help="fewer than 30: does it work?")
    add("--vocabulary", type=_positive, default=250880, metavar="N", help="fewer: does it work?")
    add("--limit-gib", type=float, default=3.0, metavar="G", help="of RAM; default: %(default)g")
    add("--steps", type=_positive, default=2, metavar="N", help="timed in each round")
    _add_outputs(command)


def demo_accuracy(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--each", type=_positive, default=100, metavar="N", help="questions of each task"
    )
    _add_outputs(command)


def repeated(command: argparse.ArgumentParser, default: int = 5) -> None:
    """Of every command that puts a load on servers."""
    command.add_argument(
        "--repetitions", type=_positive, default=default, metavar="N", help="default: %(default)s"
    )
    command.add_argument(
        "--share", type=float, default=1.0, metavar="X", help="of each load's requests; default: 1"
    )
    _add_outputs(command)


def _add_minutes(command: argparse.ArgumentParser, end: str, default: float = 5.0) -> None:
    command.add_argument(
        "--minutes",
        type=float,
        default=default,
        metavar="M",
        help=f"begin no repetition but the first {end}; default: %(default)g",
    )


def _add_outputs(command: argparse.ArgumentParser) -> None:
    command.add_argument("--output", type=Path, metavar="FILE", help="write all of it as JSON")
    command.add_argument("--write", action="store_true", help="put it into benchmarks/RESULTS.md")


def _paths(text: str) -> tuple[str, ...]:
    paths = _words(text)
    if not paths or not set(paths) <= set(PATHS):
        raise argparse.ArgumentTypeError(f"should be some of {', '.join(PATHS)}")
    return paths


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("should be 1 or more")
    return number
