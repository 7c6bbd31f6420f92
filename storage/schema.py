"""The Arrow schemas of a corpus: the contract between writer, readers and trainer.

A corpus is a folder with three Delta tables:

    utterances/   one row per kept utterance, audio included
    rejects/      one row per refused source or turn, with the reason
    sources/      the ledger: one row per source, its outcome and its cost

and Parquet files: `speakers.parquet`, one row per speaker of an episode with the person of the
series it is, which is replaced after each build; and `judgements.parquet`, people's verdicts on
clips. `rights.parquet` (`storage.rights`) has licence and consent of sources.

For every source, `turns_found == turns_kept + turns_rejected`. The latter two are the number of its
rows in `utterances`, and of its rows in `rejects` that are about a turn (`start` not null).
"""

import pyarrow as pa
from deltalake import Schema as DeltaSchema

PUBLISHED = "import/"
"""What the names of speakers begin with whom a published data set names: the same people in all its sources."""

AUDIO = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""FLAC bytes and a file name, which Hugging Face `datasets` reads as an `Audio` feature."""

ATTRIBUTES = pa.struct(
    [
        ("pitch_hz", pa.float32()),  # median F0 over voiced frames
        ("pitch_range_st", pa.float32()),  # 5th to 95th percentile of F0, in semitones
        ("pitch_slope_st", pa.float32()),  # semitones per second over the voiced frames, least squares
        ("energy_db", pa.float32()),  # RMS level over speech frames, dBFS
        ("energy_range_db", pa.float32()),  # 10th to 95th percentile of the frame level
        ("speaking_rate", pa.float32()),  # syllable nuclei per second, from the first to the last speech frame
        ("pause_ratio", pa.float32()),  # share that is silent, from the first to the last speech frame
        ("voiced_ratio", pa.float32()),  # share of speech frames that are voiced
        ("spectral_tilt_db", pa.float32()),  # level below 1 kHz less level above: a tense or raised voice is low
        ("aperiodicity", pa.float32()),  # noise share of voiced frames in 3 bands up to 3 kHz: 0 clear .. 1 noisy
    ]
)
"""Acoustic attributes of an utterance; null where one cannot be measured (no voiced frame)."""

STYLE = pa.list_(pa.struct([("attribute", pa.string()), ("word", pa.string())]))
"""Attribute -> the word of its bin; without those in the middle bin or not measured.

