import io

import numpy as np
import pytest
import soundfile

from storage.verify_audio import audio_problem

RATE = 24_000
WAVE = np.sin(np.arange(RATE) * 0.05) * 0.5


def encoded(*, wave=WAVE, rate=RATE, kind="FLAC", subtype="PCM_16"):
    buffer = io.BytesIO()
    soundfile.write(buffer, wave, rate, format=kind, subtype=subtype)
    return buffer.getvalue()


@pytest.mark.parametrize("subtype", ["PCM_S8", "PCM_16", "PCM_24"])
def test_a_sound_clip_has_no_problem(subtype):
    assert audio_problem(encoded(subtype=subtype), sample_rate=RATE, duration=1.0) is None


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "has no audio"),
        (b"", "has no audio"),
        (b"fLaC", "cannot be decoded"),
        (encoded()[:4000], "cannot be decoded|MD5 differs"),
        (encoded()[:30] + b"another" + encoded()[37:], "MD5 differs"),
        (encoded(kind="WAV"), "is WAV PCM_16"),
        (encoded(wave=np.stack([WAVE, WAVE], axis=1)), "with 2 channels, not mono"),
        (encoded(rate=16_000), "has 16000 Hz, sample_rate is 24000"),
        (encoded(wave=WAVE[: RATE // 2]), "lasts 0.500 s, duration is 1.000"),
    ],
)
def test_what_is_wrong_is_said(data, message):
    problem = audio_problem(data, sample_rate=RATE, duration=1.0)
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(problem)


def test_no_flipped_bit_of_the_sound_goes_unseen():
    whole = encoded()
    start = whole.index(b"\xff\xf8")  # the first frame
    for place in np.random.default_rng(1).integers(start, len(whole), 60):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << int(place % 8)
        assert audio_problem(bytes(flipped), sample_rate=RATE, duration=1.0) is not None, place
