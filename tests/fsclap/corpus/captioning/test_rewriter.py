"""The rewriter against a server on this machine that speaks the chat-completions protocol."""

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from fsclap.corpus.captioning.attributes import Attributes
from fsclap.corpus.captioning.base import CaptioningSettings, Tags
from fsclap.corpus.captioning.describe import describe
from fsclap.corpus.captioning.rewriter import RewriteError, RewriterSettings, rewrite


def completion(text: object) -> tuple[int, bytes]:
    return 200, json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode()


@dataclass
class Endpoint:
    """A chat-completions server: what it was asked, and how it answers a caption."""

    url: str = ""
    asked: list[tuple[str, dict[str, str], dict]] = field(default_factory=list)
    answer: Callable[[str], tuple[int, bytes]] = lambda caption: completion(caption.upper())


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    state = Endpoint()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            state.asked.append((self.path, dict(self.headers), body))
            status, content = state.answer(body["messages"][-1]["content"])
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        state.url = f"http://127.0.0.1:{server.server_port}/v1"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield state
        server.shutdown()


def settings(endpoint: Endpoint, **others: object) -> RewriterSettings:
    return RewriterSettings(**{"base_url": endpoint.url, "model": "words-7b", "timeout": 5, **others})


def test_the_model_is_asked_once_at_temperature_zero(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORDS_KEY", "secret")
    assert rewrite("A low voice.", settings(endpoint, api_key_env="WORDS_KEY", max_words=40)) == "A LOW VOICE."
    [(path, headers, body)] = endpoint.asked
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == "Bearer secret"
    assert (body["model"], body["temperature"]) == ("words-7b", 0)
    assert "at most 40 words" in body["messages"][0]["content"]
    assert body["messages"][1] == {"role": "user", "content": "A low voice."}


def test_no_key_is_sent_unless_one_is_named(endpoint: Endpoint) -> None:
    rewrite("A low voice.", settings(endpoint, base_url=f"{endpoint.url}/"))
    [(path, headers, _)] = endpoint.asked
    assert path == "/v1/chat/completions"
    assert "Authorization" not in headers


def test_a_missing_key_names_the_variable(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORDS_KEY", raising=False)
    with pytest.raises(RewriteError, match="WORDS_KEY"):
        rewrite("A low voice.", settings(endpoint, api_key_env="WORDS_KEY"))
    assert endpoint.asked == []


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (completion("   "), "empty caption"),
        (completion("One line.\nAnother."), "more than one line"),
        (completion("word " * 61), "61 words; max_words is 60"),
        (completion(None), "without choices"),
        ((200, b'{"choices": []}'), "without choices"),
        ((200, b"<html>"), "no JSON answer"),
        ((429, b"slow down"), "429 .*slow down"),
        ((500, b"out of memory"), "500 .*out of memory"),
    ],
)
def test_an_unusable_answer_is_an_error_that_says_so(
    endpoint: Endpoint, answer: tuple[int, bytes], message: str
) -> None:
    endpoint.answer = lambda caption: answer
    with pytest.raises(RewriteError, match=f"words-7b at {endpoint.url}.*{message}"):
        rewrite("A low voice.", settings(endpoint))


def test_an_endpoint_that_is_not_there_is_an_error() -> None:
    nowhere = RewriterSettings(base_url="http://127.0.0.1:9/v1", model="words-7b", timeout=2)
    with pytest.raises(RewriteError, match=r"words-7b at http://127\.0\.0\.1:9/v1"):
        rewrite("A low voice.", nowhere)


def described(rewriter: RewriterSettings | None) -> list[tuple[str, str, str]]:
    attributes = [Attributes(pitch_hz=hertz, voiced_ratio=0.6) for hertz in (90.0, 115.0, 160.0, 210.0, 300.0)]
    ids = [f"clip-{i}" for i in range(5)]
    settings = CaptioningSettings(rewriter=rewriter)
    found = describe(attributes, speakers=["a"] * 5, tags=[Tags()] * 5, ids=ids, settings=settings)
    return [(d.style_key, d.caption, d.caption_source) for d in found]


def test_descriptions_keep_their_style_and_order_and_name_the_model(endpoint: Endpoint) -> None:
    plain = described(None)
    rewritten = described(settings(endpoint, concurrency=3))
    assert rewritten == [(key, text.upper(), "words-7b") for key, text, _ in plain]


def test_a_failure_stops_the_description_unless_told_to_keep_the_grammar(
    endpoint: Endpoint, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint.answer = lambda caption: completion("" if "very" in caption else caption.upper())
    with pytest.raises(RewriteError, match="empty caption"):
        described(settings(endpoint))
    plain, kept = described(None), described(settings(endpoint, on_error="keep"))
    sources = [source for *_, source in kept]
    assert sources == ["grammar", "words-7b", "words-7b", "words-7b", "grammar"]
    assert kept[0] == plain[0]
    assert caplog.text.count("caption kept as the grammar worded it") == 2
