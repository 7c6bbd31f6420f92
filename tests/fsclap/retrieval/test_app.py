import base64
import dataclasses
import io
import json
import zipfile
from collections.abc import Iterator, Sequence
from typing import get_args

import numpy as np
import pyarrow as pa
import pytest
import soundfile
from fastapi.testclient import TestClient

from bench.users import measure
from fsclap.audio import decode_flac
from fsclap.model import embedded
from fsclap.retrieval import By
from fsclap.retrieval.app import STATIC, address, listening, make_app, shown
from fsclap.retrieval.filters import Condition
from fsclap.retrieval.guard import allowed_hosts, host_of
from fsclap.retrieval.index import ModelStatus, SearchError
from fsclap.retrieval.playback import peaks, ranged
from fsclap.retrieval.recordings import MAX_RECORDING_BYTES
from fsclap.retrieval.search import Searcher
from storage.versions import CorpusVersion
from tests.fsclap.retrieval.serving import served

HERE = "http://127.0.0.1"
QUERY = "a weary voice, speaking slowly"
BINARY = {"Content-Type": "application/octet-stream"}


@pytest.fixture(scope="module")
def client(searcher: Searcher, version: CorpusVersion) -> TestClient:
    return TestClient(make_app(searcher, version.audio, None), base_url=HERE)


@pytest.fixture(scope="module")
def clip(searcher: Searcher) -> str:
    return str(searcher.index.rows["utterance_id"][5].as_py())


def flac_of(version: CorpusVersion, id_: str) -> bytes:
    return dict(version.audio([id_]))[id_]


def test_the_corpus_is_described_before_a_search(client: TestClient, searcher: Searcher) -> None:
    about = client.get("/api/corpus").json()
    assert about["clips"] == len(searcher.index.rows) == 40
    facets = {
        facet["column"]: {value["value"]: value["clips"] for value in facet["values"]} for facet in about["facets"]
    }
    assert facets["series"] == {"Crossed Lines": 20, "Dvě ryby": 20}
    assert facets["emotion"] == {"sad": 14, "happy": 14}
    assert set(facets) == {"emotion", "speaker", "series", "language"}
    measures = {measure["column"]: measure for measure in about["measures"]}
    assert set(measures) == {"attributes.pitch_hz", "duration"}  # the others are the same for all clips
    assert sum(measures["duration"]["counts"]) == 40
    assert (measures["duration"]["low"], measures["duration"]["high"]) == (pytest.approx(0.6), pytest.approx(1.5))
    assert {style["attribute"]: len(style["words"]) for style in about["style"]} == {"pitch": 4, "rate": 3}
    assert about["judging"] is False
    assert about["examples"] == ["a mouse on helium", "sad", "laughing"]  # no clip has a word for pauses


def test_every_hit_says_what_share_of_the_description_it_has(client: TestClient, searcher: Searcher) -> None:
    found = client.get("/api/search", params={"query": "a high voice", "top": 40, "where": "duration < 1"}).json()
    assert found["of"] == searcher.count([Condition.parse("duration < 1")]) == len(found["clips"]) < 40
    shares = [clip["share"] for clip in found["clips"]]
    assert shares == sorted(shares, reverse=True)
    assert 0 <= shares[-1] < found["chance"] < shares[0] <= 1
    assert [clip["weak"] for clip in found["clips"]] == [share < 0.5 for share in shares]
    high = next(clip for clip in found["clips"] if "pitch=high" in searcher.row(clip["utterance_id"])["style_key"])
    assert (high["why"], high["lacks"], high["marked"]) == (["high pitch"], [], ["high"])
    low = next(clip for clip in found["clips"] if "pitch=low" in searcher.row(clip["utterance_id"])["style_key"])
    assert (low["why"], low["lacks"], low["marked"]) == ([], ["high pitch"], [])


def test_a_query_that_is_unlike_a_voice_is_called_a_guess(client: TestClient) -> None:
    found = client.get("/api/search", params={"query": "mortgage interest rates"}).json()
    assert found["guess"] is True
    assert "little more than a guess" in found["notes"][0]["sentence"]
    assert {(clip["share"], clip["weak"]) for clip in found["clips"]} == {(None, False)}
    assert client.get("/api/search", params={"query": "a high voice"}).json()["guess"] is False


