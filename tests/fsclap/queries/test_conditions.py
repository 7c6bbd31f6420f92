import numpy as np

from fsclap.queries.conditions import ANY, SILENT, allowed, clip_words, surely_met, unheard, vocabulary


def met(conditions: dict[str, list[str]], style_key: str) -> bool:
    return bool(surely_met(allowed(conditions)[None], clip_words([style_key]))[0, 0])


def test_a_query_is_true_of_the_clips_that_have_all_its_words() -> None:
    assert met({"pitch": ["low"]}, "pitch=low;energy=soft")
    assert met({"pitch": ["low"], "energy": ["soft"]}, "pitch=low;energy=soft")
    assert not met({"pitch": ["low"], "energy": ["loud"]}, "pitch=low;energy=soft")
    assert not met({"pitch": ["low"]}, "pitch=very low")
    assert met({"pitch": ["low", "very low"]}, "pitch=very low")  # "not high"
    assert met({}, "pitch=low")


def test_silence_means_ordinary_and_no_pauses() -> None:
    assert not met({"energy": ["soft"]}, "pitch=low")
    assert met({"pauses": ["none"]}, "pitch=low")
    assert not met({"pauses": ["none"]}, "pitch=low;pauses=some")


def test_what_is_unknown_is_neither_true_nor_a_negative() -> None:
    words = clip_words(["", "pitch=low", "pitch=subterranean", "events=cough+laughter"])
    names = list(vocabulary())
    assert (words[0] == ANY).all()
    assert words[1, names.index("emotion")] == ANY
    assert words[2, names.index("pitch")] == ANY
    assert not met({"pitch": ["low"]}, "")
    assert not met({"emotion": ["sad"]}, "pitch=low")
    assert met({"events": ["laughter"]}, "events=cough+laughter")
    # In training, "sad" is no negative of a clip whose emotion nobody tagged.
    assert allowed({"emotion": ["sad"]})[names.index("emotion")] & words[1, names.index("emotion")]


def test_every_word_has_a_bit_of_its_own() -> None:
    for attribute, bits in vocabulary().items():
        assert len(set(bits.values())) == len(bits)
        assert all(bit & (bit - 1) == 0 for bit in bits.values())
        assert [word for word, bit in bits.items() if bit == SILENT] == (["none"] if attribute == "pauses" else [])
    assert clip_words([]).shape == (0, len(vocabulary()))
    assert clip_words(["pitch=low"]).dtype == np.int64


def test_no_query_is_read_by_a_word_that_no_clip_meets() -> None:
    absent = unheard(clip_words(["pitch=low", "pitch=high;voice_quality=husky", ""]))
    assert ("voice_quality", "whispered") in absent
    assert ("voice_quality", "clear") not in absent  # the clips that are least husky are found
    assert ("pitch", "very high") not in absent
    assert {("energy", word) for word in vocabulary()["energy"]} <= absent
    assert {("emotion", word) for word in vocabulary()["emotion"]} <= absent
    assert ("voice_quality", "whispered") not in unheard(clip_words(["voice_quality=whispered"]))
    assert len(unheard(clip_words([""]))) == sum(map(len, vocabulary().values()))
