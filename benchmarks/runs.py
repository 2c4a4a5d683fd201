"""What each command of the command line runs; what it needs is imported when it runs.

The docstrings are what `--help` says of the commands.
"""

import argparse

from benchmarks.report import Report

Run = tuple[object, Report]  # what was found, and what is written of it


def quick(arguments: argparse.Namespace) -> Run:
    """bare vLLM and Roundhouse, side by side"""
    from benchmarks.quick import Plan, measure
    from benchmarks.quick_report import report_of

    plan = Plan(arguments.repetitions, arguments.share, 60 * arguments.minutes)
    found = measure(plan)
    return found, report_of(found)


def huggingface(arguments: argparse.Namespace) -> Run:
    """Hugging Face models: Roundhouse and transformers' own"""
    from benchmarks.huggingface import measure
    from benchmarks.huggingface.report import report_of

    num_starts = 0 if arguments.engines_only else arguments.starts
    found = measure(arguments.repetitions, num_starts, 60 * arguments.minutes)
    return found, report_of(found)


def peers(arguments: argparse.Namespace) -> Run:
    """every peer: bare vLLM, Ray Serve LLM, LiteLLM, vllm-router"""
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


def client(arguments: argparse.Namespace) -> Run:
    """the HTTP clients that deployments/api.py could be built on"""
    from benchmarks.client import measure, report_of

    found = measure(arguments.repetitions, arguments.share)
    return found, report_of(found)


def scale(arguments: argparse.Namespace) -> Run:
    """echoes: many models, one router and two, four times too much"""
    from benchmarks.scale.measure import measure
    from benchmarks.scale.report import report_of

    found = measure(arguments.share, arguments.running)
    return found, report_of(found)


def capacity(arguments: argparse.Namespace) -> Run:
    """what rates take in CPUs, from what a request and a token were measured to cost"""
    from benchmarks.capacity import Wanted
    from benchmarks.capacity_report import read, report_of

    streams_per_s = arguments.tokens_per_s / arguments.tokens_per_answer
    requests = Wanted(arguments.requests_per_s, arguments.requests_per_s, arguments.use)
    tokens = Wanted(streams_per_s, arguments.tokens_per_s, arguments.use)
    stacks = read(arguments.files)
    return stacks, report_of(stacks, requests, tokens, arguments.files)


def offload(arguments: argparse.Namespace) -> Run:
    """a model larger than its RAM: the streamer, accelerate's hooks, and the disk's bound"""
    from benchmarks.offload.compare import Asked, measure
    from benchmarks.offload.report import report_of

    sizes = arguments.layers, arguments.vocabulary, arguments.limit_gib, arguments.steps
    found = measure(Asked(arguments.folder, *sizes))
    return found, report_of(found)


def demo_accuracy(arguments: argparse.Namespace) -> Run:
    """the demo model's held-out accuracy in float32, bfloat16, int8 and nf4"""
    from benchmarks.demo_accuracy import measure, report_of

    found = measure(arguments.each)
    return found, report_of(found)
