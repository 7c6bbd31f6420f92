"""Settings of the model and of the loss. Every row of the paper's Table 3 is a value of these two.

No torch here: flows show these fields as a form and must import fast.
"""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fsclap.settings import Folded

Functionals = Literal["speaker", "clip", "none"]
SystemName = Literal["fs_clap", "clap_laion", "clap_microsoft", "audioclip", "mga_clap", "ra_clap", "emotion_rank_clap"]


class CodebookSettings(BaseModel):
    """The codebook of MGA-CLAP."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    codes: int = Field(4096, ge=2, description="Codes that clips and captions are mixtures of")
    temperature: float = Field(
        1000.0,
        gt=0,
        description="What the likeness to a code is divided by: the larger, the more codes have a share. With the "
        "released 1000, three thousand of 4096 have one at the start, and all clips are nearly alike",
    )
    zero_padding: bool = Field(
        False, description="Count padding as likeness 0, as the released code does: embeddings depend on the batch"
    )


class DistilSettings(BaseModel):
    """The two stages of RA-CLAP."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage_one: float = Field(0.5, gt=0, le=1, description="Share of the epochs before the model becomes its teacher")
    share: float = Field(0.5, ge=0, le=1, description="Share of the distillation in the loss of stage 2")


class RankSettings(BaseModel):
    """The labels that EmotionRankCLAP ranks by."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    axes: Literal["style", "emotion"] = Field(
        "style",
        description="emotion: valence and arousal, as published. style: also the levels of the style (pitch, energy, "
        "rate ...), for clips that no engine has tagged with an emotion",
    )


class SystemsSettings(BaseModel):
    """What only one of the systems has."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weights: str | None = Field(
        None,
        description="For encoders=own: what to start from. The published checkpoint of clap_microsoft, audioclip or "
        "mga_clap; the folder of a speech encoder of transformers (WavLM, HuBERT, wav2vec 2.0) for ra_clap and "
        "emotion_rank_clap. none: random weights",
    )
    text_weights: str | None = Field(
        None,
        description="For encoders=own: folder with the tokenizer that these weights need; for ra_clap and "
        "emotion_rank_clap the text encoder's weights, too (BERT, RoBERTa)",
    )
    mga: Folded[CodebookSettings] = Field(default_factory=CodebookSettings, description="For system=mga_clap")
    ra: Folded[DistilSettings] = Field(default_factory=DistilSettings, description="For system=ra_clap")
    emotion_rank: Folded[RankSettings] = Field(default_factory=RankSettings, description="For system=emotion_rank_clap")