def test_a_condition_that_no_clip_meets_says_what_there_is(client: TestClient) -> None:
    found = client.get("/api/search", params={"query": "a voice", "where": 'series == "Crossed Line"'}).json()
    assert (found["of"], found["clips"]) == (0, [])
    sentence = "No clip's series is 'Crossed Line'. It has, for instance: Crossed Lines."
    assert [note["sentence"] for note in found["notes"][-1:]] == [sentence]
    wrong = client.get("/api/search", params={"query": "a voice", "where": "serie = x"}).json()
    assert wrong == {"error": "there is no column 'serie'; did you mean series?", "field": "where"}


def test_like_a_clip_but_higher(client: TestClient, searcher: Searcher, clip: str) -> None:
    answer = client.get(f"/api/clips/{clip}/like", params={"query": "higher", "top": 5}).json()
    assert all(found["why"] == ["higher pitch"] for found in answer["clips"])
    pitch = searcher.row(clip)["attributes"]["pitch_hz"]
    assert all(found["attributes"]["pitch_hz"] > pitch for found in answer["clips"])
    nothing = client.get(f"/api/clips/{clip}/like", params={"query": "of medium pitch"})
    assert (nothing.status_code, "say higher, lower" in nothing.json()["error"]) == (400, True)


def test_like_a_recording_but_lower(client: TestClient, searcher: Searcher, version: CorpusVersion, clip: str) -> None:
    sound = flac_of(version, clip)
    place = searcher.place_of(*decode_flac(sound))["pitch"]
    found = client.post("/api/sound?query=lower&top=3", content=sound, headers=BINARY).json()["clips"]
    assert place > 0.1
    assert [hit["why"] for hit in found] == [["lower pitch"]] * 3


def test_a_voice(client: TestClient, searcher: Searcher) -> None:
    rows = [row for row in searcher.index.rows.to_pylist() if row["speaker"] == "Crossed Lines/e01/S01"]
    voice = client.get("/api/voice", params={"speaker": "Crossed Lines/e01/S01"}).json()
    assert voice["clips"] == len(rows)
    assert voice["seconds"] == pytest.approx(sum(row["duration"] for row in rows))
    assert voice["emotions"] == [{"value": "happy", "clips": len(rows)}]
    pitches = [searcher.row(id_)["attributes"]["pitch_hz"] for id_ in voice["ids"]]
    assert pitches == sorted(pitches)
    assert pitches[0] <= voice["ranges"]["attributes.pitch_hz"][0] <= voice["ranges"]["attributes.pitch_hz"][2]
    assert client.get("/api/voice", params={"speaker": "nobody"}).status_code == 400
    most = client.get("/api/voices").json()["voices"]
    assert len(most) == 6
    assert voice in most


def test_chosen_clips_are_exported_as_prompts(client: TestClient, searcher: Searcher, version: CorpusVersion) -> None:
    ids = [searcher.index.rows["utterance_id"][row].as_py() for row in (9, 2)]
    answer = client.get("/api/export", params={"id": ids, "query": "a voice"})
    assert answer.headers["content-disposition"] == 'attachment; filename="prompts.zip"'
    archive = zipfile.ZipFile(io.BytesIO(answer.content))
    prompts = [json.loads(line) for line in archive.read("prompts/prompts.jsonl").splitlines()]
    assert [(p["utterance_id"], p["rank"], p["score"], p["query"]) for p in prompts] == [
        (ids[0], 1, None, "a voice"),
        (ids[1], 2, None, "a voice"),
    ]
    assert archive.read(f"prompts/{prompts[0]['audio']}") == flac_of(version, ids[0])
    assert prompts[0]["text"] == searcher.row(ids[0])["text"]
    assert client.get("/api/export", params={"id": "nobody-00000"}).status_code == 404
    assert client.get("/api/export", params={"id": ids * 26}).status_code == 400


def test_kept_clips_are_looked_up_together(client: TestClient, clip: str) -> None:
    found = client.get("/api/clips", params={"id": [clip, "nobody-00000"]}).json()
    assert [one["utterance_id"] for one in found["clips"]] == [clip]
    assert found["gone"] == ["nobody-00000"]


def test_a_search_gives_what_the_searcher_finds(client: TestClient, searcher: Searcher) -> None:
    found = client.get("/api/search", params={"query": QUERY, "top": 7}).json()["clips"]
    hits = searcher.search(QUERY, top=7)
    assert [clip["utterance_id"] for clip in found] == [hit.utterance_id for hit in hits]
    assert [clip["score"] for clip in found] == pytest.approx([hit.score for hit in hits], abs=1e-6)
    first = found[0]
    assert first["caption"] == hits[0].caption
    assert first["source"].startswith("https://example.org/")
    assert first["attributes"]["pitch_slope_st"] is None
    assert "recipe" not in first


