"""Ray Serve LLM with the demo's engine, in an environment of its own: a script for a Stack.

`python -m benchmarks.peers.ray_serve_llm SETTINGS`, with a JSON of `port`, `ready_port`, `kind`,
`model_id`, `model_source` and `engine_kwargs`. It is what Ray's documentation starts with,
`build_openai_app` of one LLMConfig; the environment says whether HAProxy and direct streaming are
on. It serves until it is ended. Its own `/v1/models` answers before the engine is there, so this
process says on `ready_port` when it is.
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

import ray
from ray import serve
from ray.serve.llm import LLMConfig, build_openai_app

# Its placement group and its ingress ask for more CPUs than a small machine has. They are only
# counted, not used: with fewer it waits for a place without an end.
NUM_LOGICAL_CPUS = 16


class Ready(BaseHTTPRequestHandler):
    """Answers, and that is all that it says."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()


def main() -> None:
    settings = json.loads(sys.argv[1])
    ray.init(address="local", num_cpus=NUM_LOGICAL_CPUS, include_dashboard=False)
    serve.start(http_options={"host": "127.0.0.1", "port": settings["port"]})
    config = LLMConfig(
        model_loading_config={k: settings[k] for k in ("model_id", "model_source")},
        accelerator_config={"kind": settings["kind"]},
        engine_kwargs=settings["engine_kwargs"],
        log_engine_metrics=False,  # as bare vLLM, which is started without
    )
    serve.run(build_openai_app({"llm_configs": [config]}), name="llm", route_prefix="/")
    HTTPServer(("127.0.0.1", settings["ready_port"]), Ready).serve_forever()


if __name__ == "__main__":
    main()
