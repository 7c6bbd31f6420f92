"""From a profile to engines, and which settings shape a result."""

from collections.abc import Iterator
from typing import Any, get_args

import pytest
from pydantic import BaseModel, ValidationError

from fsclap.corpus.cluster import RaySettings
from fsclap.corpus.separation.base import SeparationSettings
from fsclap.corpus.settings import BuildSettings, weights_in_use
from fsclap.settings import complete, is_execution, shaping

MINE = {"name": "mine", "folder": "/models/mine", "revision": "v2", "hub": "modelscope"}
EXECUTION: dict[str, Any] = {
    "fan_out": "pool",
    "batches_ahead": 2,
    "ray.address": "ray://head:10001",
    "ray.cpus": 4,
    "ray.gpus": 0.5,
    "disk.work_files": "drop",
    "disk.reserve_gb": 1,
    "device": "cuda",
    "batch_episodes": 3,
    "refused_percent": 20.0,
    "download.private_addresses": True,
    "download.cookies": "cookies.txt",
    "download.limits.max_megabytes": 1,
    "download.limits.max_episodes": 1,
    "download.limits.parallel": 1,
    "download.limits.timeout": 1,
    "download.limits.socket_timeout": 1,
    "download.limits.connection_retries": 1,
    "download.limits.fetch_again": True,
    "decode.timeout": 1,
    "separation.batch": 16,
    "separation.demucs.weights": MINE,
    "diarization.funasr.asr": MINE,
    "diarization.funasr.vad": MINE,
    "diarization.funasr.punc": MINE,
    "diarization.funasr.speaker": MINE,
    "diarization.funasr.batch_seconds": 300,
    "quality.threads": 4,
    "captioning.sensevoice.weights": MINE,
    "captioning.sensevoice.batch_seconds": 300,
    "captioning.rewriter.api_key_env": "KEY",
    "captioning.rewriter.timeout": 1,
    "captioning.rewriter.concurrency": 1,
    "captioning.rewriter.on_error": "keep",
}
"""Every field that no result depends on, and another value for it.

Weights are here because the revision of the files that were loaded is part of a cache key; their name and place are
not.
"""
SHAPING: dict[str, Any] = {
    "download.format": "worst",
    "decode.min_duration": 1,
    "decode.max_duration": 60,
    "decode.silence_dbfs": -50,
    "decode.max_invalid_share": 0.1,
    "decode.track": 2,
    "separation.engine": "spleeter",
    "separation.speech_only": True,
    "separation.demucs.model": "htdemucs",
    "separation.demucs.overlap": 0.5,
    "separation.demucs.half": True,
    "loudness.target_lufs": -23,
    "loudness.peak_dbfs": -2,
    "diarization.engine": "whisper-campplus",
    "diarization.language": "en",
    "diarization.speakers": 2,
    "diarization.events": True,
    "diarization.min_turn": 0.5,
    "diarization.max_turn": 10,
    "diarization.merge_gap": 0.2,
    "diarization.whisper_campplus.window": 2,
    "diarization.whisper_campplus.speech_threshold": 0.5,
    "diarization.whisper_campplus.change_threshold": 0.5,
    "diarization.whisper_campplus.one_speaker": 0.5,
    "diarization.whisper_campplus.min_speaker": 2,
    "diarization.whisper_campplus.max_speakers": 2,
    "diarization.whisper_campplus.least_confidence": 0.7,
    "diarization.funasr.merge_threshold": 0.5,
    "quality.engine": "none",
    "selection.min_duration": 1,
    "selection.max_duration": 9,
    "selection.languages": ["en"],
    "selection.max_overlap": 0.1,
    "selection.min_quality": 3,
    "consistency.threshold": 0.5,
    "consistency.compared_with": "core",
    "consistency.scale": "cosine",
    "consistency.singletons": "keep",
    "captioning.engine": "acoustic",
    "captioning.sensevoice.language": "en",
    "captioning.sensevoice.ban_emo_unk": False,
    "captioning.sensevoice.min_confidence": 0.9,
    "captioning.bins": "bins.json",
    "captioning.seed": 1,
    "captioning.rewriter.base_url": "http://localhost:9/v1",
    "captioning.rewriter.model": "other",
    "captioning.rewriter.max_words": 20,
    "linking.enabled": False,
    "linking.threshold": 0.5,
}
"""Every other field of a stage, and another value for it."""


def fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, bool]]:
    """The dotted name of each field of a tree of settings, and whether it is marked `execution`."""
    for name, field in model.model_fields.items():
        types = (field.annotation, *get_args(field.annotation))
        group = next((kind for kind in types if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
        if group is None or is_execution(field):
            yield prefix + name, is_execution(field)
        else:
            yield from fields(group, f"{prefix}{name}.")


def settings_with(name: str, value: Any | None = None) -> BuildSettings:
    """Resolved settings in which the engine that reads a field runs; with another value for the field, if given."""
    embedded = name.startswith("diarization.whisper_campplus")
    values = complete(
        BuildSettings.model_validate(
            {
                "profile": "embedded" if embedded else "full",
                "quality": {"engine": "dnsmos"},
                "captioning": {"rewriter": {"base_url": "http://localhost:8/v1", "model": "some"}},
            }
        ).resolved()
    )
    *groups, leaf = name.split(".")
    group = values
    for part in groups:
        group = group[part]
    if value is not None:
        assert group[leaf] != value
        group[leaf] = value
    return BuildSettings.model_validate(values)


def test_every_mark_is_a_conscious_choice() -> None:
    marked = dict(fields(BuildSettings))
    assert {name for name, execution in marked.items() if execution} == set(EXECUTION)
    assert {name for name, execution in marked.items() if not execution} == {"profile", *SHAPING}


@pytest.mark.parametrize("name", [name for name in EXECUTION if "." in name])
def test_execution_settings_stay_out_of_the_cache_key(name: str) -> None:
    stage = name.partition(".")[0]
    before, after = (getattr(settings_with(name, value), stage) for value in (None, EXECUTION[name]))
    assert before != after
    assert shaping(before) == shaping(after)


@pytest.mark.parametrize("name", SHAPING)
def test_every_other_setting_changes_the_cache_key(name: str) -> None:
    stage = name.partition(".")[0]
    before, after = (getattr(settings_with(name, value), stage) for value in (None, SHAPING[name]))
    assert shaping(before) != shaping(after)


@pytest.mark.parametrize("profile", ["embedded", "full"])
def test_complete_settings_round_trip(profile: str) -> None:
    settings = BuildSettings.model_validate({"profile": profile}).resolved()
    spelled = complete(settings)
    assert BuildSettings.model_validate(spelled) == settings
    assert spelled["download"]["limits"]["max_episodes"] == 10_000
    assert spelled["decode"]["min_duration"] == 0.5


def test_rarely_set_groups_survive_json() -> None:
    settings = BuildSettings.model_validate({"decode": {"min_duration": 2}, "download": {"limits": {"parallel": 1}}})
    dumped = settings.model_dump(mode="json")
    assert (dumped["decode"]["min_duration"], dumped["download"]["limits"]["parallel"]) == (2, 1)
    assert dumped["loudness"] is None
    assert BuildSettings.model_validate_json(settings.model_dump_json()) == settings


def test_a_form_shows_rarely_set_groups_folded() -> None:
    schema = BuildSettings.model_json_schema()
    folded = [name for name, field in schema["properties"].items() if {"type": "null"} in field.get("anyOf", [])]
    assert folded == ["ray", "disk", "decode", "loudness", "quality", "selection", "consistency", "linking"]
    assert all(schema["properties"][name]["default"] is None for name in folded)
    assert all(schema["properties"][name]["description"] for name in folded)


@pytest.mark.parametrize(
    ("profile", "engines"),
    [
        ("embedded", ("spleeter", "whisper-campplus", "acoustic")),
        ("full", ("demucs", "funasr", "sensevoice")),
    ],
)
def test_a_profile_picks_the_engines(profile: str, engines: tuple[str, ...]) -> None:
    settings = BuildSettings.model_validate({"profile": profile}).resolved()
    assert (settings.engine("separation"), settings.engine("diarization"), settings.engine("captioning")) == engines
    assert (settings.separation.engine, settings.diarization.engine, settings.captioning.engine) == engines


def test_the_default_is_the_embedded_profile_on_the_cpu() -> None:
    assert BuildSettings().engine("separation") == "spleeter"
    assert BuildSettings().device == "cpu"


def test_the_defaults_name_no_engine_so_that_a_form_filled_in_from_them_heeds_the_profile() -> None:
    form = BuildSettings().model_dump(mode="json")
    assert form["separation"]["engine"] is None
    assert BuildSettings.model_validate(form | {"profile": "full"}).resolved().separation.engine == "demucs"


def test_an_engine_that_is_named_stays() -> None:
    settings = BuildSettings.model_validate({"profile": "full", "separation": {"engine": "spleeter"}}).resolved()
    assert (settings.separation.engine, settings.diarization.engine) == ("spleeter", "funasr")
    mixed = BuildSettings(profile="full", separation=SeparationSettings(batch=7)).resolved().separation
    assert (mixed.engine, mixed.batch) == ("demucs", 7)


def test_a_dump_says_which_engines_ran_and_is_read_back_alike() -> None:
    settings = BuildSettings.model_validate({"profile": "full", "device": "cuda:1"}).resolved()
    dumped = settings.model_dump(mode="json")
    assert dumped["captioning"]["engine"] == "sensevoice"
    assert BuildSettings.model_validate(dumped) == settings
    assert BuildSettings.model_validate(dumped | {"profile": "embedded"}).engine("captioning") == "sensevoice"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"profile": "huge"}, "profile"),
        ({"separation": {"engine": "umx"}}, r"separation\.engine"),
        ({"separation": 3}, "separation"),
        ({"separation": {"device": "cuda"}}, r"separation\.device"),
        ({"device": ""}, "device"),
        ({"selection": {"min_quality": 3.0}}, "set quality.engine to dnsmos"),
        ({"diarization": {"engine": "whisper-campplus", "language": "zh"}}, "knows English only"),
        ({"diarization": {"language": "zh"}}, "knows English only"),
    ],
)
def test_what_cannot_be_is_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        BuildSettings.model_validate(given)


