"""From what a user names (a URL, a playlist, a series page, a file, a folder) to media files on this disk.

yt-dlp does the talking. This module decides what an episode is and what it is called, keeps titles out of
paths, bounds size and time (a stream of unknown length has no end), and turns every failure into `Refused`
(for good) or `Unavailable` (worth another try).
"""

import hashlib
import logging
import os
import shutil
import ssl
import time
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes, urldefrag, urlsplit

import yt_dlp
from pydantic import BaseModel, ConfigDict, Field
from yt_dlp.networking.exceptions import CertificateVerifyError, HTTPError, TransportError
from yt_dlp.utils import ContentTooShortError, GeoRestrictedError, UnsupportedError

from fsclap import Seconds
from fsclap.audio import ffmpeg_binary
from fsclap.corpus.refusal import Refused, Unavailable

log = logging.getLogger(__name__)

RETRYABLE_STATUS = {408, 425, 429, 500, 502, 503, 504}


class DownloadSettings(BaseModel):
    """How media are fetched."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: str = Field(
        "bestaudio/best",
        description="yt-dlp format selection. The audio track alone is enough and the smallest.",
    )
    parallel: int = Field(3, ge=1, le=4, description="Files of one batch fetched at once.")
    max_megabytes: float = Field(2000, gt=0, description="A larger file is refused.")
    timeout: Seconds = Field(1800, gt=0, description="Seconds one file may take in all.")
    socket_timeout: Seconds = Field(20, gt=0, description="Seconds without a byte before a try is given up.")
    connection_retries: int = Field(2, ge=0, description="Tries after the first within one download.")


@dataclass(frozen=True, slots=True)
class Episode:
    """One recording to be processed.

    Attributes:
        source_id: 16 hexadecimal digits that name the recording in the corpus, made from its address: the same
            address is the same source, in every run.
        locator: URL; of a local file its file: URI, which holds any file name in plain characters.
        series, title: As the page, feed or folder names them; any text.
        name: Short name within the series ("e01"): the file's stem or the page's id.
        fingerprint: Size and modification time of a local file, empty for a URL: a changed file is seen.
    """

    source_id: str
    locator: str
    series: str
    name: str
    title: str
    fingerprint: str = ""

    @property
    def is_local(self) -> bool:
        return self.locator.startswith("file:")


@dataclass(frozen=True, slots=True)
class Media:
    """A downloaded file, its SHA-256 and what its page says of it."""

    path: Path
    sha256: str
    title: str


def is_url(locator: str) -> bool:
    return "://" in locator


def list_episodes(locator: str, settings: DownloadSettings) -> list[Episode]:
    """All episodes behind one address, in the order in which the page lists them.

    Args:
        locator: URL of one video, a playlist, a series page or an RSS feed; or path of a file or folder.

    Raises:
        Refused: Nothing there can be an episode.
        Unavailable: It could not be reached.
    """
    if not is_url(locator):
        return _list_local(Path(locator))
    if urlsplit(locator).scheme not in ("http", "https"):
        raise Refused("unsupported_scheme", f"{locator}: only http and https addresses are downloaded")
    with _failures_explained(locator), yt_dlp.YoutubeDL(_options(settings)) as downloader:
        info = downloader.extract_info(locator, download=False, process=False)
        if info is None:
            raise Refused("nothing_found", f"{locator}: yt-dlp found nothing to download there")
        entries = _flatten(downloader, info) if info.get("_type") in ("playlist", "multi_video") else [info]
        episodes = [_episode(entry, info, locator) for entry in entries]
    if not episodes:
        raise Refused("empty_playlist", f"{locator}: the page lists no video")
    return _unique(episodes)


def fetch(episode: Episode, folder: Path, settings: DownloadSettings) -> Media:
    """Bring the media of one episode into `folder`, as `media.<extension>`.

    Raises:
        Refused: It does not exist, is not media, is live, too large, or takes too long.
        Unavailable: The network or the server failed; another try may succeed.
    """
    path, title = _copy(episode, folder) if episode.is_local else _download(episode, folder, settings)
    if path.stat().st_size == 0:
        raise Refused("empty_file", f"{episode.locator}: the file has no bytes")
    return Media(path, sha256_file(path), clean_text(title))


def sha256_file(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def clean_text(text: object) -> str:
    """A title as plain text: no control characters, no lone surrogates, no line breaks, 200 characters."""
    kept = (" " if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") else c for c in str(text or ""))
    return " ".join("".join(kept).split())[:200]


def source_id(address: str) -> str:
    return hashlib.sha256(address.encode("utf-8", "surrogateescape")).hexdigest()[:16]


# Local files ------------------------------------------------------------------------------------------


def _list_local(path: Path) -> list[Episode]:
    path = path.expanduser()
    if path.is_dir():
        # Every file counts, whatever its ending: one that is no media is refused by name, not passed over.
        files = sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith("."))
        if not files:
            raise Refused("empty_folder", f"{path}: the folder holds no files")
        return [_local_episode(file) for file in files]
    if not path.exists():
        raise Refused("no_such_file", f"{path}: there is no such file or folder; check the spelling")
    return [_local_episode(path)]


def _local_episode(path: Path) -> Episode:
    path = path.resolve()
    status = path.stat()
    return Episode(
        source_id=source_id(path.as_uri()),
        locator=path.as_uri(),
        series=clean_text(path.parent.name) or "files",
        name=clean_text(path.stem),
        title=clean_text(path.stem),
        fingerprint=f"{status.st_size}-{status.st_mtime_ns}",
    )


def _copy(episode: Episode, folder: Path) -> tuple[Path, str]:
    source = Path(os.fsdecode(unquote_to_bytes(urlsplit(episode.locator).path)))
    if not source.is_file():
        raise Refused("no_such_file", f"{episode.locator}: not a file (any more)")
    target = folder / f"media{source.suffix.lower()}"
    try:
        shutil.copyfile(source, target)
    except PermissionError as error:
        raise Refused("not_readable", f"{episode.locator}: {error.strerror}; check the file's permissions") from error
    return target, episode.title


# Remote media -----------------------------------------------------------------------------------------


class _Log:
    """Passes yt-dlp's messages to `logging`; errors come as exceptions as well, so they are not repeated."""

    def debug(self, message: str) -> None:
        log.debug("%s", message)

    info = debug
    warning = debug
    error = debug


