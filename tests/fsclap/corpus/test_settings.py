"""From a profile to engines, and from settings to what a cache key is made of."""

import pytest
from pydantic import ValidationError

from fsclap.corpus.separation.base import SeparationSettings
from fsclap.corpus.settings import BuildSettings, shaping, weights_in_use


@pytest.mark.parametrize(
    ("profile", "engines"),
    [
        ("embedded", ("spleeter", "whisper-resemblyzer", "acoustic")),
        ("full", ("demucs", "funasr", "sensevoice")),
    ],
)
def test_a_profile_picks_the_engines(profile: str, engines: tuple[str, ...]) -> None:
    settings = BuildSettings.model_validate({"profile": profile}).resolved()
    assert (settings.engine("separation"), settings.engine("diarization"), settings.engine("captioning")) == engines


def test_the_default_is_the_embedded_profile_on_the_cpu() -> None:
    assert BuildSettings().resolved().engine("separation") == "spleeter"
    assert BuildSettings().resolved().captioning.device == "cpu"


def test_the_defaults_name_no_engine_so_that_a_form_filled_in_from_them_heeds_the_profile() -> None:
    form = BuildSettings().model_dump(mode="json")
    chosen = BuildSettings.model_validate(form | {"profile": "full", "device": "cuda"}).resolved()
    assert (chosen.engine("separation"), chosen.diarization.device) == ("demucs", "cuda")
    with pytest.raises(ValueError, match=r"use settings\.resolved\(\)"):
        BuildSettings().engine("captioning")


def test_an_engine_of_its_own_and_a_device_of_its_own_stay() -> None:
    settings = BuildSettings.model_validate(
        {"profile": "full", "device": "cuda", "separation": {"engine": "spleeter", "device": "cpu"}}
    ).resolved()
    assert (settings.engine("separation"), settings.separation.device) == ("spleeter", "cpu")
    assert (settings.engine("diarization"), settings.diarization.device) == ("funasr", "cuda")
    mixed = BuildSettings(profile="full", device="cuda", separation=SeparationSettings(batch=7)).resolved().separation
    assert (mixed.engine, mixed.device, mixed.batch) == ("demucs", "cuda", 7)


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
        ({"device": ""}, "device"),
        ({"selection": {"min_quality": 3.0}}, "set quality.engine to dnsmos"),
        ({"diarization": {"engine": "whisper-resemblyzer", "language": "zh"}}, "knows English only"),
        ({"diarization": {"language": "zh"}}, "knows English only"),
    ],
)
def test_what_cannot_be_is_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        BuildSettings.model_validate(given)


def stage(**given: object) -> SeparationSettings:
    return BuildSettings.model_validate({"separation": given}).resolved().separation


@pytest.mark.parametrize(
    "other",
    [
        {"device": "cuda"},
        {"batch": 16},
        {"demucs": {"weights": {"name": "mine", "folder": "/models/mine", "revision": "v2", "hub": "modelscope"}}},
    ],
)
def test_how_a_stage_runs_is_not_what_it_finds(other: dict[str, object]) -> None:
    assert shaping(stage(engine="demucs", **other)) == shaping(stage(engine="demucs"))


def test_only_the_engine_that_runs_shapes_the_output() -> None:
    changed = {"demucs": {"overlap": 0.5}}
    assert shaping(stage(engine="spleeter", **changed)) == shaping(stage(engine="spleeter"))
    assert shaping(stage(engine="demucs", **changed)) != shaping(stage(engine="demucs"))
    assert shaping(stage(engine="spleeter")) != shaping(stage(engine="demucs"))


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
    mixed = BuildSettings.model_validate({"profile": "full", "diarization": {"engine": "whisper-resemblyzer"}})
    assert not [setting for setting in weights_in_use(mixed) if setting.startswith("diarization")]
