"""Files that are written aside."""

import os
import stat
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from fsclap.files import written_aside


@pytest.mark.parametrize(("umask", "mode"), [(0o002, 0o664), (0o022, 0o644), (0o077, 0o600)])
def test_a_model_can_be_read_by_whom_the_umask_lets_in(umask: int, mode: int, tmp_path: Path) -> None:
    """A page or a container runs as another user than the training."""
    file = tmp_path / "model.safetensors"
    before = os.umask(umask)
    try:
        with written_aside(file) as part:
            save_file({"a": torch.ones(3)}, part)
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.stat().st_mode) == mode
    assert load_file(file)["a"].sum() == 3


def test_what_a_killed_writer_left_is_in_nobodys_way(tmp_path: Path) -> None:
    (tmp_path / ".card.part").write_text("half")
    (tmp_path / ".card.part").chmod(0o600)
    with written_aside(tmp_path / "card") as part:
        part.write_text("whole")
    assert stat.S_IMODE((tmp_path / "card").stat().st_mode) & 0o444 == 0o444
    assert (tmp_path / "card").read_text() == "whole"


def test_a_writer_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "card").write_text("before")
    with pytest.raises(UnicodeEncodeError), written_aside(tmp_path / "card") as part:
        part.write_text("half, then what UTF-8 can't say: \ud800", encoding="utf-8")
    assert [path.name for path in tmp_path.iterdir()] == ["card"]
    assert (tmp_path / "card").read_text() == "before"
