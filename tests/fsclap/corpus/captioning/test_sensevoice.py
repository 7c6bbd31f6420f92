"""SenseVoice-Small: what its outputs say, and that the tagger hears what FunASR's own pipeline does."""

import logging
import random
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from fsclap.corpus.captioning import load_tagger, sensevoice
from fsclap.corpus.captioning.base import CaptioningSettings, SenseVoiceSettings, Tags
from fsclap.corpus.captioning.grammar import load_grammar
from fsclap.corpus.captioning.sensevoice import (
    EMOTIONS,
    EVENTS,
    MEANS,
    TOKENIZER,
    SenseVoiceTagger,
    Transcription,
    dithered,
    parse,
)
from fsclap.devices import DeviceError
from fsclap.weights import WeightsError, WeightsSettings
from harness.models.sensevoice import CHECKPOINT, CONFIG, wave, write_sensevoice

# Of random weights' answers the best two can lie as near as rounding: in these clips, never nearer than 0.01.
CLIPS = [wave(seconds, seed=seed) for seed, seconds in ((0, 1.0), (12, 2.5), (3, 0.6), (18, 4.0), (46, 2.5), (17, 1.7))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sensevoice(tmp_path_factory.mktemp("models") / "sensevoice")


@pytest.fixture
def damaged(folder: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def make(folder: Path, **changed: Any) -> SenseVoiceTagger:
    weights = WeightsSettings(name="iic/SenseVoiceSmall", folder=folder)
    return SenseVoiceTagger(SenseVoiceSettings(**{"weights": weights, "min_confidence": 0.0, **changed}), device="cpu")


@pytest.fixture(scope="module")
def tagger(folder: Path) -> SenseVoiceTagger:
    return make(folder)


@pytest.mark.parametrize(
    ("output", "language", "emotion", "events", "text"),
    [
        ("<|en|><|HAPPY|><|Speech|><|withitn|>Hello there.", "en", "happy", (), "Hello there."),
        ("<|zh|><|NEUTRAL|><|Speech|><|withitn|>你好 世界。", "zh", "neutral", (), "你好世界。"),
        ("<|yue|><|SAD|><|BGM|><|woitn|>", "yue", "sad", ("music",), ""),
        ("<|ja|><|EMO_UNKNOWN|><|Speech|><|withitn|>はい", "ja", None, (), "はい"),
        ("<|ko|><|OTHER|><|Event_UNK|><|withitn|>네 맞아요", "ko", None, (), "네 맞아요"),
        ("<|en|><|ANGRY|><|Laughter|><|withitn|>no<|Cry|> no<|Laughter|>", "en", "angry", ("laughter", "cry"), "no no"),
        ("<|en|><|SAD|><|Speech|>so<|HAPPY|> be it", "en", "sad", (), "so be it"),
        ("<|nospeech|><|EMO_UNKNOWN|><|Event_UNK|><|withitn|>", None, None, (), ""),
        ("<|nospeech|><|HAPPY|><|Applause|><|withitn|>The.", None, None, ("applause",), "The."),
        ("<|nospeech|><|SAD|><|Sneeze|><|en|><|FEARFUL|><|Cough|>help", "en", "fearful", ("sneeze", "cough"), "help"),
        ("<|en|><|SAD|><|Speech|>one<|zh|><|HAPPY|><|Breath|>二", "en", "sad", ("breath",), "one 二"),
        ("<|zh|><|SAD|>一<|zh|><|SAD|>二", "zh", "sad", (), "一二"),
        ("<|en|><|Sing|><|Speech_Noise|><|GBG|>la", "en", None, (), "la"),
        ("<|de|><|BORED|><|Yodel|>ja", None, None, (), "ja"),
        ("no tags at all, a < b and c |> d", None, None, (), "no tags at all, a < b and c |> d"),
        ("  ", None, None, (), ""),
        ("", None, None, (), ""),
    ],
)
def test_outputs_are_read(
    output: str, language: str | None, emotion: str | None, events: Sequence[str], text: str
) -> None:
    assert parse(output) == Transcription(language, emotion, tuple(events), text)


def test_every_word_has_a_wording_in_the_caption_grammar() -> None:
    phrases = load_grammar().phrases
    assert set(EMOTIONS.values()) == set(phrases["emotion"])
    assert set(EVENTS.values()) == set(phrases["events"])


def test_every_tag_that_funasr_knows_is_known() -> None:
    from funasr.utils.postprocess_utils import emo_dict, event_dict, lang_dict

    assert {f"<|{tag}|>" for tag in EMOTIONS} == set(emo_dict)
    assert {f"<|{tag}|>" for tag in EVENTS} == set(event_dict) - {"<|Speech|>"}
    assert {f"<|{tag}|>" for tag in (*sensevoice.LANGUAGES, sensevoice.NO_SPEECH)} == set(lang_dict)


@pytest.fixture(scope="module")
def pipeline(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """FunASR's own, of the same folder. It sets threads, seeds and logging of the process: put back.

    It draws its noise anew for every frame: here none, and `dithered` clips.
    """
    from funasr import AutoModel

    folder = Path(shutil.copytree(folder, tmp_path_factory.mktemp("undithered") / "sensevoice"))
    config = yaml.safe_load((folder / CONFIG).read_text())
    config["frontend_conf"]["dither"] = 0.0
    (folder / CONFIG).write_text(yaml.safe_dump(config, sort_keys=False))
    threads, states, level = torch.get_num_threads(), (random.getstate(), np.random.get_state()), logging.root.level
    with torch.random.fork_rng(devices=[]):
        model = AutoModel(model=str(folder), device="cpu", disable_update=True, disable_pbar=True)
    torch.set_num_threads(threads)
    random.setstate(states[0])
    np.random.set_state(states[1])
    logging.root.setLevel(level)
    return model


@pytest.mark.parametrize("banned", [True, False])
@pytest.mark.parametrize("language", ["auto", "ja"])
def test_it_hears_what_funasr_hears(folder: Path, pipeline: Any, language: str, banned: bool) -> None:
    heard = make(folder, language=language, ban_emo_unk=banned).tag(CLIPS)
    for clip, tags in zip(CLIPS, heard, strict=True):
        threads = torch.get_num_threads()
        output = pipeline.generate(
            dithered(clip, 1.0), language=language, use_itn=True, ban_emo_unk=banned, ncpu=threads
        )
        torch.set_num_threads(threads)
        expected = parse(output[0]["text"])
        assert Transcription(tags.language, tags.emotion, tags.events, tags.text or "") == expected
    assert len({tags.emotion for tags in heard}) > 1
    assert all(tags.text and tags.language for tags in heard)
    assert all(tags.emotion for tags in heard) == banned


def test_the_confidence_is_the_softmax_of_the_logits_at_the_emotions_place(
    tagger: SenseVoiceTagger, pipeline: Any
) -> None:
    clip = CLIPS[1]
    network = pipeline.model
    features, lengths = pipeline.kwargs["frontend"](torch.from_numpy(dithered(clip, 1.0))[None], [len(clip)])
    with torch.inference_mode():
        queries = network.embed(torch.tensor([[0, 1, 2, 14]]))
        states, _ = network.encoder(torch.cat([queries, features], dim=1), lengths + 4)
        logits = network.ctc.log_softmax(states)[0, 1]
    emotions = logits[25001:25009]  # HAPPY to OTHER, without EMO_UNKNOWN
    (tags,) = tagger.tag([clip])
    assert tags.confidence == pytest.approx(float(emotions.softmax(0).max()), abs=1e-3)
    assert tags.emotion == list(EMOTIONS.values())[int(emotions.argmax())]


def test_an_emotion_that_is_not_sure_is_not_told_but_its_confidence_is(folder: Path, tagger: SenseVoiceTagger) -> None:
    told = tagger.tag(CLIPS)
    limit = float(np.median([tags.confidence for tags in told if tags.confidence is not None]))
    for tags, careful in zip(told, make(folder, min_confidence=limit).tag(CLIPS), strict=True):
        assert tags.confidence is not None
        assert careful == Tags(
            emotion=tags.emotion if tags.confidence >= limit else None,
            confidence=pytest.approx(tags.confidence),
            events=tags.events,
            language=tags.language,
            text=tags.text,
        )


def test_batches_change_nothing_beyond_rounding(folder: Path, tagger: SenseVoiceTagger) -> None:
    alone = [tagger.tag([clip])[0] for clip in CLIPS]
    for budget in (0.1, 6.0, 1000.0):
        for one, tags in zip(alone, make(folder, batch_seconds=budget).tag(CLIPS), strict=True):
            assert (tags.emotion, tags.events, tags.text) == (one.emotion, one.events, one.text)
            assert tags.confidence == pytest.approx(one.confidence, abs=1e-4)


def test_batches_keep_to_their_seconds(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[tuple[int, int]] = []
    tagger = make(folder, batch_seconds=6.0)
    read = tagger._read
    monkeypatch.setattr(
        tagger._batches, "_run", lambda items: sizes.append((len(items), max(map(len, items)))) or read(items)
    )
    tagger.tag(CLIPS)
    assert sum(count for count, _ in sizes) == len(CLIPS)
    assert 1 < len(sizes) < len(CLIPS)
    assert all(count * frames * 0.06 <= 6.5 for count, frames in sizes)


def test_a_batch_that_does_not_fit_is_halved(tagger: SenseVoiceTagger, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = tagger.tag(CLIPS)
    read = tagger._read

    def cramped(features: list[torch.Tensor]) -> list[Tags]:
        if len(features) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return read(features)

    monkeypatch.setattr(tagger._batches, "_run", cramped)
    monkeypatch.setattr(tagger._batches, "_limit", None)
    assert [tags.text for tags in tagger.tag(CLIPS)] == [tags.text for tags in expected]
    monkeypatch.setattr(tagger._batches, "_run", lambda _: (_ for _ in ()).throw(torch.OutOfMemoryError("full")))
    with pytest.raises(DeviceError, match=r"captioning\.sensevoice\.batch_seconds"):
        tagger.tag(CLIPS)


def test_the_same_clip_has_the_same_tags(tagger: SenseVoiceTagger) -> None:
    """FunASR's dither is drawn anew each time; ours is the same noise, of one unit of 16 bits."""
    assert tagger.tag(CLIPS) == tagger.tag(CLIPS)
    silence = dithered(np.zeros(16_000, dtype=np.float32), 1.0)
    assert silence.std() * 2**15 == pytest.approx(1.0, abs=0.03)
    assert np.array_equal(dithered(CLIPS[0], 0.0), CLIPS[0])


def test_nothing_is_heard_in_no_clip_or_less_than_a_frame(tagger: SenseVoiceTagger) -> None:
    assert tagger.tag([]) == []
    short = np.zeros(399, dtype=np.float32)
    found = tagger.tag([short, CLIPS[0], short[:0], np.zeros(400, dtype=np.float32)])
    assert found[0] == found[2] == Tags()
    assert found[1].text
    assert found[3].language


@pytest.mark.parametrize("clip", [np.zeros((2, 16_000), np.float32), np.full(16_000, np.nan, np.float32)])
def test_a_clip_that_is_no_wave_is_refused(tagger: SenseVoiceTagger, clip: np.ndarray) -> None:
    with pytest.raises(ValueError, match="clip 1: expected finite mono samples"):
        tagger.tag([CLIPS[0], clip])


def test_loading_leaves_the_process_as_it_is(folder: Path) -> None:
    def state() -> tuple[Any, ...]:
        generators = random.getstate(), repr(np.random.get_state()), torch.get_rng_state().tolist()
        return generators, torch.get_num_threads(), logging.root.level, list(logging.root.handlers)

    before = state()
    make(folder)
    assert state() == before


def test_the_engine_is_loaded_once_and_only_when_asked_for(folder: Path) -> None:
    weights = WeightsSettings(name="iic/SenseVoiceSmall", folder=folder)
    settings = CaptioningSettings(engine="sensevoice", sensevoice=SenseVoiceSettings(weights=weights))
    tagger = load_tagger(settings)
    assert tagger is not None
    assert load_tagger(CaptioningSettings(**settings.model_dump())) is tagger
    assert (tagger.name, tagger.sample_rate) == ("sensevoice", 16_000)
    assert tagger.revision.startswith("SenseVoiceSmall-")
    assert load_tagger(CaptioningSettings(engine="acoustic")) is None
    load_tagger.cache_clear()


def test_a_machine_without_the_device_is_refused(folder: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has the device")
    settings = SenseVoiceSettings(weights=WeightsSettings(name="iic/SenseVoiceSmall", folder=folder))
    with pytest.raises(DeviceError, match="device=cuda"):
        SenseVoiceTagger(settings, device="cuda")


def test_weights_that_are_not_there_are_asked_for(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"captioning\.sensevoice\.weights: .*iic/SenseVoiceSmall"):
        make(tmp_path / "nowhere")


@pytest.mark.parametrize("name", [CONFIG, CHECKPOINT, MEANS, TOKENIZER])
@pytest.mark.parametrize("how", ["gone", "empty", "half", "other"])
def test_a_damaged_file_is_an_error_that_names_it_or_its_folder(damaged: Path, name: str, how: str) -> None:
    path = damaged / name
    content = path.read_bytes()
    path.write_bytes({"gone": b"", "empty": b"", "half": content[: len(content) // 3], "other": b"?\xff!" * 500}[how])
    if how == "gone":
        path.unlink()
    told = rf"^captioning\.sensevoice\.weights: .*({re.escape(name)}|copy can't be read|copy holds the model None)"
    with pytest.raises(WeightsError, match=told):
        make(damaged)


def test_weights_of_another_size_are_refused_and_not_left_random(damaged: Path) -> None:
    config = yaml.safe_load((damaged / CONFIG).read_text())
    config["encoder_conf"]["linear_units"] = 96
    (damaged / CONFIG).write_text(yaml.safe_dump(config))
    with pytest.raises(WeightsError, match=r"another shape, such as encoder\.encoders0\.0\.feed_forward\.w_1"):
        make(damaged)


def test_weights_that_lack_a_tensor_are_refused(damaged: Path) -> None:
    state = torch.load(damaged / CHECKPOINT)
    del state["encoder.tp_norm.bias"]
    torch.save(state, damaged / CHECKPOINT)
    with pytest.raises(WeightsError, match=r"1 are missing .* encoder\.tp_norm\.bias"):
        make(damaged)


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model"])
def test_a_checkpoint_of_training_will_do(damaged: Path, tagger: SenseVoiceTagger, key: str) -> None:
    state = torch.load(damaged / CHECKPOINT)
    torch.save({key: {f"module.{name}": value for name, value in state.items()}, "epoch": 3}, damaged / CHECKPOINT)
    assert make(damaged).tag(CLIPS[:2]) == tagger.tag(CLIPS[:2])


class Trap:
    """What a pickle could run."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.proof,)


def test_code_in_a_checkpoint_is_not_run(damaged: Path, tmp_path: Path) -> None:
    torch.save({"state_dict": Trap(tmp_path / "proof")}, damaged / CHECKPOINT)
    with pytest.raises(WeightsError, match="Python code, which is never run"):
        make(damaged)
    assert not (tmp_path / "proof").exists()


@pytest.mark.parametrize("model", ["Paraformer", None])
def test_the_folder_of_another_model_is_refused(damaged: Path, model: str | None) -> None:
    (damaged / CONFIG).write_text(yaml.safe_dump({"model": model}))
    with pytest.raises(WeightsError, match=f"holds the model {model}, not SenseVoiceSmall"):
        make(damaged)


def test_a_tokenizer_without_the_tags_is_refused(damaged: Path) -> None:
    path = damaged / TOKENIZER
    path.write_bytes(path.read_bytes().replace(b"<|SURPRISED|>", b"<|SURPRISEX|>"))
    with pytest.raises(WeightsError, match="no token for SURPRISED"):
        make(damaged)
