"""Miniatures in the published layouts, and copies that are partial, damaged or in another encoding."""

import csv
import json
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from storage.importers import PRESETS, Columns, Entry, ImportProblem, ImportSettings, check, read_entries
from storage.importers.checking import require, sound_of
from storage.importers.entries import quotes, split_of, stripped


def sound(path: Path, seconds: float = 0.2) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.1 * np.sin(np.arange(int(seconds * 16_000)) / 9), 16_000)
    return str(path)


def write_csv(path: Path, rows: list[dict[str, str]], **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding=options.pop("encoding", "utf-8")) as file:
        writer = csv.DictWriter(file, rows[0], **options)
        writer.writeheader()
        writer.writerows(rows)


def entries(name: str, root: Path, **settings: Any) -> list[Entry]:
    return list(read_entries(root, PRESETS[name], ImportSettings(**settings)))


def files(name: str, root: Path, **settings: Any) -> list[str]:
    chosen = ImportSettings(**settings)
    where = sound_of(root, PRESETS[name], chosen)
    return [str(where.find(entry.name, entry.source)) for entry in read_entries(root, PRESETS[name], chosen)]


TEXTROL = {
    "num": "17", "wav_fp": "emo/ESD/0011/Happy/0011_000701.wav", "item_name": "0011_000701", "gender": "F",
    "pitch": "high", "tempo": "normal", "energy": "high", "emotion": "happy",
    "style_prompt": "Her cheerful voice rises, bright and quick.", "content_prompt": "He stepped back.",
}  # fmt: skip


def test_textrolspeech_captions(tmp_path: Path) -> None:
    path = sound(tmp_path / "emo/ESD/0011/Happy/0011_000701.wav")
    write_csv(tmp_path / "caption/random_train.csv", [TEXTROL])
    write_csv(tmp_path / "caption/random_test.csv", [TEXTROL | {"wav_fp": "absent.wav", "emotion": "neutral"}])
    test, train = entries("textrolspeech", tmp_path)
    assert (train.split, train.text, train.captions) == ("train", "He stepped back.", (TEXTROL["style_prompt"],))
    assert train.style == {"gender": "female", "emotion": "happy", "pitch": "high", "energy": "loud"}
    assert test.split == "test"
    assert files("textrolspeech", tmp_path) == ["None", path]
    found = check(tmp_path, PRESETS["textrolspeech"], ImportSettings())
    assert (found.rows, found.joined, found.splits) == (2, 1, {"train": 1, "test": 1})
    assert any("random_test.csv, line 2: absent.wav" in line for line in found.lines())
    assert any("openslr.org/60" in line for line in found.lines())
    with pytest.raises(ImportProblem, match=r"min_joined=90%"):
        require(found, ImportSettings())
    require(found, ImportSettings(min_joined=0.5))


def test_the_second_form_of_textrolspeech_joins_paths_with_dashes(tmp_path: Path) -> None:
    ravdess = sound(tmp_path / "RAVDESS/Actor_01/03-01-04-01-01-01-01.wav")
    libritts = sound(tmp_path / "3006_5698_000011_000000.wav")
    row = {"item_name": "RAVDESS-Actor_01-03-01-04-01-01-01-01", "dur": "low", "pitch": "low", "energy": "normal"}
    row |= {
        "gender": "M",
        "emotion": "sad",
        "spk": "Actor_01",
        "txt": "Kids are talking.",
        "style_prompt": 'A "low", slow voice',
    }
    other = row | {"item_name": "3006_5698_000011_000000", "emotion": "nan"}
    write_csv(tmp_path / "controlspeech_test.csv", [row, other])
    first, second = entries("vccm", tmp_path)
    assert first.captions == ('A "low", slow voice',)
    assert first.style == {"gender": "male", "emotion": "sad", "pitch": "low", "speaking_rate": "slow"}
    assert "emotion" not in second.style
    assert (first.speaker, first.split) == ("Actor_01", "test")
    assert files("vccm", tmp_path) == [ravdess, libritts]


