"""Which addresses may be fetched, and how to show one without its secrets."""

import ipaddress
import re
from urllib.parse import urlsplit

from fsclap.refusal import Refused

LONGEST = 8192
"""Characters of a URL; servers refuse longer ones anyway."""
PROTOCOLS = ipaddress.IPv4Network("192.0.0.0/24")
"""Reserved as a whole, which ipaddress says of a part; Oracle's cloud keeps the keys of a machine
at 192.0.0.192."""
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
# Parameters that let in whoever knows them, or say for how long. Never what names a recording: two
# addresses that differ in these alone are one source.
SECRETS = (
    r"(?:access_?|auth_?|id_|refresh_?|session_?|security_?)?token|auth|authorization|jwt|sig|signature|hmac|policy"
    r"|key-pair-id|expires|api_?key|client_?secret|secret|password|passwd|pwd|credentials?|session_?id|phpsessid"
    r"|hdne[at]|hdnts|awsaccesskeyid|googleaccessid|x-(?:amz|goog)-[a-z0-9-]+"
)
# Parameters that say where a visitor came from, or when a file was touched. Of a recording they say
# nothing.
_TRACKING = re.compile(
    r"(?i)utm_\w+|fbclid|gclid|dclid|gbraid|wbraid|msclkid|yclid|igshid|mc_[ce]id|_ga|_gl|dest-id|updated|modified"
)
HIDDEN = "REDACTED"
_IN_QUERY = re.compile(rf"(?i)((?:[?&;]|&amp;)(?:{SECRETS})=)[^&;#\s\"'<>]*")
_USERINFO = re.compile(r"(?i)([a-z][a-z0-9+.-]*://)[^/?#\s\"'<>]*@")


def is_public(address: str) -> bool:
    """Whether an IP address is public, as must be the IPv4 address inside an IPv6 one.

    Args:
        address: As a socket names it: "127.0.0.1", "fe80::1%eth0".
    """
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or (ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF) if ip in NAT64 else None)
        if inner is not None:
            return is_public(str(inner))
        if ip.sixtofour or ip.teredo or ip.is_site_local:
            return False
    return ip.is_global and not (ip.is_private or ip.is_multicast or ip.is_reserved or ip in PROTOCOLS)


def redact(text: str) -> str:
    """Remove user names, passwords and secret parameters from the URLs in a text."""
    return _IN_QUERY.sub(rf"\1{HIDDEN}", _USERINFO.sub(r"\1", text))


def without_tracking(url: str) -> str:
    """Remove the parameters of a URL that change while the recording does not."""
    address, question, query = url.partition("?")
    kept = [part for part in query.split("&") if not _TRACKING.fullmatch(part.partition("=")[0])]
    return address + (question + "&".join(kept) if any(kept) else "")


def has_credentials(text: str) -> bool:
    """Whether there is a URL with a user name or password in a text."""
    return _USERINFO.search(text) is not None


def require_fetchable(url: str) -> None:
    """Refuse a URL that must not be fetched, as far as its text shows.

    Raises:
        Refused: `unsupported_scheme`, `credentials_in_address` or `bad_address`.
    """
    shown = redact(url)[:200]
    if re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", url) or len(url) > LONGEST:
        raise Refused(
            "bad_address", f"{shown!a}: control characters, or more than {LONGEST} characters; check the address"
        )
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise Refused("bad_address", f"{shown}: not an address ({error}); check the spelling") from None
    if parts.scheme.lower() not in ("http", "https"):
        raise Refused("unsupported_scheme", f"{shown}: only http and https addresses are downloaded")
    if not host:
        raise Refused("bad_address", f"{shown}: the address names no host; check the spelling")
    if "@" in parts.netloc:
        raise Refused(
            "credentials_in_address",
            f"{shown}: the address holds a user name or password, which would be stored with every row; take it out, "
            "and name a cookies file with download.cookies if the media are private",
        )
