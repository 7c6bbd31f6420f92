"""Decode any media file to a wave on disk, with ffmpeg; refuse what is unusable."""

import logging
import math
import os
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from fsclap import Hertz, Seconds
from fsclap.audio import SAMPLE_TYPE, resampled, sample_index
from fsclap.ffmpeg import Description, Run, Track, description, ffmpeg_binary, input_options, last_error, run
from fsclap.refusal import Refused
from fsclap.settings import execution
from fsclap.timeline import HOLE, SILENCE, Clock, Timeline

log = logging.getLogger(__name__)

CHANNELS = 2
"""Channels of a decoded wave: mono is doubled, more than two are mixed down."""
LOUDEST = 100.0  # +40 dBFS: beyond it lie integers written as floats, and damage
TRUNCATED_SHARE = 0.05
TRUNCATED_MIN: Seconds = 1.0
"""A source is truncated when it ends more than 5 % and more than 1 s before its declared end."""
OPPOSITE = 0.01  # share of the louder channel's power that is left in the mean: -20 dB
UNKNOWN_SIZE = 0x7F00_0000
"""A file whose header declares that size or more is from a writer to a pipe, which does not know: sox
and espeak write 0x7FFFF024, arecord 0x80000024, ffmpeg 0xFFFFFFFF, and sox 0x7F00002E for AIFF."""
BYTE_ORDER: dict[bytes, Literal["little", "big"]] = {b"RIFF": "little", b"FORM": "big"}
CLOCK_ALONE = ("mpegts", "mpeg", "ogg", "flv", "aac", "loas", "dv", "nut", "wtv")
"""Formats without a length: what ffmpeg calls their duration is the last clock less the first, and
a clock can jump. Neither "truncated" nor, before it is decoded, "too long" can be said of them."""
RESTARTING = ("mpegts", "mpeg", "ogg")
"""Formats whose clock may start anew where streams were put together (ffmpeg's AVFMT_TS_DISCONT)."""
RESTART: Seconds = 10.0
"""A clock of theirs that leaps by more has started anew; one that leaps by less has lost sound. These
are ffmpeg's limits (dts_delta_threshold), and that of the other formats (dts_error_threshold)."""
LONGEST: Seconds = 30 * 3600.0
STEP = 1_000_000
"""Added to the timestamps per sample on their way here, and subtracted again: a muxer replaces those that
go back."""
SAMPLE_RATES = range(1000, 768_001)  # hertz; any other is damage, or meant to exhaust memory


