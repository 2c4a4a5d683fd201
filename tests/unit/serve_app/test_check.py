"""`check`: every mistake is told once, on its line, with the name that was meant.

A case puts a mistake into a file that is fine: `old` is replaced by `new`, whose line `# <-` marks.
"""

from pathlib import Path

import pytest

from serve_app.check.nodes import Node
from serve_app.check.report import Finding, check

NO_GPU = Node(0, "on this machine")

FINE = """\
http_options: {port: 8000}
controller_options:
  runtime_env:
    env_vars: &fast
      FAST: "1"
applications:
- name: router
  route_prefix: /
  import_path: serve_app.app:router
  runtime_env:
    env_vars:
      <<: *fast
      MORE: "1"
  args: {}
  deployments:
  - name: Router
    user_config:
      aliases: {chat: demo}
      fallbacks: {demo: [gpt-4]}
- name: demo
  route_prefix: null
  import_path: serve_app.app:model
  runtime_env: {env_vars: *fast}
  args:
    model_type: demo
    backend: vllm
  deployments:
  - name: vllm
    num_replicas: 1
- name: demo-hf
  route_prefix: null
  import_path: serve_app.app:model
  args: {model_type: demo, backend: huggingface}
- name: api
  route_prefix: null
  import_path: serve_app.app:model
  args:
    backend: api
    models:
      gpt-4: {upstream_model: gpt-5}
"""

YAML = [
    ("  args: {}\n", "  args: {}}  # <-\n", "not YAML"),
    ("  args: {}\n", "  args: {}\n  args: {}  # <-\n", "given twice; YAML would drop the one on"),
    ("    model_type: demo\n", "    model_type: 2026-13-45\n", "not YAML: month"),
    ("  args: {}\n", "  args: &a {a: *a}  # <-\n", "contains itself"),
    ("  args: {}\n", "  args: !thing {}  # <-\n", "not YAML"),
    ("  args: {}\n", "  args: \x07  # <-\n", "not YAML: special characters"),
]

SCHEMA = [
    ("http_options: {port: 8000}", "http_option: {port: 8000}  # <-", "`http_options`?"),
    ("{port: 8000}", "{prot: 8000}  # <-", "did you mean `port`?"),
    ("{port: 8000}", "{port: many}  # <-", "should be a valid integer"),
    ("- name: demo\n", "- name: demo\n  import_pth: x  # <-\n", "did you mean `import_path`?"),
    ("- name: demo\n", "- name: demo\n  port: 8001  # <-\n", "belongs in http_options"),
    ("num_replicas: 1", "num_replica: 1  # <-", "did you mean `num_replicas`?"),
    ("num_replicas: 1", "num_replicas: -1  # <-", "greater than 0"),
    ("num_replicas: 1", "autoscaling_config: {min_replica: 1}  # <-", "`min_replicas`?"),
    ("num_replicas: 1", "autoscaling_config: {max_replicas: 4}  # <-", "2 requests each"),
    (
        "backend: huggingface}\n",
        "backend: huggingface, autoscaling: {max_replica: 4}}  # <-\n",
        "`max_replicas`?",
    ),
    (
        "backend: vllm\n  deployments:\n  - name: vllm\n    num_replicas: 1",
        "backend: vllm\n    autoscaling: {}\n  deployments:\n  - name: vllm\n"
        "    num_replicas: 1  # <-",
        "keep one",
    ),
    (
        "backend: huggingface}\n",
        "backend: huggingface, max_ongoing_requests: 8,\n"
        "    autoscaling: {max_replicas: 4, target_ongoing_requests: 8}}  # <-\n",
        "never has more",
    ),
    ("aliases: {chat: demo}", "aliases: {chat: demo}\n      hold: 5  # <-", "`hold_s`?"),
    (
        "aliases: {chat: demo}",
        "aliases: {chat: demo}\n      max_ongoing_requests: 0  # <-",
        "greater than 0",
    ),
    ("num_replicas: 1", "autoscaling_config: {min_replicas: -1}  # <-", "greater than or equal"),
    ("num_replicas: 1", "autoscaling_config: {policy: {polcy: 1}}  # <-", "unknown key"),
    ("num_replicas: 1", "ray_actor_options: {num_gpus: 0, num_cpu: 1}  # <-", "`num_cpus`?"),
    ("num_replicas: 1", "request_router_config: {max_backof_s: 1}  # <-", "`max_backoff_s`?"),
    ("num_replicas: 1", "logging_config: {loglevel: INFO}  # <-", "`log_level`?"),
    (
        "num_replicas: 1",
        "gang_scheduling_config: {gangsize: 2, gang_size: 1}  # <-",
        "`gang_size`?",
    ),
    ("num_replicas: 1", "logging_config: {log_level: LOUD}  # <-", "log_level must be one of"),
    (
        "num_replicas: 1",
        "gang_scheduling_config: {gang_size: 2, runtime_failure_policy: RESTART_REPLICA}  # <-",
        "not yet implemented",
    ),
    ("  - name: Router\n", "  - 5  # <-\n  - name: Router\n", "should be a mapping"),
    ("args: {}", "deployment: []  # <-", "did you mean `deployments`?"),
    ("http_options:", "grpc_options: {prt: 1}  # <-\nhttp_options:", "did you mean `port`?"),
    (
        "  runtime_env:\n    env_vars: &",
        "  nothing: 1  # <-\n  runtime_env:\n    env_vars: &",
        "unk",
    ),
    ('FAST: "1"', "FAST: 1  # <-", "should be text in quotes"),
    ('MORE: "1"', "MORE: true  # <-", "should be text in quotes"),
    ("{env_vars: *fast}", "{env_var: *fast}  # <-", "did you mean `env_vars`?"),
    (
        "import_path: serve_app.app:model\n  args: {model",
        "import_path: 5  # <-\n  args: {model",
        "should be a valid string",
    ),
]

