"""What is compared: systems, corpora, seeds and one budget for all.

No torch here: a flow shows these fields as a form and must import fast.
"""

import os.path
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from fsclap.comparison.paper import DataSet
from fsclap.data.splits import SplitSettings
from fsclap.model.settings import (
    PAPER,
    CodebookSettings,
    LossSettings,
    ModelSettings,
    SystemName,
    SystemsSettings,
    paper_preset,
)
from fsclap.settings import Folded
from fsclap.training.settings import PRESETS, TrainSettings

Preset = Literal["embedded", "paper"]
BASE, FULL = "clap_laion", "fs_clap"
"""The first and the last row of Table 3."""
ABLATION = ("FU", "SE", "HN", "FU+SE")
"""The rows of Table 3 between them."""
LABELS: dict[str, str] = {
    "clap_laion": "CLAP-LAION",
    "clap_microsoft": "CLAP-Microsoft",
    "audioclip": "AudioCLIP",
    "ra_clap": "RA-CLAP",
    "mga_clap": "MGA-CLAP",
    "emotion_rank_clap": "EmotionRankCLAP",
    "fs_clap": "FS-CLAP",
}
"""Systems in the order of Table 1, as people write them."""
BUDGET: dict[Preset, dict[str, Any]] = {
    # From random weights: all but the frozen encoders is new.
    "embedded": {"epochs": 60, "batch": 96, "accumulate": 1, "head_lr": 1e-3, "init": "none"},
    # Section 4.1 of the paper.
    "paper": {**PRESETS["clap"], "encoder_lr": 4e-5, "init": "none", "keep": "best"},
}
"""The training of all rows."""
_OF_ROW = {"model", "loss", "seed", "split"}


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the tables: a model and the loss that it is trained with."""

    model: ModelSettings
    loss: LossSettings = field(default_factory=LossSettings)


class ComparedCorpus(BaseModel):
    """A corpus, and how it stands in the tables."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    corpus: Annotated[str, AfterValidator(os.path.expanduser)] = Field(min_length=1, description="Folder of the corpus")
    version: int | None = Field(None, ge=0, description="Version of its utterances; none: the current one")
    name: str | None = Field(None, min_length=1, description="Its name in the tables; none: that of the folder")
    paper: DataSet | None = Field(
        None, description="Which of the paper's data sets it is: the paper's figures are printed beside ours"
    )
    pool: int | None = Field(
        None, ge=2, description="Clips in a pool; none: as for all. The paper has 199 of TextrolSpeech, 237 of Zhvoice"
    )
    split: Folded[SplitSettings] = Field(
        default_factory=SplitSettings,
        description='Which clips train, validate and test; {"validation_series": ["*-validation"], "test_series": '
        '["*-test"]} keeps the published parts of an imported corpus',
    )

    @property
    def shown(self) -> str:
        return self.name or self.corpus.rstrip("/").rsplit("/", 1)[-1]


def _named(value: Any) -> Any:
    return {"corpus": value} if isinstance(value, str) else value


NamedCorpus = Annotated[ComparedCorpus, BeforeValidator(_named, json_schema_input_type=ComparedCorpus | str)]
"""A corpus; its folder alone will do."""


