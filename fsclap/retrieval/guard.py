"""Access to the page: this machine's users, or everybody with the password."""

import base64
import binascii
import hmac
import ipaddress
import re
from collections.abc import Awaitable, Callable, Sequence

from fastapi import Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fsclap.retrieval.index import SearchError
from fsclap.retrieval.recordings import MAX_RECORDING_BYTES, too_large

LOOPBACK = ("localhost", "127.0.0.1", "::1")
# Content types that a browser lets another site's page send here without asking this server first.
_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data", "text/plain", "")
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; media-src 'self' blob:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "private, no-cache",  # a browser keeps it and revalidates, which costs nothing with an ETag
}

_HOST = re.compile(
    r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]{2,45})\]|(?P<name>[A-Za-z0-9][A-Za-z0-9._-]{0,252}))(?::(?P<port>[0-9]{1,5}))?"
)
_ORIGIN = re.compile(r"https?://(?P<host>[^/?#@\s]+)")

Answer = Callable[[Request], Awaitable[Response]]


def allowed_hosts(host: str, password: str | None) -> Sequence[str]:
    """List the host names that the page answers to when it listens on `host`; "*": any.

    Raises:
        SearchError: People on other machines could reach it, and there is no password.
    """
    if password:
        return ("*",)
    if not _is_loopback(host):
        raise SearchError(
            f"everybody who can reach {host} could listen to the corpus: set a password in the environment variable "
            "FSCLAP_APP_PASSWORD, or listen on 127.0.0.1"
        )
    return (*LOOPBACK, host)


def guard(password: str | None, hosts: Sequence[str]) -> Callable[[Request, Answer], Awaitable[Response]]:
    """Make the middleware that refuses strangers' requests and sets the security headers."""

    async def guarded(request: Request, answer: Answer) -> Response:
        refusal = _refusal(request, password, hosts)
        response = await answer(request) if refusal is None else refused(refusal)
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    return guarded


class HeadAsGet:
    """Answers HEAD as GET, without the content: checks of a server's life ask so."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def without_content(message: Message) -> None:
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        await self._app({**scope, "method": "GET"}, receive, without_content)


def refused(error: HTTPException) -> Response:
    """Answer with the status of an error and its message as JSON."""
    return JSONResponse({"error": error.detail}, error.status_code, headers=error.headers)


def _refusal(request: Request, password: str | None, hosts: Sequence[str]) -> HTTPException | None:
    """Return why a request is refused, or None."""
    header = request.headers.get("host", "")
    host = host_of(header)
    if host is None:
        return HTTPException(400, f"the header Host, {header!r}, is not a host name with an optional port")
    if "*" not in hosts and host not in hosts:
        return HTTPException(400, f"this page is at {hosts[0]}, not at {host}")
    if password is not None and not _knows(request.headers.get("authorization", ""), password):
        return HTTPException(
            401, "wrong password", headers={"WWW-Authenticate": 'Basic realm="FS-CLAP", charset="UTF-8"'}
        )
    return _upload_refusal(request) if request.method not in ("GET", "HEAD") else None


def host_of(header: str) -> str | None:
    """Read the host name in a Host header: in lower case, without port and brackets; None if it is malformed.

    Read here, because servers and frameworks put their own address in the place of a malformed one.
    """
    match = _HOST.fullmatch(header)
    if match is None or (match["port"] and not 0 < int(match["port"]) < 65536):
        return None
    if match["ipv6"]:
        try:
            return str(ipaddress.IPv6Address(match["ipv6"]))
        except ValueError:
            return None
    return match["name"].lower()


def _upload_refusal(request: Request) -> HTTPException | None:
    origin = request.headers.get("origin")
    if origin is not None:
        match = _ORIGIN.fullmatch(origin)
        if match is None or host_of(match["host"]) is None or match["host"].lower() != request.headers["host"].lower():
            return HTTPException(403, f"a page from {origin[:100]!r} may not send anything here")
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in _FORMS:
        return HTTPException(415, f"send JSON, or a recording with its type (audio/wav), not {kind or 'nothing'}")
    length = request.headers.get("content-length")
    if length is None or not (length.isascii() and length.isdecimal()):
        return HTTPException(411, "the request must declare its length (Content-Length)")
    if int(length) > MAX_RECORDING_BYTES:
        return HTTPException(413, too_large("The file", int(length)))
    return None


def _knows(authorization: str, password: str) -> bool:
    scheme, _, credentials = authorization.partition(" ")
    try:
        given = base64.b64decode(credentials, validate=True).partition(b":")[2]
    except (binascii.Error, ValueError):
        return False
    return scheme.lower() == "basic" and hmac.compare_digest(given, password.encode())


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
