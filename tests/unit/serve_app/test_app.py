"""The builders: what a configuration becomes in Serve, without a cluster."""

import pickle
import traceback
from collections.abc import AsyncIterator

import pytest
import ray
from pydantic import ValidationError

from deployments import errors
from deployments.exchange import EVENT_STREAM, Head, Item, Tail
from serve_app.app import bundles, model, router
from serve_app.config import RouterArgs, RouterSettings


def test_deployment_is_named_after_its_backend() -> None:
    """Serve's status alone tells the kind of backend."""
    application = model({"model_type": "demo", "backend": "huggingface", "num_gpus": 0})
    assert application._bound_deployment.name == "huggingface"
    assert router(RouterArgs())._bound_deployment.name == "Router"


def test_resources_come_from_the_args() -> None:
    """CPUs, GPUs and the queue's bound are what the args say."""
    args = {"backend": "vllm", "checkpoint": "/m", "num_cpus": 3, "num_gpus": 2}
    deployment = model({**args, "tensor_parallel_size": 2})._bound_deployment
    assert deployment.ray_actor_options == {"num_cpus": 3, "num_gpus": 2}
    assert deployment.max_ongoing_requests == 256


def test_starts_are_bounded() -> None:
    """A model that cannot start is tried three times, with however many replicas, and no more."""
    args = {"backend": "echo"}
    deployment = model(args)._bound_deployment.options(num_replicas=50)
    assert deployment._deployment_config.max_constructor_retry_count == 3


def test_what_has_begun_may_end() -> None:
    """A replica that goes is given longer than the router gives a request by default."""
    longest_s = RouterSettings().request_timeout_s
    for application in (router(RouterArgs()), model({"backend": "echo"})):
        config = application._bound_deployment._deployment_config
        assert config.graceful_shutdown_timeout_s > longest_s


@pytest.mark.parametrize(
    ("args", "beside"),
    [
        ({"backend": "echo"}, 100),
        ({"backend": "api", "models": {"m": {"upstream_model": "u"}}}, 100),
        ({"backend": "vllm", "checkpoint": "/m"}, 0),
        ({"backend": "huggingface", "checkpoint": "/m"}, 0),
    ],
)
def test_who_comes_before_the_other_goes(args: dict[str, object], beside: int) -> None:
    """A new version starts beside the old one where that costs next to nothing; of a model with
    weights it takes the old one's place, since there may be no room for two."""
    config = model(args)._bound_deployment._deployment_config
    assert config.max_surge_percent == beside
    assert router(RouterArgs())._bound_deployment._deployment_config.max_surge_percent == 100


def test_ram_is_declared() -> None:
    """The RAM that a model may use, for weights that stream, is reserved with Ray."""
    args = {"backend": "huggingface", "checkpoint": "/m", "num_gpus": 0}
    declared = model({**args, "memory": {"cpu": "24GiB", "disk": "/d"}})._bound_deployment
    assert declared.ray_actor_options["memory"] == 24 * 2**30
    assert "memory" not in model(args)._bound_deployment.ray_actor_options


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({"backend": "nothing"}, "backend"),
        ({"model_type": "no-such"}, "model_type"),
        ({"backend": "vllm", "checkpoint": "/m", "dtyp": "auto"}, "dtyp"),
        ({"backend": "vllm", "checkpoint": "/m", "num_gpus": 1, "tensor_parallel_size": 2}, "num_"),
        ({"backend": "vllm", "checkpoint": "/m", "quantization": "auto"}, "auto is for the"),
        ({"backend": "api", "models": {}}, "models"),
    ],
)
def test_bad_args(args: dict[str, object], said: str) -> None:
    """Args that do not validate are refused by the builder, by name."""
    with pytest.raises(ValueError, match=said):
        model(args)


async def bundled(*items: Item) -> list[list[Item]]:
    async def backend() -> AsyncIterator[Item]:
        for item in items:
            yield item

    return [list(bundle) async for bundle in bundles(backend())]


async def test_bundles() -> None:
    """An answer crosses to the router in one message; a stream's pieces leave as they come."""
    head, stream, tail = Head(), Head(content_type=EVENT_STREAM), Tail(1, 1)
    assert await bundled(head, b"a", b"b", tail) == [[head, b"a", b"b", tail]]
    assert await bundled(stream, b"a", b"b", tail) == [[stream, b"a"], [b"b"], [tail]]
    assert await bundled(stream) == [[stream]]
    assert await bundled() == []


def tree(kind: type[errors.RoundhouseError]) -> list[type[errors.RoundhouseError]]:
    return [kind, *(leaf for child in kind.__subclasses__() for leaf in tree(child))]


@pytest.mark.parametrize("kind", tree(errors.RoundhouseError))
def test_errors_cross_actors(kind: type[errors.RoundhouseError]) -> None:
    """Every error arrives at the router as it left the replica."""
    error = kind("what happened")
    error.param, error.code, error.retry_after_s = "field", "code", 2
    for dump in (pickle.dumps, ray.cloudpickle.dumps):
        arrived = pickle.loads(dump(error))
        assert type(arrived) is kind
        assert vars(arrived) == vars(error)
        assert str(arrived) == "what happened"


def test_args_that_are_refused() -> None:
    """What is wrong is one line, which names each key, offers the one that was meant, and never
    shows a value: it may be a secret in the wrong place. Nor does the traceback around it."""
    args = {"backend": "echo", "num_gpu": "sk-secret", "start_delay_s": "sk-secret"}
    with pytest.raises(ValueError, match="args") as raised:
        model(args)
    lines = "".join(traceback.format_exception(raised.value)).strip().splitlines()
    assert "args.num_gpu: unknown key; did you mean `num_gpus`?" in lines[-1]
    assert "args.start_delay_s: should be a valid number" in lines[-1]
    assert not any("sk-secret" in line for line in lines)


def test_settings_never_show_what_they_refuse() -> None:
    """Serve validates the router's args itself, and logs what pydantic says."""
    with pytest.raises(ValidationError) as raised:
        RouterArgs.model_validate({"api_keys": ["sk-secret"]})
    assert "sk-secret" not in str(raised.value)
