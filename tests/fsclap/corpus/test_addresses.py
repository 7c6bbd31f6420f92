import pytest

from fsclap.corpus.addresses import LONGEST, has_credentials, is_public, redact, require_fetchable
from fsclap.refusal import Refused


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_public_addresses(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.8.8.8",
        "0.0.0.0",
        "10.1.2.3",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "169.254.169.254",  # the keys of a cloud machine
        "100.64.0.1",  # carrier-grade NAT
        "100.100.100.200",
        "192.0.0.192",
        "192.0.2.1",
        "198.18.0.1",
        "224.0.0.1",
        "239.255.255.250",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::7f00:1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::7f00:1",  # what NAT64 makes of 127.0.0.1
        "64:ff9b:1::1",
        "2002:7f00:1::",  # 6to4 of it
        "2001:0:4136:e378:8000:63bf:80ff:fffe",  # Teredo of it
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "fc00::1",
        "fd00:ec2::254",
        "ff02::1",
        "2001:db8::1",
    ],
)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://example.org/a?id=7&v=2", "https://example.org/a?id=7&v=2"),
        ("https://example.org/author?authors=x&keyword=y&tokens=3", "https://example.org/author?authors=x&keyword=y&tokens=3"),
        ("https://me:pass@example.org/a", "https://example.org/a"),
        ("https://me:p@ss@example.org/a@b", "https://example.org/a@b"),
        ("https://example.org/a?token=XXX", "https://example.org/a?token=REDACTED"),
        ("https://example.org/a?v=1&Sig=XXX&w=2#t", "https://example.org/a?v=1&Sig=REDACTED&w=2#t"),
        ("https://example.org/a?auth=XXX;v=1", "https://example.org/a?auth=REDACTED;v=1"),
        (
            "https://b.example.org/a?X-Amz-Signature=XXX&X-Amz-Credential=XXX%2Fs3&X-Goog-Date=XXX",
            "https://b.example.org/a?X-Amz-Signature=REDACTED&X-Amz-Credential=REDACTED&X-Goog-Date=REDACTED",
        ),
        ("GET 'http://e.org/?access_token=XXX': 404", "GET 'http://e.org/?access_token=REDACTED': 404"),
        ('<a href="http://e.org/?v=1&amp;token=XXX">', '<a href="http://e.org/?v=1&amp;token=REDACTED">'),
        ("from ftp://u:XXX@h/ to http://u:XXX@k/", "from ftp://h/ to http://k/"),
    ],
)  # fmt: skip
def test_secrets_are_not_shown(text: str, shown: str) -> None:
    assert redact(text) == shown
    assert redact(shown) == shown


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("file:///etc/passwd", "unsupported_scheme"),
        ("FILE:///etc/passwd", "unsupported_scheme"),
        ("ftp://example.org/a", "unsupported_scheme"),
        ("rtmp://example.org/a", "unsupported_scheme"),
        ("data:text/html,x", "unsupported_scheme"),
        ("ytsearch:cats", "unsupported_scheme"),
        ("concat:a|b", "unsupported_scheme"),
        ("-i", "unsupported_scheme"),
        ("//example.org/a", "unsupported_scheme"),
        ("http:///a", "bad_address"),
        ("http://[::1", "bad_address"),
        ("http://example.org:port/", "bad_address"),
        ("http://example.org/a\nHost: other", "bad_address"),
        ("http://example.org/\0", "bad_address"),
        ("http://example.org/\ud800", "bad_address"),
        ("http://example.org/" + "a" * LONGEST, "bad_address"),
        ("http://me:hunter2@example.org/", "credentials_in_address"),
        ("http://hunter2@example.org/", "credentials_in_address"),
    ],
)
def test_what_is_not_fetched(url: str, reason: str) -> None:
    with pytest.raises(Refused) as raised:
        require_fetchable(url)
    assert raised.value.reason == reason
    assert "hunter2" not in str(raised.value)
    assert len(raised.value.detail) < 500
    assert raised.value.detail.isprintable()


@pytest.mark.parametrize(
    "url", ["http://example.org", "HTTPS://EXAMPLE.ORG/a b?c=%(title)s#d", "http://höhe.example/ä"]
)
def test_what_is_fetched(url: str) -> None:
    require_fetchable(url)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("https://me:word@example.org/feed.xml", True),
        ("http://me@[::1", True),
        ("https://example.org/@me/videos", False),
        ("/data/videos/me@home", False),
    ],
)
def test_addresses_with_credentials(text: str, found: bool) -> None:
    assert has_credentials(text) == found
