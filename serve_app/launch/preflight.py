"""What stands in the way of a start on this machine, and what to do about it. Changes nothing."""

import os
from collections.abc import Iterator

from ray._private.utils import read_ray_address

from serve_app.check.nodes import listens
from serve_app.launch import ports, run
from serve_app.launch.plan import Plan
from serve_app.launch.welcome import tool

DEPLOY = tool("deploy")


def problems(plan: Plan) -> Iterator[str]:
    """A sentence for each; none if the run can start."""
    left_over = run.left_over()
    if left_over:
        pids = " ".join(str(process.pid) for process in left_over)
        yield (
            f"{len(left_over)} processes are left over from a run whose launcher was killed: "
            f"end them with `kill {pids}`."
        )
    else:
        yield from _keys(plan)
        yield from _cluster(plan)
        yield from _ports(plan)


def _ports(plan: Plan) -> Iterator[str]:
    """The side ports are likely held by whoever holds the first: that one is told alone."""
    told = list(_port(plan, "http_options.port", plan.host, plan.port))
    if not told:
        for variable, port in plan.side_ports.items():
            told += _port(plan, variable, "0.0.0.0", port)
    yield from told


def _keys(plan: Plan) -> Iterator[str]:
    """The router would rather not run than be open to everybody, and Serve's log not say so."""
    if plan.api_keys_env and not plan.api_keys.replace(",", "").strip():
        yield (
            f"api_keys_env names {plan.api_keys_env}, which is not set or empty: set it to the "
            "clients' keys, comma-separated."
        )


def _cluster(plan: Plan) -> Iterator[str]:
    """A cluster that `serve run` would join, instead of starting one that ends with it."""
    named = os.environ.get("RAY_ADDRESS")
    if named and named != "local":
        yield (
            f"RAY_ADDRESS names a Ray cluster, {named}: deploy into it with "
            f"`{DEPLOY} {plan.config}`, or unset RAY_ADDRESS to run one here."
        )
    elif (found := read_ray_address()) and listens(found):
        yield (
            f"a Ray cluster is already running here, at {found}: stop it with `ray stop`, "
            f"or deploy into it with `{DEPLOY} {plan.config}`."
        )


def _port(plan: Plan, setting: str, host: str, port: int) -> Iterator[str]:
    refusal = ports.refusal(host, port)
    if refusal is None:
        return
    if not ports.in_use(refusal):
        yield f"{setting}: cannot listen on {host}:{port}: {refusal.strerror}."
        return
    yield f"port {port} ({setting}) is taken by {_holder(plan, port)}."


def _holder(plan: Plan, port: int) -> str:
    holder = ports.holder(port)
    if holder is None:
        return "a process of another user; choose another port"
    cluster = ports.cluster_behind(holder)
    if cluster is not None:
        return (
            f"a Ray cluster that is already running here, started by {ports.described(cluster)}: "
            f"stop it with Ctrl-C where it runs, `kill -INT {cluster.pid}` or `ray stop`, "
            f"or deploy into it with `{DEPLOY} {plan.config}`"
        )
    if holder.name() == "haproxy":
        return (
            f"an HAProxy that Ray Serve has left over (pid {holder.pid}), which outlives Ray: "
            f"end it with `kill {holder.pid}`"
        )
    return f"{ports.described(holder)}: end it with `kill {holder.pid}`, or choose another port"