class ComparisonSettings(BaseModel):
    """Which rows, how often, and with which budget."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    systems: tuple[SystemName, ...] = Field(
        tuple(get_args(SystemName)), description="Systems to compare; the default is all of them"
    )
    seeds: int = Field(3, ge=1, description="Trainings of each row on each corpus, with seeds 0, 1, ...")
    ablation: bool = Field(
        False, description="Also the rows of Table 3: fusion, separation, hard negatives, each alone"
    )
    preset: Preset = Field(
        "embedded",
        description="embedded: all systems have the same frozen encoders, which come with pip packages, so that ideas "
        "are compared. paper: each has its own at full size, trained along; for a GPU",
    )
    weights: dict[SystemName, dict[Literal["weights", "text_weights"], str]] = Field(
        default_factory=dict,
        description="For preset=paper: what each system starts from, as in model.systems; of clap_laion and fs_clap "
        "`weights` is their model.clap_weights. A system that is not named starts from random weights",
    )
    models: dict[str, ModelSettings] = Field(
        default_factory=dict, description="Rows of your own by name, or other settings of a system's row"
    )
    training: dict[str, Any] = Field(
        default_factory=dict,
        description='Settings of the training that all rows share, such as {"epochs": 20}; see train-fsclap. Default: '
        "60 epochs from random weights; with preset=paper those of section 4.1 of the paper",
    )
    pool: int = Field(200, ge=2, description="Clips that a query's answer is searched among, at most all test clips")
    resamples: int = Field(10_000, ge=1000, description="Resamples of the bootstrap over clips")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.weights and self.preset != "paper":
            raise ValueError("weights are only for preset=paper: the encoders of the embedded preset are fixed")
        if not_shared := sorted(_OF_ROW & set(self.training)):
            raise ValueError(f"training: {', '.join(not_shared)} belongs to a row or a corpus, so rows can't share it")
        self.train_settings(next(iter(self.rows())), 0)  # unknown or impossible settings are refused here
        return self

    def rows(self) -> dict[str, Row]:
        """Return the rows by name, in the order of the tables."""
        wanted = set(self.systems) | ({BASE, FULL} if self.ablation else set())
        rows = {name: Row(self._model(name)) for name in get_args(SystemName) if name in wanted}
        rows = {name: rows[name] for name in LABELS if name in rows}
        if self.ablation:
            rows |= _ablation(rows[FULL].model)
        rows |= {name: Row(model) for name, model in self.models.items()}
        if not rows:
            raise ValueError("systems and models are empty: there is nothing to compare")
        return rows

    def train_settings(self, row: str, seed: int, split: SplitSettings | None = None) -> TrainSettings:
        """Return the settings of one training.

        Args:
            row: Name of a row.
            seed: Its seed.
            split: Which clips train, validate and test.
        """
        chosen = self.rows()[row]
        given = {**BUDGET[self.preset], **self.training, "split": split or SplitSettings()}
        return TrainSettings(model=chosen.model, loss=chosen.loss, seed=seed, **given)

    def _model(self, system: SystemName) -> ModelSettings:
        if self.preset == "paper":
            return _paper_model(system, {str(kind): name for kind, name in self.weights.get(system, {}).items()})
        # A codebook in the size of the other networks of this preset.
        small = {"mga": CodebookSettings(codes=1024, temperature=100.0)} if system == "mga_clap" else {}
        fusion = {"fusion": "shared"} if system == FULL else {}
        return ModelSettings(system=system, systems=SystemsSettings(**small), **fusion)


def _paper_model(system: SystemName, weights: Mapping[str, str]) -> ModelSettings:
    if system not in (BASE, FULL):
        return paper_preset(system, **weights)
    if "text_weights" in weights:
        raise ValueError(f"weights: {system} has no text_weights; its text encoder is part of clap_weights")
    model = PAPER if system == FULL else paper_preset(system)
    return model.model_copy(update={"clap_weights": weights.get("weights")})


def _ablation(full: ModelSettings) -> dict[str, Row]:
    """Make the inner rows of Table 3 from its last one. Only the row with hard negatives alone pools by the mean."""
    plain = LossSettings(gamma=0.0)
    bare = {"fusion": "none", "separation": False, "pooling": "mean"}
    parts: dict[str, tuple[dict[str, Any], LossSettings]] = {
        "FU": ({"separation": False}, plain),
        "SE": ({"fusion": "none"}, plain),
        "HN": (bare, LossSettings()),
        "FU+SE": ({}, plain),
    }
    return {name: Row(full.model_copy(update=changes), loss) for name, (changes, loss) in parts.items()}


def label(row: str) -> str:
    """Return what a row is called in a table."""
    return LABELS.get(row, row)
