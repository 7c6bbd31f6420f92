import pytest

from samples.sources import DIALOG, TRANSCRIPTS, SourceError, fetch_packages, require

SCRIPT = """
dialogId("let-v-sto", "font_big", "There must be about one hundred \\"seats\\" here.")
dialogStr("Tady bude snad sto sedadel.")

dialogId("m-restartuj", "font_small", "Restart it!")
-- a comment
dialogStr(
"Restartuj \\"to\\".")
"""


def test_the_lines_of_a_game_script_are_read() -> None:
    assert DIALOG.findall(SCRIPT) == [
        ("let-v-sto", "font_big", "Tady bude snad sto sedadel."),
        ("m-restartuj", "font_small", 'Restartuj \\"to\\".'),
    ]


def test_every_prompt_is_listed_once_with_its_words() -> None:
    lines = [line for line in TRANSCRIPTS.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    pairs = [line.split(": ", 1) for line in lines]
    assert len(pairs) > 100
    assert len({name for name, _ in pairs}) == len(pairs)
    assert all(words.strip() and not any(c.isdigit() for c in words) for _, words in pairs)


def test_a_folder_without_the_packages_is_refused(tmp_path) -> None:
    with pytest.raises(SourceError, match="hedgewars"):
        require(tmp_path)


def test_without_apt_the_message_names_the_packages(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SourceError, match=r"apt-get is not installed.*--packages"):
        fetch_packages(tmp_path)
