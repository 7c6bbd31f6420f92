"""From the sentences that FunASR gives (`sentence_info`) to turns.

FunASR cuts its transcript at every punctuation mark and gives each piece a speaker, so a "sentence"
is a clause of a second or two. Neighbours of one speaker join into turns; what is too long is cut
at its longest pause.
"""

import itertools
import logging
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fsclap import Seconds
from fsclap.clustering import in_order
from fsclap.corpus.diarization.base import DiarizationSettings
from fsclap.corpus.ideographs import IDEOGRAPHS, close_up, join
from fsclap.corpus.turns import NOISE, Dropped, Kind, too_short

log = logging.getLogger(__name__)

TAG = re.compile(r"<\|[^|]*\|>")
WORD = re.compile(rf"[{IDEOGRAPHS}0-9@]|[^\W\d_{IDEOGRAPHS}](?:[^\W\d_{IDEOGRAPHS}]|')*")
"""What FunASR gives a time of its own: a character, a digit, a word in Latin letters."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """A stretch of transcript with one speaker.

    Attributes:
        start, end: Position in the recording, start < end.
        speaker: FunASR's label, or NOISE.
        text: As it is to be read: no tags, no spaces between ideographs.
        words: (start, end) of each word, in order, or empty when they are not known one by one.
    """

    start: Seconds
    end: Seconds
    speaker: int
    text: str
    words: tuple[tuple[Seconds, Seconds], ...] = ()

    @property
    def duration(self) -> Seconds:
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Stretch:
    """A turn before it has an embedding; see `fsclap.corpus.turns.Turn`."""

    start: Seconds
    end: Seconds
    speaker: int
    text: str
    overlap: float = 0.0
    kind: Kind = "speech"

    @property
    def duration(self) -> Seconds:
        return self.end - self.start


def parse_sentences(
    info: Sequence[Mapping[str, Any]] | None, *, duration: Seconds, noise: int | None = None
) -> list[Sentence]:
    """FunASR's `sentence_info`, as far as it can be believed.

    A sentence is dropped, and counted in the log, when it has no words, no position, ends before it
    starts, or lies behind the end of the recording. Nothing is guessed: a sentence without a
    speaker is NOISE.

    Args:
        info: From a result of `AutoModel.generate`; None: it has none (no speech, or no
            timestamps).
        duration: Of the recording; what lies beyond is cut off.
        noise: FunASR's label of the speaker that is none: its clustering marks noise by -1, but its
            post-processing numbers that along with the speakers.

    Returns:
        By start, then end. They may overlap.
    """
    dropped: Counter[str] = Counter()
    sentences = []
    for item in info or ():
        found = _sentence(item, duration, noise)
        if isinstance(found, Sentence):
            sentences.append(found)
        else:
            dropped[found] += 1
    if dropped:
        log.info("sentences dropped: %s", ", ".join(f"{count} {reason}" for reason, count in dropped.items()))
    return sorted(sentences, key=lambda sentence: (sentence.start, sentence.end))


def _sentence(item: Mapping[str, Any], duration: Seconds, noise: int | None) -> Sentence | str:
    """Parse a sentence, or return why it is dropped."""
    text = clean(item.get("text"))
    if not WORD.search(text):
        return "without words"
    words = [pair for pair in map(_span, item.get("timestamp") or ()) if pair]
    whole = _span((item.get("start"), item.get("end")), empty=True) or _outer(words)
    if whole is None:
        return "without a position"
    start, end = max(whole[0], 0.0), min(whole[1], duration)
    if start >= duration:
        return "behind the end of the recording"
    if end <= start:
        return "that end before they start"
    speaker = label(item, noise)
    inside = tuple((max(a, start), min(b, end)) for a, b in words if a < end and b > start)
    known = len(inside) == len(WORD.findall(text)) and _in_order(inside)
    return Sentence(start, end, speaker, text, inside if known else ())


def label(item: Mapping[str, Any], noise: int | None) -> int:
    """Speaker of a sentence as FunASR labels it, or NOISE; see `parse_sentences`."""
    speaker = item.get("spk")
    return NOISE if speaker is None or speaker < 0 or speaker == noise else int(speaker)


def _in_order(words: Sequence[tuple[Seconds, Seconds]]) -> bool:
    """Whether no word begins, or ends, before the one it follows; else no cut is clean."""
    return all(a <= c and b <= d for (a, b), (c, d) in itertools.pairwise(words))


def clean(text: object) -> str:
    """Text without tags and without FunASR's spaces between characters; a list holds words."""
    joined = " ".join(map(str, text)) if isinstance(text, list | tuple) else str(text or "")
    single = " ".join(TAG.sub(" ", joined).split())
    return close_up(single)


