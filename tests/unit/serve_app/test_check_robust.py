"""`check` on files that are not at all what it expects: it answers, whatever stands in them."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from serve_app.check.report import check
from serve_app.config import RouterSettings

SOME_OF_EVERYTHING = """\
http_options: {port: 8000}
controller_options: {runtime_env: {env_vars: {A: "1"}}}
applications:
- name: router
  route_prefix: /
  import_path: serve_app.app:router
  runtime_env: {env_vars: {A: "1"}}
  args: {api_keys_env: KEYS}
  deployments:
  - name: Router
    num_replicas: auto
    autoscaling_config: {min_replicas: 2}
    ray_actor_options: {num_cpus: 1, runtime_env: {pip: [x]}}
    user_config: {aliases: {chat: demo}, fallbacks: {demo: [gpt-4]}}
- name: demo
  route_prefix: null
  import_path: serve_app.app:model
  args: {model_type: demo, backend: vllm, num_gpus: 0}
- name: api
  route_prefix: null
  import_path: serve_app.app:model
  args: {backend: api, models: {gpt-4: {upstream_model: g}}}
"""

JUNK: list[Any] = [None, 5, -1.5, True, "", "x", [], {}, [None], [[]], {1: 2}, {"a": {}}]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    items = enumerate(value) if isinstance(value, list) else ()
    for key, item in value.items() if isinstance(value, dict) else items:
        yield from places(item, (*path, key))


def replaced(path: tuple[Any, ...], junk: Any) -> str:
    whole = {"": copy.deepcopy(yaml.safe_load(SOME_OF_EVERYTHING))}
    value: Any = whole
    *steps, last = ("", *path)
    for step in steps:
        value = value[step]
    value[last] = junk
    return yaml.safe_dump(whole[""])


def test_the_file_to_spoil_is_fine() -> None:
    """What the next test spoils has no problem of its own."""
    assert check("f", SOME_OF_EVERYTHING, None).findings == ()


@pytest.mark.parametrize("path", list(places(yaml.safe_load(SOME_OF_EVERYTHING))), ids=str)
def test_junk_anywhere_is_answered(path: tuple[Any, ...]) -> None:
    """Any value of any type at any place gives a report, never a traceback."""
    for junk in JUNK:
        check("f", replaced(path, junk), None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("- 1", "should be a mapping"),
        ("a: " + "[" * 3000, "nested too deeply"),
        ("&a [*a]", "contains itself"),
        ("a: 1\n---\nb: 2", "another document"),
        ("? [1]\n: 2", "unhashable key"),
        ("a: !!timestamp x", "not YAML"),
        ("applications: []", "no application is the router"),
        ("http_options: {}", "`applications` is missing"),
    ],
)
def test_what_is_no_serve_config_is_refused(text: str, message: str) -> None:
    """A file that YAML or Serve could not begin with is one problem, not a traceback."""
    assert [message in found.message for found in check("f", text, None).findings][:1] == [True]


def test_every_problem_is_told() -> None:
    """Mistakes at several levels are all in one report, in the order of the file."""
    text = SOME_OF_EVERYTHING.replace("port:", "prt:").replace(
        "auto\n", "auto\n    num_replica: 1\n"
    )
    text = text.replace("min_replicas", "min_replica").replace("chat: demo", "chat: dmo")
    text = text.replace("backend: vllm", "backend: vlm, num_gpu: 0").replace(
        "upstream_model", "upstream"
    )
    lines = [found.line for found in check("f", text, None).findings]
    assert lines == [1, 12, 13, 15, 19, 19, 23, 23]


def test_aliases_are_followed_to_the_model_and_no_further() -> None:
    """An alias of an alias leads to its model; a circle, which check refuses, ends all the same."""
    settings = RouterSettings(aliases={"a": "b", "b": "demo", "x": "y", "y": "x"})
    assert settings.resolve("a") == "demo"
    assert settings.resolve("demo") == "demo"
    assert settings.resolve("x") in {"x", "y"}


def test_what_others_do_to_yaml_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Libraries change PyYAML's loaders for the whole process, vLLM's among them."""
    constructors = yaml.SafeLoader.yaml_constructors
    text = constructors["tag:yaml.org,2002:str"]
    monkeypatch.setitem(constructors, "tag:yaml.org,2002:timestamp", text)
    assert "not YAML" in check("f", "a: !!timestamp x", None).findings[0].message
