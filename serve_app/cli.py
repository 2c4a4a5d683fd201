"""The command line, `roundhouse`: what an operator asks before anything is started, and the start.

Only `serve` starts anything. A command is a function that adds its parser and one that runs it;
heavy libraries are imported by the command that needs them.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from serve_app.commands import drain, kuberay, models, plan, plan_cluster
from serve_app.commands.models import number

Commands = argparse._SubParsersAction  # type of add_subparsers(), which has no public name

CHECK_EPILOG = """\
example:
  roundhouse check serve_config.yaml --gpus-per-node 8

One line for each problem, FILE:LINE: key: what is wrong. Exit status: 0 fine, 1 refused.
"""

SERVE_EPILOG = """\
examples:
  roundhouse serve
  roundhouse serve my_config.yaml

Checks the file and the machine, runs `serve run`, says when the models are ready and what to try.
Ctrl-C (or SIGTERM) stops everything that was started, engines and HAProxy included; a second one
stops it at once. Exit status: 0 stopped, 1 could not start, else that of `serve run`.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="roundhouse",
        description="One OpenAI-compatible endpoint in front of every kind of language model.",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in (_add_check, _add_models, _add_plan, _add_plan_cluster, _add_serve):
        add(commands)
    kuberay.add_arguments(
        _command(commands, "kuberay", "put a serve_config into KubeRay's manifest")
    )
    drain.add_arguments(_command(commands, "drain", "empty this node of replicas, before it ends"))
    arguments = parser.parse_args(argv)
    try:
        status = int(arguments.run(arguments))
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # whoever read has enough: `head` for one
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nor is the rest flushed
        return 1


def _add_check(commands: "Commands[argparse.ArgumentParser]") -> None:
    parser = _command(commands, "check", "refuse a serve_config that would not do what it says")
    parser.epilog = CHECK_EPILOG
    parser.add_argument("file", type=Path, help="the file that `serve run` or `serve deploy` gets")
    parser.add_argument(
        "--gpus-per-node",
        type=number,
        metavar="N",
        help="GPUs of the largest node; left out: of the running Ray cluster, else this machine",
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.set_defaults(run=_check)


def _add_models(commands: "Commands[argparse.ArgumentParser]") -> None:
    parser = _command(commands, "models", "list the catalogue: what `model_type` may be")
    models.add_arguments(parser)
    parser.set_defaults(run=models.run)


def _add_plan(commands: "Commands[argparse.ArgumentParser]") -> None:
    parser = _command(commands, "plan", "tell what a model needs, and where it would go")
    plan.add_arguments(parser)
    parser.set_defaults(run=plan.run)


def _add_plan_cluster(commands: "Commands[argparse.ArgumentParser]") -> None:
    parser = _command(commands, "plan-cluster", "tell which model of a serve_config lands where")
    plan_cluster.add_arguments(parser)
    parser.set_defaults(run=plan_cluster.run)


def _add_serve(commands: "Commands[argparse.ArgumentParser]") -> None:
    parser = _command(commands, "serve", "serve a serve_config on this machine until Ctrl-C")
    parser.epilog = SERVE_EPILOG
    parser.add_argument("file", nargs="?", type=Path, default=Path("serve_config.yaml"))
    parser.set_defaults(run=_serve, gpus_per_node=None, json=False)


def _command(
    commands: "Commands[argparse.ArgumentParser]", name: str, what: str
) -> argparse.ArgumentParser:
    layout = argparse.RawDescriptionHelpFormatter
    return commands.add_parser(name, help=what, description=what, formatter_class=layout)


def _check(arguments: argparse.Namespace) -> int:
    from serve_app.check.nodes import largest_node
    from serve_app.check.report import check

    sys.path.insert(0, os.getcwd())  # as `serve run` does: the file may name code of the operator's
    file: Path = arguments.file
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        return _refuse(f"{file}: {error.strerror}")
    except UnicodeDecodeError:
        return _refuse(f"{file}: not UTF-8 text")
    report = check(str(file), text, largest_node(arguments.gpus_per_node))
    print(report.as_json() if arguments.json else report.as_text())
    return 1 if report.findings else 0


def _serve(arguments: argparse.Namespace) -> int:
    from serve_app.launch.foreground import serve

    return _check(arguments) or serve(arguments.file)


def _refuse(message: str) -> int:
    print(f"roundhouse: {message}", file=sys.stderr)
    return 1