def _span(pair: Any, *, empty: bool = False) -> tuple[Seconds, Seconds] | None:
    """Milliseconds to seconds; None if one is missing or, unless `empty`, out of order."""
    if pair is None or len(pair) < 2 or pair[0] is None or pair[1] is None:
        return None
    start, end = pair[0] / 1000, pair[1] / 1000
    return (start, end) if empty or end >= start else None


def _outer(words: Sequence[tuple[Seconds, Seconds]]) -> tuple[Seconds, Seconds] | None:
    return (min(a for a, _ in words), max(b for _, b in words)) if words else None


def stretches(
    sentences: Sequence[Sentence], settings: DiarizationSettings, *, wordless: Sequence[Sentence] = ()
) -> tuple[list[Stretch], list[Dropped]]:
    """Build the turns of one recording, still without embeddings.

    Sentences of one speaker with no other between them and pauses of `merge_gap` at most are one
    turn. One of more than `max_turn` is cut at its longest pause between sentences, a sentence of
    more than that between words; of equal pauses the one nearest the middle. What can't be cut,
    since the times of its words are not known, is dropped, as is what is shorter than `min_turn`.

    Where turns overlap, each keeps half of the overlap, and knows by `overlap` how much of it
    another speaker shares. A turn inside another is dropped, since half of it would hold other
    words than its text.

    What is wordless is an event where the settings ask for events, it has a speaker and lies in no turn.

    Args:
        sentences: By start.
        settings: `merge_gap`, `min_turn`, `max_turn`, `events`.
        wordless: Speech in which no word was found, with an empty text; by start.

    Returns:
        By start, apart from each other. Speakers are numbered in order of first appearance.
        And what was dropped, by start.
    """
    cut = [piece for group in _groups(sentences, settings.merge_gap) for piece in _bounded(group, settings)]
    pieces = [piece for piece in cut if piece.duration > 0]  # a word that was cut off alone may have no length
    outer = _without_inner(sorted(pieces, key=lambda piece: (piece.start, -piece.end)))
    trimmed = list(_apart(outer, pieces))
    kept = [stretch for stretch in trimmed if settings.min_turn <= stretch.duration <= settings.max_turn]
    apart = [one for one in wordless if not any(one.start < turn.end and one.end > turn.start for turn in kept)]
    bursts = [one for one in apart if settings.events and one.speaker != NOISE and one.duration <= settings.max_turn]
    kept += [Stretch(one.start, one.end, one.speaker, "", kind="event") for one in bursts]
    dropped = [
        *(_wordless(one) for one in apart if one not in bursts),
        *(_inside(piece) for piece in pieces if not any(piece is one for one in outer)),
        *(too_short(one.start, one.end, settings.min_turn) for one in trimmed if one.duration < settings.min_turn),
        *(_too_long(one, settings.max_turn) for one in trimmed if one.duration > settings.max_turn),
    ]
    in_time = sorted(kept, key=lambda stretch: stretch.start)
    return _renumbered(in_time), sorted(dropped, key=lambda one: (one.start, one.end))


def _wordless(speech: Sentence) -> Dropped:
    return Dropped(speech.start, speech.end, "no_words", "speech in which Paraformer finds no word")


def _inside(piece: Sentence) -> Dropped:
    return Dropped(piece.start, piece.end, "inside_another", f"said during another turn: {piece.text}")


def _too_long(stretch: Stretch, longest: Seconds) -> Dropped:
    detail = f"{stretch.duration:.2f} s are more than diarization.max_turn = {longest:g} s, and the times of its words "
    return Dropped(stretch.start, stretch.end, "too_long", f"{detail}are not known")


def _groups(sentences: Sequence[Sentence], merge_gap: Seconds) -> list[list[Sentence]]:
    groups: list[list[Sentence]] = []
    for sentence in sentences:
        last = groups[-1][-1] if groups else None
        if last and sentence.speaker == last.speaker and sentence.start - last.end <= merge_gap:
            groups[-1].append(sentence)
        else:
            groups.append([sentence])
    return groups


