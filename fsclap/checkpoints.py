"""The published checkpoints of the paper's systems: where each comes from, its terms, and its download.

They lie in {weights}/systems/{system}/; `model.systems.weights` names the file (docs/systems.md). A
download goes on where it was interrupted, and what arrived is compared with the size and the checksum
that are known, from the table below or from the server.
"""

import json
import logging
import re
import urllib.error
import urllib.request
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from fsclap.files import sha256_file, written_aside
from fsclap.hubs import require_free
from fsclap.weights import WeightsError, library

log = logging.getLogger(__name__)

PARTIAL = ".part"
_BLOCK = 2**20
_SECONDS = 60.0
"""Without a byte for so long, the server counts as gone."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A published file of weights.

    Attributes:
        system: Name of the system.
        file: Name of the file.
        url: Address of the file; of a page on which people download it if `by_hand`.
        size: Bytes, exact or rounded; 0: not known.
        exact: Whether `size` is exact.
        licence: Terms of the weights, and of the code if they differ.
        about: What the file is.
        sha256: Checksum; None: none is published, or the server tells it.
        by_hand: No program may download it.
    """

    system: str
    file: str
    url: str
    size: int
    licence: str
    about: str
    exact: bool = False
    sha256: str | None = None
    by_hand: bool = False

    @property
    def path(self) -> Path:
        """Where the file lies once it is fetched."""
        return library() / "systems" / self.system / self.file

    @property
    def megabytes(self) -> str:
        if not self.size:
            return "size not known"
        return f"{'' if self.exact else 'about '}{self.size / 1e6:,.0f} MB"


_LAION = "https://huggingface.co/lukewys/laion_clap/resolve/main"
_AUDIOCLIP = "https://github.com/AndreyGuzhov/AudioCLIP/releases/download/v0.1"
CHECKPOINTS = (
    Checkpoint(
        "clap_laion", "630k-audioset-best.pt", f"{_LAION}/630k-audioset-best.pt", 1_860_000_000, "CC0",
        "HTSAT-tiny; convert it with `python -m fsclap.model.laion`, then name it in model.clap_weights",
    ),
    Checkpoint(
        "clap_laion", "music_speech_audioset_epoch_15_esc_89.98.pt",
        f"{_LAION}/music_speech_audioset_epoch_15_esc_89.98.pt", 2_352_471_003, "CC0",
        "HTSAT-base; convert it as the other", exact=True,
    ),
    Checkpoint(
        "clap_microsoft", "CLAP_weights_2023.pth",
        "https://huggingface.co/microsoft/msclap/resolve/main/CLAP_weights_2023.pth", 690_000_000,
        "MS-PL (code: MIT)", "HTSAT-tiny and GPT-2",
    ),
    Checkpoint(
        "audioclip", "AudioCLIP-Full-Training.pt", f"{_AUDIOCLIP}/AudioCLIP-Full-Training.pt", 537_302_068, "MIT",
        "all parts were trained; set model.embedding to 1024", exact=True,
    ),
    Checkpoint(
        "audioclip", "AudioCLIP-Partial-Training.pt", f"{_AUDIOCLIP}/AudioCLIP-Partial-Training.pt", 537_302_068, "MIT",
        "only the audio encoder was trained", exact=True,
    ),
    Checkpoint(
        "mga_clap", "model.pt", "https://drive.google.com/file/d/1RWTuVMEPy-L0uK6WYIX2wwxHjD1YSQFz/view", 0,
        "a badge says MIT, a licence file is missing", "HTSAT-tiny, BERT and the codebook", by_hand=True,
    ),
)  # fmt: skip
"""As their authors publish them. The first of a system is its default."""
UNPUBLISHED = {
    "ra_clap": "no weights of RA-CLAP are public: it starts from a speech encoder (docs/systems.md)",
    "emotion_rank_clap": "no weights of EmotionRankCLAP are public: it starts from a speech encoder (docs/systems.md)",
    "fs_clap": "no weights of FS-CLAP are public: it starts from those of clap_laion",
}
SYSTEMS = tuple(dict.fromkeys([*(one.system for one in CHECKPOINTS), *UNPUBLISHED]))


def published(system: str, file: str | None = None) -> Checkpoint:
    """Return a system's checkpoint: the named file, or its default.

    Raises:
        WeightsError: None is published, or none of that name.
    """
    if system in UNPUBLISHED:
        raise WeightsError(UNPUBLISHED[system])
    known = [one for one in CHECKPOINTS if one.system == system]
    found = next((one for one in known if file in (None, one.file)), None)
    if found is None:
        raise WeightsError(f"{system} has no file {file}; it has {', '.join(one.file for one in known) or 'none'}")
    return found


