"""From measured attributes and tags to words (the style) and a caption."""

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace

from fsclap.corpus.captioning.attributes import Attributes
from fsclap.corpus.captioning.base import CaptioningSettings, Tags, log
from fsclap.corpus.captioning.bins import SCALES, Bins, load_bins, mean, measures
from fsclap.corpus.captioning.grammar import caption, load_grammar
from fsclap.corpus.captioning.rewriter import RewriteError, RewriterSettings, rewrite

GRAMMAR_SOURCE = "grammar"
"""`caption_source` of a caption that no rewriter touched."""


MIN_SPEAKER_CLIPS = 3
"""Clips a speaker needs before one is compared with what is usual for them: a mean of two is half
the clip itself."""
MIN_VOICED_RATIO = 0.1
"""Share of voiced speech below which a clip is "whispered" and has no word that depends on its
pitch."""
UNVOICED_WORDS = ("whispered", "inaudible")


STYLE_ORDER = ("emotion", *SCALES, "events")


@dataclass(frozen=True, slots=True)
class Description:
    """A caption, the style it expresses, and who worded it: "grammar" or the rewriter's model."""

    style: dict[str, str]
    style_key: str
    caption: str
    caption_source: str


def style(
    attributes: Attributes,
    speaker_mean: Attributes,
    *,
    bins: Bins,
    emotion: str | None = None,
    events: Sequence[str] = (),
) -> dict[str, str]:
    """Return the words for one utterance, in `STYLE_ORDER`.

    Args:
        attributes: Of the utterance.
        speaker_mean: What is usual for its speaker; attributes that are None there are not
            compared.
        bins: Where a word ends and the next begins.
        emotion: As tagged.
        events: As tagged; several are sorted and joined by "+".
    """
    voiced = attributes.voiced_ratio
    whispered = voiced is not None and voiced < MIN_VOICED_RATIO
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
    """Return the style as one string, equal for equal styles: "pitch=low;energy=soft"."""
    return ";".join(f"{name}={style[name]}" for name in STYLE_ORDER if name in style)


def describe(
    attributes: Sequence[Attributes],
    *,
    speakers: Sequence[str],
    tags: Sequence[Tags],
    ids: Sequence[str],
    settings: CaptioningSettings,
) -> list[Description]:
    """Describe the utterances of one recording, each against its speaker's others.

    A speaker with fewer than MIN_SPEAKER_CLIPS has no "usual": their pitch and pace are not
    compared, and their level is compared with that of the recording. Pure, unless the settings name
    a rewriter.

    Args:
        attributes: One per utterance; level is comparable within the recording.
        speakers: Label of each utterance's speaker.
        tags: Of each utterance; `Tags()` where no engine tags emotion.
        ids: Of each utterance; the wording is drawn by it.
        settings: Bins, seed and rewriter.

    Returns:
        One description per utterance, in order.

    Raises:
        ValueError: The sequences differ in length, or a tag has no wording.
        RewriteError: The rewriter failed and its settings say `on_error: raise`.
    """
    bins, grammar = load_bins(settings.bins), load_grammar()
    known = usual(attributes, speakers)
    descriptions = []
    for a, speaker, tag, utterance_id in zip(attributes, speakers, tags, ids, strict=True):
        words = style(
            a,
            known[speaker],
            bins=bins,
            emotion=tag.emotion,
            events=tag.events,
        )
        text = caption(words, seed_text=f"{settings.seed}/{utterance_id}", grammar=grammar)
        descriptions.append(Description(words, style_key(words), text, GRAMMAR_SOURCE))
    return descriptions if settings.rewriter is None else _rewritten(descriptions, settings.rewriter)


def usual(attributes: Sequence[Attributes], speakers: Sequence[str]) -> dict[str, Attributes]:
    """Return what is usual for each speaker of a recording.

    Args:
        attributes: Of every utterance of the recording.
        speakers: Label of each utterance's speaker.

    Returns:
        Speaker -> the mean of the clips. Of one with fewer than MIN_SPEAKER_CLIPS only the level is
        known: the recording's, if that has as many.
    """
    level = mean(attributes).energy_db if len(attributes) >= MIN_SPEAKER_CLIPS else None
    known = {}
    for name in set(speakers):
        clips = [a for a, speaker in zip(attributes, speakers, strict=True) if speaker == name]
        known[name] = mean(clips) if len(clips) >= MIN_SPEAKER_CLIPS else Attributes(energy_db=level)
    return known


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
    """Digest of the bins and the grammar, which captions depend on besides the settings."""
    parts = load_bins(settings.bins).model_dump_json(exclude={"about"}), load_grammar().model_dump_json()
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=6).hexdigest()
