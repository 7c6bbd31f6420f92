"""The data sets that are known by name: their columns, licences, and where their sound is obtained."""

from dataclasses import dataclass, field

from storage.importers.settings import Columns, Join

COLUMNS = Columns()


@dataclass(frozen=True)
class Preset:
    """How a published data set is laid out.

    Attributes:
        name: Name of the data set.
        licence: Terms, as published.
        sound: Where the sound is, or where to get it.
        columns: Names of its columns.
        tables: Patterns of its tables below the folder.
        join: How a row names its sound.
        header: Columns of tables that have no header.
        prefixes: What names of sound begin with that is no part of the file's name.
        prompts: Pattern of a file with the descriptions by key, `key|one;another`; the caption's column holds the key.
        parts: Patterns of lists of the names of sound in each published part.
        excluded: Pattern of a list of speakers that the data set advises against.
        invalid: Column that is 1 for rows that the data set calls invalid.
    """

    name: str
    licence: str
    sound: str
    columns: Columns = COLUMNS
    tables: tuple[str, ...] = ("*.csv", "*.tsv", "*.jsonl", "*.json", "*.parquet", "*.arrow")
    join: Join = "path"
    header: tuple[str, ...] | None = None
    prefixes: tuple[str, ...] = field(default=())
    prompts: str | None = None
    parts: tuple[str, ...] = ()
    excluded: str | None = None
    invalid: str | None = None


LIBRITTS = "LibriTTS (https://www.openslr.org/60) or LibriTTS-R (https://www.openslr.org/141), CC BY 4.0"
STYLECAP = ("train_set.csv", "dev_set.csv", "test_set.csv")
"""The parts of StyleCap (train_dev_test_set.zip of its demo page), which share no speaker: `file_id` of each clip."""
PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset("generic", "not known: that of the data set's owner", "inside the table, or below the folder"),
        Preset(
            "expresso",
            "CC BY-NC 4.0",
            "inside the tables of ylacombe/expresso on Hugging Face; its descriptions are those of -tagged",
            Columns(caption=("text_description", "caption", "style"), style={"emotion": ("style",)}),
        ),
        Preset(
            "emovoice-db",
            "MIT; synthetic speech",
            "below the folder of yhaha/EmoVoice-DB on Hugging Face",
            Columns(
                audio=("target_wav",),
                caption=("emotion_text_prompt",),
                text=("target_text",),
                style={"emotion": ("emotion",)},
            ),
            tables=("*.jsonl",),
        ),
        Preset(
            "paraspeechcaps",
            "CC BY-NC-SA 4.0",
            "not included: VoxCeleb, Expresso, EARS and Emilia; name each folder in audio_roots by its `source`",
            Columns(audio=("relative_audio_path",), caption=("text_description",), text=("transcription",)),
        ),
        Preset(
            "capspeech",
            "CC BY-NC 4.0",
            "not included; name the folder of each `source` in audio_roots",
            Columns(audio=("audio_path",), caption=("caption",), text=("text",)),
        ),
        Preset(
            "textrolspeech",
            "none in the repository; LibriTTS and VCTK are CC BY, most emotional sources are for research only",
            f"TextrolSpeech_data.tar.gz (see jishengpeng/TextrolSpeech), VCTK, and {LIBRITTS}",
            Columns(audio=("wav_fp",), caption=("style_prompt",), text=("content_prompt",)),
            tables=("caption/random_*.csv", "random_*.csv"),
        ),
        Preset(
            "vccm",
            "none in the repository; as textrolspeech",
            f"the folders of the emotional sources, and {LIBRITTS}, below one folder",
            Columns(
                audio=("item_name",),
                caption=("style_prompt",),
                text=("txt",),
                style={
                    "gender": ("gender",),
                    "emotion": ("emotion",),
                    "pitch": ("pitch",),
                    "speaking_rate": ("dur",),
                    "energy": ("energy",),
                },
            ),
            tables=("controlspeech_*.csv",),
            join="dashes",
        ),
        Preset(
            "promptspeech",
            "none for the captions; the sound is CC BY 4.0",
            LIBRITTS,
            Columns(audio=("item_name",), text=("content_prompt",)),
            tables=("*.csv",),
            join="stem",
            parts=STYLECAP,
        ),
        Preset(
            "libritts-p",
            "CC BY 4.0",
            LIBRITTS,
            Columns(audio=("item_name",), caption=("style_prompt_key",), text=("content_prompt",)),
            tables=("metadata_w_style_prompt_tags_*.csv",),
            join="stem",
            prompts="style_prompt_candidates_*.csv",
            parts=STYLECAP,
            excluded="excluded_spk_list.txt",
            invalid="invalid",
        ),
        Preset(
            "speechcraft",
            "none for the captions; the sound has the terms of its corpora, mostly non-commercial",
            "GigaSpeech, Zhvoice, AISHELL-3 or LibriTTS-R; the Description files, not the Instruction files",
            Columns(
                audio=("key",),
                caption=("description", "caption", "instruction", "llama-instruction", "style_prompt"),
                text=("transcription", "text"),
            ),
            tables=("*.json", "*.jsonl"),
            join="stem",
            prefixes=("LJSpeech_", "GigaSpeech_", "LibriTTS-R_", "LibriTTS_", "AISHELL-3_", "Zhvoice_"),
        ),
    )
}
