from bench.systems import BASE, ROWS, markdown, train_settings
from fsclap.model.systems import SYSTEMS


def test_every_system_has_a_row() -> None:
    assert {train_settings(row, 0).model.system for row in ROWS} == set(SYSTEMS)
    assert next(iter(ROWS)) == BASE  # the others are compared with it


def test_rows_differ_in_nothing_but_the_model() -> None:
    base = train_settings(BASE, 2, epochs=1)
    assert base.epochs == 1
    for row in ROWS:
        differences = base.differences(train_settings(row, 2, epochs=1))
        assert all(line.startswith("model.") for line in differences), differences


def test_the_table_has_both_directions_and_the_cost() -> None:
    figures = {
        "mAP@10 audio_to_text 200": 12.5, "mAP@10 text_to_audio 200": 11.5, "mAP@10 200": [12.0, 11.0, 13.0],
        "mAP@10 200 by seed": [11.9, 12.1], "R@1 200 by seed": [3.0, 5.0], "mAP@10 all by seed": [1.0, 2.0],
        "parameters": 1.25e6, "seconds": 61.4,
    }  # fmt: skip
    apart = figures | {"against base": [1.0, -0.5, 2.5]}
    first, second = markdown({BASE: figures, "audioclip": apart}).splitlines()[2:]
    assert (
        first == "| clap_laion | 12.50 | 11.50 | 12.00 (11.00 to 13.00) |  | 11.90, 12.10 | 4.00 | 1.50 | 1.25 M | 61 |"
    )
    assert "+1.00 (-0.50 to +2.50)" in second
