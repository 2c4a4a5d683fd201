"""What is said when the models are there: where, which, and what to try. Starts nothing."""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from serve_app.launch.plan import Plan
from serve_app.launch.progress import Row

FIRST_CHOICE = "demo"
USUAL_DASHBOARD = "http://127.0.0.1:8265"
QUESTION = "What is 7 + 5?"


def welcome(plan: Plan, rows: Sequence[Row], dashboard: str | None = None) -> str:
    """The URL, the models, a request to paste in two languages, and how it ends.

    `dashboard` is where this cluster takes deployments, where that is not Ray's usual address.
    """
    address = f"--address {dashboard} " if dashboard not in {None, USUAL_DASHBOARD} else ""
    deploy = tool(f"deploy {address}{plan.config}")
    parts = [f"Roundhouse serves at {plan.url}/v1", _table(rows)]
    model = example_model(rows)
    if model:
        parts += [f"Try it:\n\n{curl(plan, model)}", f"In Python:\n\n{python(plan, model)}"]
    else:
        parts.append("No model runs: see the log above.")
    parts += [
        f"After a change of the file, from another shell:\n\n{deploy}",
        "Ctrl-C stops everything.",
    ]
    return "\n" + "\n\n".join(parts) + "\n"


def example_model(rows: Sequence[Row]) -> str | None:
    """The demo if it runs, else the first that does; one by API, which may cost, only at last."""
    by_cost = sorted(rows, key=lambda row: row.backend == "api")
    running = [model for row in by_cost if row.state == "running" for model in row.models]
    return FIRST_CHOICE if FIRST_CHOICE in running else next(iter(running), None)


def curl(plan: Plan, model: str) -> str:
    """A request for a shell, as it is. The first of the router's keys is taken if it has any."""
    lines = [f"curl {plan.url}/v1/chat/completions", "-H 'content-type: application/json'"]
    if plan.api_keys_env:
        lines.append(f'-H "authorization: Bearer ${{{plan.api_keys_env}%%,*}}"')
    body = {"model": model, "messages": [{"role": "user", "content": QUESTION}]}
    return " \\\n  ".join([*lines, f"-d '{json.dumps(body)}'"])


def python(plan: Plan, model: str) -> str:
    """The same for Python, as it is."""
    imports, key = "", '"none"'
    if plan.api_keys_env:
        imports, key = "import os\n", f'os.environ["{plan.api_keys_env}"].split(",")[0]'
    return (
        f"{imports}from openai import OpenAI\n"
        f'client = OpenAI(base_url="{plan.url}/v1", api_key={key})\n'
        f'messages = [{{"role": "user", "content": "{QUESTION}"}}]\n'
        f'answer = client.chat.completions.create(model="{model}", messages=messages)\n'
        "print(answer.choices[0].message.content)"
    )


def tool(arguments: str) -> str:
    """Serve's command line, for another shell.

    Ray gives local clusters a token by default, and its tools use it only when told to.
    """
    auth = "" if "RAY_AUTH_MODE" in os.environ else "RAY_AUTH_MODE=token "
    return f"{auth}{os.path.relpath(Path(sys.executable).with_name('serve'))} {arguments}"


def _table(rows: Sequence[Row]) -> str:
    lines = [("model", "backend", "state")]
    for row in rows:
        lines += [(model, row.backend, row.described) for model in row.models or [row.application]]
    widths = [max(len(line[column]) for line in lines) for column in range(2)]
    return "\n".join(
        f"  {model:{widths[0]}}  {backend:{widths[1]}}  {state}" for model, backend, state in lines
    )
