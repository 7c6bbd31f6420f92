"""The weights that come with this package: readable, named by content, under a licence that lies next to them."""

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from bench.carried_weights import SOURCES, halved
from cli.inventory import CARRIED
from fsclap import carried as package
from fsclap.carried import FOLDER, carried
from fsclap.weights import WeightsError

ROOT = Path(__file__).parents[2]
NAMES = [source.name for source in SOURCES]


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_read_in_single_precision_and_named_by_their_content(name: str) -> None:
    weights = carried(name, setting="x")
    kinds = {tensor.dtype for tensor in weights.tensors.values()}
    assert kinds <= {torch.float32, torch.int64}
    assert sum(tensor.numel() for tensor in weights.tensors.values()) > 1_000_000
    assert all(torch.isfinite(tensor).all() for tensor in weights.tensors.values())
    assert re.fullmatch(rf"{re.escape(name)}-[0-9a-f]{{12}}", weights.revision)


def test_a_file_that_is_missing_or_damaged_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package, "FOLDER", tmp_path)
    with pytest.raises(WeightsError, match=r"diarization\.engine=x: .*net\.safetensors is missing or damaged"):
        carried("net", setting="diarization.engine=x")
    (tmp_path / "net.safetensors").write_bytes((FOLDER / f"{NAMES[1]}.safetensors").read_bytes()[:100_000])
    with pytest.raises(WeightsError, match=r"damaged .*python -m bench\.carried_weights"):
        carried("net", setting="x")


def test_scales_of_channels_keep_their_precision() -> None:
    assert halved(torch.ones(3, 4)).dtype == torch.float16
    assert halved(torch.full((40, 1), 4001.3)).dtype == torch.float32
    assert halved(torch.ones(5)).dtype == torch.float32
    assert halved(torch.tensor(3)).dtype == torch.int64


def test_every_file_has_its_licence_in_the_table_and_next_to_it() -> None:
    files = {path.stem for path in FOLDER.glob("*.safetensors")}
    assert files == set(NAMES)
    rows = re.findall(
        r"^\| `([\w.-]+)\.safetensors` \|.*\| (Apache-2\.0|MIT) \|$", (FOLDER / "README.md").read_text(), re.M
    )
    assert dict(rows) == dict(CARRIED.values())
    for name, licence in rows:
        text = (FOLDER / f"{name}.LICENSE.txt").read_text(encoding="utf-8")
        assert {"Apache-2.0": "Apache License", "MIT": "MIT License"}[licence] in text
        assert "Copyright" in text
        assert "half precision" in text


@pytest.mark.slow
def test_a_wheel_of_the_project_brings_them_along(tmp_path: Path) -> None:
    source = tmp_path / "source"  # setuptools leaves a folder `build` behind
    shutil.copytree(ROOT / "fsclap", source / "fsclap")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(source)], check=True)
    (wheel,) = tmp_path.glob("fsclap-*.whl")
    inside = {Path(name).name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("fsclap/carried/")}
    assert {path.name for path in FOLDER.iterdir() if path.is_file()} <= inside