def _bounded(group: Sequence[Sentence], settings: DiarizationSettings) -> list[Sentence]:
    """One piece, or several of at most `max_turn` where it can be cut."""
    start, end = group[0].start, max(sentence.end for sentence in group)
    if end - start <= settings.max_turn:
        words = tuple(itertools.chain.from_iterable(sentence.words for sentence in group))
        return [Sentence(start, end, group[0].speaker, join([sentence.text for sentence in group]), words)]
    units = list(group) if len(group) > 1 else _words(group[0])
    if len(units) < 2:
        return list(group)
    cut = _best_cut(units, settings.min_turn)
    if len(group) == 1:
        return [piece for half in (units[:cut], units[cut:]) for piece in _bounded([_whole(half)], settings)]
    return _bounded(units[:cut], settings) + _bounded(units[cut:], settings)


def _best_cut(units: Sequence[Sentence], min_turn: Seconds) -> int:
    """Index of the unit after the longest pause; of equal ones, the nearest the middle."""
    start, end = units[0].start, units[-1].end
    middle = (start + end) / 2
    cuts = range(1, len(units))
    fair = [cut for cut in cuts if units[cut - 1].end - start >= min_turn and end - units[cut].start >= min_turn]
    return max(
        fair or cuts,
        # Times are whole milliseconds; rounded, or their last bits would tell equal pauses apart.
        key=lambda cut: (round(units[cut].start - units[cut - 1].end, 3), -abs(units[cut].start - middle)),
    )


def _words(sentence: Sentence) -> list[Sentence]:
    """Split a sentence into words with their punctuation; empty if their times are unknown."""
    if not sentence.words:
        return []
    starts = [match.start() for match in WORD.finditer(sentence.text)]
    texts = [sentence.text[a:b] for a, b in itertools.pairwise([0, *starts[1:], len(sentence.text)])]
    return [
        Sentence(start, end, sentence.speaker, text, ((start, end),))
        for (start, end), text in zip(sentence.words, texts, strict=True)
    ]


def _whole(words: Sequence[Sentence]) -> Sentence:
    """Words of one sentence, put together again."""
    spans = tuple(word.words[0] for word in words)
    text = "".join(word.text for word in words).strip()
    return Sentence(words[0].start, words[-1].end, words[0].speaker, text, spans)


def _without_inner(pieces: Sequence[Sentence]) -> list[Sentence]:
    """Pieces by start, less those that lie inside another."""
    outer: list[Sentence] = []
    for piece in pieces:
        if not outer or piece.end > outer[-1].end:
            outer.append(piece)
    return outer


def _apart(outer: Sequence[Sentence], pieces: Sequence[Sentence]) -> Iterator[Stretch]:
    """Cut the outer pieces back to the middle of each overlap.

    Their ends grow with their starts, so that cutting neighbours apart cuts all apart and leaves
    something of each.
    """
    starts = [piece.start for piece in outer]
    ends = [piece.end for piece in outer]
    for index in range(1, len(outer)):
        if ends[index - 1] > starts[index]:
            ends[index - 1] = starts[index] = (ends[index - 1] + starts[index]) / 2
    by_start = sorted(pieces, key=lambda piece: piece.start)
    for piece, start, end in zip(outer, starts, ends, strict=True):
        shared = _shared(start, end, [other for other in by_start if other.speaker != piece.speaker])
        yield Stretch(start, end, piece.speaker, piece.text, min(1.0, shared / (end - start)))


def _shared(start: Seconds, end: Seconds, others: Sequence[Sentence]) -> Seconds:
    """How much of a span the others cover, what two of them cover counted once."""
    covered, reached = 0.0, start
    for other in others:
        a, b = max(other.start, reached), min(other.end, end)
        if b > a:
            covered, reached = covered + b - a, b
    return covered


def _renumbered(found: Sequence[Stretch]) -> list[Stretch]:
    speaking = [stretch.speaker for stretch in found if stretch.speaker != NOISE]
    order = dict(zip(speaking, in_order(np.array(speaking, dtype=np.int64)).tolist(), strict=True))
    return [replace(stretch, speaker=order.get(stretch.speaker, NOISE)) for stretch in found]