@pytest.mark.parametrize("by", get_args(By))
def test_a_search_can_be_by_words(client: TestClient, searcher: Searcher, by: By) -> None:
    found = client.get("/api/search", params={"query": "a high voice 😀", "by": by}).json()
    hits = searcher.search("a high voice 😀", by=by)
    assert found["by"] == by
    assert [clip["utterance_id"] for clip in found["clips"]] == [hit.utterance_id for hit in hits]
    assert [clip["why"] for clip in found["clips"]] == [list(hit.why) for hit in hits]
    assert any("high pitch" in clip["why"] for clip in found["clips"]) or by == "model"
    assert found["notes"] == [note.as_json() for note in searcher.notes("a high voice 😀")]
    assert "'😀' can't be read" in found["notes"][0]["sentence"]


def test_a_search_that_can_not_be_answered_says_why(client: TestClient) -> None:
    answer = client.get("/api/search", params={"query": "低沉的声音"})
    assert (answer.status_code, "describe the speech in English" in answer.json()["error"]) == (400, True)
    answer = client.get("/api/search", params={"query": QUERY, "by": "luck"})
    assert (answer.status_code, answer.json()["error"].split(":")[0]) == (400, "by")


def test_the_status_of_the_model_is_told(searcher: Searcher, version: CorpusVersion) -> None:
    status = ModelStatus(promoted=False, figure=0.031, chance=0.029, metric="mAP@10")
    record = searcher.index.record.model_copy(update={"model_status": status})
    told = Searcher(dataclasses.replace(searcher.index, record=record), searcher.model)
    about = TestClient(make_app(told, version.audio, None), base_url=HERE).get("/api/corpus").json()
    assert about["status"] == "The model was not promoted: mAP@10 is 3.1 %, chance is 2.9 %."
    assert about["warning"].startswith(about["status"])


def test_conditions_narrow_a_search(client: TestClient, searcher: Searcher) -> None:
    where = ["emotion = sad", "duration >= 1"]
    found = client.get("/api/search", params={"query": QUERY, "top": 50, "where": where}).json()["clips"]
    hits = searcher.search(QUERY, top=50, where=[Condition.parse(text) for text in where])
    assert [clip["utterance_id"] for clip in found] == [hit.utterance_id for hit in hits]
    assert found
    nothing = client.get("/api/search", params={"query": QUERY, "where": "emotion = furious"})
    assert (nothing.status_code, nothing.json()["clips"]) == (200, [])


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"query": "  "}, "the query is empty"),
        ({"query": QUERY, "where": "loudly"}, "is not a condition"),
        ({"query": QUERY, "where": "colour = red"}, "there is no column 'colour'"),
        ({"query": QUERY, "where": "duration > long"}, "can't be compared with 'long'"),
        ({"query": QUERY, "top": "1000"}, "top: "),
        ({"query": "x" * 1001}, "query: "),
    ],
)
def test_an_invalid_search_is_an_error(client: TestClient, parameters: dict[str, str], said: str) -> None:
    answer = client.get("/api/search", params=parameters)
    assert answer.status_code == 400
    assert said in answer.json()["error"]


@pytest.mark.parametrize("what", ["", "/like", "/audio", "/peaks"])
def test_a_clip_that_is_not_there(client: TestClient, what: str) -> None:
    answer = client.get(f"/api/clips/nobody-00000{what}")
    assert answer.status_code == 404
    assert "has no clip 'nobody-00000'" in answer.json()["error"]


def test_a_clip_finds_others_like_it(client: TestClient, searcher: Searcher, clip: str) -> None:
    answer = client.get(f"/api/clips/{clip}/like", params={"top": 5, "where": "series = Dvě ryby"}).json()
    hits = searcher.like_clip(clip, top=5, where=[Condition.parse("series = Dvě ryby")])
    assert answer["clip"] == shown(searcher.row(clip))
    assert [found["utterance_id"] for found in answer["clips"]] == [hit.utterance_id for hit in hits]


