"""From measured attributes to a description: numbers -> words (the style) -> sentences (the caption).

A style holds a word for the pitch and for whatever else is out of the ordinary. An attribute in the middle of
its range, or not measured, has no word: the style is silent on it, and so is the caption. The caption can
therefore be read back into its style: two clips share a caption only when they share every word.
"""

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal, Protocol, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from fsclap import Hertz
from fsclap.corpus.attributes import Attributes
from fsclap.corpus.bins import SCALES, Bins, load_bins, mean, measures
from fsclap.corpus.rewriter import RewriteError, RewriterSettings, rewrite
from fsclap.weights import WeightsSettings

log = logging.getLogger(__name__)

GRAMMAR_SOURCE = "grammar"
"""`caption_source` of a caption that no rewriter touched."""

GRAMMAR_FILE = Path(__file__).with_name("grammar.json")

Slot = Literal["mood", "voice", "how", "with", "than", "sound"]
UNVOICED_WORDS = ("whispered", "inaudible")
STYLE_ORDER = ("emotion", *SCALES, "events")


@dataclass(frozen=True, slots=True)
class Tags:
    """What an emotion engine heard in one clip.

    Attributes:
        emotion: A word of the grammar's; None when the engine did not tell, or was not sure: never a guess.
        confidence: Probability of the emotion that it found likeliest, 0 to 1, also when that is not told; None
            when it found none.
        events: Words of the grammar's, in the order in which they were first heard.
        language: ISO 639-1 (yue, Cantonese: ISO 639-3); None: unknown, or no speech.
        text: The engine's own transcript; None when it makes none.
    """

    emotion: str | None = None
    confidence: float | None = None
    events: tuple[str, ...] = ()
    language: str | None = None
    text: str | None = None


class EmotionTagger(Protocol):
    """An engine that hears emotion and events. Its words are those of the grammar's `emotion` and `events`.

    Attributes:
        name: The engine, as in `CaptioningSettings.engine`.
        revision: Which weights it runs; differs whenever they do.
        sample_rate: The rate it wants its clips at.
    """

    name: str
    revision: str
    sample_rate: Hertz

    def tag(self, clips: Sequence[np.ndarray]) -> list[Tags]:
        """What each clip sounds like; an engine batches over all that it is given.

        Args:
            clips: Each (samples,) float32 mono in [-1, 1] at `sample_rate`.

        Returns:
            One `Tags` a clip, in order.
        """
        ...


class SenseVoiceSettings(BaseModel):
    """Emotion, events and language by SenseVoice-Small."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weights: WeightsSettings = Field(
        WeightsSettings(name="iic/SenseVoiceSmall"), description="Which weights, and where they are"
    )
    language: Literal["auto", "zh", "en", "yue", "ja", "ko"] = Field(
        "auto", description="Language of all the speech, where it is known; auto: told clip by clip"
    )
    ban_emo_unk: bool = Field(
        True,
        description='Choose among the emotions even where "unknown" is likelier. It is so for most clips; how sure '
        "the choice is, min_confidence judges",
    )
    min_confidence: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Probability below which an emotion is not told. 0.5: it is likelier than all others together",
    )
    batch_seconds: float = Field(
        120.0,
        gt=0,
        description="Seconds of speech, with padding, that go through the network together. Memory grows with it: "
        "some 2 MB a second; a GPU is faster with more, a CPU gains nothing above 60",
    )


class CaptioningSettings(BaseModel):
    """How utterances are described."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: Literal["acoustic", "sensevoice"] | None = Field(
        None,
        description="acoustic: from measured attributes alone; the emotion stays null. sensevoice: emotion and events "
        "too, heard by SenseVoice-Small. None: what the profile names (embedded: acoustic, full: sensevoice)",
    )
    device: str | None = Field(
        None,
        min_length=1,
        description="Where SenseVoice-Small runs, as PyTorch names it: cpu, cuda, cuda:1; the rest is arithmetic. "
        "None: where the build says",
    )
    sensevoice: SenseVoiceSettings = Field(
        default_factory=SenseVoiceSettings, description="Used by the engine sensevoice alone"
    )
    bins: Path | None = Field(
        None, description="JSON written by Bins.save; none: the reference bins that come with the package"
    )
    seed: int = Field(0, ge=0, description="Another seed words the same styles otherwise")
    min_speaker_clips: int = Field(
        3, ge=2, description="Clips a speaker needs before one is compared with what is usual for them"
    )
    min_voiced_ratio: float = Field(
        0.1, ge=0, le=1, description="Share of voiced speech below which a clip is described as whispered"
    )
    rewriter: RewriterSettings | None = Field(None, description="Rewrites each caption; none: leave it as is")