def test_promptspeech_joins_libritts_by_name(tmp_path: Path) -> None:
    path = sound(tmp_path / "LibriTTS/train-clean-100/1089/134686/1089_134686_000003_000000.wav")
    row = {"item_name": "1089_134686_000003_000000", "spk_id": "1089", "gender": "M", "pitch": "low"}
    row |= {"speaking_speed": "slow", "energy": "normal", "style_prompt": "A man speaks slowly in a deep voice."}
    write_csv(
        tmp_path / "Real_training.csv",
        [row],
    )
    text = (tmp_path / "Real_training.csv").read_text()
    (tmp_path / "Real_training.csv").write_text("\ufeff" + text)  # as published
    (entry,) = entries("promptspeech", tmp_path)
    assert (entry.speaker, entry.style) == ("1089", {"gender": "male", "pitch": "low", "speaking_rate": "slow"})
    assert files("promptspeech", tmp_path, audio_roots={"*": str(tmp_path / "LibriTTS")}) == [path]


@pytest.mark.parametrize("form", ["objects", "strings", "list", "lines"])
def test_speechcraft_in_any_of_its_forms(form: str, tmp_path: Path) -> None:
    path = sound(tmp_path / "wav/YOU1000000029_S0000095.wav")
    key, caption = "GigaSpeech_YOU1000000029_S0000095", "一个低沉的声音。"
    table = tmp_path / "description.json"
    if form == "objects":
        table.write_text(
            json.dumps({key: {"labels": "age:…", "description": caption}}, ensure_ascii=False), encoding="utf-8"
        )
    elif form == "strings":
        table.write_text(json.dumps({key: caption}, indent=4), encoding="utf-8")
    elif form == "list":
        table.write_text(json.dumps([{"key": key, "caption": caption}]), encoding="utf-8")
    else:
        (tmp_path / "description.jsonl").write_text(
            json.dumps({"key": key, "description": caption}) + "\n", encoding="utf-8"
        )
    (entry,) = entries("speechcraft", tmp_path)
    assert entry.captions == (caption,)
    assert files("speechcraft", tmp_path) == [path]


def test_a_caption_that_quotes_its_transcript_is_refused_or_stripped(tmp_path: Path) -> None:
    row = {
        "key": "a",
        "description": "Slowly, a man says: “The storm is over!” in a low voice.",
        "text": "the storm is over",
    }
    (tmp_path / "x.jsonl").write_text(json.dumps(row), encoding="utf-8")
    (refused,) = entries("speechcraft", tmp_path)
    assert "quotes the transcript" in refused.problem
    (kept,) = entries("speechcraft", tmp_path, strip_transcript=True)
    assert not kept.problem
    assert kept.captions == ("Slowly, a man says: in a low voice.",)
    assert quotes("她说：「今天天气很好」，语气平静。", "今天天气很好")
    assert stripped("她说：「今天天气很好」，语气平静。", "今天天气很好") == "她说：，语气平静。"
    assert not quotes("A happy voice.", "Happy.")
    assert stripped("今天天气很好", "今天天气很好") == ""


def test_paraspeechcaps_has_several_captions_and_a_root_per_source(tmp_path: Path) -> None:
    path = sound(tmp_path / "ears/p001/emo.wav")
    rows = [
        {"source": "ears", "relative_audio_path": "p001/emo.wav", "text_description": ["A calm voice.", "Calm, low."],
         "transcription": "Yes indeed, it is so.", "speakerid": "p001"},
        {"source": "voxceleb", "relative_audio_path": "id1/a.wav", "text_description": ["A voice."], "speakerid": "id1",
         "transcription": ""},
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "holdout-00000-of-00001.parquet")
    first, second = entries("paraspeechcaps", tmp_path)
    assert first.captions == ("A calm voice.", "Calm, low.")
    assert (first.split, first.speaker, second.source) == ("test", "p001", "voxceleb")
    roots = {"ears": str(tmp_path / "ears")}
    assert files("paraspeechcaps", tmp_path, audio_roots=roots) == [path, "None"]
    with pytest.raises(ImportProblem, match="there is no folder vox"):
        check(tmp_path, PRESETS["paraspeechcaps"], ImportSettings(audio_roots={"vox": str(tmp_path / "vox")}))


