"""Which rows a comparison has, and that they share all but what they are compared by."""

import pytest
from pydantic import ValidationError

from fsclap.comparison import paper
from fsclap.comparison.settings import ABLATION, BASE, FULL, ComparedCorpus, ComparisonSettings, label
from fsclap.data.splits import SplitSettings
from fsclap.model.settings import ModelSettings
from fsclap.model.systems import SYSTEMS
from fsclap.training.settings import TrainSettings

ALL = ComparisonSettings(ablation=True)


def test_every_system_has_a_row_in_the_order_of_table_1() -> None:
    rows = list(ComparisonSettings().rows())
    assert set(rows) == set(SYSTEMS)
    assert (rows[0], rows[-1]) == (BASE, FULL)
    assert [label(row) for row in rows][:3] == ["CLAP-LAION", "CLAP-Microsoft", "AudioCLIP"]


@pytest.mark.parametrize("preset", ["embedded", "paper"])
def test_rows_differ_in_nothing_but_model_and_loss(preset: str) -> None:
    settings = ComparisonSettings(preset=preset, ablation=True, training={"epochs": 3})
    base = settings.train_settings(BASE, 2)
    assert (base.epochs, base.seed, base.init) == (3, 2, "none")
    for row in settings.rows():
        differences = base.differences(settings.train_settings(row, 2))
        assert all(line.startswith(("model.", "loss.gamma")) for line in differences), differences


def switches(settings: TrainSettings) -> tuple[bool, bool, bool]:
    """FU, SE and HN of a row of fs_clap."""
    return settings.model.fusion != "none", settings.model.separation, settings.loss.gamma > 0


def test_the_inner_rows_of_table_3_have_one_part_each() -> None:
    expected = {
        "FU": (True, False, False),
        "SE": (False, True, False),
        "HN": (False, False, True),
        "FU+SE": (True, True, False),
        FULL: (True, True, True),
    }
    assert {row: switches(ALL.train_settings(row, 0)) for row in (*ABLATION, FULL)} == expected
    assert [row for row in ABLATION if ALL.rows()[row].model.pooling == "mean"] == ["HN"]
    assert set(ComparisonSettings(systems=("audioclip",), ablation=True).rows()) == {"audioclip", BASE, FULL, *ABLATION}


def test_the_paper_preset_is_that_of_section_4() -> None:
    settings = ComparisonSettings(
        preset="paper", weights={"fs_clap": {"weights": "laion/clap"}, "audioclip": {"weights": "a.pt"}}
    )
    chosen = settings.train_settings(FULL, 0)
    assert (chosen.epochs, chosen.accumulate, chosen.head_lr, chosen.encoder_lr) == (10, 2, 1e-4, 4e-5)
    assert (chosen.model.encoders, chosen.model.clap_weights, chosen.keep) == ("clap", "laion/clap", "best")
    assert settings.rows()["audioclip"].model.systems.weights == "a.pt"
    assert {row.model.encoders for row in settings.rows().values()} == {"clap", "own"}


def test_rows_of_ones_own_and_other_settings_of_a_system() -> None:
    mine = ModelSettings(width=32, heads=2)
    settings = ComparisonSettings(systems=("fs_clap",), models={"mine": mine, "fs_clap": mine})
    assert {name: row.model for name, row in settings.rows().items()} == {"fs_clap": mine, "mine": mine}
    assert label("mine") == "mine"


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"training": {"seed": 1}}, "seed belongs to a row"),
        ({"training": {"epoch": 1}}, "epoch"),
        ({"training": {"epochs": 0}}, "epochs"),
        ({"weights": {"audioclip": {"weights": "a.pt"}}}, "only for preset=paper"),
        ({"preset": "paper", "weights": {"fs_clap": {"text_weights": "x"}}}, "has no text_weights"),
        ({"systems": ()}, "nothing to compare"),
        ({"systems": ("clap",)}, "systems"),
    ],
)
def test_what_cant_be_compared_is_refused_before_anything_runs(given: dict[str, object], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        ComparisonSettings(**given)


def test_a_corpus_is_named_by_its_folder_and_keeps_its_split() -> None:
    split = SplitSettings(test_series=("*-test",))
    corpus = ComparedCorpus(corpus="data/my-corpus/", split=split)
    assert corpus.shown == "my-corpus"
    assert ComparisonSettings().train_settings(FULL, 0, corpus.split).split == split
    assert ComparedCorpus(corpus="x", split=None).split == SplitSettings()


def test_the_papers_figures_are_where_the_paper_prints_them() -> None:
    assert paper.figure("fs_clap", "TextrolSpeech", "audio_to_text", "mAP@10") == 43.4
    assert paper.figure("mga_clap", "Zhvoice", "text_to_audio", "R@5") == 51.5
    assert paper.figure("clap_microsoft", "GigaSpeech", "audio_to_text", "R@10") == 72.8
    assert paper.figure("FU", "TextrolSpeech", "text_to_audio", "R@1") == 29.7
    assert paper.figure("HN", "Zhvoice", "audio_to_text", "mAP@10") == 56.5
    for row, data_set, metric in (
        ("ra_clap", "Zhvoice", "R@1"), ("emotion_rank_clap", "TextrolSpeech", "R@1"), ("fs_clap", None, "R@1"),
        ("FU", "TextrolSpeech", "R@5"), ("FU", "GigaSpeech", "R@1"), ("mine", "TextrolSpeech", "mAP@10"),
    ):  # fmt: skip
        assert paper.figure(row, data_set, "audio_to_text", metric) is None
    assert paper.figure("fs_clap", "TextrolSpeech", "mean", "mAP@10") is None


def test_tables_1_to_3_of_the_paper_agree_where_they_overlap() -> None:
    for row in (BASE, FULL):
        for data_set in ("TextrolSpeech", "Zhvoice"):
            four = paper._TABLE_3[row][data_set]
            assert four == tuple(
                paper.figure(row, data_set, side, metric)
                for side in ("audio_to_text", "text_to_audio")
                for metric in ("mAP@10", "R@1")
            )
