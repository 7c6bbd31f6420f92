"""Captions: what they say follows from the measures, what they said can be read back, and they read as English."""

import itertools
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from fsclap.corpus.captioning.attributes import Attributes
from fsclap.corpus.captioning.base import CaptioningSettings, Tags
from fsclap.corpus.captioning.bins import SCALES, Bins, load_bins
from fsclap.corpus.captioning.describe import STYLE_ORDER, UNVOICED_WORDS, describe, revision, style, style_key
from fsclap.corpus.captioning.grammar import Grammar, caption, load_grammar

GRAMMAR = load_grammar()
ORDINARY = Attributes(
    pitch_hz=160.0,
    pitch_range_st=10.0,
    pitch_slope_st=0.0,
    energy_db=-20.0,
    energy_range_db=19.0,
    speaking_rate=3.4,
    pause_ratio=0.0,
    voiced_ratio=0.6,
    spectral_tilt_db=8.0,
    aperiodicity=0.45,
)


def words(a: Attributes, usual: Attributes = ORDINARY, **tags: object) -> dict[str, str]:
    return style(a, usual, bins=load_bins(None), **tags)


def random_style(rng: random.Random) -> dict[str, str]:
    """Any style that `style` can give."""
    chosen = {name: rng.choice(list(GRAMMAR.phrases[name])) for name in STYLE_ORDER if rng.random() < 0.5}
    chosen.pop("events", None)
    if rng.random() < 0.3:
        chosen["events"] = "+".join(sorted(rng.sample(list(GRAMMAR.phrases["events"]), rng.choice([1, 2, 3]))))
    if chosen.get("voice_quality") in UNVOICED_WORDS:
        for name in ("pitch", "pitch_range", "intonation", "timbre", "relative_pitch"):
            chosen.pop(name, None)
    return {name: chosen[name] for name in STYLE_ORDER if name in chosen}


def meanings(grammar: Grammar) -> dict[str, tuple[str, str]]:
    """Wording -> (attribute, word)."""
    return {
        wording: (name, word)
        for name, by_word in grammar.phrases.items()
        for word in by_word
        for _, wording in grammar.wordings(name, word)
    }


def read_back(text: str, meanings: Mapping[str, tuple[str, str]]) -> dict[str, str]:
    """The style that a caption tells: its wordings found from left to right, the longest that fits."""
    longest_first = sorted(meanings, key=len, reverse=True)
    wording = re.compile(r"(?<![\w-])(?:" + "|".join(map(re.escape, longest_first)) + r")(?![\w-])")
    found: dict[str, set[str]] = {}
    for match in wording.findall(text.lower()):
        name, word = meanings[match]
        found.setdefault(name, set()).add(word)
    return {name: "+".join(sorted(found[name])) for name in STYLE_ORDER if name in found}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({}, {}),
        ({"pitch_hz": 90.0, "aperiodicity": 0.55}, {"pitch": "very low", "relative_pitch": "lowered"}),
        ({"pitch_hz": 260.0, "aperiodicity": 0.4}, {"pitch": "very high", "relative_pitch": "raised"}),
        ({"pitch_range_st": 1.0}, {"pitch_range": "monotone"}),
        ({"pitch_range_st": 20.0}, {"pitch_range": "sweeping"}),
        ({"pitch_slope_st": -8.0}, {"intonation": "falling"}),
        ({"pitch_slope_st": 8.0}, {"intonation": "rising"}),
        ({"energy_db": -17.0}, {"energy": "loud"}),
        ({"energy_db": -27.0}, {"energy": "hushed"}),
        ({"energy_range_db": 10.0}, {"dynamics": "even"}),
        ({"energy_range_db": 30.0}, {"dynamics": "contrasted"}),
        ({"speaking_rate": 1.0}, {"speaking_rate": "very slow", "relative_rate": "slower"}),
        ({"speaking_rate": 6.0}, {"speaking_rate": "very fast", "relative_rate": "faster"}),
        ({"pause_ratio": 0.5}, {"pauses": "many"}),
        ({"aperiodicity": 0.05}, {"voice_quality": "clear"}),
        ({"aperiodicity": 0.95}, {"voice_quality": "husky"}),
        ({"spectral_tilt_db": -10.0}, {"timbre": "bright"}),
        ({"spectral_tilt_db": 30.0}, {"timbre": "dark"}),
    ],
)
def test_only_what_is_out_of_the_ordinary_is_told(change: dict[str, float], told: dict[str, str]) -> None:
    assert words(replace(ORDINARY, **change)) == {"pitch": "medium", **told}