def test_a_recording_finds_itself_and_captions(
    client: TestClient, searcher: Searcher, version: CorpusVersion, clip: str
) -> None:
    answer = client.post("/api/sound?top=3", content=flac_of(version, clip), headers=BINARY).json()
    assert answer["clips"][0]["utterance_id"] == clip
    assert answer["clips"][0]["score"] == pytest.approx(1, abs=1e-3)
    assert answer["duration"] == pytest.approx(searcher.row(clip)["duration"], abs=0.01)
    wave, rate = decode_flac(flac_of(version, clip))
    expected = searcher.describe(searcher.embedded(wave, rate), top=5)
    assert [found["score"] for found in answer["captions"]] == pytest.approx([d.score for d in expected], abs=1e-3)


def test_a_recording_of_a_minute_and_a_second_is_refused(client: TestClient) -> None:
    sound = io.BytesIO()
    soundfile.write(sound, np.random.default_rng(0).normal(size=61 * 8000) / 10, 8000, format="WAV")
    answer = client.post("/api/sound", content=sound.getvalue(), headers=BINARY)
    assert (answer.status_code, answer.json()) == (
        400,
        {"error": "The file is too long: a recording to search with lasts at most 60 s. Cut it first."},
    )


@pytest.mark.parametrize(
    ("data", "said"), [(b"", "The file has 0 bytes"), (b"<html>" * 100, "no supported media format")]
)
def test_a_file_without_sound_is_refused(client: TestClient, data: bytes, said: str) -> None:
    answer = client.post("/api/sound", content=data, headers=BINARY)
    assert answer.status_code == 400
    assert said in answer.json()["error"]


def test_a_recording_is_not_taken_without_type_or_length_or_beyond_the_limit(client: TestClient) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"abc"

    assert client.post("/api/sound", content=b"abc", headers={"Content-Type": "text/plain"}).status_code == 415
    assert client.post("/api/sound", content=pieces(), headers=BINARY).status_code == 411
    large = client.post("/api/sound", content=b"\0" * (MAX_RECORDING_BYTES + 1), headers=BINARY)
    assert large.status_code == 413
    assert "the limit is 20 MB" in large.json()["error"]


def test_the_sound_of_a_clip(client: TestClient, version: CorpusVersion, clip: str) -> None:
    answer = client.get(f"/api/clips/{clip}/audio")
    assert answer.headers["content-type"] == "audio/flac"
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.content == flac_of(version, clip)
    tag = answer.headers["etag"]
    again = client.get(f"/api/clips/{clip}/audio", headers={"If-None-Match": tag})
    assert (again.status_code, again.content) == (304, b"")
    part = client.get(f"/api/clips/{clip}/audio", headers={"Range": "bytes=0-1", "If-Range": tag})
    assert (part.status_code, part.content) == (206, answer.content[:2])
    other = client.get(f"/api/clips/{clip}/audio", headers={"Range": "bytes=0-1", "If-Range": '"other"'})
    assert (other.status_code, other.content) == (200, answer.content)
    beyond = client.get(f"/api/clips/{clip}/audio", headers={"Range": f"bytes={len(answer.content)}-"})
    assert beyond.status_code == 416
    assert beyond.headers["content-range"] == f"bytes */{len(answer.content)}"


@pytest.mark.parametrize(
    ("asked", "part", "told"),
    [
        ("bytes=0-", b"0123456789", "bytes 0-9/10"),
        ("bytes=3-5", b"345", "bytes 3-5/10"),
        ("bytes=8-99", b"89", "bytes 8-9/10"),
        ("bytes=-3", b"789", "bytes 7-9/10"),
        ("bytes=-99", b"0123456789", "bytes 0-9/10"),
        ("bytes=0-1,4-5", b"0123456789", None),
        ("bytes=-", b"0123456789", None),
        ("lines=1-2", b"0123456789", None),
        (None, b"0123456789", None),
    ],
)
def test_ranges(asked: str | None, part: bytes, told: str | None) -> None:
    answer = ranged(b"0123456789", asked, media_type="audio/flac", headers={})
    assert bytes(answer.body) == part
    assert answer.status_code == (200 if told is None else 206)
    assert answer.headers.get("content-range") == told


def test_the_waveform_of_a_clip(client: TestClient, version: CorpusVersion, clip: str) -> None:
    answer = client.get(f"/api/clips/{clip}/peaks")
    wave, rate = decode_flac(flac_of(version, clip))
    assert answer.json() == {"duration": len(wave) / rate, "peaks": peaks(wave, 96)}
    again = client.get(f"/api/clips/{clip}/peaks", headers={"If-None-Match": answer.headers["etag"]})
    assert again.status_code == 304


