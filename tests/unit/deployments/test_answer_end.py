import pytest

from deployments.answer_end import KEPT_BYTES, AnswerEnd
from deployments.exchange import EVENT_STREAM, JSON, Tail
from tests.upstream import EVENTS, WHOLE

STREAM = b"".join(EVENTS)
USAGE = b'"usage":{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7}'
RESPONSE = (
    b'event: response.completed\ndata: {"type":"response.completed","response":'
    b'{"status":"completed","usage":{"input_tokens":5,"output_tokens":2}}}\n\n'
)


def fed(content_type: str, *pieces: bytes) -> AnswerEnd:
    end = AnswerEnd(content_type)
    for piece in pieces:
        end.feed(piece)
    return end


@pytest.mark.parametrize("cut", range(0, len(STREAM), 7))
def test_a_stream_counts_the_same_however_it_is_cut(cut: int) -> None:
    """End and usage are found whatever the pieces are in which a stream came."""
    end = fed(f"{EVENT_STREAM}; charset=utf-8", STREAM[:cut], STREAM[cut:])
    assert end.complete
    assert end.tail() == Tail(5, 2)


@pytest.mark.parametrize(
    "stream",
    [
        b"data: {" + USAGE + b"}\n\ndata: [DONE]\n\n",
        b"data: {" + USAGE + b"}\r\n\r\ndata: [DONE]\r\n\r\n",
        b"data: {" + USAGE + b"}\n\ndata: [DONE]",
        RESPONSE,
        b'event: message_delta\ndata: {"usage":{"input_tokens":5,"output_tokens":2}}\n\n'
        b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
    ],
)
def test_usage_is_found_in_every_dialect(stream: bytes) -> None:
    """Short streams, CRLF, no last newline, responses and messages: the cost is booked."""
    end = fed(EVENT_STREAM, stream)
    assert end.complete
    assert end.tail() == Tail(5, 2)


@pytest.mark.parametrize("missing", [1, 2, 20, len(STREAM)])
def test_half_a_stream_is_not_complete(missing: int) -> None:
    """A stream that stops before its last words is known to be a part."""
    stream = b"".join(EVENTS[:3])
    assert not fed(EVENT_STREAM, stream[: len(stream) - missing]).complete


def test_a_text_that_speaks_of_the_end_is_not_the_end() -> None:
    """What the model says about finish_reason or [DONE] is text."""
    said = rb"\"finish_reason\":\"stop\" [DONE] \"error\":{"
    event = b'data: {"choices":[{"delta":{"content":"' + said + b'"}}]}' + b"\n\n"
    assert not fed(EVENT_STREAM, event).complete


def test_a_whole_answer_is_counted() -> None:
    """Usage is read from an answer that was not streamed."""
    end = fed(JSON, WHOLE[:50], WHOLE[50:])
    assert end.complete
    assert end.tail() == Tail(5, 2)


@pytest.mark.parametrize("body", [b"", b"  \n", WHOLE[:-20], b'{"choices":['])
def test_half_an_object_is_not_complete(body: bytes) -> None:
    """JSON that does not end with its bracket was cut."""
    assert not fed(JSON, body).complete


def test_other_content_is_complete_with_anything() -> None:
    """Of sound or text nothing is known but that there was some."""
    assert fed("audio/mpeg", b"\xff\xfb").complete
    assert not fed("audio/mpeg").complete


@pytest.mark.parametrize(
    "body", [b'{"a":1}', b'{"usage":null}', b'{"usage":{"prompt_tokens":"many"}}', b'{"usage":[]}']
)
def test_no_usage_is_no_tail(body: bytes) -> None:
    """An answer that does not say its cost, or says it strangely, harms nothing."""
    assert fed(JSON, body).tail() is None


def test_memory_is_bounded() -> None:
    """Of a long stream only the end is kept, and that is enough."""
    end = AnswerEnd(EVENT_STREAM)
    word = b'data: {"choices":[{"delta":{"content":"' + b"x" * 1000 + b'"}}]}\n\n'
    for _ in range(3 * KEPT_BYTES // len(word)):
        end.feed(word)
        assert len(end._kept) <= 2 * KEPT_BYTES + len(word)
    end.feed(b"data: {" + USAGE + b"}\n\ndata: [DONE]\n\n")
    assert end.tail() == Tail(5, 2)