def test_expresso_and_emovoice_and_tables_of_ones_own(tmp_path: Path) -> None:
    wav = Path(sound(tmp_path / "a.wav")).read_bytes()
    rows = [
        {"audio": {"bytes": wav, "path": "a.wav"}, "text": "Well.", "speaker_id": "ex01", "style": "happy", "id": "a"}
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "train-00000-of-00001.parquet")
    (inside,) = entries("expresso", tmp_path)
    assert (inside.audio, inside.captions, inside.style) == (wav, ("happy",), {"emotion": "happy"})
    assert check(tmp_path, PRESETS["expresso"], ImportSettings()).joined == 1
    emovoice = tmp_path / "emovoice"
    sound(emovoice / "audio/gpt4o_388_angry_verse.wav")
    row = {"key": "gpt4o_388_angry_verse", "source_text": "Go away.", "target_text": "Go away now.", "emotion": "angry",
           "emotion_text_prompt": "Tense and loud", "target_wav": "audio/gpt4o_388_angry_verse.wav"}  # fmt: skip
    extra = row | {"neutral_speaker_wav": "audio/neutral.wav"}
    (emovoice / "train.jsonl").write_text("\n".join(json.dumps(row) for _ in range(2)))
    (emovoice / "test.jsonl").write_text(json.dumps(extra))
    assert [entry.split for entry in entries("emovoice-db", emovoice)] == ["test", "train", "train"]
    own = tmp_path / "own"
    sound(own / "clips/1.wav")
    own.joinpath("rows.tsv").write_text("clip\thow it sounds\n1\tA low voice\n")
    columns = Columns(audio=("clip",), caption=("how it sounds",))
    assert files("generic", own, columns=columns, join="stem") == [str(own / "clips/1.wav")]
    with pytest.raises(ImportProblem, match=r"rows.tsv has no column for the audio .*it has clip, how it sounds"):
        entries("generic", own)
    assert len(entries("emovoice-db", emovoice, limit=2)) == 2


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", b"audio,caption\na.wav,A low voice\nb.wav,caf\xe9\n", r"x.csv, line 3: not UTF-8"),
        ("x.csv", b"audio,caption\na.wav,low, slow\n", r"x.csv, line 2: 3 fields, and the header has 2"),
        ("x.csv", b'audio,caption\na.wav,"cut of', r"x.csv, line 2: unexpected end"),
        ("x.jsonl", b'{"audio": "a", "caption": "b"}\n{"audio": "a", "ca', r"x.jsonl, line 2: not JSON"),
        ("x.jsonl", b"[1]\n", r"x.jsonl, line 1: expected an object"),
        ("x.json", b'{"a": "b",\n', r"x.json, line 2: not JSON"),
        ("x.parquet", b"PAR1 not really", r"x.parquet can't be read"),
    ],
)
def test_a_damaged_table_is_told_with_file_and_line(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ImportProblem, match=message):
        entries("generic", tmp_path)


def test_nothing_to_import_is_said(tmp_path: Path) -> None:
    with pytest.raises(ImportProblem, match="has no table"):
        entries("generic", tmp_path)
    with pytest.raises(ImportProblem, match="no such folder"):
        entries("generic", tmp_path / "nowhere")
    (tmp_path / "empty.csv").write_text("audio,caption\n")
    with pytest.raises(ImportProblem, match="no rows"):
        require(check(tmp_path, PRESETS["generic"], ImportSettings()), ImportSettings())


def test_a_path_never_leaves_its_root_and_a_name_that_two_files_have_is_no_join(tmp_path: Path) -> None:
    sound(tmp_path / "secret.wav")
    sound(tmp_path / "set/a/x.wav")
    sound(tmp_path / "set/b/x.wav")
    where = sound_of(tmp_path / "set", PRESETS["generic"], ImportSettings())
    assert where.find("../secret.wav") is None
    assert where.find("a/x") == tmp_path / "set/a/x.wav"
    by_stem = sound_of(tmp_path / "set", PRESETS["generic"], ImportSettings(join="stem"))
    assert by_stem.find("x") is None


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("random_train", "train"),
        ("dev", "validation"),
        ("test-00000-of-00002", "test"),
        ("holdout", "test"),
        ("latest", ""),
    ],
)
def test_the_part_is_read_from_a_name(name: str, part: str) -> None:
    assert split_of(name) == part


@pytest.mark.slow
def test_the_caption_form_of_textrolspeech_in_full_size_is_read_in_a_gigabyte(tmp_path: Path) -> None:
    rows = [
        TEXTROL | {"num": str(n), "wav_fp": f"emo/{n}.wav", "content_prompt": f"Line {n} of it."}
        for n in range(236_220)
    ]
    write_csv(tmp_path / "caption/random_train.csv", rows)
    del rows
    found = check(tmp_path, PRESETS["textrolspeech"], ImportSettings(min_joined=0))
    assert (found.rows, found.joined) == (236_220, 0)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 1_000_000  # kB