class DecodeSettings(BaseModel):
    """What is accepted as a source of sound."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_duration: Seconds = Field(default=0.5, gt=0, description="Seconds; a shorter recording is refused (too_short).")
    max_duration: Seconds = Field(
        default=4 * 3600,
        gt=0,
        description="Seconds; a longer recording is refused (too_long). A decoded recording takes 8 bytes per sample "
        "on disk: 1.3 GB per hour at 44.1 kHz.",
    )
    silence_dbfs: float = Field(
        default=-60.0,
        ge=-120,
        le=0,
        description="dBFS; a recording whose loudest second has a lower RMS level is refused (silent).",
    )
    max_invalid_share: float = Field(
        default=0.001,
        ge=0,
        le=1,
        description="Largest share of samples that may be NaN, infinite or beyond +40 dBFS. They become 0; with more "
        "of them the recording is refused (invalid_samples).",
    )
    track: int | str | None = Field(
        default=None,
        description="Which audio track to take: its number (1 is the first) or its language as the file has it "
        "(eng, deu). A file without it is refused (no_such_track). None: the one that the file "
        "names as default, else the first; if that one is silent, the next.",
    )
    timeout: Seconds = execution(1800.0, gt=0, description="Seconds that ffmpeg may spend on one recording.")


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """The decoded sound of a file.

    Attributes:
        wave: (2, samples) float32, a read-only memory map. Full scale is 1; a sample can lie beyond.
        timeline: Where the wave lies on the player's clock. Every hole in the sound is a second of silence.
        track: The audio track that was taken; 1 is the file's first.
        tracks: How many audio tracks the file has.
        inverted: Seconds in which the right channel was turned over, since left and right would have
            cancelled each other.
    """

    wave: np.ndarray
    timeline: Timeline
    track: int
    tracks: int
    inverted: Seconds


@dataclass(slots=True)
class _Levels:
    """Counts and levels of a wave, collected while it passes."""

    samples: int = 0
    invalid: int = 0
    inverted: int = 0
    loudest: float = 0.0  # RMS of the loudest second, full scale = 1


def decode(media: Path, destination: Path, *, sample_rate: Hertz, settings: DecodeSettings) -> np.ndarray:
    """Decode the sound of a file, as `decode_recording` does; only the wave counts."""
    return decode_recording(media, destination, sample_rate=sample_rate, settings=settings).wave


def decode_recording(media: Path, destination: Path, *, sample_rate: Hertz, settings: DecodeSettings) -> Recording:
    """Decode one audio track of a file, of any length, to raw samples on disk.

    The format is detected from the content; the file's name does not matter.

    Args:
        media: Any file with sound that ffmpeg reads.
        destination: Overwritten with interleaved little-endian float32 stereo; `open_decoded` reads
            it again. Incomplete when the file is refused.
        sample_rate: Of the result, in hertz (resampled by soxr).
        settings: What is accepted, and which track is taken.

    Raises:
        Refused: `empty_file`, `not_media`, `no_audio_track`, `no_such_track`, `truncated`,
            `too_short`, `too_long`, `silent`, `invalid_samples`, `decode_timeout` or `unreadable`.
        OSError: `media` can't be opened, or `destination` can't be written.
    """
    if media.stat().st_size == 0:
        raise Refused("empty_file", f"{media.name} has 0 bytes; fetch it again.")
    source = _probe(media, settings)
    if (declared := _declared_duration(media, source)) is not None and declared > settings.max_duration:
        raise _too_long(media, settings)
    first: Refused | None = None
    for track in _in_order(media, source, settings):
        try:
            return _decode_track(media, destination, source, track, sample_rate=sample_rate, settings=settings)
        except Refused as refused:
            if refused.reason not in ("silent", "unreadable"):
                raise
            first = first or refused
    assert first is not None
    if len(source.tracks) > 1 and settings.track is None:
        raise Refused(first.reason, f"{first.detail} None of its {len(source.tracks)} audio tracks is better.")
    raise first


def open_decoded(path: Path) -> np.ndarray:
    """Open a file that `decode` wrote as a read-only memory map, (2, samples) float32."""
    flat = np.memmap(path, dtype=SAMPLE_TYPE, mode="r")
    return flat.reshape(-1, CHANNELS).T


def _probe(media: Path, settings: DecodeSettings) -> Description:
    # Without an output ffmpeg describes its input and stops.
    with run(input_options(), media, timeout=settings.timeout) as running:
        running.stdout.read()
        running.process.wait()
    if running.expired.is_set():
        raise _timed_out(media, settings)
    if running.process.returncode < 0:  # a signal: the program, not the file, is at fault
        raise Refused(
            "unreadable",
            f"{media.name}: {ffmpeg_binary()} crashed (signal {-running.process.returncode}); install another ffmpeg, "
            "or none: one comes with the package imageio-ffmpeg.",
        )
    source = description(running.messages)
    if source is None:
        raise _not_opened(media, running.messages)
    if not source.tracks:
        raise Refused(
            "no_audio_track", f"{media.name} ({source.format}) has no audio track; choose a version with sound."
        )
    _refuse_rates(media, source, running.messages)
    return source


def _refuse_rates(media: Path, source: Description, messages: list[str]) -> None:
    if any(track.sample_rate in SAMPLE_RATES for track in source.tracks):
        return
    rate = source.tracks[0].sample_rate
    raise Refused(
        "unreadable",
        f"{media.name}: the audio track declares {f'a sample rate of {rate} Hz' if rate else 'no sample rate'} "
        f"({last_error(messages)}); {SAMPLE_RATES.start} to {SAMPLE_RATES.stop - 1} Hz are supported.",
    )


def _in_order(media: Path, source: Description, settings: DecodeSettings) -> list[Track]:
    """List the tracks to try: the one that a setting names, or all, the one that a player takes first."""
    usable = [track for track in source.tracks if track.sample_rate in SAMPLE_RATES]
    if settings.track is None:
        return sorted(usable, key=lambda track: (not track.decodable, track.aside, not track.default))
    named = [track for track in usable if settings.track in (track.number, track.language)]
    if not named:
        present = ", ".join(f"{track.number} ({track.language or 'no language'})" for track in source.tracks)
        raise Refused(
            "no_such_track", f"{media.name} has no audio track {settings.track} (decode.track), but these: {present}."
        )
    return named[:1]


def _declared_duration(media: Path, source: Description) -> Seconds | None:
    """Return the length that the file declares; None where nobody knew it when the file was written."""
    if source.is_any_of(CLOCK_ALONE) or _declared_size(media) >= UNKNOWN_SIZE:
        return None
    return source.duration


def _not_opened(media: Path, messages: list[str]) -> Refused:
    if any("moov atom not found" in line for line in messages):
        return Refused(
            "truncated",
            f"{media.name} ends before its index (moov atom not found): an incomplete download; fetch it again.",
        )
    return Refused(
        "not_media",
        f"{media.name} has no supported media format ({last_error(messages)}): probably a web page, text or "
        "playlist was saved in its place. Fetch the media file itself.",
    )


def _decode_track(
    media: Path,
    destination: Path,
    source: Description,
    track: Track,
    *,
    sample_rate: Hertz,
    settings: DecodeSettings,
) -> Recording:
    assert track.sample_rate is not None
    seen = _Levels()
    with (
        destination.open("wb") as out,
        _timestamps(source, track.sample_rate) as (clock, times),
        run(_options(source, track, times), media, timeout=settings.timeout, pass_fds=[times.fileno()]) as running,
    ):
        times.close()  # ffmpeg has it now; without a writer the reader ends
        blocks = _decoded_blocks(running, media, seen=seen, track=track, settings=settings)
        for block in resampled(blocks, track.sample_rate, sample_rate):
            out.write(block.astype(SAMPLE_TYPE, copy=False).tobytes())
        running.process.wait()
    if running.expired.is_set():
        raise _timed_out(media, settings)
    _refuse_incomplete(media, source, running, seen=seen, end=clock.end, rate=track.sample_rate, settings=settings)
    timeline = clock.timeline(seen.samples)
    _refuse_unusable(media, seen, duration=timeline.sound, track=track, settings=settings)
    cuts = [sample_index(cut / track.sample_rate, sample_rate) for cut in clock.cuts()]
    if len(cuts) * SILENCE > settings.max_duration:
        raise Refused("unreadable", f"{media.name}: its sound has {len(cuts)} holes; export or fetch it again.")
    _insert_silence(destination, cuts, sample_rate)
    _tell(media, source, track, timeline, seen)
    return Recording(
        wave=open_decoded(destination),
        timeline=timeline,
        track=track.number,
        tracks=len(source.tracks),
        inverted=round(seen.inverted / track.sample_rate, 3),
    )


def _options(source: Description, track: Track, times: IO[bytes]) -> list[str]:
    """Return the options that decode a track to the standard output, and list its frames to another pipe."""
    # Where a break in a stream brings new numbers for its tracks, they are still the same tracks.
    more = {"merge_pmt_versions": "1"} if source.is_any_of(("mpegts",)) else {}
    # Mono is doubled later: ffmpeg would take it down by 3 dB.
    channels = 1 if track.mono else CHANNELS
    sound = ["-map", f"0:a:{track.number - 1}", "-c:a", "pcm_f32le"]
    sound += ["-ac", str(channels), "-ar", str(track.sample_rate)]
    # The clock of the file as it is: by default ffmpeg lets some formats begin with their sound.
    read = ["-copyts", *input_options(**more)]
    marked = ["-af", f"aresample={track.sample_rate},asetpts=PTS+NB_CONSUMED_SAMPLES*{STEP}"]
    return [*read, *sound, "-f", "f32le", "pipe:1", *sound, *marked, "-f", "framecrc", f"pipe:{times.fileno()}"]


@contextmanager
def _timestamps(source: Description, rate: Hertz) -> Iterator[tuple[Clock, IO[bytes]]]:
    """Yield a clock, and a pipe for ffmpeg's line per decoded frame; after the block the clock has read them."""
    back, ahead = (HOLE, RESTART) if source.is_any_of(RESTARTING) else (1.0, LONGEST)
    clock = Clock(rate, origin=source.start, back=back, ahead=ahead)
    reading, writing = os.pipe()
    reader = threading.Thread(target=_read_frames, args=(reading, clock, rate), daemon=True)
    reader.start()
    try:
        with os.fdopen(writing, "wb") as times:
            yield clock, times
    finally:
        reader.join()


