"""What a model is made of and what it is trained for. Every row of the paper's Table 3 is a value of these two.

No torch here: flows show these fields as a form, and must import fast.
"""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class ModelSettings(BaseModel):
    """Encoders, fusion, separation, pooling and the joint space."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    encoders: Literal["embedded", "clap"] = Field(
        "embedded",
        description="embedded: prosodic frames and frozen MiniLM, from pip packages. "
        "clap: HTSAT and RoBERTa of transformers.ClapModel, trained along.",
    )
    speech_tokens: bool = Field(
        False,
        description="For encoders=embedded: joins the frames of Whisper tiny.en's encoder to the prosodic ones. With "
        "a thousand clips to learn from, a model learns by heart what they say (docs/results.md)",
    )
    clap_weights: str | None = Field(
        None,
        description="For encoders=clap: folder of a ClapModel to start from, or the name of one that `fsclap models "
        "fetch` got from Hugging Face, such as laion/clap-htsat-unfused; "
        "none: HTSAT-tiny and RoBERTa-base with random weights",
    )
    width: int = Field(128, ge=8, description="Width of the tokens in fusion and separation; 512 for encoders=clap")
    heads: int = Field(4, ge=1, description="Attention heads; divides width")
    embedding: int = Field(256, ge=2, description="Width of the joint space; 512 for encoders=clap")
    fusion: Literal["shared", "paired", "none"] = Field(
        "shared",
        description="shared: both modalities go through the same blocks, each alone, so that a clip can be "
        "indexed. paired: audio i is fused with its own text i, as the paper reads; it leaks, and is kept for "
        "study. none: no fusion blocks.",
    )
    separation: bool = Field(True, description="A feed-forward network for each modality after the fusion")
    pooling: Literal["attention", "mean"] = Field(
        "attention", description="attention, as in the paper; mean: the global features of the base row"
    )
    dropout: float = Field(
        0.3, ge=0, lt=1, description="Of the heads; with a thousand clips, 0.3 is better than 0.1 (docs/results.md)"
    )
    temperature: float = Field(0.07, gt=0, description="tau at the start; it is learnt")
    max_logit_scale: float = Field(100.0, gt=1, description="1/tau never grows beyond this")
    rerank: bool = Field(False, description="Adds the matching head that scores a fused pair")

    @model_validator(mode="after")
    def _consistent(self) -> "ModelSettings":
        if self.width % self.heads:
            raise ValueError(f"width ({self.width}) must be a multiple of heads ({self.heads})")
        if self.clap_weights is not None and self.encoders != "clap":
            raise ValueError("clap_weights is only for encoders=clap")
        if self.speech_tokens and self.encoders != "embedded":
            raise ValueError("speech_tokens is only for encoders=embedded")
        return self


PAPER = ModelSettings(encoders="clap", width=512, heads=8, embedding=512, dropout=0.1)
"""The preset of the paper: everything at the size of LAION's joint space. The default is the embedded preset."""


class LossSettings(BaseModel):
    """The contrastive loss: Eq. 1-3 and what they leave open."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gamma: float = Field(
        0.15, ge=0, description="How much more a hard negative weighs than an easy one, Eq. 2. 0: InfoNCE, exactly"
    )
    detach_weights: bool = Field(
        True, description="The weights of Eq. 2 are constants for the gradient. The paper doesn't say"
    )
    reduction: Literal["mean", "sum"] = Field(
        "mean",
        description="mean: over the rows, then over both directions, so that neither the loss nor its gradient "
        "grows with the batch, and a learning rate holds for all of them. sum: over rows and directions, as Eq. 1",
    )
    denominator: Literal["all", "negatives"] = Field(
        "all", description="What k runs over in Eq. 2: all of the row, as written, or its negatives alone"
    )
    mask_same_caption: bool = Field(
        True, description="Two clips with one caption are no negatives of one another; hard ones they would be"
    )
    regularization: Literal["none", "sample", "batch"] = Field(
        "none",
        description="Eq. 3. sample: mean|h| / |h|_2 of each vector, on average. batch: the same of the whole "
        "tensor, the form of WavCaps and MGA-CLAP, which a batch of 96 makes ten times smaller",
    )
    regularization_weight: float = Field(1.0, ge=0, description="Factor of the two terms of Eq. 3")
    compat: Literal["mga"] | None = Field(
        None,
        description="mga: what the released code of MGA-CLAP computes instead of Eq. 2, for comparison",
    )

    @model_validator(mode="after")
    def _mga_leaves_no_choice(self) -> Self:
        chosen = [
            name
            for name in ("detach_weights", "reduction", "denominator")
            if self.compat and getattr(self, name) != type(self).model_fields[name].default
        ]
        if chosen:
            raise ValueError(f"compat={self.compat} settles {', '.join(chosen)}: leave them as they are")
        return self