@lru_cache(maxsize=1)
def load_tagger(settings: CaptioningSettings) -> EmotionTagger | None:
    """The engine that hears emotion, loaded once in a process; None where captions are from attributes alone.

    Raises:
        WeightsError: Its weights are missing, damaged or another model's.
        DeviceError: The machine has no such device.
    """
    if settings.engine != "sensevoice":
        return None
    # Inside, since an engine brings in PyTorch, which whoever only reads the settings does not need.
    from fsclap.corpus.engines.sensevoice import SenseVoiceTagger

    return SenseVoiceTagger(settings.sensevoice, device=settings.device or "cpu")


@dataclass(frozen=True, slots=True)
class Description:
    """A caption, the style it tells, and who worded it: "grammar" or the rewriter's model."""

    style: dict[str, str]
    style_key: str
    caption: str
    caption_source: str


def style(
    attributes: Attributes,
    speaker_mean: Attributes,
    *,
    bins: Bins,
    min_voiced_ratio: float,
    emotion: str | None = None,
    events: Sequence[str] = (),
) -> dict[str, str]:
    """The words for one utterance, in `STYLE_ORDER`.

    Args:
        attributes: Of the utterance.
        speaker_mean: What is usual for its speaker; attributes that are None there are not compared.
        bins: Where a word ends and the next begins.
        min_voiced_ratio: Below it the clip is "whispered" and has no word that depends on its pitch.
        emotion, events: As tagged; several events are sorted and joined by "+".
    """
    voiced = attributes.voiced_ratio
    whispered = voiced is not None and voiced < min_voiced_ratio
    if whispered:
        attributes = _unvoiced(attributes)
    values = measures(attributes, speaker_mean)
    words = {name: bins.word(name, value) for name, value in values.items()}
    words["emotion"] = emotion
    words["events"] = "+".join(sorted(set(events)))
    if voiced is None or whispered:
        words["voice_quality"] = "whispered" if whispered else "inaudible"
    return {name: word for name in STYLE_ORDER if (word := words[name])}


def _unvoiced(attributes: Attributes) -> Attributes:
    pitched = dict.fromkeys(("pitch_hz", "pitch_range_st", "pitch_slope_st", "aperiodicity", "spectral_tilt_db"))
    return Attributes(**{**asdict(attributes), **pitched})


def style_key(style: Mapping[str, str]) -> str:
    """The style as one string; equal styles have equal keys: "pitch=low;energy=soft"."""
    return ";".join(f"{name}={style[name]}" for name in STYLE_ORDER if name in style)


class Grammar(BaseModel):
    """The wording.

    Attributes:
        phrases: attribute -> word -> slot of the sentence -> wordings. A wording belongs to one word only.
        frames: The sentences around the slots.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    phrases: dict[str, dict[str, dict[Slot, tuple[str, ...]]]]
    frames: dict[str, tuple[str, ...]]

    def wordings(self, name: str, word: str) -> list[tuple[Slot, str]]:
        """Every (slot, wording) of a style word.

        Raises:
            ValueError: The grammar has no wording for it.
        """
        slots = self.phrases.get(name, {}).get(word)
        if not slots:
            known = ", ".join(self.phrases.get(name, {})) or "nothing"
            raise ValueError(f"the caption grammar has no wording for {name} = {word!r}; it knows {known}")
        return [(slot, phrase) for slot, phrases in slots.items() for phrase in phrases]


@lru_cache(maxsize=1)
def load_grammar() -> Grammar:
    """The grammar that comes with the package."""
    return Grammar.model_validate_json(GRAMMAR_FILE.read_bytes())


def caption(style: Mapping[str, str], *, seed_text: str, grammar: Grammar) -> str:
    """Word a style: one to five sentences, the same for the same style, seed text and grammar anywhere.

    Raises:
        ValueError: The grammar has no wording for a word of the style (say, an event it does not know).
    """
    slots = _fill(style, seed_text, grammar)
    if slots["mood"] and _pick(2, seed_text, "mood"):
        slots["voice"] = slots["mood"] + slots["voice"]
        slots["mood"] = []
    near = 1 + _pick(2, seed_text, "with")
    slots["with"], with_opening = slots["with"][near:], slots["with"][:near]
    sentences = [_opening(slots, with_opening, seed_text=seed_text, grammar=grammar)]
    for slot in ("with", *_shuffled(("mood", "than", "sound"), seed_text)):
        if slots[slot]:
            sentences.append(_frame(grammar, slot, seed_text).format(**{slot: _join(slots[slot])}))
    return " ".join(f"{sentence[0].upper()}{sentence[1:]}." for sentence in sentences)


def _opening(slots: Mapping[str, Sequence[str]], features: Sequence[str], *, seed_text: str, grammar: Grammar) -> str:
    frame = _frame(grammar, "opening_how" if slots["how"] else "opening", seed_text)
    manner = sorted(slots["how"], key=lambda how: how.count(" "))  # "slowly and in hushed tones"
    opening = frame.format(voice=_noun_phrase(slots["voice"]), how=_join(manner))
    return f"{opening}, with {_join(features)}" if features else opening


def _fill(style: Mapping[str, str], seed_text: str, grammar: Grammar) -> dict[str, list[str]]:
    """A wording for each word of the style, by the slot it goes to, in an order of the seed's."""
    slots: dict[str, list[str]] = {slot: [] for slot in get_args(Slot)}
    for name in _shuffled(style, seed_text):
        for word in style[name].split("+"):
            options = grammar.wordings(name, word)
            slot, phrase = options[_pick(len(options), seed_text, f"{name}={word}")]
            slots[slot].append(phrase)
    return slots


