"""The router: a raw ASGI app that resolves a request's model and pumps the answer through.

It parses requests only as far as it must, and answers not at all. It knows the cluster by an
interface, so it runs without Ray as well.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from deployments import spans
from deployments.body import MAX_ECHO_CHARS
from deployments.errors import (
    BackendTimeout,
    BackendUnavailable,
    MethodNotAllowed,
    RoundhouseError,
    UnknownPath,
)
from deployments.exchange import Tail
from serve_app.config import RouterSettings
from serve_app.directory import Cluster, Directory
from serve_app.dispatch import Answer, Dispatch, model_not_found
from serve_app.edge import Edge
from serve_app.error_response import log_unforeseen
from serve_app.guard import (
    ClientGone,
    Request,
    check_key,
    check_path,
    headers_from_scope,
    read_request,
)
from serve_app.listing import model_list, model_object, operator_list
from serve_app.metrics.booking import Booking
from serve_app.metrics.router import RouterMetrics
from serve_app.reply import Reply

MODELS = "/v1/models"
OPEN_PATHS = frozenset({"/health", "/ready"})  # for probes, which have no key


class RouterApp:
    """The ASGI app. `settings` may be replaced at any time; requests under way keep theirs.

    `keys` are digests of the clients' keys; none means that no key is asked for.
    """

    def __init__(self, cluster: Cluster, keys: Iterable[bytes] = ()) -> None:
        self.settings = RouterSettings()
        self.directory = Directory(cluster)
        self.metrics = RouterMetrics(cluster, self.directory)
        self._dispatch = Dispatch(cluster, self.directory)
        self._dispatch.warming.holding = self.metrics.holding
        self._dispatch.warming.waking = self.metrics.waking
        self._keys = tuple(keys)

    def asgi(self) -> ASGIApp:
        """The app behind its edge."""
        return Edge(self._serve)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        reply = Reply(scope, send, self.settings.access_log)
        with self.metrics.request(scope["method"]) as booking:
            try:
                await self._reply(scope, receive, reply, booking)
            finally:
                reply.account.close(reply.status)

    async def _reply(self, scope: Scope, receive: Receive, reply: Reply, booking: Booking) -> None:
        try:
            await self._route(scope, receive, reply, booking)
        except ClientGone:
            booking.gone()
        except RoundhouseError as exc:
            booking.failed(exc)
            reply.account.fails(exc)
            await reply.error(exc)
        except Exception as exc:  # noqa: BLE001 - the edge: whatever it is, the client gets JSON
            log_unforeseen(exc, reply.request_id)
            booking.failed(RoundhouseError())
            reply.account.fails(RoundhouseError())
            await reply.error(RoundhouseError())

    async def _live(self, receive: Receive, send: Send) -> None:
        """The directory is kept from the server's start to its end."""
        await receive()
        self.directory.start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self.directory.stop()
        await asyncio.to_thread(spans.flush)
        await send({"type": "lifespan.shutdown.complete"})

    async def _route(self, scope: Scope, receive: Receive, reply: Reply, booking: Booking) -> None:
        path, method = check_path(scope), scope["method"]
        headers = headers_from_scope(scope)
        if path not in OPEN_PATHS:
            check_key(headers, self._keys)
        if path != "/health":  # before the first look a new router beside others is no lie
            await self.directory.first_look()
        if path in {*OPEN_PATHS, "/-/models", MODELS} or path.startswith(MODELS + "/"):
            reply.account.informs(path)
            if method not in {"GET", "HEAD"}:
                raise MethodNotAllowed("This URL takes GET requests only.", allow="GET")
            await self._inform(path, reply)
        elif path.startswith("/v1/"):
            reply.account.asks(path, headers)
            if method != "POST":
                raise MethodNotAllowed("This URL takes POST requests only.", allow="POST")
            await self._answer(scope, receive, reply, booking)
        else:
            raise UnknownPath(f"Invalid URL ({path[:MAX_ECHO_CHARS]}).")

    async def _inform(self, path: str, reply: Reply) -> None:
        """Everything that is answered from the directory."""
        if path == "/health":
            await reply.json({"status": "ok"})
        elif path == "/ready":
            if not self.directory.ready:
                raise BackendUnavailable("Not every model runs yet.", retry_after_s=1)
            await reply.json({"status": "ready"})
        elif path == "/-/models":
            dispatch = self._dispatch
            rows = await operator_list(self.directory, dispatch.warming, dispatch.admission)
            await reply.json(rows)
        elif path == MODELS:
            await reply.json(model_list(self.directory))
        else:
            await reply.json(self._model(path.removeprefix(MODELS + "/")))

    def _model(self, name: str) -> dict[str, Any]:
        model = self.settings.resolve(name)
        if model not in self.directory.models:
            raise model_not_found(name)
        return model_object(model, self.directory.models[model])

    async def _answer(self, scope: Scope, receive: Receive, reply: Reply, booking: Booking) -> None:
        settings = self.settings
        with self._dispatch.admission.visit(settings) as visit:
            request = await read_request(scope, receive, settings, visit.take)
            model = settings.resolve(request.model)
            booking.asked(self.metrics.labels(model, self.directory.find(model)))
            await self._dispatched(request, settings, receive, reply, booking)

    async def _dispatched(
        self,
        request: Request,
        settings: RouterSettings,
        receive: Receive,
        reply: Reply,
        booking: Booking,
    ) -> None:
        async with until_gone(receive):
            try:
                async with asyncio.timeout(settings.request_timeout_s):
                    answer = await self._dispatch.open(
                        request,
                        reply.account,
                        settings,
                        partial(reply.comment, "warming") if request.streamed else None,
                    )
                    async with aclosing(answer.rest):
                        await self._pump(answer, reply, booking)
            except TimeoutError as exc:
                raise BackendTimeout("The model did not answer in time.") from exc

    async def _pump(self, answer: Answer, reply: Reply, booking: Booking) -> None:
        """Sends the answer on as it comes, and books it."""
        head = answer.head
        labels = self.metrics.labels(answer.model, answer.application)
        booking.answered(labels, head.status, answer.after)
        reply.account.answered(answer.model, answer.application, answer.streamed)
        headers = [("content-type", head.content_type), ("x-served-by", answer.model)]
        if reply.started and not (answer.streamed and answer.good):
            await reply.event(answer.first)
        elif answer.streamed:
            if not reply.started:
                await reply.stream(head.status, [*headers, *head.headers])
            booking.piece()
            await reply.piece(answer.first)
            async for item in answer.rest:
                if isinstance(item, bytes):
                    booking.piece()
                    await reply.piece(item)
                elif isinstance(item, Tail):
                    answer.tail = item
            await reply.end()
        else:
            await reply.whole(head.status, [*headers, *head.headers], answer.first)
        if answer.tail is not None:
            booking.used(answer.tail)
            reply.account.costs(answer.tail)


@asynccontextmanager
async def until_gone(receive: Receive) -> AsyncIterator[None]:
    """Runs the block until the client leaves; then the block is cancelled, and ClientGone raised.

    Serve cancels by itself, but not where a proxy before it hides that the client has left.
    """
    worker = asyncio.current_task()
    assert worker is not None
    gone = False

    async def watch() -> None:
        nonlocal gone
        while (await receive())["type"] != "http.disconnect":
            pass
        gone = True
        worker.cancel()

    watcher = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        if not gone or worker.uncancel() > 0:
            raise
        raise ClientGone from None
    finally:
        watcher.cancel()