LIBRITTS_P = "metadata_w_style_prompt_tags_v230922.csv"
PROMPTS = "style_prompt_candidates_v230922.csv"


def libritts_p(root: Path) -> str:
    """A miniature as published, with the parts of StyleCap; the sound of one clip is there."""
    names = [
        "1089_134686_000003_000000",
        "2074_147193_000001_000000",
        "1089_134686_000004_000000",
        "83_1_000000_000000",
    ]
    rows = [
        {"item_name": name, "spk_id": name.split("_")[0], "gender": "M", "pitch": "low", "speaking_speed": "slow",
         "energy": "normal", "content_prompt": "He went home again.", "style_prompt_key": "M_p-low_s-slow_e-normal",
         "raw_f0_mean": "101.2", "invalid": "0"}
        for name in names
    ]  # fmt: skip
    rows[2]["invalid"] = "1"
    rows[3]["style_prompt_key"] = "F_p-low_s-slow_e-low"
    write_csv(root / "data" / LIBRITTS_P, rows)
    texts = "A man speaks slowly and low;Ask a low man to speak slowly;ask a low man to speak slowly; He drawls, low"
    (root / "data" / PROMPTS).write_text(f"M_p-low_s-slow_e-normal|{texts}\nM_p-low_s-slow_e-low|Softly\n")
    (root / "data/excluded_spk_list.txt").write_text("2074\n4455\n6032")
    (root / "data/df1_en.csv").write_text("7335|feminine,slightly young\n")
    for part, name in (("test", names[0]), ("dev", names[3])):
        row = {"file_id": name, "relative_path_within_libritts": f"test-clean/1089/134686/{name}.wav"}
        write_csv(root / f"stylecap/{part}_set.csv", [row])
    return sound(root / f"LibriTTS_R/train-clean-100/1089/134686/{names[0]}.wav")


def test_libritts_p_has_its_descriptions_by_key_and_stylecaps_parts(tmp_path: Path) -> None:
    path = libritts_p(tmp_path)
    first, excluded, invalid, unknown = entries("libritts-p", tmp_path)
    assert first.captions == ("A man speaks slowly and low", "Ask a low man to speak slowly", "He drawls, low")
    assert first.style == {"gender": "male", "pitch": "low", "speaking_rate": "slow"}
    assert (first.split, first.speaker, first.text, first.problem) == ("test", "1089", "He went home again.", "")
    assert "advises against this speaker" in excluded.problem
    assert "invalid" in invalid.problem
    assert unknown.problem == "there are no descriptions of the key F_p-low_s-slow_e-low"
    assert (excluded.split, unknown.split) == ("", "validation")
    assert files("libritts-p", tmp_path)[0] == path
    found = check(tmp_path, PRESETS["libritts-p"], ImportSettings())
    assert (found.rows, found.joined, found.captions) == (4, 1, 9)
    assert any("openslr.org/141" in line for line in found.lines())


def test_stylecaps_parts_of_promptspeech(tmp_path: Path) -> None:
    name = "1089_134686_000003_000000"
    row = {"item_name": name, "spk_id": "1089", "style_prompt": "A man speaks slowly."}
    write_csv(tmp_path / "Real_training.csv", [row, row | {"item_name": "1_2_3_4"}])
    assert [entry.split for entry in entries("promptspeech", tmp_path)] == ["", ""]
    lists = [{"file_id": name, "relative_path_within_libritts": f"test-clean/1089/134686/{name}.wav"}]
    write_csv(tmp_path / "train_dev_test_set/test_set.csv", lists)
    assert [entry.split for entry in entries("promptspeech", tmp_path)] == ["test", ""]


@pytest.mark.parametrize(
    ("prompts", "message"),
    [(None, r"has no style_prompt_candidates_\*.csv"), ("M_p-low|A;B\nM_p-lo", rf"{PROMPTS}, line 2: expected `key")],
)
def test_descriptions_that_are_missing_or_cut_off_are_told(prompts: str | None, message: str, tmp_path: Path) -> None:
    libritts_p(tmp_path)
    file = tmp_path / "data" / PROMPTS
    file.unlink() if prompts is None else file.write_text(prompts)
    with pytest.raises(ImportProblem, match=message):
        entries("libritts-p", tmp_path)
