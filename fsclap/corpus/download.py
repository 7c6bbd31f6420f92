"""From what a user names (a URL, playlist, series page, file or folder) to media files.

yt-dlp runs in a separate process (`fsclap.corpus.fetcher`), because whoever wrote a page decides
what it reads. This module decides what an episode is and what it is called, bounds that process in
memory, size and time, keeps secrets of addresses out of everything stored, and turns every failure
into `Refused` (final) or `Unavailable` (worth a retry).
"""
# download, fetcher and addresses are modules of fsclap.corpus, not a package: `python -I -m
# fsclap.corpus.fetcher` would run the package's __init__ inside the confined process.

import hashlib
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import unicodedata
from collections import Counter
from collections.abc import Generator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any
from urllib.parse import SplitResult, unquote_to_bytes, urldefrag, urlsplit

from pydantic import BaseModel, ConfigDict, Field

from fsclap import Seconds, sandbox
from fsclap.corpus.addresses import redact, require_fetchable, without_tracking
from fsclap.files import sha256_file
from fsclap.refusal import Refused, Unavailable
from fsclap.settings import Folded, execution

log = logging.getLogger(__name__)

FETCHER = [sys.executable, "-I", "-m", "fsclap.corpus.fetcher"]
MEMORY = 1 << 30
"""Bytes that yt-dlp may use. A feed of ten thousand episodes takes a tenth of it."""
PARTIAL = 64_000_000
"""Bytes beyond `max_megabytes` that a file may have while it is fetched, before its size is
noticed."""
REASONS_OF_SETTINGS = {"private_address", "too_many_episodes", "cookies_unreadable"}
"""Reasons of `Unavailable` that no other try mends before a setting, or the file that it names, has
changed."""
REASONS_OF_ADDRESSES = {
    "unsupported_scheme", "credentials_in_address", "bad_address", "unsafe_extension", "unsupported_protocol",
    "several_files", "too_large",
}  # fmt: skip
"""Reasons of `Refused` that the address, the settings or the version of yt-dlp decide. Any other
refusal of a download may be a server's bad hour: a later run asks again."""
JOINERS = "\u200c\u200d"
"""Format characters that Persian, Indic scripts and emoji cannot be written without."""


class DownloadLimits(BaseModel):
    """How much is fetched at once, and when to give up."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_megabytes: float = execution(2000, gt=0, description="Larger files are refused.")
    max_episodes: int = execution(
        10_000, ge=1, description="Pages and feeds that list more are refused: part of a series is not the series."
    )
    parallel: int = execution(3, ge=1, le=4, description="Files of a batch fetched at once.")
    timeout: Seconds = execution(1800, gt=0, description="Seconds that one page or one file may take in total.")
    socket_timeout: Seconds = execution(20, gt=0, description="Seconds without data before an attempt is given up.")
    connection_retries: int = execution(2, ge=0, description="Retries within one download.")
    fetch_again: bool = execution(
        False,
        description="In this build, download every recording again: it may have been replaced under its address.",
    )


class DownloadSettings(BaseModel):
    """How media are fetched."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: str = Field(
        "bestaudio/best",
        description="yt-dlp format selection. The audio track alone is enough, and smallest.",
    )
    private_addresses: bool = execution(
        False,
        description="Allow hosts on this machine and on private networks, for an intranet. Pages written by strangers "
        "can then lead the worker to them.",
    )
    cookies: Path | None = execution(
        None,
        description="Cookie file in Netscape format on the worker, for private media. Read at each download, never "
        "changed, never logged.",
    )
    limits: Folded[DownloadLimits] = Field(
        default_factory=DownloadLimits, description="Sizes and timeouts; fetching again."
    )