def _options(settings: DownloadSettings) -> dict[str, Any]:
    return {
        "quiet": True,
        "noprogress": True,
        "color": "never",
        "logger": _Log(),
        "extract_flat": "in_playlist",
        "cachedir": False,
        "socket_timeout": settings.socket_timeout,
        "retries": settings.connection_retries,
        "fragment_retries": settings.connection_retries,
        "extractor_retries": settings.connection_retries,
        "ffmpeg_location": ffmpeg_binary(),
    }


def _flatten(downloader: yt_dlp.YoutubeDL, playlist: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The videos of a playlist; a playlist of playlists (a channel with seasons) is opened."""
    for entry in playlist["entries"]:
        if entry is None:
            continue
        if entry.get("_type") == "playlist":
            yield from _flatten(downloader, entry)
        else:
            yield entry


def _episode(entry: dict[str, Any], page: dict[str, Any], locator: str) -> Episode:
    url = urldefrag(entry.get("webpage_url") or entry.get("url") or locator).url
    key = entry.get("ie_key") or entry.get("extractor_key") or "Generic"
    generic = key in ("Generic", "HTML5MediaEmbed") or not entry.get("id")
    name = entry.get("id") if not generic else Path(urlsplit(url).path).stem
    series = entry.get("series") or page.get("title") if page is not entry else entry.get("series")
    return Episode(
        source_id=source_id(url if generic else f"{key}:{entry['id']}"),
        locator=url,
        series=clean_text(series or entry.get("channel") or urlsplit(url).hostname),
        name=clean_text(name) or source_id(url),
        title=clean_text(entry.get("title") or name),
    )


def _unique(episodes: list[Episode]) -> list[Episode]:
    return list({episode.source_id: episode for episode in reversed(episodes)}.values())[::-1]


def _download(episode: Episode, folder: Path, settings: DownloadSettings) -> tuple[Path, str]:
    options = _options(settings) | {
        "format": settings.format,
        "noplaylist": True,
        # The title never becomes part of a path: it may hold anything.
        "outtmpl": {"default": str(folder / "media.%(ext)s")},
        "max_filesize": int(settings.max_megabytes * 1e6),
        "progress_hooks": [_limits(episode, settings)],
    }
    with _failures_explained(episode.locator), yt_dlp.YoutubeDL(options) as downloader:
        info = downloader.extract_info(episode.locator, download=False)
        if info.get("_type") == "playlist":
            raise Refused("is_a_playlist", f"{episode.locator}: a list of videos, not a video; name it as a source")
        if info.get("is_live") or info.get("live_status") in ("is_live", "is_upcoming"):
            raise Refused("live_stream", f"{episode.locator}: a live stream has no end; name its recording instead")
        info = downloader.process_ie_result(info, download=True)
    files = [path for path in folder.glob("media.*") if path.suffix != ".part"]
    if len(files) != 1:
        raise Refused(
            "too_large",
            f"{episode.locator}: yt-dlp left no file; larger than download.max_megabytes="
            f"{settings.max_megabytes:g}, or nothing to download",
        )
    return files[0], info.get("title") or episode.title


def _limits(episode: Episode, settings: DownloadSettings) -> Any:
    """A progress hook that ends a download which the server did not announce to be too large or too long."""
    deadline = time.monotonic() + settings.timeout

    def check(progress: dict[str, Any]) -> None:
        megabytes = (progress.get("downloaded_bytes") or 0) / 1e6
        if megabytes > settings.max_megabytes:
            raise Refused(
                "too_large",
                f"{episode.locator}: more than download.max_megabytes={settings.max_megabytes:g} came",
            )
        if time.monotonic() > deadline:
            raise Refused(
                "download_timeout",
                f"{episode.locator}: {megabytes:.1f} MB after download.timeout={settings.timeout:g} s",
            )

    return check


@contextmanager
def _failures_explained(locator: str) -> Iterator[None]:
    try:
        yield
    except yt_dlp.utils.YoutubeDLError as error:
        raise _explain(locator, error) from error


def _explain(locator: str, error: BaseException) -> Refused:
    """What a person and the retry logic should know of an exception of yt-dlp's."""
    chain = list(_causes(error))
    for cause in chain:
        match cause:
            case Refused():
                return cause
            case HTTPError(status=status) if cause.redirect_loop:
                return Refused("redirect_loop", f"{locator}: the server redirects in a circle (HTTP {status})")
            case HTTPError(status=status, reason=reason) if status in RETRYABLE_STATUS:
                return Unavailable(f"http_{status}", f"{locator}: HTTP {status} {reason}; try again later")
            case HTTPError(status=status, reason=reason):
                return Refused(f"http_{status}", f"{locator}: HTTP {status} {reason}")
            case UnsupportedError():
                return Refused("not_media", f"{locator}: neither media nor a page in which yt-dlp finds a video")
            case GeoRestrictedError():
                return Refused("geo_restricted", f"{locator}: not offered in this country")
            case CertificateVerifyError() | ssl.SSLCertVerificationError():
                return Refused("bad_certificate", f"{locator}: {clean_text(cause)}")
            case ContentTooShortError():
                return Unavailable("connection_lost", f"{locator}: the connection ended before the file did")
            case TransportError():
                return Unavailable("unreachable", f"{locator}: {clean_text(cause)}")
    # yt-dlp's downloader says these two in words alone.
    message = clean_text(chain[0]).removeprefix("ERROR: ")
    if "Did not get any data blocks" in message or "file is empty" in message:
        return Refused("empty_file", f"{locator}: the server sent no bytes")
    if "more expected" in message:
        return Unavailable("connection_lost", f"{locator}: the connection ended before the file did ({message})")
    return Refused("download_error", f"{locator}: {message}")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        wrapped = getattr(error, "exc_info", None)
        error = (wrapped[1] if wrapped and wrapped[1] is not error else None) or error.__cause__ or error.__context__