NAMES = [
    (
        "- name: demo-hf",
        "- name: router  # <-",
        "`router` is taken already, by applications[0].name",
    ),
    ("- name: demo-hf", "- name: demo  # <-", "`demo` is taken already, by applications[1].name"),
    ("gpt-4: {", "demo: {upstream_model: g}  # <-\n      gpt-4: {", "`demo` is taken already"),
    ("- name: demo-hf", "- name: demo hf!  # <-", "a model id is letters"),
    (
        "- name: demo\n  route_prefix: null",
        "- name: demo\n  route_prefix: /x  # <-",
        "should be null",
    ),
    ("- name: demo\n  route_prefix: null", '- name: demo\n  route_prefix: "null"  # <-', "be null"),
    ("- name: demo\n  route_prefix: null", "- name: demo  # <-", "should be null"),
    ("  route_prefix: /\n", "  route_prefix: null  # <-\n", "give it a route"),
    ("  route_prefix: /\n", "  route_prefix: v1  # <-\n", "a route begins with /"),
    ("  route_prefix: /\n", "  route_prefix: /v1/  # <-\n", "does not end with it"),
    (
        "- name: api",
        "- {name: x, route_prefix: /, import_path: 'json:dumps'}  # <-\n- name: api",
        "`/` is taken already, by applications[0].route_prefix",
    ),
    (
        "- name: api",
        "- {name: x, route_prefix: /x, import_path: 'serve_app.app:router'}  # <-\n- name: api",
        "a second router; applications[0] is one already",
    ),
    ("- name: Router", "- name: router  # <-", "did you mean `Router`?"),
    ("- name: vllm", "- name: vlm  # <-", "did you mean `vllm`?"),
    ("    num_replicas: 1", "  - name: vllm  # <-", "`vllm` is taken already"),
]

IMPORTS = [
    ("serve_app.app:router", "serve_app.app:ruoter  # <-", "did you mean `router`?"),
    (
        "route_prefix: null\n  import_path: serve_app.app:model\n  args: {",
        "route_prefix: null\n  import_path: serve_app.app.modle  # <-\n  args: {",
        "did you mean `model`?",
    ),
    (
        "- name: api",
        "- {name: x, route_prefix: /x, import_path: 'serve_ap.app:model'}  # <-\n- name: api",
        "no module `serve_ap.app`; did you mean `serve_app.app:model`?",
    ),
    (
        "- name: api",
        "- {name: x, route_prefix: /x, import_path: 'json.tool:mian'}  # <-\n- name: api",
        "no `mian` in json.tool; did you mean `main`?",
    ),
]