@dataclass(frozen=True, slots=True)
class Episode:
    """One recording to be processed.

    Attributes:
        source_id: 16 hexadecimal digits that name the recording in the corpus, made from the feed's
            address and its guid there, or else from its own address: the same in every run.
        locator: URL without passwords and tokens; of a local file its file: URI, which holds any
            file name in plain characters. This is what is stored and shown.
        series, title: As the page, feed or folder names them; any text.
        name: Short name within the series ("e01"): the file's stem or the page's id.
        fingerprint: Size and modification time of a local file, empty for a URL: a changed file is
            seen.
        address: The URL to ask for where it has parts that `locator` leaves out; else empty.
        earlier_id: The id that earlier versions gave it; empty if it is the same.
    """

    source_id: str
    locator: str
    series: str
    name: str
    title: str
    fingerprint: str = ""
    address: str = field(default="", repr=False)
    earlier_id: str = ""

    @property
    def is_local(self) -> bool:
        # Not by its scheme: a page can list any address, file: among them.
        return bool(self.fingerprint)


@dataclass(frozen=True, slots=True)
class Media:
    """A downloaded file.

    Attributes:
        sha256: Of its bytes.
        title: As its page names it.
        served: As `served` gives it; empty for a local file.
        licence: As its page states it; empty if it states none.
    """

    path: Path
    sha256: str
    title: str
    served: str = ""
    licence: str = ""


def is_url(locator: str) -> bool:
    """Return True for a URL; an existing local file is none, whatever its name."""
    scheme = re.match(r"(?i)[a-z][a-z0-9+.-]+:", locator)
    return "://" in locator or (scheme is not None and not os.path.exists(locator))  # noqa: PTH110 (takes any text)


def list_episodes(locator: str, settings: DownloadSettings) -> list[Episode]:
    """List all episodes behind one address, in the order of the page.

    Args:
        locator: URL of one video, a playlist, a series page or an RSS feed; or path of a file or
            folder, or its file: URI, which can name any file in plain characters.
        settings: Limits, cookies and allowed hosts.

    Raises:
        Refused: Nothing there can be an episode.
        Unavailable: It could not be reached, or another setting is needed (REASONS_OF_SETTINGS).
    """
    if re.match(r"file:///", locator):
        return _list_local(_path_of(locator))
    if not is_url(locator):
        return _list_local(locator)
    require_fetchable(locator)
    episodes: dict[str, Episode] = {}
    shown = redact(locator)
    with closing(_ask({"action": "list", "url": locator, "shown": shown}, settings=settings)) as answers:
        page = next(answers)
        entries: list[tuple[dict[str, str], bool]] = []
        for answer in answers:
            entries.append((answer["entry"], "alone" in answer))
            if len(entries) > settings.limits.max_episodes:
                raise Unavailable(  # with another setting it is to be tried again
                    "too_many_episodes",
                    f"{shown}: lists more than download.limits.max_episodes={settings.limits.max_episodes}; raise the "
                    "setting, or name parts of it",
                )
    guids = Counter(guid for guid, _ in {(entry.get("guid"), entry.get("url")) for entry, _ in entries})
    for entry, alone in entries:
        if guids[entry.get("guid")] > 1:  # it does not tell episodes apart
            entry.pop("guid", None)
        episode = _episode(entry, {} if alone else page["page"], page["url"])
        episodes.setdefault(episode.source_id, episode)
    if not episodes:
        raise Refused("empty_playlist", f"{shown}: the page lists no video")
    return list(episodes.values())


def fetch(episode: Episode, folder: Path, settings: DownloadSettings) -> Media:
    """Bring the media of one episode into `folder`, as `media` (a local file keeps its ending).

    Raises:
        Refused: It does not exist, is not media, is live, too large, or takes too long.
        Unavailable: The network or the server failed; another try may succeed.
    """
    path, page = _copy(episode, folder) if episode.is_local else _download(episode, folder, settings)
    if path.stat().st_size == 0:
        raise Refused("empty_file", f"{episode.locator}: the file has no bytes")
    return Media(path, sha256_file(path), clean_text(page["title"]), page["served"], page["license"])