A list, because `datasets` cannot read maps.
"""

SOUND = pa.struct(
    [
        ("track", pa.int32()),  # the audio track that was taken; 1 is the file's first
        ("tracks", pa.int32()),  # how many it has
        ("start", pa.float64()),  # the player's second at which the sound begins
        ("holes", pa.int32()),  # stretches in which the file has no sound
        ("missing_seconds", pa.float64()),  # their length together
        ("inverted_seconds", pa.float64()),  # where the right channel was turned over: it was the left one's opposite
    ]
)
"""What was decoded of a source."""

UTTERANCE = pa.schema(
    [
        pa.field("utterance_id", pa.string(), nullable=False),  # "{source_id}-{turn index:05d}"
        pa.field("source_id", pa.string(), nullable=False),
        pa.field("series", pa.string(), nullable=False),
        pa.field("episode", pa.string(), nullable=False),
        pa.field("title", pa.string(), nullable=False),
        pa.field("url", pa.string(), nullable=False),
        pa.field("start", pa.float64(), nullable=False),  # seconds in the episode, as a player shows them
        pa.field("end", pa.float64(), nullable=False),
        pa.field("duration", pa.float64(), nullable=False),
        pa.field(
            "speaker", pa.string(), nullable=False
        ),  # "{series}/{episode}#{source_id}/S00"; "import/{data set}/{name}"
        pa.field("similarity", pa.float32()),  # Eq. 5, on the scale of the build; null for a speaker's only turn
        pa.field("text", pa.string(), nullable=False),
        pa.field("text_confidence", pa.float32()),  # of the words heard, 0 .. 1; null: not measured, or no words
        pa.field("kind", pa.string(), nullable=False),  # "speech"; "event": a cry, gasp or laugh, if asked for
        pa.field("language", pa.string()),
        pa.field("tagger_text", pa.string()),  # the emotion engine's transcript; null without such an engine
        pa.field("emotion", pa.string()),  # null when the captioning engine has no emotion tagger
        pa.field("emotion_confidence", pa.float32()),
        pa.field("events", pa.list_(pa.string()), nullable=False),  # laughter, applause, ...
        pa.field("quality", pa.float32()),  # DNSMOS P.835 OVRL, 1 .. 5; null when not measured
        pa.field("overlap", pa.float32()),  # share in which another speaker talks too, 0 .. 1; null: not measured
        pa.field("attributes", ATTRIBUTES, nullable=False),
        pa.field("style", STYLE, nullable=False),
        pa.field("style_key", pa.string(), nullable=False),  # the style as one string: equal styles, equal keys
        pa.field("caption", pa.string(), nullable=False),
        pa.field("caption_source", pa.string(), nullable=False),  # "grammar" or the rewriter's model
        pa.field("audio", AUDIO, nullable=False),
        pa.field("sample_rate", pa.int32(), nullable=False),
        pa.field("speaker_embedding", pa.list_(pa.float32()), nullable=False),  # empty: imported, or an event
        pa.field("separation_engine", pa.string(), nullable=False),  # "name@revision"
        pa.field("diarization_engine", pa.string(), nullable=False),
        pa.field("captioning_engine", pa.string(), nullable=False),
        pa.field("recipe", pa.string(), nullable=False),  # digest of everything the row depends on
    ]
)

REJECT = pa.schema(
    [
        pa.field("source_id", pa.string(), nullable=False),
        pa.field("series", pa.string(), nullable=False),
        pa.field("episode", pa.string(), nullable=False),
        pa.field("url", pa.string(), nullable=False),
        pa.field("stage", pa.string(), nullable=False),  # download, decode, separation, diarization, ...
        pa.field("reason", pa.string(), nullable=False),  # a short code: "http_404", "too_short"
        pa.field("detail", pa.string(), nullable=False),  # a sentence for people
        pa.field("start", pa.float64()),  # null when the whole source was refused
        pa.field("end", pa.float64()),
        pa.field("speaker", pa.string()),
        pa.field("similarity", pa.float32()),
        pa.field("text", pa.string()),
        pa.field("recipe", pa.string(), nullable=False),
    ]
)

SOURCE = pa.schema(
    [
        pa.field("source_id", pa.string(), nullable=False),
        pa.field("series", pa.string(), nullable=False),
        pa.field("episode", pa.string(), nullable=False),
        pa.field("title", pa.string(), nullable=False),
        pa.field("url", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),  # "kept", "rejected" (final), "failed" (may be tried again)
        pa.field("recipe", pa.string(), nullable=False),
        pa.field("media_sha256", pa.string()),
        pa.field("duration", pa.float64()),  # seconds of audio decoded
        pa.field("sound", SOUND),  # null when nothing was decoded
        pa.field("turns_found", pa.int32(), nullable=False),
        pa.field("turns_kept", pa.int32(), nullable=False),
        pa.field("turns_rejected", pa.int32(), nullable=False),
        pa.field("stage_seconds", pa.map_(pa.string(), pa.float64()), nullable=False),  # compute, not waiting
        pa.field("committed_at", pa.timestamp("us", tz="UTC"), nullable=False),
    ]
)

SPEAKER = pa.schema(
    [
        pa.field("speaker", pa.string(), nullable=False),  # as in the utterances: local to an episode
        pa.field("linked_speaker", pa.string(), nullable=False),  # the person: the name of its first speaker
        pa.field("series", pa.string(), nullable=False),
        pa.field("episode", pa.string(), nullable=False),
        pa.field("clips", pa.int32(), nullable=False),
        pa.field("seconds", pa.float64(), nullable=False),
        pa.field("similarity", pa.float32()),  # mean cosine to the person's other speakers; null when there are none
    ]
)

JUDGEMENT = pa.schema(
    [
        pa.field("query", pa.string(), nullable=False),
        pa.field("utterance_id", pa.string(), nullable=False),
        pa.field("recipe", pa.string(), nullable=False),  # of the clip; another recipe makes another clip
        pa.field("verdict", pa.string(), nullable=False),  # does the clip match the query: "fits", "partly", "no"
        pa.field("judge", pa.string(), nullable=False),  # a name
        pa.field("model", pa.string(), nullable=False),  # folder of the model whose search returned the clip
        pa.field("corpus", pa.string(), nullable=False),
        pa.field("version", pa.int64(), nullable=False),  # of the utterances
        pa.field("date", pa.timestamp("us", tz="UTC"), nullable=False),
    ]
)


def schema_problem(found: pa.Schema, expected: pa.Schema) -> str | None:
    """Explain why rows of one schema do not fit another; None when they do, in any order."""
    unknown = sorted(set(found.names) - set(expected.names))
    missing = [name for name in expected.names if name not in found.names]
    changed = [
        f"{field.name} is {_described(found.field(field.name))}, not {_described(field)}"
        for field in expected
        if field.name in found.names and not _same_type(field, found.field(field.name))
    ]
    parts = [f"unknown {', '.join(unknown)}"] if unknown else []
    parts += [f"missing {', '.join(missing)}"] if missing else []
    return "; ".join([*parts, *changed, "build into a new location"]) if parts or changed else None


def _described(field: pa.Field) -> str:
    return f"{field.type}{' that may be null' if field.nullable else ''}"


def _same_type(first: pa.Field, second: pa.Field) -> bool:
    # Delta names the element of a list "element" and the entries of a map "key_value", Arrow
    # otherwise.
    return DeltaSchema.from_arrow(pa.schema([first])) == DeltaSchema.from_arrow(pa.schema([second]))
