"""Weights on disk: found when whole, refused with the remedy when not."""

import importlib.util
import shutil
from pathlib import Path

import pytest

from fsclap.weights import MANIFEST, WeightsError, WeightsSettings, find_weights, packaged, write_manifest


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WeightsSettings:
    """A model that was fetched into the library."""
    monkeypatch.setenv("FSCLAP_WEIGHTS", str(tmp_path / "library"))
    folder = tmp_path / "library" / "modelscope" / "owner" / "net" / "v1"
    (folder / "sub").mkdir(parents=True)
    (folder / "model.pt").write_bytes(b"weights" * 100)
    (folder / "sub" / "tokens.json").write_text("[]")
    (folder / "README.md").write_text("a page")
    write_manifest(folder, name="owner/net", hub="modelscope", revision="v1", licence="mit")
    return WeightsSettings(name="owner/net", revision="v1", hub="modelscope", folder=None)


def folder_of(settings: WeightsSettings) -> Path:
    return find_weights(settings, setting="x").folder


def test_the_revision_stands_for_the_contents_wherever_they_lie(settings: WeightsSettings, tmp_path: Path) -> None:
    fetched = find_weights(settings, setting="x", needs=["model.pt", "sub/*.json"])
    assert fetched.revision.startswith("net-")
    copy = shutil.copytree(fetched.folder, tmp_path / "copy")
    own = settings.model_copy(update={"folder": copy})
    (copy / "README.md").write_text("another page")
    assert find_weights(own, setting="x").revision == fetched.revision
    (copy / MANIFEST).unlink()
    (copy / "model.pt").write_bytes(b"weightz" * 100)
    assert find_weights(own, setting="x").revision != fetched.revision


def test_a_missing_model_names_the_command_and_the_setting(settings: WeightsSettings) -> None:
    other = settings.model_copy(update={"name": "owner/other"})
    with pytest.raises(WeightsError) as error:
        find_weights(other, setting="separation.demucs.weights")
    assert "fsclap models fetch owner/other --hub modelscope --revision v1" in str(error.value)
    assert "separation.demucs.weights.folder" in str(error.value)


def test_a_folder_of_ones_own_is_not_sent_to_the_hub(settings: WeightsSettings, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"correct x\.folder") as error:
        find_weights(settings.model_copy(update={"folder": tmp_path / "nowhere"}), setting="x")
    assert "fetch" not in str(error.value)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda folder: (folder / "model.pt").unlink(), r"has no model\.pt"),
        (lambda folder: (folder / "sub" / "tokens.json").unlink(), r"tokens\.json is gone"),
        (lambda folder: (folder / "model.pt").write_bytes(b"weights"), "has 7 bytes, not 700"),
        (lambda folder: (folder / "model.pt").write_bytes(b"weightz" * 100), "is damaged"),
        (lambda folder: (folder / MANIFEST).unlink(), "was not fetched completely"),
        (lambda folder: (folder / MANIFEST).write_text("{"), r"\.fsclap\.json is damaged"),
    ],
)
def test_damage_is_told_with_the_file(harm, message: str, settings: WeightsSettings) -> None:
    harm(folder_of(settings))
    with pytest.raises(WeightsError, match=message):
        find_weights(settings, setting="x", needs=["model.pt"])


@pytest.mark.parametrize("name", ["../../etc", "/etc/passwd", "a/../b", "a//b", "", "-x/.."])
def test_a_name_cannot_leave_the_library(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        WeightsSettings(name=name, revision="v1", hub="modelscope", folder=None)


def test_weights_of_a_package_are_found_without_importing_it() -> None:
    assert packaged("numpy", "__init__.py", setting="x.engine=y") == Path(importlib.util.find_spec("numpy").origin)  # type: ignore[union-attr, arg-type]


def test_a_missing_package_of_weights_says_what_to_install() -> None:
    with pytest.raises(WeightsError, match=r"x\.engine=y: .*no-such-package.*requirements/weights\.txt.*x\.engine$"):
        packaged("no_such_package", "model.bin", setting="x.engine=y")
    with pytest.raises(WeightsError, match=r"numpy/absent\.bin is missing.*numpy.*--force-reinstall.*weights\.txt"):
        packaged("numpy", "absent.bin", setting="x.engine=y")