def served(episode: Episode, settings: DownloadSettings) -> str:
    """Ask the server which version of a remote episode's file it has, without fetching the file.

    Returns:
        Its ETag, time of last change and length, as far as the server gives them; the same for the
        same version. Empty if it gives none.

    Raises:
        Refused, Unavailable: As `fetch`.
    """
    url = episode.address or episode.locator
    require_fetchable(url)
    with closing(_ask({"action": "look", "url": url, "shown": episode.locator}, settings=settings)) as answers:
        return _served(list(answers)[-1])


def _served(answer: dict[str, Any]) -> str:
    return "; ".join(f"{name} {clean_text(value)}" for name, value in sorted(answer["served"].items()))


def clean_text(text: object, *, longest: int = 200) -> str:
    """Reduce a title to one line of plain text, `longest` characters at most.

    Control characters, lone surrogates and line breaks become spaces. Characters that show nothing
    but change how others are shown (bidirectional overrides, zero-width marks) are left out, for
    two names that look alike should be alike; the joiners stay.
    """
    kept = (_cleaned(character) for character in str(text or "")[:10_000])
    return " ".join("".join(kept).split())[:longest].rstrip()


def _cleaned(character: str) -> str:
    category = unicodedata.category(character)
    if category == "Cf" and character not in JOINERS:
        return ""
    return " " if category in ("Cc", "Cs", "Zl", "Zp") else character


def source_id(address: str) -> str:
    return hashlib.sha256(address.encode("utf-8", "surrogateescape")).hexdigest()[:16]


# Local files ------------------------------------------------------------------------------------------


def _list_local(locator: str) -> list[Episode]:
    try:
        path = Path(locator).expanduser()
        if path.is_dir():
            # Every file counts, whatever its ending: one that is no media is refused by name, not
            # passed over.
            files = sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith("."))
            if not files:
                raise Refused("empty_folder", f"{path}: the folder holds no files")
            return [_local_episode(file) for file in files]
        if path.exists():
            return [_local_episode(path)]
    except (OSError, RuntimeError, ValueError) as error:  # a name that is too long, a user that is not there
        raise Refused("no_such_file", f"{locator[:200]!a}: {clean_text(error)}; check the spelling") from None
    raise Refused("no_such_file", f"{locator[:200]!a}: there is no such file or folder; check the spelling")


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


def _path_of(uri: str) -> str:
    return os.fsdecode(unquote_to_bytes(urlsplit(uri).path))


def _copy(episode: Episode, folder: Path) -> tuple[Path, dict[str, str]]:
    source = Path(_path_of(episode.locator))
    if not source.is_file():
        raise Refused("no_such_file", f"{episode.locator}: not a file (any more)")
    target = folder / f"media{source.suffix.lower()}"
    try:
        shutil.copyfile(source, target)
    except PermissionError as error:
        raise Refused("not_readable", f"{episode.locator}: {error.strerror}; check the file's permissions") from error
    return target, {"title": episode.title, "served": "", "license": ""}


# Remote media -----------------------------------------------------------------------------------------


def _episode(entry: dict[str, str], page: dict[str, str], locator: str) -> Episode:
    """Make an episode of what the fetcher reports on a video and the page that lists it."""
    url = _without_fragment(entry.get("webpage_url") or entry.get("url") or locator)
    shown, parts = redact(clean_url(url)), _parts(url)
    key = entry.get("ie_key") or entry.get("extractor_key") or "Generic"
    generic = key in ("Generic", "HTML5MediaEmbed") or not entry.get("id")
    # A page that names another thing than a web address must not pass for that thing.
    web = parts.scheme in ("http", "https")
    earlier = shown if web else f"listed:{shown}"
    identity = without_tracking(shown) if web else earlier
    if web and entry.get("guid"):
        identity = f"guid:{without_tracking(redact(locator))}\n{entry['guid']}"
    name = Path(parts.path).stem if generic else entry["id"]
    return Episode(
        source_id=source_id(identity if generic else f"{key}:{entry['id']}"),
        earlier_id=source_id(earlier) if generic and earlier != identity else "",
        locator=shown,
        series=clean_text(entry.get("series") or page.get("title") or entry.get("channel") or parts.hostname),
        name=clean_text(name) or source_id(url),
        title=clean_text(redact(entry.get("title") or name)),
        address="" if shown == url else url,
    )


