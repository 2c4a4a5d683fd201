"""When the tokens of one streamed chat answer arrived, out of its bytes as they came."""

import msgspec

END_OF_EVENT = b"\n\n"
DONE = b"data: [DONE]"


class TokenTimes:
    """Fed with every piece of one stream of events.

    `arrivals_s` has one time for each event that carries text; events that came in one piece
    arrived at one time. `num_tokens` is what the server says in its usage. An event is parsed only
    for that: while tokens come, the client must cost as little as it can.
    """

    def __init__(self) -> None:
        self.arrivals_s: list[float] = []
        self.num_tokens = 0
        self.ended = False
        self._rest = b""

    def feed(self, piece: bytes, now_s: float) -> None:
        """Takes the next bytes of the stream, cut anywhere."""
        *events, self._rest = (self._rest + piece).split(END_OF_EVENT)
        for event in events:
            if carries_text(event):
                self.arrivals_s.append(now_s)
            elif b'"usage":{' in event:
                usage = msgspec.json.decode(event.removeprefix(b"data: "))["usage"]
                self.num_tokens = usage["completion_tokens"]
            elif event == DONE:
                self.ended = True

    def gaps_s(self) -> list[float]:
        """The time between each token and the one before it."""
        pairs = zip(self.arrivals_s, self.arrivals_s[1:], strict=False)
        return [after - before for before, after in pairs]


def carries_text(event: bytes) -> bool:
    """Quotes inside a text are escaped, so these marks can only be the field itself."""
    return b'"content":"' in event and b'"content":""' not in event