def fetch_checkpoint(checkpoint: Checkpoint) -> Path:
    """Download a checkpoint, or go on with an interrupted download; return its file.

    Next to it, `{file}.json` says where it came from, with size, SHA-256 and licence.

    Raises:
        WeightsError: The server can't be reached or has no such file, the disk is too small, what arrived is not the
            file, or people must download it themselves.
    """
    path = checkpoint.path
    if path.is_file():
        return path
    if checkpoint.by_hand:
        raise WeightsError(
            f"{checkpoint.file} is behind a page for people: download it from {checkpoint.url} and put it at {path}"
        )
    _require_https(checkpoint.url)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + PARTIAL)
    require_free(path.parent, checkpoint.size - _held(part))
    try:
        told = _download(checkpoint.url, part)
    except (OSError, HTTPException) as error:
        raise WeightsError(_problem(checkpoint, error)) from error
    digest = _checked(checkpoint, part, told)
    record = {"url": checkpoint.url, "size": part.stat().st_size, "sha256": digest, "licence": checkpoint.licence}
    with written_aside(path.with_name(path.name + ".json")) as aside:
        aside.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    part.replace(path)
    _tag(part).unlink(missing_ok=True)
    return path


@dataclass(frozen=True, slots=True)
class _Told:
    """What a server says of a file."""

    size: int | None
    sha256: str | None
    kind: str


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to https, and keeps what each answer on the way says; Hugging Face's first has the checksum."""

    def __init__(self) -> None:
        self.sha256: str | None = None

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Message, newurl: str) -> Any:
        _require_https(newurl)
        self.sha256 = self.sha256 or _digest(headers)
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


def _download(url: str, part: Path) -> _Told:
    have = _held(part)
    headers = {"User-Agent": "fsclap"}
    if have and _tag(part).is_file():
        # If-Range: of another file than before, the server sends the whole.
        headers |= {"Range": f"bytes={have}-", "If-Range": _tag(part).read_text(encoding="utf-8")}
    redirects = _Redirects()
    opener = urllib.request.build_opener(redirects)
    with opener.open(urllib.request.Request(url, headers=headers), timeout=_SECONDS) as answer:
        goes_on = answer.status == 206
        if not goes_on:
            have = 0
            tag = answer.headers.get("ETag", "")
            _tag(part).unlink(missing_ok=True)
            if tag and not tag.startswith("W/"):
                _tag(part).write_text(tag, encoding="utf-8")
        length = answer.headers.get("Content-Length")
        size = None if length is None else have + int(length)
        if size is not None:
            require_free(part.parent, size - have)
        with part.open("ab" if goes_on else "wb") as out:
            _copy(answer, out)
        return _Told(size, redirects.sha256 or _digest(answer.headers), answer.headers.get_content_type())


def _copy(answer: Any, out: IO[bytes]) -> None:
    while block := answer.read(_BLOCK):
        out.write(block)


def _checked(checkpoint: Checkpoint, part: Path, told: _Told) -> str:
    """Compare what arrived with what is known of the file; return its SHA-256."""
    size = part.stat().st_size
    if told.size is not None and size < told.size:
        raise WeightsError(
            f"{checkpoint.url} ended after {size:,} of {told.size:,} bytes: fetch again, and it goes on from there"
        )
    digest = sha256_file(part)
    wanted = checkpoint.sha256 or told.sha256
    problem = None
    if told.kind == "text/html":
        problem = "a page, not a file"
    elif checkpoint.exact and size != checkpoint.size:
        problem = f"{size:,} bytes, and the published file has {checkpoint.size:,}"
    elif wanted is not None and digest != wanted:
        problem = f"of another SHA-256 ({digest}) than the published one ({wanted})"
    if problem is not None:
        part.unlink()
        _tag(part).unlink(missing_ok=True)
        raise WeightsError(
            f"what {checkpoint.url} sent is {problem}. It was removed: fetch again; if it persists, mistrust the proxy"
        )
    return digest


def _problem(checkpoint: Checkpoint, error: Exception) -> str:
    what = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, urllib.error.HTTPError) and error.code == 404:
        return f"{checkpoint.url}: {what}. The file has moved: look for it on its authors' page"
    return (
        f"{checkpoint.url}: {what}. Check the network and its proxy, and fetch again: it goes on where it stopped. Or "
        f"download it elsewhere and put it at {checkpoint.path}"
    )


def _require_https(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme != "https" and parts.hostname not in ("127.0.0.1", "localhost"):
        raise WeightsError(f"{url}: weights are fetched by https alone")


def _digest(headers: Message) -> str | None:
    """Return the SHA-256 that Hugging Face gives for large files."""
    tag = headers.get("X-Linked-ETag", "").strip('"')
    return tag if re.fullmatch("[0-9a-f]{64}", tag) else None


def _held(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def _tag(part: Path) -> Path:
    return part.with_name(part.name + ".etag")