def test_the_same_pitch_is_high_for_one_and_low_for_another() -> None:
    a = replace(ORDINARY, pitch_hz=200.0)
    assert words(a, replace(ORDINARY, pitch_hz=150.0)) == {"pitch": "high", "relative_pitch": "raised"}
    assert words(a, replace(ORDINARY, pitch_hz=270.0)) == {"pitch": "high", "relative_pitch": "lowered"}


def test_noise_is_judged_by_the_pitch_it_comes_with() -> None:
    noise = {hertz: replace(ORDINARY, pitch_hz=hertz, aperiodicity=0.57) for hertz in (100.0, 240.0)}
    assert "voice_quality" not in words(noise[100.0])
    assert words(noise[240.0])["voice_quality"] == "husky"


def test_a_whisper_has_no_words_that_depend_on_pitch() -> None:
    whisper = replace(ORDINARY, voiced_ratio=0.05, pitch_hz=300.0, pitch_range_st=30.0, speaking_rate=1.0)
    assert words(whisper) == {
        "speaking_rate": "very slow",
        "voice_quality": "whispered",
        "relative_rate": "slower",
    }


def test_a_clip_without_speech_is_inaudible() -> None:
    assert words(Attributes()) == {"voice_quality": "inaudible"}


def test_emotion_and_events_are_told_when_heard_and_never_invented() -> None:
    told = words(ORDINARY, emotion="sad", events=("laughter", "cough", "laughter"))
    assert told == {"emotion": "sad", "pitch": "medium", "events": "cough+laughter"}
    assert style_key(told) == "emotion=sad;pitch=medium;events=cough+laughter"
    assert "emotion" not in words(ORDINARY)


def test_every_word_of_every_scale_has_a_wording_and_no_other_word_has() -> None:
    for name, scale in SCALES.items():
        spoken = {word for word in scale.words if word} | (set(UNVOICED_WORDS) if name == "voice_quality" else set())
        assert set(GRAMMAR.phrases[name]) == spoken


def test_a_wording_belongs_to_one_word() -> None:
    count = sum(len(GRAMMAR.wordings(name, word)) for name, by_word in GRAMMAR.phrases.items() for word in by_word)
    assert len(meanings(GRAMMAR)) == count


def test_every_wording_and_every_frame_is_used() -> None:
    rng = random.Random(0)
    text = "\n".join(caption(random_style(rng), seed_text=str(i), grammar=GRAMMAR) for i in range(5000)).lower()
    assert [wording for wording in meanings(GRAMMAR) if wording not in text] == []
    frames = [frame for frames in GRAMMAR.frames.values() for frame in frames]
    patterns = {frame: re.sub(r"\\\{\w+\\\}", "[^.]+", re.escape(frame)) for frame in frames}
    assert [frame for frame, pattern in patterns.items() if not re.search(pattern, text)] == []


def test_a_caption_can_be_read_back_into_its_style() -> None:
    """Hence two clips share a caption only when they share every word."""
    rng = random.Random(1)
    known = meanings(GRAMMAR)
    for number in range(5000):
        told = random_style(rng)
        text = caption(told, seed_text=f"clip-{number}", grammar=GRAMMAR)
        assert read_back(text, known) == told, text


def test_styles_that_differ_never_share_a_caption() -> None:
    rng = random.Random(2)
    keys: dict[str, str] = {}
    for number, told in enumerate(random_style(rng) for _ in range(20_000)):
        text = caption(told, seed_text=f"{number % 7}", grammar=GRAMMAR)  # few seeds: the likeliest to collide
        assert keys.setdefault(text, style_key(told)) == style_key(told)


def test_captions_are_english_sentences() -> None:
    rng = random.Random(3)
    for number in range(5000):
        text = caption(random_style(rng), seed_text=str(number), grammar=GRAMMAR)
        assert re.fullmatch(r"(?:[A-Z][a-z',\- ]+\.)(?: [A-Z][a-z',\- ]+\.)*", text), text
        assert not re.search(r"  | [,.]|,,|,\.|\band and\b|[{}]", text), text
        assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", text, re.IGNORECASE), text
        assert 2 <= len(text.split()) <= 90, text


def test_a_style_is_worded_in_many_ways() -> None:
    told = {"pitch": "low", "energy": "soft", "speaking_rate": "slow", "pitch_range": "narrow"}
    assert len({caption(told, seed_text=str(i), grammar=GRAMMAR) for i in range(300)}) > 100


GOLDEN = [
    "Spoken quietly and at a slow pace, in a sad, low voice. For this speaker, it is lower in pitch than usual.",
    "A speaker with a sad, deep voice talks slowly and softly. For this speaker, it is lower in pitch than usual.",
    "Someone speaks unhurriedly and quietly, in a low voice. The speaker sounds sorrowful. Compared with this "
    "speaker's other lines, it is at a lower pitch.",
]