class ModelSettings(BaseModel):
    """Encoders, fusion, separation, pooling and the joint space."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    system: SystemName = Field(
        "fs_clap",
        description="Which model of the paper's tables: fs_clap, or one that it is compared with. All are trained in "
        "the same way on the same encoders (docs/systems.md)",
    )
    encoders: Literal["embedded", "clap", "own"] = Field(
        "embedded",
        description="embedded: prosodic frames and frozen MiniLM, from pip packages. "
        "clap: HTSAT and RoBERTa of transformers.ClapModel, trained along. own: those that the system was published "
        "with, at full size (docs/systems.md); fs_clap's and clap_laion's are clap",
    )
    clap_weights: str | None = Field(
        None,
        description="For encoders=clap: folder of a ClapModel to start from, or the name of one that `fsclap models "
        "fetch` downloaded from Hugging Face, such as laion/clap-htsat-unfused; "
        "none: HTSAT-tiny and RoBERTa-base with random weights",
    )
    speech_tokens: bool = Field(
        False,
        description="For encoders=embedded: add the frames of Whisper tiny.en's encoder to the prosodic ones. With "
        "only a thousand clips, the model then memorises what they say (docs/results.md)",
    )
    functionals: Functionals = Field(
        "speaker",
        description="For encoders=embedded: what each frame has beside the sound of its 80 ms. clip: ten measures "
        "of the whole clip, such as pitch range, rate and pauses. speaker: also how the clip compares with the "
        "speaker's others. none: nothing",
    )
    fusion: Literal["shared", "paired", "none"] = Field(
        "none",
        description="shared: both modalities go through the same blocks, each alone, so clips can be indexed. "
        "paired: audio i is fused with its own text i, as the paper reads; it leaks and is kept for study. "
        "none: no fusion blocks, which the embedded preset does as well without, in less than half the time "
        "(docs/results.md)",
    )
    separation: bool = Field(True, description="A feed-forward network for each modality after the fusion")
    pooling: Literal["attention", "mean"] = Field(
        "attention", description="attention, as in the paper; mean: the global features of the base row"
    )
    rerank: bool = Field(False, description="Add the matching head, which re-ranks the first results")
    width: int = Field(256, ge=8, description="Width of the tokens in fusion and separation; 512 for encoders=clap")
    heads: int = Field(4, ge=1, description="Attention heads; divides width")
    embedding: int = Field(256, ge=2, description="Width of the joint space; 512 for encoders=clap")
    dropout: float = Field(0.1, ge=0, lt=1, description="Dropout of fusion, separation and projection")

    systems: Folded[SystemsSettings] = Field(
        default_factory=SystemsSettings, description="What only one of the systems has"
    )

    @model_validator(mode="after")
    def _consistent(self) -> "ModelSettings":
        if self.width % self.heads:
            raise ValueError(f"width ({self.width}) must be a multiple of heads ({self.heads})")
        only_fs_clap = [
            name
            for name in ("fusion", "separation", "pooling", "rerank")
            if self.system != "fs_clap" and getattr(self, name) != type(self).model_fields[name].default
        ]
        if only_fs_clap:
            raise ValueError(f"{', '.join(only_fs_clap)}: only system=fs_clap has these, not {self.system}")
        if self.encoders == "own" and self.system in ("fs_clap", "clap_laion"):
            raise ValueError(f"encoders=own: the encoders of {self.system} are encoders=clap")
        if self.encoders != "own" and (self.systems.weights or self.systems.text_weights):
            raise ValueError("systems.weights and systems.text_weights are only for encoders=own")
        if self.clap_weights is not None and self.encoders != "clap":
            raise ValueError("clap_weights is only for encoders=clap")
        if self.speech_tokens and self.encoders != "embedded":
            raise ValueError("speech_tokens is only for encoders=embedded")
        return self


def paper_preset(system: SystemName, **systems: Any) -> ModelSettings:
    """Return the settings of a system with its own encoders at full size.

    Args:
        system: Name of the system.
        systems: Fields of `SystemsSettings`, such as the weights to start from.
    """
    if system == "fs_clap":
        return PAPER
    if system == "clap_laion":
        return ModelSettings(system=system, encoders="clap", width=512, embedding=512)
    width = 512 if system in ("ra_clap", "emotion_rank_clap") else 1024
    return ModelSettings(system=system, encoders="own", width=512, embedding=width, systems=SystemsSettings(**systems))


PAPER = ModelSettings(encoders="clap", fusion="shared", width=512, heads=8, embedding=512, dropout=0.1)
"""The preset of the paper, in the sizes of LAION's joint space; the default is the embedded one."""


class LossResearch(BaseModel):
    """What Eq. 1-3 leave open, as switches for studies; models are trained with the defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mask_same_caption: bool = Field(
        True, description="Two clips with the same caption are not negatives of each other; off, they are hard ones"
    )
    detach_weights: bool = Field(
        True, description="The weights of Eq. 2 are constants for the gradient. The paper doesn't say"
    )
    reduction: Literal["mean", "sum"] = Field(
        "mean",
        description="mean: over rows, then over both directions, so neither the loss nor its gradient grows with "
        "the batch and one learning rate fits all batch sizes. sum: over rows and directions, as in Eq. 1",
    )
    denominator: Literal["all", "negatives"] = Field(
        "all", description="What k runs over in Eq. 2: the whole row, as written, or its negatives alone"
    )
    regularization: Literal["none", "sample", "batch"] = Field(
        "none",
        description="Eq. 3. sample: mean|h| / |h|_2 of each vector, averaged. batch: the same of the whole "
        "tensor, the form of WavCaps and MGA-CLAP, which a batch of 96 makes ten times smaller",
    )
    regularization_weight: float = Field(1.0, ge=0, description="Factor of the two terms of Eq. 3")
    compat: Literal["mga"] | None = Field(
        None, description="mga: what the released code of MGA-CLAP computes instead of Eq. 2, for comparison"
    )

    @model_validator(mode="after")
    def _mga_leaves_no_choice(self) -> Self:
        chosen = [
            name
            for name in ("detach_weights", "reduction", "denominator")
            if self.compat and getattr(self, name) != type(self).model_fields[name].default
        ]
        if chosen:
            raise ValueError(f"compat={self.compat} fixes {', '.join(chosen)}: leave them at their defaults")
        return self


class LossSettings(BaseModel):
    """The contrastive loss with hard negatives, Eq. 1-3."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gamma: float = Field(
        0.15,
        ge=0,
        description="How much more a hard negative weighs than an easy one, Eq. 2. 0: InfoNCE, exactly. For "
        "system=fs_clap and mga_clap",
    )
    research: Folded[LossResearch] = Field(
        default_factory=LossResearch, description="What the equations leave open, for studies"
    )
