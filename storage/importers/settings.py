"""Settings of an import: which tables, which column means what, where the sound is."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Join = Literal["path", "stem", "dashes"]


class Columns(BaseModel):
    """Names of the columns; several are tried in order, and the first that a table has counts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    audio: tuple[str, ...] = Field(
        ("audio", "audio_path", "path", "file", "wav", "wav_path", "file_name"),
        description="The sound: a path, or the bytes as `datasets` stores them",
    )
    caption: tuple[str, ...] = Field(
        ("caption", "captions", "description", "text_description", "style_prompt"),
        description="The description, or a list of several",
    )
    text: tuple[str, ...] = Field(("text", "transcript", "transcription"), description="What is said")
    speaker: tuple[str, ...] = Field(("speaker", "speaker_id", "speakerid", "spk_id", "spk"), description="Who speaks")
    split: tuple[str, ...] = Field(("split", "subset"), description="Published part; else the table's name says it")
    language: tuple[str, ...] = Field(("language", "lang"), description="Code of the language")
    source: tuple[str, ...] = Field(("source",), description="Which of several audio roots has the sound")
    style: dict[str, tuple[str, ...]] = Field(
        default_factory=lambda: {
            "gender": ("gender",),
            "emotion": ("emotion",),
            "pitch": ("pitch",),
            "speaking_rate": ("speaking_rate", "speaking_speed", "tempo"),
            "energy": ("energy",),
        },
        description="Labels that the style is made of: attribute of the style, and its columns",
    )


class ImportSettings(BaseModel):
    """What is not as the preset has it; everything is, by default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tables: tuple[str, ...] | None = Field(None, description="Patterns of the tables below the folder, such as *.csv")
    columns: Columns | None = Field(None, description="Names of the columns, in place of the preset's")
    audio_roots: dict[str, str] = Field(
        default_factory=dict,
        description="Folders of sound by the name of their source; the name * is for all sources. Default: the folder",
    )
    join: Join | None = Field(
        None,
        description="How a row names its sound. path: relative to a root. stem: the file's name without its suffix, "
        "anywhere below a root. dashes: its path with - for /",
    )
    min_joined: float = Field(
        0.9, ge=0, le=1, description="Refuse the data set if a smaller share of its rows has sound: a partial copy"
    )
    strip_transcript: bool = Field(
        False, description="Take a quoted transcript out of a caption; otherwise such a row is refused"
    )
    limit: int | None = Field(None, ge=1, description="Import so many rows at most, for a try")