def test_the_wording_is_the_same_on_every_machine() -> None:
    """Written down once: a change here changes every caption of every corpus."""
    told = {"emotion": "sad", "pitch": "low", "energy": "soft", "speaking_rate": "slow", "relative_pitch": "lowered"}
    assert [caption(told, seed_text=f"0/golden-{i}", grammar=GRAMMAR) for i in range(3)] == GOLDEN


def test_a_word_without_wording_is_an_error_that_names_it() -> None:
    with pytest.raises(ValueError, match="no wording for emotion = 'bored'; it knows happy, sad"):
        caption({"pitch": "low", "emotion": "bored"}, seed_text="x", grammar=GRAMMAR)


def described(attributes: Sequence[Attributes], speakers: Sequence[str], **settings: object) -> list[dict[str, str]]:
    ids = [f"source-{i:05d}" for i in range(len(attributes))]
    tags = [Tags()] * len(ids)
    found = describe(attributes, speakers=speakers, tags=tags, ids=ids, settings=CaptioningSettings(**settings))
    return [description.style for description in found]


def test_each_clip_is_compared_with_its_own_speaker() -> None:
    low, high = replace(ORDINARY, pitch_hz=110.0), replace(ORDINARY, pitch_hz=230.0)
    raised = replace(low, pitch_hz=150.0)
    styles = described([low, low, low, raised, high, high, high], ["a"] * 4 + ["b"] * 3)
    assert [told.get("relative_pitch") for told in styles] == [None, None, None, "raised", None, None, None]
    assert styles[3]["pitch"] == "medium"


def test_a_speaker_heard_twice_has_no_usual_but_a_level_in_the_recording() -> None:
    shout = replace(ORDINARY, energy_db=-8.0, pitch_hz=300.0)
    styles = described([ORDINARY, ORDINARY, ORDINARY, shout, replace(shout, pitch_hz=150.0)], ["a"] * 3 + ["b"] * 2)
    assert [told.get("energy") for told in styles] == [None, None, None, "very loud", "very loud"]
    assert all("relative_pitch" not in told for told in styles[3:])
    assert "energy" not in described([shout], ["a"])[0]


def test_a_description_is_that_of_its_style_and_id() -> None:
    tags = [Tags(emotion="happy", confidence=0.9, events=("laughter",), language="en"), Tags()]
    attributes, ids = [ORDINARY, ORDINARY], ["s-00000", "s-00001"]
    settings = CaptioningSettings(seed=5)
    first, second = describe(attributes, speakers=["a", "a"], tags=tags, ids=ids, settings=settings)
    assert first.style == {"emotion": "happy", "pitch": "medium", "events": "laughter"}
    assert first.style_key == style_key(first.style)
    assert first.caption == caption(first.style, seed_text="5/s-00000", grammar=GRAMMAR)
    assert (first.caption_source, second.caption_source) == ("grammar", "grammar")
    assert "emotion" not in second.style


def test_another_seed_words_the_same_style_otherwise() -> None:
    attributes, speakers = [replace(ORDINARY, speaking_rate=1.0 + i / 12) for i in range(60)], ["a"] * 60
    ids, tags = [str(i) for i in range(60)], [Tags()] * 60
    one, two = (
        describe(attributes, speakers=speakers, tags=tags, ids=ids, settings=CaptioningSettings(seed=seed))
        for seed in (0, 1)
    )
    assert [a.style for a in one] == [b.style for b in two]
    assert sum(a.caption != b.caption for a, b in zip(one, two, strict=True)) > 45


def test_lists_that_do_not_match_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        describe([ORDINARY], speakers=["a"], tags=[Tags()], ids=[], settings=CaptioningSettings())


def test_the_revision_follows_the_edges_and_nothing_else(tmp_path: Path) -> None:
    reference = load_bins(None)
    moved = {**reference.edges, "timbre": (0.0, 1.0)}
    for name, bins in {"same": Bins(edges=reference.edges), "moved": Bins(edges=moved)}.items():
        bins.save(tmp_path / name)
    plain, same, other = (
        revision(CaptioningSettings(bins=path)) for path in (None, tmp_path / "same", tmp_path / "moved")
    )
    assert plain == same != other


def test_every_pair_of_words_reads_back() -> None:
    """Neighbours in a sentence could make a third wording between them: try all that can meet."""
    known = meanings(GRAMMAR)
    told_words = [(name, word) for name, by_word in GRAMMAR.phrases.items() for word in by_word]
    for (name, word), (other, second) in itertools.combinations(told_words, 2):
        if name != other:
            told = {name: word, other: second}
            expected = {key: told[key] for key in STYLE_ORDER if key in told}
            text = caption(told, seed_text=word + second, grammar=GRAMMAR)
            assert read_back(text, known) == expected, text
