"""What is put together for the sake of speed, and positions in samples: nothing lost, nothing twice, none too large."""

import functools
import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fsclap.audio import decode_flac, encode_flac, sample_index
from fsclap.data.batches import LEAST, epoch_batches
from fsclap.devices import by_length
from tests.properties import attempt, fewer, usual

RATES = (8000, 16_000, 22_050, 24_000, 44_100, 48_000)


@usual
@given(index=st.integers(0, 2**33), rate=st.sampled_from(RATES))
def test_a_sample_is_found_again_by_its_position(index: int, rate: int) -> None:
    assert sample_index(index / rate, rate) == index


@usual
@given(seconds=st.floats(0, 1e5), rate=st.sampled_from(RATES))
def test_the_nearest_sample(seconds: float, rate: int) -> None:
    assert abs(sample_index(seconds, rate) - seconds * rate) <= 0.5 + 1e-6
    assert sample_index(seconds, rate) <= sample_index(seconds + 1 / rate, rate)


@usual
@given(lengths=st.lists(st.floats(0.01, 50), max_size=40), budget=st.floats(0.01, 120))
def test_groups_by_length_keep_to_the_budget_and_the_order(lengths: list[float], budget: float) -> None:
    groups = by_length(lengths, budget)
    assert [index for group in groups for index in group] == sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
    for group in groups:
        assert len(group) == 1 or max(lengths[index] for index in group) * len(group) <= budget
    for group, following in itertools.pairwise(groups):
        assert lengths[following[0]] * (len(group) + 1) > budget, "no group is closed before it is full"


@usual
@given(
    lengths=st.lists(st.integers(1, 500), max_size=80),
    multiple=st.integers(1, 4),
    times=st.integers(1, 6),
    seed=st.integers(0, 9),
)
def test_an_epoch_has_each_pair_once_in_batches_of_the_right_size(
    lengths: list[int], multiple: int, times: int, seed: int
) -> None:
    size = multiple * times
    batches = epoch_batches(np.array(lengths, dtype=np.int64), size, multiple=multiple, seed=seed, epoch=1)
    seen = np.concatenate(batches).tolist() if batches else []
    assert len(seen) == len(set(seen))
    assert set(seen) <= set(range(len(lengths)))
    assert all(LEAST <= len(batch) <= size and len(batch) % multiple == 0 for batch in batches)
    if size > 2 and multiple > 1:
        assert len(lengths) - len(seen) < multiple, "fewer than a multiple sit out"
    again = epoch_batches(np.array(lengths, dtype=np.int64), size, multiple=multiple, seed=seed, epoch=1)
    assert [batch.tolist() for batch in again] == [batch.tolist() for batch in batches]


@fewer(2)
@given(
    wave=st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=300),
    rate=st.sampled_from(RATES),
)
def test_flac_gives_back_what_sixteen_bits_hold(wave: list[float], rate: int) -> None:
    sound = np.array(wave, dtype=np.float32)
    found, found_rate = decode_flac(encode_flac(sound, rate))
    assert found_rate == rate
    assert found.shape == sound.shape
    fitting = sound / max(1.0, float(np.abs(sound).max()))
    np.testing.assert_allclose(found, fitting, atol=1.01 / 32768)
    np.testing.assert_array_equal(decode_flac(encode_flac(found, rate))[0], found)  # nothing more is lost


@usual
@given(data=st.binary(max_size=200), at=st.integers(0, 60))
def test_bytes_that_are_no_flac_are_refused(data: bytes, at: int) -> None:
    whole = encode_flac(np.sin(np.arange(400, dtype=np.float32)), 16_000)
    for damaged in (data, whole[:at], whole[:at] + data, b"fLaC" + data):
        found, told = attempt(functools.partial(decode_flac, damaged), ValueError)
        if not told:
            wave, rate = found
            assert wave.ndim == 1
            assert rate > 0
