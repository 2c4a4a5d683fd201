"""The catalogue of bad requests: what is sent, and what must come back. One row, one line."""

import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.plain_http import CHAT, JSON_HEADERS, chat

MAX_BODY_BYTES = 2 * 1024 * 1024  # of the router that these are sent to
MEGABYTE = "x" * (1 << 20)
HELLO = chat()["messages"]


@dataclass(frozen=True, slots=True)
class Bad:
    """A request, and the status, code and param of the answer that it deserves."""

    name: str
    status: int
    code: str
    param: str | None = None
    path: str = CHAT
    method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=lambda: JSON_HEADERS)
    body: bytes = b""


def _typed(name: str, content_type: str | None, **more: str) -> Bad:
    headers = {**({"content-type": content_type} if content_type else {}), **more}
    body = json.dumps(chat()).encode()
    body = gzip.compress(body) if "content-encoding" in more else body
    return Bad(name, 415, "unsupported_media_type", headers=headers, body=body)


def _text(name: str, body: bytes) -> Bad:
    return Bad(name, 400, "invalid_value", body=body)


def _field(name: str, value: Any, code: str, param: str | None = None) -> Bad:
    body = json.dumps({**chat(), name: value}).encode()
    label = f"{name}={str(value)[:40]}"
    return Bad(label, 400, code, param or name, body=body)


def _prompted(name: str, value: Any, code: str) -> Bad:
    body = json.dumps({"model": "demo", "prompt": "hi", name: value}).encode()
    return Bad(f"completions {name}={value!r}", 400, code, name, "/v1/completions", body=body)


def _said(message: Any, code: str, param: str) -> Bad:
    body = json.dumps({"model": "demo", "messages": [*HELLO, message]}).encode()
    return Bad(f"message {str(message)[:40]}", 400, code, param, body=body)


def _named(model: str) -> Bad:
    body = json.dumps(chat(model=model)).encode()
    return Bad(f"model {model[:40]!r}", 404, "model_not_found", "model", body=body)


def _url(path: str, method: str = "POST") -> Bad:
    body = json.dumps(chat()).encode() if method == "POST" else b""
    return Bad(f"{method} {path[:40]}", 404, "unknown_url", None, path, method, body=body)


HTTP = [
    _typed("no content type", None),
    _typed("text", "text/plain"),
    _typed("a form", "application/x-www-form-urlencoded"),
    _typed("multipart", "multipart/form-data; boundary=x"),
    _typed("utf-7", "application/json; charset=utf-7"),
    _typed("gzip", "application/json", **{"content-encoding": "gzip"}),
    _typed("brotli, so to speak", "application/json", **{"content-encoding": "br"}),
    Bad("too large", 413, "payload_too_large", body=b'{"a":"' + b"x" * MAX_BODY_BYTES + b'"}'),
    Bad(
        "headers without end",
        431,
        "headers_too_large",
        headers={**JSON_HEADERS, **{f"x-{n}": "v" * 8000 for n in range(9)}},
        body=json.dumps(chat()).encode(),
    ),
    Bad("GET", 405, "method_not_allowed", method="GET"),
    Bad("PUT", 405, "method_not_allowed", method="PUT", body=b"{}"),
    _url("/v1/chat/completions/"),
    _url("/chat/completions"),
    _url("/v2/chat/completions"),
    _url("/v1/chat/completions%00"),
    _url("/v1/chat%2Fcompletions"),
    _url("/v1/models/%2e%2e/%2e%2e/etc/passwd", "GET"),
    _url("/v1/models/a%20b", "GET"),
    _url("/" + "a" * 5000),
    _url("/v1/models/" + "a" * 5000, "GET"),
    _url("/collective_rpc"),
]

