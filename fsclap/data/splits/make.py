"""Split a corpus into training, validation and test parts that share neither a voice nor a text."""

from collections import Counter
from collections.abc import Set

import pyarrow as pa

from fsclap.clustering import mean_embeddings, vectors
from fsclap.data.splits.base import PARTS, Part, Split, SplitSettings, TooAlike, TooSmall, Voice
from fsclap.data.splits.contents import Clip, Corpus, read_clips, shared_contents, without
from fsclap.data.splits.draw import by_series, out_of_place, parts_of
from fsclap.data.splits.voices import (
    Pair,
    chains_of,
    check_embedder,
    nearest_pair,
    new_speakers,
    sounding_alike,
    to_divide,
    voices_of,
)


def make_split(table: pa.Table, settings: SplitSettings, earlier: Split | None = None) -> Split:
    """Split a corpus by voice, or by series, so that no text or recording is in two parts.

    By voice: speaker labels are local to an episode, so speakers with similar mean embeddings count
    as one voice, and a voice is in one part as a whole. By series (`validation_series`,
    `test_series`): the part consists of the clips of these series; other clips of a voice in them
    are removed.

    No two speakers of different parts are as alike as `voice_similarity`. A chain of speakers, each
    that much like the next, is one voice, unless it has more clips than the share of training, or
    the settings or `earlier` put its clips in several parts, or whole chains would leave a part too
    small. It is then cut into the voices of average link, and a speaker of training who is as alike
    as that to one of validation or test is removed, and one of validation who is to one of test.

    By text: a clip is removed from training if a clip of validation or test has the same caption,
    transcript (of MIN_WORDS or more) or recording; and from validation if one of test has.

    With `earlier`, the split of another version of the corpus, what was drawn stays: a voice is in
    the part its utterances and speakers were in, and only new voices are drawn. If new clips join
    two voices of different parts into one, it takes the most protected part (test, then
    validation), and its clips from another part are removed for good: an earlier model knows them,
    so they must not measure it, and they share a voice with clips that do, so no model may train on
    them. A new speaker who is not of such a voice, but as alike as `voice_similarity` to an earlier
    speaker of another part, is removed rather than the earlier one.

    Args:
        table: `utterance_id`, `series`, `speaker`, `caption`, `text`, `speaker_embedding` of each
            clip. With `audio_sha256`, equal recordings are found; with `defect` (`ClipStore.table`
            has both), unreadable clips are removed.
        settings: Shares, seed and limits.
        earlier: Split that voices and clips keep their part of.

    Raises:
        TooSmall: A part would have too few clips.
        TooAlike: A speaker of validation or test is as alike as `voice_similarity` to one of training.
        MixedEmbeddings: The embeddings come from several diarization engines.
        ValueError: A pattern matches no series.
    """
    check_embedder(table)
    clips = read_clips(table)
    speakers = mean_embeddings(zip(table["speaker"].to_pylist(), vectors(table["speaker_embedding"]), strict=True))
    corpus = Corpus(
        clips=clips,
        usable=[clip for clip in clips if clip.defect is None],
        speakers=speakers,
        chains=chains_of(speakers, settings),
        explicit=by_series(clips, settings),
    )
    try:
        return _split(corpus, to_divide(corpus, settings, earlier), settings, earlier)
    except TooSmall:
        # As few chains as leave a part empty may still be enough voices.
        return _split(corpus, set(corpus.chains.values()), settings, earlier)


def _split(corpus: Corpus, divided: Set[int], settings: SplitSettings, earlier: Split | None) -> Split:
    """Split a corpus in which some chains are several voices."""
    usable, speakers, explicit = corpus.usable, corpus.speakers, corpus.explicit
    voices = voices_of(speakers, corpus.chains, divided, settings)
    parts = parts_of(usable, voices, explicit, settings, earlier)
    removed = {clip.id: clip.defect for clip in corpus.clips if clip.defect is not None}
    removed |= out_of_place(usable, voices, explicit, parts, earlier)
    kept: dict[Part, list[Clip]] = {part: [] for part in PARTS}
    for clip in usable:
        if clip.id not in removed:
            kept[parts[voices[clip.speaker]]].append(clip)
    removed |= sounding_alike(kept, speakers, new_speakers(usable, explicit, earlier), settings)
    kept = without(kept, removed)
    removed |= shared_contents(kept)
    kept = without(kept, removed)
    _check_sizes(kept, removed, corpus, len(set(voices.values())), settings)
    nearest = {part: nearest_pair(kept[part], kept["train"], speakers) for part in PARTS[1:]}
    _check_voices(nearest, settings)
    ids = {part: sorted(clip.id for clip in kept[part]) for part in PARTS}
    return Split(
        settings=settings,
        **ids,
        removed=dict(sorted(removed.items())),
        voices=_described(voices, parts),
        nearest={part: pair and pair.cosine for part, pair in nearest.items()},
    )


def _check_sizes(
    kept: dict[Part, list[Clip]], removed: dict[str, str], corpus: Corpus, voices: int, settings: SplitSettings
) -> None:
    needed = {"train": settings.min_train_clips}
    if all(len(kept[part]) >= needed.get(part, settings.min_eval_clips) for part in PARTS):
        return
    sizes = ", ".join(f"{part} {len(kept[part])}" for part in PARTS)
    raise TooSmall(
        f"the corpus is too small to train on: {len(corpus.clips)} clips of {voices} voices give {sizes} "
        f"({len(removed)} removed{_why(removed)}). It needs {settings.min_train_clips} to train, "
        f"{settings.min_eval_clips} each to validate and to test, and at least three voices. Add sources with other "
        f"speakers, or lower split.min_train_clips and split.min_eval_clips.{_chained(corpus, settings)}"
    )


def _chained(corpus: Corpus, settings: SplitSettings) -> str:
    """Say so if a chain of several speakers has half of the clips or more."""
    chains = corpus.chains
    sizes = Counter(chains[clip.speaker] for clip in corpus.usable if clip.speaker in chains)
    for chain, size in sizes.most_common(1):
        speakers = sum(number == chain for number in chains.values())
        if speakers > 1 and size >= len(corpus.usable) / 2:
            return (
                f" {speakers} speakers with {size} of the clips are a chain in which each sounds like the next (a "
                f"cosine of {settings.voice_similarity:g} or more), and no two such speakers can be in different "
                "parts. If they are several people, raise split.voice_similarity."
            )
    return ""


def _check_voices(nearest: "dict[Part, Pair | None]", settings: SplitSettings) -> None:
    for part, pair in nearest.items():
        if pair is not None and pair.cosine >= settings.voice_similarity:
            raise TooAlike(
                f"speaker {pair.speaker} of {part} and speaker {pair.trained} of training are too alike: the cosine of "
                f"their mean embeddings is {pair.cosine:.3f}, and from {settings.voice_similarity:g} on "
                "(split.voice_similarity) two speakers may be one person, whom a model must not be trained and "
                "measured on. Remove the clips of one of them, or, if they are two people, raise "
                "split.voice_similarity above their cosine."
            )


def _why(removed: dict[str, str]) -> str:
    common = Counter(removed.values()).most_common(3)
    return "".join(f"; {count} as {why}" for why, count in common)


def _described(voices: dict[str, int], parts: dict[int, Part]) -> list[Voice]:
    speakers: dict[int, list[str]] = {}
    for speaker, voice in sorted(voices.items()):
        speakers.setdefault(voice, []).append(speaker)
    return [Voice(part=parts[voice], speakers=names) for voice, names in speakers.items()]