def clean_url(url: str) -> str:
    """Return a URL as it is stored: invalid characters escaped, at most 2000 characters."""
    return "".join(c if c.isprintable() else f"%{ord(c):02X}" for c in url[:2000])


def _without_fragment(url: str) -> str:
    try:
        return urldefrag(url).url
    except ValueError:
        return url


def _parts(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:
        return SplitResult("", "", "", "", "")


def _download(episode: Episode, folder: Path, settings: DownloadSettings) -> tuple[Path, dict[str, str]]:
    url = episode.address or episode.locator
    require_fetchable(url)
    request = {"action": "fetch", "url": url, "shown": episode.locator, "folder": str(folder.resolve())}
    with closing(_ask(request, settings=settings)) as answers:
        media = list(answers)[-1]
    title, licence = redact(media["title"]) or episode.title, clean_text(redact(media["license"]))
    return folder / media["media"], {"title": title, "served": _served(media), "license": licence}


def _ask(request: dict[str, Any], *, settings: DownloadSettings) -> Generator[dict[str, Any], None, None]:
    """Run a fetcher process for one request and yield its answers.

    Raises:
        Refused, Unavailable: What it says, or the limit that ended it.
    """
    max_bytes = int(settings.limits.max_megabytes * 1e6)
    cookies = None if settings.cookies is None else str(settings.cookies.expanduser().resolve())
    message = (
        settings.model_dump(mode="json", exclude={"limits"})
        | settings.limits.model_dump(mode="json")
        | request
        | {"cookies": cookies, "max_bytes": max_bytes}
    )
    child = subprocess.Popen(
        FETCHER, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        env=sandbox.environment(), cwd=request.get("folder", "/"), start_new_session=True,
    )  # fmt: skip
    expired = threading.Event()
    timer = threading.Timer(settings.limits.timeout, _expire, [child, expired])
    timer.start()
    try:
        sandbox.limit(child, memory=MEMORY, file_size=max_bytes + PARTIAL)
        # Its input stays open: it ends when this process does.
        for line in _exchange(child, message):
            answer = json.loads(line)
            if "log" in answer:
                log.debug("%s", redact(answer["log"]))
            elif "refused" in answer:
                reason, detail, transient = answer["refused"]
                raise (Unavailable if transient else Refused)(reason, clean_text(redact(detail), longest=1000))
            else:
                yield answer
        code = child.wait()
    finally:
        timer.cancel()
        _kill(child)
        child.communicate()
    _require_whole(request["shown"], code, expired=expired.is_set(), settings=settings)


def _exchange(child: subprocess.Popen[bytes], message: dict[str, Any]) -> IO[bytes]:
    assert child.stdin is not None
    assert child.stdout is not None
    with suppress(BrokenPipeError):  # killed already; its status will tell
        child.stdin.write(json.dumps(message).encode() + b"\n")
        child.stdin.flush()
    return child.stdout


def _require_whole(shown: str, code: int, *, expired: bool, settings: DownloadSettings) -> None:
    if expired:
        raise Refused(
            "download_timeout", f"{shown}: not done after download.limits.timeout={settings.limits.timeout:g} s"
        )
    if code != 0:
        raise Refused(
            "fetcher_died",
            f"{shown}: the process of yt-dlp ended with status {code}; what it reads may take {MEMORY / 1e9:.1f} GB",
        )


def _expire(child: subprocess.Popen[bytes], expired: threading.Event) -> None:
    expired.set()
    _kill(child)


def _kill(child: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