ARGS = [
    ("backend: vllm", "backend: vlm  # <-", "unknown backend; did you mean `vllm`?"),
    ("backend: vllm", "backend: [vllm]  # <-", "unknown backend"),
    ("model_type: demo\n", "model_type: dmo  # <-\n", "did you mean `demo`?"),
    ("model_type: demo\n", "model_type: [demo]  # <-\n", "not in the catalogue"),
    ("backend: vllm", "backend: vllm\n    num_gpu: 0  # <-", "did you mean `num_gpus`?"),
    ("backend: vllm", "backend: vllm\n    num_gpus: -1  # <-", "greater than or equal to 0"),
    ("backend: vllm", "backend: vllm\n    dtype: float3  # <-", "should be 'auto'"),
    ("{upstream_model: gpt-5}", "{upsteam_model: g, upstream_model: g}  # <-", "`upstream_model`?"),
    ("{upstream_model: gpt-5}", "{}  # <-", "`upstream_model` is missing"),
    (
        "gpt-4: {",
        "gpt-4: {upstream_model: g}\n      gpt 4!: {  # <-\n        ",
        "the key String should match pattern",
    ),
    (
        "{model_type: demo, backend: huggingface}",
        "{checkpoint: /x}  # <-",
        "`backend` is missing; there is `api`",
    ),
    (
        "{model_type: demo, backend: huggingface}",
        "{model_type: demo, backend: echo}  # <-",
        "not for backend `echo`: the catalogue sets `checkpoint`",
    ),
    ("  args: {}", "  args: {api_key_env: A}  # <-", "did you mean `api_keys_env`?"),
    ("model_type: demo\n", "model_type: alpaca-7b  # <-\n", "only a weight diff over LLaMA-7B"),
    (
        "    model_type: demo\n    backend: vllm\n",
        "    model_type: starchat\n    num_gpus: 0\n    gpu_memory_gb: big  # <-\n",
        "should be the memory of one GPU",
    ),
    (
        "{upstream_model: gpt-5}\n",
        "{upstream_model: gpt-5}\n- {name: x, route_prefix: null, args: {model_type: gpt-4},"
        " import_path: 'serve_app.app:model'}  # <-\n",
        "`gpt-4` is taken already, by applications[3].args.models.gpt-4",
    ),
    (
        "{model_type: demo, backend: huggingface}",
        "{model_type: gpt-3.5-turbo, backend: vllm}  # <-",
        "not for backend `vllm`: the catalogue sets `models`",
    ),
]

ALIASES = [
    ("aliases: {chat: demo}", "aliases: {chat: dmo}  # <-", "no model `dmo`; did you mean `demo`?"),
    ("aliases: {chat: demo}", "aliases: {demo: demo-hf}  # <-", "is a model: the alias would hide"),
    ("aliases: {chat: demo}", "aliases: {chat: chat}  # <-", "leads back to itself"),
    ("aliases: {chat: demo}", "aliases: 5  # <-", "should be a valid dictionary"),
    ("aliases: {chat: demo}", "alias: {chat: demo}  # <-", "did you mean `aliases`?"),
    ("{demo: [gpt-4]}", "{demo: [gpt4]}  # <-", "did you mean `gpt-4`?"),
    ("{demo: [gpt-4]}", "{dmo: [gpt-4]}  # <-", "did you mean `demo`?"),
    ("{demo: [gpt-4]}", "{demo: [demo]}  # <-", "cannot stand in for itself"),
    ("{demo: [gpt-4]}", "{demo-hf: [chat]}  # <-", "`chat` is an alias"),
]

DRAINING = [
    (
        '&fast\n      FAST: "1"\n',
        '&fast  # <-\n      RAY_SERVE_ENABLE_HA_PROXY: "1"\n',
        "cuts off streams 120 s after a change of the routers, which are drained for 620 s",
    ),
    (
        'FAST: "1"\n',
        'RAY_SERVE_ENABLE_HA_PROXY: "1"\n      RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S: "620"  # <-\n',
        "set RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S to more",
    ),
    (
        "aliases: {chat: demo}",
        "request_timeout_s: 3600  # <-\n      aliases: {chat: demo}",
        "set `graceful_shutdown_timeout_s` of the deployment too",
    ),
]

CASES = [*YAML, *SCHEMA, *NAMES, *IMPORTS, *ARGS, *ALIASES, *DRAINING]


def findings(text: str) -> tuple[Finding, ...]:
    return check("f.yaml", text, NO_GPU).findings


@pytest.mark.parametrize(("old", "new", "message"), CASES)
def test_a_mistake_is_told_once_on_its_line(old: str, new: str, message: str) -> None:
    """One mistake gives one problem, on the line where it stands, saying what is wrong."""
    assert FINE.count(old) >= 1
    text = FINE.replace(old, new, 1)
    line = text[: text.index("# <-")].count("\n") + 1 if "# <-" in text else 1
    assert [found.line for found in findings(text)] == [line]
    assert message in findings(text)[0].message


def test_a_file_that_is_fine_has_no_problem() -> None:
    """The file that all cases start from passes, with its anchors and merges."""
    assert findings(FINE) == ()


def test_the_shipped_file_is_fine() -> None:
    """The serve_config.yaml of this repository passes its own check."""
    shipped = Path(__file__).parents[3] / "serve_config.yaml"
    assert findings(shipped.read_text(encoding="utf-8")) == ()