def test_ray_is_refused_where_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fsclap.corpus.settings.ray_is_installed", lambda: False)
    with pytest.raises(ValidationError, match=r"not installed here: pip install 'fsclap\[ray\]'"):
        BuildSettings(fan_out="ray")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"device": "cuda:1"}, "device=cuda:1: with fan_out=ray write cpu or cuda"),
        ({"ray": {"gpus": 0.5}}, "ray.gpus=0.5 is for device=cuda"),
        ({"device": "cuda", "ray": {"gpus": 2}}, "less than or equal to 1"),
        ({"ray": {"cpus": 0}}, "greater than or equal to 1"),
        ({"ray": {"adress": "x:1"}}, "adress"),
    ],
)
def test_what_ray_cannot_give_a_batch_is_refused(
    given: dict[str, object], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fsclap.corpus.settings.ray_is_installed", lambda: True)
    with pytest.raises(ValidationError, match=message):
        BuildSettings.model_validate({"fan_out": "ray", **given})


def test_a_cluster_is_that_of_the_settings_or_of_ray_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert RaySettings().cluster() is None
    monkeypatch.setenv("RAY_ADDRESS", "other:6379")
    assert RaySettings().cluster() == "other:6379"
    assert RaySettings(address="mine:6379").cluster() == "mine:6379"


def test_only_the_engine_that_runs_shapes_the_output() -> None:
    def stage(**given: object) -> dict[str, Any]:
        return shaping(SeparationSettings.model_validate(given))

    changed = {"demucs": {"overlap": 0.5}}
    assert stage(engine="spleeter", **changed) == stage(engine="spleeter")
    assert stage(engine="demucs", **changed) != stage(engine="demucs")
    assert stage(engine="spleeter") != stage(engine="demucs")


def test_the_weights_of_the_engines_that_run() -> None:
    assert weights_in_use(BuildSettings()) == {}
    assert set(weights_in_use(BuildSettings(profile="full"))) == {
        "separation.demucs.weights",
        "diarization.funasr.asr",
        "diarization.funasr.vad",
        "diarization.funasr.punc",
        "diarization.funasr.speaker",
        "captioning.sensevoice.weights",
    }
    mixed = BuildSettings.model_validate({"profile": "full", "diarization": {"engine": "whisper-campplus"}})
    assert not [setting for setting in weights_in_use(mixed) if setting.startswith("diarization")]
