"""The HTTP server: an address that is surely free, no output of its own, and a clean end on Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import socket
from collections.abc import Callable, Sequence

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from byheart.errors import ByheartError
from byheart.serve.engine import Engine

GRACE_S = 5.0  # for answers that are under way when the server is told to stop
HEAD_TIMEOUT_S = 20.0  # for the first line and headers of a request

Ready = Callable[[str], None]  # called with the address to open in a browser, once requests are answered


class PatientProtocol(H11Protocol):
    """uvicorn's HTTP, with a limit on how long the head of a connection's first request may take to arrive."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Start the clock, which uvicorn starts only between two requests."""
        super().connection_made(transport)
        self._head_limit = self.loop.call_later(HEAD_TIMEOUT_S, self._close_without_request)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock: it would hold all that there was of the connection until it rings."""
        self._head_limit.cancel()
        super().connection_lost(exc)

    def eof_received(self) -> None:
        """Tell the answer under way that the client left.

        asyncio closes the connection now, but says so only once all that waits to be sent is gone, and until then logs
        every further write: lines for each client that leaves in mid-answer (bench/bench_faults.py).
        """
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            self.flow.resume_writing()

    def _close_without_request(self) -> None:
        if self.cycle is None and not self.transport.is_closing():
            self.transport.close()


class Server(uvicorn.Server):
    """uvicorn, saying when it is ready."""

    def __init__(
        self, app: FastAPI, *, listener: socket.socket, ready: Ready, trusted_proxies: Sequence[str] = ()
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_level="warning",
                access_log=False,
                server_header=False,
                lifespan="on",
                http=PatientProtocol,
                forwarded_allow_ips=list(trusted_proxies),
                timeout_graceful_shutdown=int(GRACE_S) + 5,
            )
        )
        self._app = app
        self._listener = listener
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start listening, then say so."""
        await super().startup(sockets)
        if self.started:
            self._ready(address_of(self._listener))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let answers end; those that take too long are given up, so that their streams say so before they are cut."""
        engine: Engine | None = getattr(self._app.state, "engine", None)  # any other app has none
        give_up = asyncio.get_running_loop().call_later(GRACE_S, engine.drop) if engine else None
        await super().shutdown(sockets)
        if give_up:
            give_up.cancel()

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer requests until Ctrl-C or `should_exit`."""
        with self._listener, contextlib.suppress(KeyboardInterrupt):  # uvicorn has shut down when it raises this
            super().run(sockets or [self._listener])


def serve(
    app: FastAPI,
    *,
    host: str,
    port: int,
    ready: Ready = lambda _address: None,
    trusted_proxies: Sequence[str] = (),
) -> None:
    """Serve the app until Ctrl-C. Port 0 takes a free one. Raises ByheartError where the address cannot be used.

    `trusted_proxies`: addresses that may say in X-Forwarded-For whom they pass on.
    """
    server = Server(app, listener=listen(host, port), ready=ready, trusted_proxies=trusted_proxies)
    spare_what_is_loaded()
    server.run()


def spare_what_is_loaded() -> None:
    """Leave all that there is out of the garbage collection from now on: for a process that only serves.

    Looking through it again and again stopped all answers for up to 0.3 s (docs/experiments.md).
    """
    gc.collect()
    gc.freeze()


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to the address. Raises ByheartError saying why not, and what to do."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as fault:
        raise ByheartError(
            f"serve.host: {host!r} is no address of this machine ({fault}). Use 127.0.0.1, or 0.0.0.0 for all."
        ) from fault
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except OSError as fault:
        listener.close()
        raise ByheartError(_why_not(fault, host=host, port=port)) from fault
    listener.setblocking(False)
    return listener


def address_of(listener: socket.socket) -> str:
    """Return the address to open in a browser on this machine."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _why_not(fault: OSError, *, host: str, port: int) -> str:
    advice = {
        errno.EADDRINUSE: f"another program uses it. Stop that one, or choose another port (for example {port + 1}).",
        errno.EACCES: "not permitted: ports under 1024 are for the administrator. Choose 8000, say.",
        errno.EADDRNOTAVAIL: "this machine has no such address. Use 127.0.0.1, or 0.0.0.0 for all.",
    }.get(fault.errno or 0, f"{fault.strerror or fault}.")
    return f"Cannot listen on {host} port {port}: {advice}"