def test_peaks() -> None:
    assert peaks(np.array([0, -0.5, 0.1, 0.2, 0, 0], dtype=np.float32), 3) == [1.0, 0.4, 0.0]
    assert peaks(np.zeros(10, dtype=np.float32), 2) == [0.0, 0.0]
    assert peaks(np.ones(1, dtype=np.float32), 3) == [1.0, 0.0, 0.0]


def test_a_clip_without_sound_is_an_error_without_a_traceback(searcher: Searcher, clip: str) -> None:
    def gone(ids: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        raise ValueError("shards of version 3 are gone")

    client = TestClient(make_app(searcher, gone, None), base_url=HERE, raise_server_exceptions=False)
    answer = client.get(f"/api/clips/{clip}/audio")
    assert (answer.status_code, answer.json()) == (500, {"error": "shards of version 3 are gone"})


def test_a_failure_of_the_server_reveals_no_details(searcher: Searcher, clip: str) -> None:
    def broken(ids: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        raise RuntimeError("secret")

    client = TestClient(make_app(searcher, broken, None), base_url=HERE, raise_server_exceptions=False)
    answer = client.get(f"/api/clips/{clip}/audio")
    assert (answer.status_code, answer.json()) == (500, {"error": "the server failed; its log says why"})


def test_only_an_address_that_a_browser_may_open_is_a_source() -> None:
    assert shown({"url": "https://example.org/1.mp4"})["source"] == "https://example.org/1.mp4"
    assert shown({"url": "javascript:alert(1)"})["source"] is None
    assert shown({"url": "file:///data/1.mp4"})["source"] is None
    assert shown({})["source"] is None
    assert shown({"attributes": {"pitch_hz": float("nan")}})["attributes"] == {"pitch_hz": None}


@pytest.mark.parametrize("path", ["/", "/map", "/judge", "/static/page.js", "/api/corpus", "/nowhere"])
def test_every_answer_keeps_strangers_out(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    assert "default-src 'self'" in headers["content-security-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"


def test_the_page_needs_nothing_from_elsewhere() -> None:
    for file in STATIC.iterdir():
        text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text, file
        assert "https://" not in text, file
        assert "innerHTML" not in text, file


def test_the_three_views_are_one_page(client: TestClient) -> None:
    pages = {client.get(path).text for path in ("/", "/map", "/judge")}
    assert len(pages) == 1
    assert client.get("/nowhere").json() == {"error": "Not Found"}


def test_a_password_is_asked_of_everybody(searcher: Searcher, version: CorpusVersion) -> None:
    client = TestClient(make_app(searcher, version.audio, None, password="pässword:1", hosts=("*",)))

    def status(authorization: str | None, path: str = "/api/corpus") -> int:
        return client.get(path, headers={"Authorization": authorization} if authorization else {}).status_code

    def basic(text: str) -> str:
        return f"Basic {base64.b64encode(text.encode()).decode()}"

    asked = client.get("/")
    assert asked.status_code == 401
    assert asked.headers["www-authenticate"].startswith("Basic ")
    assert status(basic("anybody:pässword:1")) == 200
    assert status(basic("anybody:pässword:1"), "/static/page.js") == 200
    for wrong in (None, basic("anybody:other"), basic("pässword:1"), basic(""), "Basic ???", "Bearer x"):
        assert status(wrong) == 401
        assert status(wrong, "/static/page.js") == 401


def test_another_name_for_this_machine_is_refused(client: TestClient) -> None:
    for host in ("127.0.0.1:8420", "localhost", "[::1]:8420"):
        assert client.get("/api/corpus", headers={"Host": host}).status_code == 200
    for host in ("evil.example", "127.0.0.1.evil.example:8420"):
        answer = client.get("/api/corpus", headers={"Host": host})
        assert answer.status_code == 400
        assert "evil.example" in answer.json()["error"]


@pytest.mark.parametrize(
    "host",
    ["evil.com:99999", "evil.com:0", "127.0.0.1:port", "127.0.0.1:8420:1", "a{b.evil.test", "[::1", "::1", "[::zz]", "",
     "127.0.0.1/@evil.com", "evil.com#127.0.0.1", "user@127.0.0.1", "127.0.0.1 ", "127.0.0.1:٣"],
)  # fmt: skip
def test_a_malformed_host_is_refused(client: TestClient, host: str) -> None:
    answer = client.get("/api/corpus", headers={"Host": host.encode()})
    assert (answer.status_code, "error" in answer.json()) == (400, True)


def test_the_host_is_read_whatever_its_case_and_form() -> None:
    assert host_of("LOCALHOST:80") == "localhost"
    assert host_of("[0:0:0:0:0:0:0:1]:8420") == "::1"


@pytest.mark.parametrize("path", ["/", "/map", "/static/page.js", "/api/corpus", "audio", "/nowhere"])
def test_head_is_get_without_its_content(client: TestClient, clip: str, path: str) -> None:
    path = f"/api/clips/{clip}/audio" if path == "audio" else path
    head, get = client.head(path), client.get(path)
    assert (head.status_code, head.headers, head.content) == (get.status_code, get.headers, b"")


def test_an_address_can_be_opened_as_it_is_printed() -> None:
    assert address("::1", 8420) == "http://[::1]:8420"
    assert address("127.0.0.1", 8420) == "http://127.0.0.1:8420"
    with listening("::1", 0) as place:
        port = place.getsockname()[1]
    assert port > 0
    with listening("127.0.0.1", 0) as place:
        place.listen()
        with pytest.raises(SearchError, match=r"in use.*another with --port"):
            listening("127.0.0.1", place.getsockname()[1])
    with pytest.raises(SearchError, match=r"http://no\.such\.host\.invalid:1 can't be served"):
        listening("no.such.host.invalid", 1)


@pytest.mark.parametrize(
    "origin", ["null", "http://", "http://[::1", "http://127.0.0.1.evil.example", "ftp://127.0.0.1", "http://a\\b", "x",
               "http://127.0.0.1:99999"],
)  # fmt: skip
def test_a_malformed_origin_is_refused_without_a_traceback(client: TestClient, origin: str) -> None:
    answer = client.post("/api/sound", content=b"x", headers=BINARY | {"Origin": origin})
    assert (answer.status_code, "may not send" in answer.json()["error"]) == (403, True)


def test_pages_of_others_may_not_send_anything(client: TestClient, version: CorpusVersion, clip: str) -> None:
    flac = flac_of(version, clip)
    foreign = client.post("/api/sound", content=flac, headers=BINARY | {"Origin": "https://evil.example"})
    assert foreign.status_code == 403
    assert client.post("/api/sound", content=flac, headers=BINARY | {"Origin": "null"}).status_code == 403
    assert client.post("/api/sound", content=flac, headers=BINARY | {"Origin": HERE}).status_code == 200


def test_others_are_let_in_only_with_a_password() -> None:
    assert "localhost" in allowed_hosts("127.0.0.1", None)
    assert "127.0.0.7" in allowed_hosts("127.0.0.7", None)
    assert allowed_hosts("0.0.0.0", "secret") == ("*",)
    for host in ("0.0.0.0", "::", "192.168.1.5", "studio.example", ""):
        for password in (None, ""):
            with pytest.raises(SearchError, match="FSCLAP_APP_PASSWORD"):
                allowed_hosts(host, password)


def test_the_encoder_is_loaded_before_anybody_asks(searcher: Searcher, version: CorpusVersion) -> None:
    embedded._sentence_model.cache_clear()
    fresh = Searcher(searcher.index, searcher.model, version.audio)  # which has no text encoded yet
    with TestClient(make_app(fresh, version.audio, None), base_url=HERE):
        assert embedded._sentence_model.cache_info().currsize == 1


@pytest.mark.slow
def test_fifty_people_at_once_are_all_answered(searcher: Searcher, version: CorpusVersion, clip: str) -> None:
    # Of each first hit the second 8 KiB are asked for, which the shortest clips don't have.
    sizes = {id_: len(flac) for id_, flac in version.audio(searcher.index.rows["utterance_id"].to_pylist())}
    long = np.array([sizes[id_] > 8192 for id_ in searcher.index.rows["utterance_id"].to_pylist()])
    assert long.sum() > 3
    index = dataclasses.replace(
        searcher.index, rows=searcher.index.rows.filter(pa.array(long)), vectors=searcher.index.vectors[long]
    )
    app = make_app(Searcher(index, searcher.model, version.audio), version.audio, None)
    with served(app) as address:
        found = measure(address, users=50, rounds=1, upload=flac_of(version, clip))
    assert found["errors"] == []
    assert found["requests"] == 50 * 7 + 5
