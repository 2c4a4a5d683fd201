"""`roundhouse kuberay`: puts a serve_config into a RayService manifest for KubeRay.

The manifest is the operator's; only its last key, `serveConfigV2`, is written. Asks no cluster.
"""

import argparse
import ipaddress
import sys
from pathlib import Path
from typing import Any

import yaml

MANIFEST = Path("cluster/kuberay/rayservice.yaml")
MARK = "\n  serveConfigV2: |\n"
KEYS_ENV = "ROUNDHOUSE_API_KEYS"
EPILOG = """\
examples:
  roundhouse kuberay serve_config.yaml --write
  roundhouse kuberay my_config.yaml --manifest my/rayservice.yaml | kubectl apply -f -

Two things differ from the file: HTTP is taken on every interface (`host: 0.0.0.0`), since requests
come from other pods; and the router asks clients for keys, those in ROUNDHOUSE_API_KEYS where the
file names no `api_keys_env`. `serveConfigV2` must be the manifest's last key.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `kuberay`."""
    parser.epilog = EPILOG
    parser.add_argument("file", type=Path, help="the file that `serve deploy` would get")
    parser.add_argument(
        "--manifest", type=Path, default=MANIFEST, help="the RayService; %(default)s if left out"
    )
    parser.add_argument("--write", action="store_true", help="change it, instead of printing it")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Prints or writes the manifest; 1 if `roundhouse check` refuses the file."""
    from serve_app.check.document import load
    from serve_app.check.report import check

    file: Path = arguments.file
    try:
        text = file.read_text(encoding="utf-8")
        manifest = arguments.manifest.read_text(encoding="utf-8")
    except OSError as error:
        return _refuse(f"{error.filename}: {error.strerror}")
    except UnicodeDecodeError:
        return _refuse("not UTF-8 text")
    report = check(str(file), text, None)
    if report.findings:
        return _refuse(f"refused by `roundhouse check`:\n{report.as_text()}")
    if MARK not in manifest:
        return _refuse(f"{arguments.manifest}: has no `serveConfigV2: |` under `spec`")
    parsed, _ = load(text)
    assert parsed is not None  # check has read it
    embedded = embed(manifest, for_pods(parsed.value))
    if arguments.write:
        arguments.manifest.write_text(embedded, encoding="utf-8")
    else:
        print(embedded, end="")
    return 0


def for_pods(config: dict[str, Any]) -> dict[str, Any]:
    """A serve_config as it should be in a cluster of pods: reached from elsewhere, and with keys.

    `config` is changed.
    """
    http = config.setdefault("http_options", {})
    if _reached_from_here_only(http.get("host")):
        http["host"] = "0.0.0.0"
    for application in config["applications"]:
        if application["import_path"] == "serve_app.app:router":
            application.setdefault("args", {}).setdefault("api_keys_env", KEYS_ENV)
    return config


def _reached_from_here_only(host: str | None) -> bool:
    try:
        return host in {None, "localhost"} or ipaddress.ip_address(str(host)).is_loopback
    except ValueError:  # a name
        return False


def embed(manifest: str, config: dict[str, Any]) -> str:
    """The manifest with `config` as its `serveConfigV2`, in place of what was there."""
    head, mark, _ = manifest.partition(MARK)
    lines = yaml.dump(config, Dumper=_Plain, sort_keys=False, width=10**6).splitlines()
    return head + mark + "".join(f"    {line}\n" for line in lines)


class _Plain(yaml.SafeDumper):
    """Without anchors, which KubeRay's parser need not know, and with long texts in blocks."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Plain.add_representer(str, _text)


def _refuse(message: str) -> int:
    print(f"roundhouse: {message}", file=sys.stderr)
    return 1
