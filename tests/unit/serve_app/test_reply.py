import pytest

from deployments.errors import BackendOverloaded, MethodNotAllowed, UpstreamError
from serve_app.edge import REQUEST_ID
from serve_app.reply import Reply
from tests.unit.serve_app.asgi_calls import Sent

ERROR = b'{"error":{"message":"no","type":"server_error","param":null,"code":"upstream_error"}}'


def replying(method: str = "POST") -> tuple[Reply, Sent]:
    sent = Sent()
    return Reply({"type": "http", "method": method, REQUEST_ID: "id-1"}, sent.send), sent


async def test_a_whole_answer_has_its_length() -> None:
    """A whole answer is one body, of the size it says."""
    reply, sent = replying()
    await reply.json({"a": "☃"})
    assert sent.headers == {"content-type": "application/json", "content-length": "11"}
    assert sent.body == '{"a":"☃"}'.encode()
    assert sent.messages[-1]["more_body"] is False


async def test_head_is_answered_without_a_body() -> None:
    """HEAD gets the headers that GET would, and nothing after them."""
    reply, sent = replying("HEAD")
    await reply.json({"a": 1})
    assert (sent.headers["content-length"], sent.body) == ("7", b"")


async def test_an_error_before_the_answer_is_the_answer() -> None:
    """An error that comes first has its status, its envelope, and when to come back."""
    reply, sent = replying()
    await reply.error(BackendOverloaded("full", retry_after_s=1.2))
    assert (sent.status, sent.headers["retry-after"]) == (429, "2")
    assert sent.headers["content-type"] == "application/json"


@pytest.mark.parametrize(("wait_s", "expected"), [(0, "1"), (0.1, "1"), (7, "7"), (9999, "120")])
async def test_retry_after_is_one_that_clients_heed(wait_s: float, expected: str) -> None:
    """Whole seconds, at least one, and no more than OpenAI's clients wait."""
    reply, sent = replying()
    await reply.error(UpstreamError("no", retry_after_s=wait_s))
    assert sent.headers["retry-after"] == expected


async def test_a_405_says_what_is_allowed() -> None:
    """Which method would do stands in the header, where HTTP has it, not in the envelope."""
    reply, sent = replying()
    await reply.error(MethodNotAllowed("GET only.", allow="GET"))
    assert (sent.status, sent.headers["allow"]) == (405, "GET")
    assert b'"param":null' in sent.body


async def test_an_error_within_a_stream_is_its_last_event() -> None:
    """A stream that went wrong ends with the error, and without [DONE]."""
    reply, sent = replying()
    await reply.stream(200, [("content-type", "text/event-stream")])
    await reply.piece(b"data: 1\n\n")
    await reply.error(UpstreamError("no"))
    assert sent.headers["cache-control"] == "no-cache"
    assert sent.body == b"data: 1\n\ndata: " + ERROR + b"\n\n"
    assert [m.get("more_body") for m in sent.messages[1:]] == [True, False]


async def test_a_broken_whole_answer_is_not_ended() -> None:
    """An error after a whole answer began breaks the connection: nothing more is sent."""
    reply, sent = replying()
    await reply.whole(200, [], b"{}")
    with pytest.raises(UpstreamError):
        await reply.error(UpstreamError("no"))
    assert sent.body == b"{}"
