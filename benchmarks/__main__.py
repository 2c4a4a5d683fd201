"""The command line of the benchmarks."""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec

from benchmarks import report
from benchmarks.peers.paths import PATHS

EPILOG = """\
examples:
  python -m benchmarks quick                             the table, in under 5 minutes
  python -m benchmarks quick --write                     and into benchmarks/RESULTS.md
  python -m benchmarks quick --output quick.json         and every run's figures as JSON
  python -m benchmarks quick --repetitions 1 --share 0.1      does it work at all?
  python -m benchmarks peers --write                     every peer, and the chart in README.md
  python -m benchmarks peers --only api --loads c=32     one path, the loads with 32 at a time
  python -m benchmarks huggingface                       the engine beside transformers' own
  python -m benchmarks client                            the clients that api.py could be built on
  python -m benchmarks scale                             many models, one router and two, overload
  python -m benchmarks capacity peers.json               CPUs for 10,000 requests/s and so on
  python -m benchmarks demo-accuracy                     the demo model in int8 and nf4
  python -m benchmarks offload                           a model larger than RAM, beside accelerate

Run it on a machine where nothing else runs. Exit status: 0 measured, whether or not the bars are
met; 1 a stack did not start, or of `peers` none.
"""


CAPACITY = "what rates take in CPUs, from what a request and a token were measured to cost"