def _pick(count: int, seed_text: str, purpose: str) -> int:
    """0 to count - 1, by a hash: the same on every machine and version of Python."""
    digest = hashlib.blake2b(f"{seed_text}\n{purpose}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % count


def _shuffled(names: Iterable[str], seed_text: str) -> list[str]:
    return sorted(names, key=lambda name: (_pick(2**32, seed_text, f"order of {name}"), name))


def _frame(grammar: Grammar, name: str, seed_text: str) -> str:
    frames = grammar.frames[name]
    return frames[_pick(len(frames), seed_text, f"frame of {name}")]


def _join(items: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(items[:-1]), *items[-1:]]))


def _noun_phrase(adjectives: Sequence[str]) -> str:
    phrase = f"{', '.join(adjectives)} voice".strip()
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def describe(
    attributes: Sequence[Attributes],
    *,
    speakers: Sequence[str],
    tags: Sequence[Tags],
    ids: Sequence[str],
    settings: CaptioningSettings,
) -> list[Description]:
    """Describe the utterances of one recording, each against its speaker's others.

    A speaker with fewer than `min_speaker_clips` has no "usual": their pitch and pace are not compared, and
    their level is compared with that of the recording. Pure, unless the settings name a rewriter.

    Args:
        attributes: One an utterance; level is comparable within the recording.
        speakers: Label of each utterance's speaker.
        tags: Of each; `Tags()` where no engine listens for emotion.
        ids: Of each; the wording is drawn by it.

    Returns:
        One description an utterance, in order.

    Raises:
        ValueError: The sequences differ in length, or a tag has no wording.
        RewriteError: The rewriter failed and its settings say `on_error: raise`.
    """
    bins, grammar = load_bins(settings.bins), load_grammar()
    usual = _usual(attributes, speakers, settings.min_speaker_clips)
    descriptions = []
    for a, speaker, tag, utterance_id in zip(attributes, speakers, tags, ids, strict=True):
        words = style(
            a,
            usual[speaker],
            bins=bins,
            min_voiced_ratio=settings.min_voiced_ratio,
            emotion=tag.emotion,
            events=tag.events,
        )
        text = caption(words, seed_text=f"{settings.seed}/{utterance_id}", grammar=grammar)
        descriptions.append(Description(words, style_key(words), text, GRAMMAR_SOURCE))
    return descriptions if settings.rewriter is None else _rewritten(descriptions, settings.rewriter)


def _usual(attributes: Sequence[Attributes], speakers: Sequence[str], min_clips: int) -> dict[str, Attributes]:
    """What is usual for each speaker of a recording."""
    level = mean(attributes).energy_db if len(attributes) >= min_clips else None
    usual = {}
    for name in set(speakers):
        clips = [a for a, speaker in zip(attributes, speakers, strict=True) if speaker == name]
        usual[name] = mean(clips) if len(clips) >= min_clips else Attributes(energy_db=level)
    return usual


def _rewritten(descriptions: Sequence[Description], settings: RewriterSettings) -> list[Description]:
    """Each description in the rewriter's words."""

    def one(description: Description) -> Description:
        try:
            text = rewrite(description.caption, settings)
        except RewriteError as error:
            if settings.on_error == "raise":
                raise
            log.warning("caption kept as the grammar worded it: %s", error)
            return description
        return replace(description, caption=text, caption_source=settings.model)

    with ThreadPoolExecutor(settings.concurrency) as pool:
        return list(pool.map(one, descriptions))


def revision(settings: CaptioningSettings) -> str:
    """Digest of the bins and the grammar: what captions depend on beside attributes, tags and settings."""
    parts = load_bins(settings.bins).model_dump_json(exclude={"about"}), load_grammar().model_dump_json()
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=6).hexdigest()