def _read_frames(pipe: int, clock: Clock, rate: Hertz) -> None:
    samples = 0
    with os.fdopen(pipe, "rb") as lines:
        for line in lines:
            # stream, dts, pts, duration, bytes, checksum; times in samples
            if not line.startswith(b"#") and len(fields := line.split(b",")) == 6:
                clock.add((int(fields[2]) - samples * STEP) / rate, int(fields[3]))
                samples += int(fields[3])


def _insert_silence(wave: Path, cuts: Sequence[int], sample_rate: Hertz) -> None:
    """Put SILENCE into a decoded wave at each of these samples."""
    if not cuts:
        return
    frame = CHANNELS * SAMPLE_TYPE.itemsize
    silence = bytes(sample_index(SILENCE, sample_rate) * frame)
    longer = wave.with_name(f"{wave.name}.longer")
    with wave.open("rb") as source, longer.open("wb") as out:
        for start, end in zip([0, *cuts], [*cuts, None], strict=True):
            if start:
                out.write(silence)
            left = -1 if end is None else (end - start) * frame
            while piece := source.read(min(left, 1 << 22) if left >= 0 else 1 << 22):
                out.write(piece)
                left -= len(piece) if left >= 0 else 0
    longer.replace(wave)


def _decoded_blocks(
    running: Run, media: Path, *, seen: _Levels, track: Track, settings: DecodeSettings
) -> Iterator[np.ndarray]:
    """Yield the wave second by second, (samples, 2) float32, cleaned; fill in `seen`."""
    assert track.sample_rate is not None
    frame = (1 if track.mono else CHANNELS) * SAMPLE_TYPE.itemsize
    while data := running.stdout.read(track.sample_rate * frame):
        whole = np.frombuffer(data[: len(data) // frame * frame], dtype=SAMPLE_TYPE)
        block = whole.repeat(CHANNELS).reshape(-1, CHANNELS) if track.mono else whole.reshape(-1, CHANNELS)
        # Written so that NaN, too, is not valid.
        valid = np.abs(block) <= LOUDEST
        block = np.where(valid, block, np.float32(0))
        if _cancels(block):
            block = block * np.array([1, -1], dtype=np.float32)
            seen.inverted += len(block)
        seen.samples += len(block)
        seen.invalid += valid.size - int(valid.sum())
        seen.loudest = max(seen.loudest, float(np.sqrt(np.mean(np.square(block), dtype=np.float64))))
        if seen.samples > sample_index(settings.max_duration, track.sample_rate):
            raise _too_long(media, settings)
        yield block


def _cancels(block: np.ndarray) -> bool:
    """Whether the mean of (samples, 2) is so much softer than the louder channel that they are opposites."""
    power = np.square(block, dtype=np.float64).mean(axis=0).max()
    return bool(np.square(block.mean(axis=1, dtype=np.float64)).mean() < power * OPPOSITE)


def _refuse_incomplete(
    media: Path,
    source: Description,
    running: Run,
    *,
    seen: _Levels,
    end: Seconds,
    rate: Hertz,
    settings: DecodeSettings,
) -> None:
    messages = running.messages
    decoded = seen.samples / rate
    # ffmpeg takes the size of the file for the length of a RIFF file, so its header is read here.
    declared = _declared_duration(media, source)
    declared = decoded * _growth(media) if declared is None else declared
    cut = Refused(
        "truncated",
        f"{media.name} declares {declared:.1f} s and ends after {decoded:.1f} s of sound: an incomplete download; "
        "fetch it again.",
    )
    if any(re.search(r"\[error\].*(partial file|File ended prematurely)", line) for line in messages):
        raise cut
    if _ends_early(max(end, decoded), declared) and _ends_early(_demuxed_duration(media, settings), declared):
        raise cut
    if running.process.returncode != 0 or seen.samples == 0:
        raise Refused(
            "unreadable",
            f"{media.name}: ffmpeg gave up after {decoded:.1f} s of sound ({last_error(messages)}). "
            "Fetch it again, or convert it to a common format.",
        )


def _ends_early(reached: Seconds, declared: Seconds) -> bool:
    return declared - reached > max(TRUNCATED_MIN, TRUNCATED_SHARE * declared)


def _growth(media: Path) -> float:
    """Ratio of the size that a header of RIFF or IFF declares to the file's; at least 1."""
    declared = _declared_size(media)
    return 1.0 if declared >= UNKNOWN_SIZE else max(1.0, (declared + 8) / media.stat().st_size)


def _declared_size(media: Path) -> int:
    """Bytes that follow the header of a WAV, AVI or AIFF file, as it says; 0 for other formats."""
    with media.open("rb") as file:
        header = file.read(8)
    return int.from_bytes(header[4:8], BYTE_ORDER[header[:4]]) if header[:4] in BYTE_ORDER else 0


def _demuxed_duration(media: Path, settings: DecodeSettings) -> Seconds:
    """Where the last packet of any track ends: a whole file may have a short audio track."""
    # All tracks, but none is decoded: their packets are counted as they are.
    options = [option for option in input_options() if option not in ("-vn", "-sn", "-dn")]
    options += ["-map", "0", "-c", "copy", "-ignore_unknown", "-progress", "pipe:1", "-f", "null", "pipe:1"]
    with run(options, media, timeout=settings.timeout) as running:
        times = re.findall(rb"out_time_us=(\d+)", running.stdout.read())
        running.process.wait()
    if running.expired.is_set():
        raise _timed_out(media, settings)
    return int(times[-1]) / 1e6 if times else 0.0


def _refuse_unusable(media: Path, seen: _Levels, *, duration: Seconds, track: Track, settings: DecodeSettings) -> None:
    share = seen.invalid / (seen.samples * CHANNELS)
    level = 20 * math.log10(max(seen.loudest, 1e-10))
    if share > settings.max_invalid_share:
        raise Refused(
            "invalid_samples",
            f"{media.name}: {share:.2%} of the samples are NaN, infinite or beyond +40 dBFS, and "
            f"max_invalid_share allows {settings.max_invalid_share:.2%}; export it again.",
        )
    if duration < settings.min_duration:
        raise Refused(
            "too_short", f"{media.name} lasts {duration:.2f} s, less than min_duration = {settings.min_duration:g} s."
        )
    if level < settings.silence_dbfs:
        raise Refused(
            "silent",
            f"{media.name}: the loudest second of audio track {track.number} is at {level:.0f} dBFS, below "
            f"silence_dbfs = {settings.silence_dbfs:g}.",
        )
    if seen.invalid:
        log.warning("%s: set %d invalid samples (%.4f %%) to 0", media.name, seen.invalid, 100 * share)


def _tell(media: Path, source: Description, track: Track, timeline: Timeline, seen: _Levels) -> None:
    if len(source.tracks) > 1:
        log.info("%s: took audio track %d of %d", media.name, track.number, len(source.tracks))
    if timeline.holes:
        lost = sum(length for _, length in timeline.holes)
        log.warning("%s: the sound has %d holes, %.1f s in all", media.name, len(timeline.holes), lost)
    if seen.inverted:
        log.warning(
            "%s: left and right cancel each other in %d s; turned the right channel over there",
            media.name,
            round(seen.inverted / (track.sample_rate or 1)),
        )


def _too_long(media: Path, settings: DecodeSettings) -> Refused:
    return Refused(
        "too_long",
        f"{media.name} lasts longer than max_duration = {settings.max_duration:g} s; cut it, or raise the setting.",
    )


def _timed_out(media: Path, settings: DecodeSettings) -> Refused:
    return Refused(
        "decode_timeout",
        f"{media.name}: ffmpeg had not finished after timeout = {settings.timeout:g} s and was stopped; raise the "
        "setting, or convert the file to a common format.",
    )