JSON = [
    _text("an empty body", b""),
    _text("spaces", b"   "),
    _text("truncated", b'{"model": "demo", "messages": [{"role"'),
    _text("null", b"null"),
    _text("an array", b"[]"),
    _text("a string", b'"demo"'),
    _text("a number", b"1"),
    _text("a byte order mark", b"\xef\xbb\xbf" + json.dumps(chat()).encode()),
    _text("UTF-16", json.dumps(chat()).encode("utf-16")),
    _text("invalid UTF-8", b'{"model": "demo\xff"}'),
    _text("100,000 deep", b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    _text("100,000 deep, unclosed", b'{"a":' * 100_000),
    _text("a key twice", b'{"model": "demo", "model": "other"}'),
    _text(
        "a key twice, deep", b'{"model": "demo", "messages": [{"role": "user", "role": "tool"}]}'
    ),
    _text("NaN", b'{"model": "demo", "temperature": NaN}'),
    _text("Infinity", b'{"model": "demo", "temperature": -Infinity}'),
    _text("1e999", b'{"model": "demo", "x": 1e999}'),
    _text("5000 digits", b'{"model": "demo", "seed": ' + b"9" * 5000 + b"}"),
    _text("a lone surrogate", rb'{"model": "\ud800"}'),
    _text("a raw NUL", b'{"model": "demo\x00"}'),
    _text("single quotes", b"{'model': 'demo'}"),
    _text("something after", json.dumps(chat()).encode() + b"{}"),
    _text("a megabyte, unclosed", b'{"model": "' + MEGABYTE.encode()),
    _text("a megabyte as a key, twice", f'{{"{MEGABYTE}":1,"{MEGABYTE}":2}}'.encode()[: 1 << 21]),
    Bad("no model", 400, "missing_required_parameter", "model", body=b"{}"),
    Bad("a model of null", 400, "missing_required_parameter", "model", body=b'{"model":null}'),
    Bad("a model of nothing", 400, "missing_required_parameter", "model", body=b'{"model":""}'),
    Bad("a model of 5", 400, "invalid_type", "model", body=b'{"model":5}'),
]

FIELDS = [
    _field("model_type", "other", "invalid_value"),
    _field("messages", None, "missing_required_parameter"),
    _field("messages", [], "empty_array"),
    _field("messages", "hi", "invalid_type"),
    _field("messages", [[]], "invalid_type", "messages[0]"),
    _field("temperature", 3, "decimal_above_max_value"),
    _field("temperature", -1, "decimal_below_min_value"),
    _field("temperature", "0.5", "invalid_type"),
    _field("temperature", MEGABYTE, "invalid_type"),
    _field("temperature", {"a": MEGABYTE}, "invalid_type"),
    _field("top_p", 1.1, "decimal_above_max_value"),
    _field("n", 0, "integer_below_min_value"),
    _field("n", 129, "integer_above_max_value"),
    _field("n", 2**31, "integer_above_max_value"),
    _field("n", 1.0, "invalid_type"),
    _field("n", True, "invalid_type"),
    _field("max_tokens", 0, "integer_below_min_value"),
    _field("max_tokens", -1, "integer_below_min_value"),
    _field("max_tokens", 10**30, "integer_above_max_value"),
    _field("max_completion_tokens", 0, "integer_below_min_value"),
    _field("stop", ["x"] * 17, "array_above_max_length"),
    _field("stop", [""], "invalid_value"),
    _field("stop", 5, "invalid_type"),
    _field("stop", [MEGABYTE, 5], "invalid_type"),
    _field("logit_bias", {"abc": 1}, "invalid_value"),
    _field("logit_bias", {MEGABYTE: 1}, "invalid_value"),
    _field("logit_bias", {"1": -101}, "decimal_below_min_value"),
    _field("logit_bias", [1], "invalid_type"),
    _field("top_logprobs", 21, "integer_above_max_value"),
    _field("top_logprobs", -1, "integer_below_min_value"),
    _field("top_logprobs", 5, "invalid_value"),
    _field("seed", 2**64, "integer_above_max_value"),
    _field("stream", "yes", "invalid_type"),
    _field("stream_options", {"include_usage": True}, "invalid_value"),
    _field("tools", [{}] * 129, "array_above_max_length"),
    _field("tools", "all", "invalid_type"),
    _field("response_format", "json", "invalid_type"),
    _field("user", 5, "invalid_type"),
    _field("prompt_embeds", "AAAA", "unknown_parameter"),
    _field("chat_template", "{% for _ in range(10**9) %}{% endfor %}", "unknown_parameter"),
    _field("kv_transfer_params", {"remote_host": "10.0.0.1"}, "unknown_parameter"),
    _prompted("prompt", None, "missing_required_parameter"),
    _prompted("prompt", [], "empty_array"),
    _prompted("prompt", {}, "invalid_type"),
    _prompted("logprobs", True, "invalid_type"),
    _prompted("best_of", 10**9, "integer_above_max_value"),
    _said({}, "missing_required_parameter", "messages[1].role"),
    _said({"role": "king", "content": "x"}, "invalid_value", "messages[1].role"),
    _said({"role": MEGABYTE, "content": "x"}, "invalid_value", "messages[1].role"),
    _said({"role": "user"}, "missing_required_parameter", "messages[1].content"),
    _said({"role": "user", "content": []}, "empty_array", "messages[1].content"),
    _said({"role": "user", "content": 5}, "invalid_type", "messages[1].content"),
    _said({"role": "user", "content": [5]}, "invalid_type", "messages[1].content[0]"),
]

MODELS = [
    _named(name)
    for name in (
        *("nobody", "Demo", "demo ", " demo", "demo\x00", "demo\n", "dem\u043e", "\u202eomed"),
        *("de\u200bmo", "../../etc/passwd", "/models/x", "file:///etc/passwd", "C:\\demo", "*"),
        *("demo:..", "demo:../../x", "demo--x", "demo%2f", "{{7*7}}", "${jndi:ldap://x}"),
        *("<script>alert(1)</script>", "' OR 1=1 --", "🚂" * 300, "m" * 10_000, MEGABYTE),
    )
]

CATALOGUE = [*HTTP, *JSON, *FIELDS, *MODELS]
