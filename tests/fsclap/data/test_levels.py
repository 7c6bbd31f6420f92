import numpy as np

from fsclap.data.levels import AXES, MIDDLE, style_levels


def test_words_lie_in_the_order_of_their_scale() -> None:
    rows = style_levels([f"pitch={word}" for word in ("very low", "low", "medium", "high", "very high")])
    np.testing.assert_allclose(rows[:, AXES.index("pitch")], [0, 0.25, 0.5, 0.75, 1])


def test_silence_is_the_ordinary_value_and_no_pauses_are_the_fewest() -> None:
    (row,) = style_levels(["pitch=low"])
    assert row[AXES.index("energy")] == MIDDLE
    assert row[AXES.index("pauses")] == 0
    assert style_levels(["pauses=many"])[0, AXES.index("pauses")] == 1


def test_an_emotion_has_valence_and_arousal() -> None:
    happy, angry, sad = style_levels(["emotion=happy", "emotion=angry;pitch=low", "emotion=sad"])[:, :2]
    assert happy[0] > angry[0]
    assert angry[1] > sad[1]
    assert style_levels(["emotion=bored"])[0, :2].tolist() == [MIDDLE, MIDDLE]


def test_a_clip_without_a_style_and_strange_words_are_in_the_middle() -> None:
    assert (style_levels(["", "style=3"])[:, AXES.index("pitch")] == MIDDLE).all()
    assert style_levels([]).shape == (0, len(AXES))
