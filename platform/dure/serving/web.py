"""The front over HTTP: pages, health, figures and predictions, with the limits of a request."""

from __future__ import annotations

import asyncio
import hmac
import secrets
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from dure.files import in_bytes
from dure.reporting.page import template
from dure.serving.asked import Inputs
from dure.serving.batcher import Batcher
from dure.serving.figures import Figures
from dure.serving.openapi import STATUSES, Served, Serving, document
from dure.serving.refusals import RefusedError, busy

_HOSTS = ("127.0.0.1", "localhost")
"""Names by which the server may be asked: a page of the web whose name leads here is not answered."""
_JSON = "application/json"
_GONE = 499
"""Status, of nginx, that is counted for a client that went before its answer."""


class Front:
    """Answers requests.

    ``num_running`` returns how many replicas run; it may wait for the cluster.
    """

    def __init__(
        self,
        served: Served,
        inputs: Inputs,
        batcher: Batcher,
        figures: Figures,
        asked: Serving,
        num_running: Callable[[], int],
    ) -> None:
        self._served, self._inputs, self._batcher = served, inputs, batcher
        self._figures, self._asked, self._num_running = figures, asked, num_running
        self._document = document(served, inputs, asked)

    def app(self) -> Starlette:
        """Return the application."""
        return Starlette(
            routes=[
                Route("/", self.page),
                Route("/docs", lambda request: RedirectResponse("/#interface")),
                Route("/openapi.json", self.openapi),
                Route("/health", self.health),
                Route("/metrics", self.metrics),
                Route("/predict", self.predict, methods=["POST"]),
            ],
            middleware=[Middleware(_KnownHosts)],
            exception_handlers={RefusedError: _refused, HTTPException: _not_here},
        )

    async def predict(self, request: Request) -> Response:
        """Predict the texts of a request."""
        started = time.perf_counter()
        status = 500
        try:
            response = await self._predicted(request, started)
            status = response.status_code
            return response
        except RefusedError as refusal:
            status = refusal.status
            raise
        except ClientDisconnect:
            status = _GONE
            return Response(status_code=400)
        finally:
            self._figures.request(status, time.perf_counter() - started)

    async def _predicted(self, request: Request, started: float) -> Response:
        self._require_token(request)
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != _JSON:
            # Also keeps pages of the web from asking in a user's browser, which may send no JSON elsewhere.
            raise RefusedError(
                415,
                f"the body is of the type '{kind}'" if kind else "the type of the body is not given",
                where="Content-Type",
                expected=_JSON,
                hint=f"curl -H 'Content-Type: {_JSON}' …",
            )
        rows = self._inputs.rows(await self._body(request))
        left = self._asked.time_limit - (time.perf_counter() - started)
        asking = asyncio.ensure_future(self._batcher.ask(rows, max(left, 0.0)))
        answer = await _unless_gone(request, asking)
        return JSONResponse({"predictions": answer.predictions, "truncated": answer.truncated})

    async def _body(self, request: Request) -> bytes:
        """Return the body of a request; reads no more of it than may be.

        Raises:
            RefusedError: It is too large, or does not come.
        """
        most, seconds = self._asked.max_bytes, self._asked.time_limit
        too_large = RefusedError(
            413,
            f"the body is larger than {in_bytes(most)}",
            where="body",
            expected=f"at most {most:,} bytes",
            hint="send the texts in several requests; or dure serve with a larger --max-bytes",
            headers={"Connection": "close"},
        )
        said = request.headers.get("content-length", "0")
        if said.isdecimal() and int(said) > most:
            raise too_large
        body = bytearray()
        try:
            async with asyncio.timeout(seconds):
                async for part in request.stream():
                    body += part
                    if len(body) > most:
                        raise too_large
        except TimeoutError:
            raise RefusedError(
                408, f"the body did not come within {seconds:g} seconds", where="body"
            ) from None
        return bytes(body)

    def _require_token(self, request: Request) -> None:
        """Check the token, in a time that does not depend on how much of it is right."""
        if self._asked.token is None:
            return
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        is_right = hmac.compare_digest(given.strip().encode(), self._asked.token.encode())
        if kind.lower() != "bearer" or not is_right:
            raise RefusedError(
                401,
                "the token is wrong" if given else "the token is missing",
                where="Authorization",
                expected="Bearer TOKEN, with the token that the server was started with",
                headers={"WWW-Authenticate": "Bearer"},
            )

    async def health(self, request: Request) -> Response:
        """Say whether predictions can be had."""
        try:
            running = await asyncio.to_thread(self._num_running)
        except Exception:  # the cluster is going down, or does not answer
            running = 0
        if running == 0:
            raise busy("no replica is ready")
        return JSONResponse({"state": "ready", "replicas": running, "model": self._served.words})

    async def metrics(self, request: Request) -> Response:
        """Give the figures to Prometheus."""
        self._require_token(request)
        return Response(self._figures.exposition(), media_type=self._figures.content_type)

    async def openapi(self, request: Request) -> Response:
        """Give the description of the interface."""
        return JSONResponse(self._document)

    async def page(self, request: Request) -> Response:
        """Give the page to try a text by hand, which loads nothing from elsewhere."""
        nonce = secrets.token_urlsafe(16)
        html = template(Path(__file__)).render(
            served=self._served,
            roles=self._inputs.roles,
            needed=self._inputs.needed,
            has_token=self._asked.token is not None,
            statuses=STATUSES,
            paths=self._document["paths"],
            nonce=nonce,
        )
        policy = (
            f"default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; connect-src 'self'"
        )
        more = "; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        return HTMLResponse(html, headers={"Content-Security-Policy": policy + more})


class _KnownHosts:
    """Answers only what is asked by a name of this machine."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request, or refuse it."""
        app = self._app
        if (
            scope["type"] == "http"
            and (host := Headers(scope=scope).get("host", "")).split(":")[0] not in _HOSTS
        ):
            refused = RefusedError(
                421, f"'{host}' is no name of this server", where="Host", expected=" or ".join(_HOSTS)
            )
            app = JSONResponse(refused.body, refused.status)
        await app(scope, receive, send)


async def _unless_gone(request: Request, asking: asyncio.Future[Any]) -> Any:
    """Return what is asked for, and ask no more when the client goes."""
    going = asyncio.ensure_future(_gone(request.receive))
    try:
        await asyncio.wait({asking, going}, return_when=asyncio.FIRST_COMPLETED)
        if not asking.done():
            raise ClientDisconnect
        return asking.result()
    finally:
        going.cancel()
        asking.cancel()


async def _gone(receive: Callable[[], Awaitable[Any]]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _refused(request: Request, refusal: Exception) -> Response:
    assert isinstance(refusal, RefusedError)
    return JSONResponse(refusal.body, refusal.status, refusal.headers)


async def _not_here(request: Request, error: Exception) -> Response:
    """Answer what has no place here in the words of all other refusals."""
    assert isinstance(error, HTTPException)
    path = request.url.path
    refusal = (
        RefusedError(
            405, f"{request.method} is no method of {path}", expected=(error.headers or {}).get("Allow")
        )
        if error.status_code == 405
        else RefusedError(
            error.status_code, f"there is no {path}", expected="/predict", hint="/ says what there is"
        )
    )
    return JSONResponse(refusal.body, refusal.status, {**(error.headers or {})})
