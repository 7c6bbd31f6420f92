"""What a model is made of. Every row of the paper's Table 3 is a value of these settings and of the loss's."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class ModelSettings(BaseModel):
    """Encoders, fusion, separation, pooling and the joint space."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    encoders: Literal["embedded", "clap"] = Field(
        "embedded",
        description="embedded: frozen Whisper tiny.en and prosody, frozen MiniLM, from pip packages. "
        "clap: HTSAT and RoBERTa of transformers.ClapModel, trained along.",
    )
    clap_weights: str | None = Field(
        None,
        description="Folder or hub name of a ClapModel to start from, for encoders=clap; "
        "none: HTSAT-tiny and RoBERTa-base with random weights",
    )
    width: int = Field(256, ge=8, description="Width of the tokens in fusion and separation")
    heads: int = Field(8, ge=1, description="Attention heads; divides width")
    embedding: int = Field(256, ge=2, description="Width of the joint space")
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
    dropout: float = Field(0.1, ge=0, lt=1)
    temperature: float = Field(0.07, gt=0, description="tau at the start; it is learnt")
    max_logit_scale: float = Field(100.0, gt=1, description="1/tau never grows beyond this")
    rerank: bool = Field(False, description="Adds the matching head that scores a fused pair")

    @model_validator(mode="after")
    def _consistent(self) -> "ModelSettings":
        if self.width % self.heads:
            raise ValueError(f"width ({self.width}) must be a multiple of heads ({self.heads})")
        if self.clap_weights is not None and self.encoders != "clap":
            raise ValueError("clap_weights is only for encoders=clap")
        return self
