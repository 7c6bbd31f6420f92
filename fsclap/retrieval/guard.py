"""Access to the page: this machine's users, or everybody with the password."""

import base64
import binascii
import hmac
import ipaddress
from collections.abc import Awaitable, Callable, Sequence
from urllib.parse import urlsplit

from fastapi import Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from fsclap.retrieval.index import SearchError
from fsclap.retrieval.search import MAX_RECORDING_BYTES, too_large

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


def refused(error: HTTPException) -> Response:
    """Answer with the status of an error and its message as JSON."""
    return JSONResponse({"error": error.detail}, error.status_code, headers=error.headers)


def _refusal(request: Request, password: str | None, hosts: Sequence[str]) -> HTTPException | None:
    """Return why a request is refused, or None."""
    if "*" not in hosts and request.url.hostname not in hosts:
        return HTTPException(400, f"this page is at {hosts[0]}, not at {request.url.hostname}")
    if password is not None and not _knows(request.headers.get("authorization", ""), password):
        return HTTPException(
            401, "wrong password", headers={"WWW-Authenticate": 'Basic realm="FS-CLAP", charset="UTF-8"'}
        )
    return _upload_refusal(request) if request.method == "POST" else None


def _upload_refusal(request: Request) -> HTTPException | None:
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        return HTTPException(403, f"a page from {origin} may not send anything here")
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in _FORMS:
        return HTTPException(415, f"send JSON, or a recording with its type (audio/wav), not {kind or 'nothing'}")
    length = request.headers.get("content-length")
    if length is None or not length.isdecimal():
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
