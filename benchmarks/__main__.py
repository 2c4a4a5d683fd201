"""The command line of the benchmarks."""

import argparse
import signal
import sys
from collections.abc import Sequence
from types import FrameType

import msgspec

from benchmarks import options, report, runs

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


COMMANDS = {
    "quick": (runs.quick, options.quick),
    "peers": (runs.peers, options.peers),
    "huggingface": (runs.huggingface, options.huggingface),
    "client": (runs.client, options.repeated),
    "scale": (runs.scale, options.scale),
    "capacity": (runs.capacity, options.capacity),
    "offload": (runs.offload, options.offload),
    "demo-accuracy": (runs.demo_accuracy, options.demo_accuracy),
}


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
    for name, (run, add_options) in COMMANDS.items():
        command = commands.add_parser(name, help=run.__doc__, description=run.__doc__)
        command.set_defaults(run=run)
        add_options(command)
    return parser


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