def main(line: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(line)
    signal.signal(signal.SIGTERM, _interrupt)  # so that what was started is ended
    try:
        found, written = arguments.run(arguments)
    except (RuntimeError, TimeoutError) as error:
        print(f"benchmark: {error or 'nothing answered in time'}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(written.as_text())
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_bytes(msgspec.json.format(msgspec.json.encode(found)) + b"\n")
    if arguments.write:
        report.write(written)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Roundhouse side by side with what it stands in front of.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, run, what in (
        ("quick", _quick, "bare vLLM and Roundhouse, side by side"),
        ("huggingface", _huggingface, "Hugging Face models: Roundhouse and transformers' own"),
        ("peers", _peers, "every peer: bare vLLM, Ray Serve LLM, LiteLLM, vllm-router"),
        ("client", _client, "the HTTP clients that deployments/api.py could be built on"),
        ("scale", _scale, "echoes: many models, one router and two, four times too much"),
    ):
        command = commands.add_parser(name, help=what, description=what)
        command.set_defaults(run=run)
        _add_options(command)
    _add_offload(commands)
    _add_demo_accuracy(commands)
    for name, end in (("quick", "that would end later"), ("huggingface", "later")):
        commands.choices[name].add_argument(
            "--minutes",
            type=float,
            default=5.0,
            metavar="M",
            help=f"begin no repetition but the first {end}; default: %(default)g",
        )
    _add_peers_options(commands.choices["peers"])
    commands.choices["scale"].add_argument(
        "--running",
        type=_positive,
        default=8,
        metavar="N",
        help="models that have a replica, a process of 100 MB; default: %(default)s",
    )
    _add_capacity(commands.add_parser("capacity", help=CAPACITY, description=CAPACITY))
    commands.choices["huggingface"].add_argument(
        "--engines-only", action="store_true", help="without the servers and their clients"
    )
    return parser


def _add_capacity(command: argparse.ArgumentParser) -> None:
    command.set_defaults(run=_capacity)
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
    command.add_argument("--output", type=Path, metavar="FILE", help="write it as JSON")
    command.add_argument("--write", action="store_true", help="put it into benchmarks/RESULTS.md")


def _add_offload(commands: Any) -> None:
    what = "a model larger than its RAM: the streamer, accelerate's hooks, and the disk's bound"
    command = commands.add_parser("offload", help=what, description=what)
    command.set_defaults(run=_offload)
    add = command.add_argument
    add("--folder", type=Path, help="where 6 GB may lie meanwhile; default: TMPDIR")
    add("--layers", type=_positive, default=30, metavar="N", help="fewer than 30: does it work?")
    add("--vocabulary", type=_positive, default=250880, metavar="N", help="fewer: does it work?")
    add("--limit-gib", type=float, default=3.0, metavar="G", help="of RAM; default: %(default)g")
    add("--steps", type=_positive, default=3, metavar="N", help="timed at each batch size")
    _add_outputs(command)


def _add_demo_accuracy(commands: Any) -> None:
    what = "the demo model's held-out accuracy in float32, bfloat16, int8 and nf4"
    command = commands.add_parser("demo-accuracy", help=what, description=what)
    command.set_defaults(run=_demo_accuracy)
    command.add_argument(
        "--each", type=_positive, default=100, metavar="N", help="questions of each task"
    )
    _add_outputs(command)


def _add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--repetitions",
        type=_positive,
        default=5,
        metavar="N",
        help="default: %(default)s",
    )
    command.add_argument(
        "--share", type=float, default=1.0, metavar="X", help="of each load's requests; default: 1"
    )
    _add_outputs(command)


def _add_outputs(command: argparse.ArgumentParser) -> None:
    command.add_argument("--output", type=Path, metavar="FILE", help="write all of it as JSON")
    command.add_argument("--write", action="store_true", help="put it into benchmarks/RESULTS.md")


def _add_peers_options(command: argparse.ArgumentParser) -> None:
    command.set_defaults(repetitions=2)
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


def _quick(arguments: argparse.Namespace) -> tuple[object, report.Report]:
    from benchmarks.quick import Plan, measure
    from benchmarks.quick_report import report_of

    plan = Plan(arguments.repetitions, arguments.share, 60 * arguments.minutes)
    found = measure(plan)
    return found, report_of(found)


def _huggingface(arguments: argparse.Namespace) -> tuple[object, report.Report]:
    from benchmarks.huggingface import measure
    from benchmarks.huggingface_report import report_of

    found = measure(arguments.repetitions, not arguments.engines_only, 60 * arguments.minutes)
    return found, report_of(found)


def _peers(arguments: argparse.Namespace) -> tuple[object, report.Report]:
    from benchmarks.peers import panels
    from benchmarks.peers.measure import Plan, measure
    from benchmarks.peers.report import report_of

    found = measure(
        Plan(
            num_repetitions=arguments.repetitions,
            share=arguments.share,
            limit_s=60 * arguments.minutes,
            only=arguments.only,
            words=arguments.loads,
        )
    )
    if not any(path.records for path in found.paths):
        raise RuntimeError("nobody took part")
    if arguments.write:
        panels.write(found)
    return found, report_of(found)


def _client(arguments: argparse.Namespace) -> tuple[object, report.Report]:
    from benchmarks.client import measure, report_of

    found = measure(arguments.repetitions, arguments.share)
    return found, report_of(found)


def _scale(arguments: argparse.Namespace) -> tuple[object, report.Report]:
    from benchmarks.scale.measure import measure
    from benchmarks.scale.report import report_of

    found = measure(arguments.share, arguments.running)
    return found, report_of(found)


def _capacity(arguments: argparse.Namespace) -> tuple[object, report.Report]:
    from benchmarks.capacity import Wanted
    from benchmarks.capacity_report import read, report_of

    streams_per_s = arguments.tokens_per_s / arguments.tokens_per_answer
    requests = Wanted(arguments.requests_per_s, arguments.requests_per_s, arguments.use)
    tokens = Wanted(streams_per_s, arguments.tokens_per_s, arguments.use)
    stacks = read(arguments.files)
    return stacks, report_of(stacks, requests, tokens, arguments.files)


def _offload(arguments: argparse.Namespace) -> tuple[object, report.Report]:
    from benchmarks.offload.compare import Asked, measure
    from benchmarks.offload.report import report_of

    sizes = arguments.layers, arguments.vocabulary, arguments.limit_gib, arguments.steps
    found = measure(Asked(arguments.folder, *sizes))
    return found, report_of(found)


def _demo_accuracy(arguments: argparse.Namespace) -> tuple[object, report.Report]:
    from benchmarks.demo_accuracy import measure, report_of

    found = measure(arguments.each)
    return found, report_of(found)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
