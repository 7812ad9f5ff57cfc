"""The HTTP server: an address that is surely free, no output of its own, and a clean end on Ctrl-C."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI

from byheart.errors import ByheartError

Ready = Callable[[str], None]  # called with the address to open in a browser, once requests are answered


class Server(uvicorn.Server):
    """uvicorn, saying when it is ready."""

    def __init__(self, app: FastAPI, *, listener: socket.socket, ready: Ready) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_level="warning",
                access_log=False,
                server_header=False,
                lifespan="on",
                timeout_graceful_shutdown=2,
            )
        )
        self._listener = listener
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start listening, then say so."""
        await super().startup(sockets)
        if self.started:
            self._ready(address_of(self._listener))

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer requests until Ctrl-C or `should_exit`."""
        with self._listener, contextlib.suppress(KeyboardInterrupt):  # uvicorn has shut down when it raises this
            super().run(sockets or [self._listener])


def serve(app: FastAPI, *, host: str, port: int, ready: Ready = lambda _address: None) -> None:
    """Serve the app until Ctrl-C. Port 0 takes a free one. Raises ByheartError where the address cannot be used."""
    Server(app, listener=listen(host, port), ready=ready).run()


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
