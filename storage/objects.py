"""Files at a location, local or in an object store: the one way to read, replace, create and move them.

An object store has no rename and no lock. What replaces them is a conditional put: an object is created if
it is absent, or replaced if it is still the one that was read (`Place.create`, `Place.change`). A local
folder does the same with a lock and a rename. Whatever is written appears as a whole.

Credentials and endpoints of an object store come from the environment, for these files and for the tables
(https://docs.rs/objectstore): AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL,
AWS_ALLOW_HTTP; GOOGLE_SERVICE_ACCOUNT; AZURE_STORAGE_ACCOUNT_NAME, AZURE_STORAGE_ACCOUNT_KEY.
"""

import contextlib
import functools
import hashlib
import os
import random
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from obstore.store import MemoryStore, from_url

from storage.files import locked, written_aside

SCHEMES = ("s3", "s3a", "gs", "az", "abfs", "abfss", "memory", "file")
_ATTEMPTS = 100
_LONGEST_PAUSE = 2.0
_AT_ONCE = 8

Content = bytes | Path


class PlaceError(OSError):
    """A location can't be used, or a store refuses; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file as a listing has it: name relative to the place, bytes, and when it was written.

    Attributes:
        version: Changes with the content.
    """

    name: str
    size: int
    modified: datetime
    version: str


@dataclass(frozen=True, slots=True)
class Found:
    """The content of a file, and by which `Store.swap` knows that it is still the same."""

    content: bytes
    version: Mapping[str, str]


class Store(Protocol):
    def version(self, name: str) -> str | None: ...
    def get(self, name: str) -> Found | None: ...
    def save(self, name: str, path: Path) -> str | None: ...
    def put(self, name: str, content: Content) -> str: ...
    def create(self, name: str, content: bytes) -> bool: ...
    def swap(self, name: str, content: bytes, version: Mapping[str, str]) -> bool: ...
    def list(self, prefix: str) -> Iterator[Entry]: ...
    def delete(self, name: str) -> None: ...
    def move(self, name: str, new: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Place:
    """A location of files: a local folder, or the address of one in an object store.

    It has no open handles and can be pickled. Names are relative to it, with "/" between their parts.
    `Place.at` checks the location.
    """

    location: str

    @classmethod
    def at(cls, location: "str | Path | Place") -> "Place":
        """Return the place at a location.

        Raises:
            PlaceError: It is an address, but not of an object store.
        """
        text = str(location)
        if "://" not in text:
            return cls(os.path.expanduser(text).rstrip("/") or text)  # noqa: PTH111 (a Path takes "./~" for "~")
        scheme, _, rest = text.partition("://")
        if scheme not in SCHEMES:
            raise PlaceError(f"{text}: not a location; name a folder, or an address of {', '.join(SCHEMES)}")
        if scheme != "file" and not rest.split("/")[0]:
            raise PlaceError(f"{text}: an address names a bucket or container, too: {scheme}://bucket/folder")
        return cls(text.rstrip("/"))

    def __str__(self) -> str:
        return self.location

    def __truediv__(self, name: str) -> "Place":
        return Place(f"{self.location.rstrip('/')}/{name}")

    @property
    def name(self) -> str:
        """The last part of the location."""
        return self.location.rstrip("/").rsplit("/", 1)[-1]

    @property
    def parent(self) -> "Place":
        """The place that this one lies in."""
        return Place(self.location.rsplit("/", 1)[0]) if "://" in self.location else Place(str(self.folder.parent))

    @property
    def is_local(self) -> bool:
        return "://" not in self.location or self.location.startswith("file://")

    @property
    def folder(self) -> Path:
        """The place as a local folder.

        Raises:
            PlaceError: It is in an object store.
        """
        if not self.is_local:
            raise PlaceError(f"{self.location} is not a local folder; name one")
        return Path(unquote(urlsplit(self.location).path) if "://" in self.location else self.location)

    # Files, each as a whole. All raise PlaceError if the store refuses.

    def read(self, name: str) -> bytes | None:
        """Return the content of a file; None if there is none."""
        found = self.store.get(name)
        return None if found is None else found.content

    def exists(self, name: str) -> bool:
        """Whether there is a file of that name."""
        return self.version(name) is not None

    def version(self, name: str) -> str | None:
        """Return what changes with the content of a file; None if there is none."""
        return self.store.version(name)

    def write(self, name: str, content: Content) -> None:
        """Write a file, or replace it."""
        self.store.put(name, content)

    def create(self, name: str, content: bytes) -> bool:
        """Create a file; False if there is one already. Of many writers at once, one gets True."""
        return self.store.create(name, content)

    def change(self, name: str, to: Callable[[bytes | None], bytes | None]) -> None:
        """Read a file, and replace it by what `to` makes of it, as if no other writer existed.

        Args:
            name: The file.
            to: Its content before, None if there is none -> its content after, None to leave it. It is
                called again when another writer came first.

        Raises:
            PlaceError: Other writers came first each time.
        """
        for attempt in range(_ATTEMPTS):
            found = self.store.get(name)
            after = to(None if found is None else found.content)
            if after is None:
                return
            done = self.create(name, after) if found is None else self.store.swap(name, after, found.version)
            if done:
                return
            time.sleep(random.uniform(0, min(_LONGEST_PAUSE, 0.01 * 2**attempt)))
        raise PlaceError(f"{self.location}/{name}: other writers changed it during each of {_ATTEMPTS} attempts")

    def list(self, prefix: str = "") -> Iterator[Entry]:
        """Yield the files whose names begin with a prefix, also those in folders within."""
        return self.store.list(prefix)

    def delete(self, *names: str) -> None:
        """Delete files; one that is gone is no error."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(self.store.delete, names))

    def move(self, name: str, new: str) -> None:
        """Give a file another name. A kill in the middle may leave both in an object store."""
        self.store.move(name, new)

    # A file that many append to

    def append(self, name: str, record: bytes, *, multiple: int) -> None:
        """Add a record to the end of a file; in an object store, as an object of its own next to it.

        Args:
            name: The file. In a local folder the caller holds a lock.
            record: What to add.
            multiple: Bytes of a record: what a killed writer left beyond a multiple of it is cut off.
        """
        if self.is_local:
            with (self.folder / name).open("ab") as file:
                file.truncate(file.tell() // multiple * multiple)
                file.write(record)
                file.flush()
                os.fsync(file.fileno())
            return
        self.create(f"{name}.d/{datetime.now(UTC):%Y%m%dT%H%M%S.%f}-{uuid.uuid4().hex}", record)

    def appended(self, name: str) -> bytes:
        """Return all records of a file that `append` adds to, in the order of time."""
        parts = sorted(entry.name for entry in self.list(f"{name}.d/"))
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            records = list(pool.map(lambda part: _part(self, part), parts))
        return (self.read(name) or b"") + b"".join(records)

    @property
    def store(self) -> Store:
        """The operations on the files, each of which is one request."""
        return _Folder(self.folder) if self.is_local else _bucket(self.location, os.getpid())


@functools.lru_cache(maxsize=100_000)
def _part(place: Place, name: str) -> bytes:
    """Read a record of an object store, which never changes; a deleted one is not read here again."""
    return place.read(name) or b""


class _Folder:
    """Files in a local folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def version(self, name: str) -> str | None:
        path = self._root / name
        return _stamp(path) if path.is_file() else None

    def get(self, name: str) -> Found | None:
        try:
            content = (self._root / name).read_bytes()
        except FileNotFoundError:
            return None
        return Found(content, {"sha256": hashlib.sha256(content).hexdigest()})

    def save(self, name: str, path: Path) -> str | None:
        raise NotImplementedError("a local place is its own copy")

    def put(self, name: str, content: Content) -> str:
        path = self._root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_aside(path) as part:
            if isinstance(content, Path):
                with content.open("rb") as source, part.open("wb") as target:
                    while block := source.read(1 << 20):
                        target.write(block)
            else:
                part.write_bytes(content)
        return ""

    def create(self, name: str, content: bytes) -> bool:
        with self._alone(name) as path:
            if path.exists():
                return False
            self.put(name, content)
            return True

    def swap(self, name: str, content: bytes, version: Mapping[str, str]) -> bool:
        with self._alone(name):
            found = self.get(name)
            if found is None or found.version != version:
                return False
            self.put(name, content)
            return True

    @contextlib.contextmanager
    def _alone(self, name: str) -> Iterator[Path]:
        path = self._root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.parent, what=f"the files in {path.parent}"):
            yield path

    def list(self, prefix: str) -> Iterator[Entry]:
        start = self._root / prefix.rpartition("/")[0]  # the last part may be the beginning of a name
        for path in sorted(start.rglob("*")) if start.is_dir() else ():
            name = path.relative_to(self._root).as_posix()
            if name.startswith(prefix) and path.is_file():
                status = path.stat()
                modified = datetime.fromtimestamp(status.st_mtime, UTC)
                yield Entry(name, status.st_size, modified, _stamp(path))

    def delete(self, name: str) -> None:
        (self._root / name).unlink(missing_ok=True)

    def move(self, name: str, new: str) -> None:
        (self._root / new).parent.mkdir(parents=True, exist_ok=True)
        (self._root / name).rename(self._root / new)


class _Bucket:
    """Files in an object store, under a prefix.

    Args:
        store: obstore's store of the whole bucket.
        prefix: Empty, or the folder with a slash at its end.
    """

    def __init__(self, store: "obstore.store.ObjectStore", prefix: str, location: str) -> None:
        self._bucket, self._prefix, self._location = store, prefix, location

    def version(self, name: str) -> str | None:
        with self._told(name):
            try:
                return _version(obstore.head(self._bucket, self._prefix + name))
            except FileNotFoundError:
                return None

    def get(self, name: str) -> Found | None:
        with self._told(name):
            try:
                found = obstore.get(self._bucket, self._prefix + name)
                # Which of the two a store goes by is its own: S3 and Azure by the tag, Google by the version.
                tags = {key: value for key in ("e_tag", "version") if (value := found.meta[key])}
                return Found(bytes(found.bytes()), tags)
            except FileNotFoundError:
                return None

    def save(self, name: str, path: Path) -> str | None:
        with self._told(name), written_aside(path) as part:
            try:
                found = obstore.get(self._bucket, self._prefix + name)
            except FileNotFoundError:
                part.touch()
                return None
            with part.open("wb") as file:
                for block in found.stream():
                    file.write(block)
            return _version(found.meta)

    def put(self, name: str, content: Content) -> str:
        with self._told(name):
            return str(obstore.put(self._bucket, self._prefix + name, content)["e_tag"])

    def create(self, name: str, content: bytes) -> bool:
        with self._told(name):
            try:
                obstore.put(self._bucket, self._prefix + name, content, mode="create", use_multipart=False)
            except AlreadyExistsError:
                return False
            return True

    def swap(self, name: str, content: bytes, version: Mapping[str, str]) -> bool:
        with self._told(name):
            try:
                obstore.put(self._bucket, self._prefix + name, content, mode=dict(version), use_multipart=False)  # type: ignore[arg-type]
            except (PreconditionError, FileNotFoundError):
                return False
            return True

    def list(self, prefix: str) -> Iterator[Entry]:
        # A store lists what is in a folder; the beginning of a name is compared here.
        folder = (self._prefix + prefix).rpartition("/")[0]
        with self._told(prefix):
            for batch in obstore.list(self._bucket, folder or None):
                for meta in batch:
                    name = meta["path"].removeprefix(self._prefix)
                    if name.startswith(prefix):
                        yield Entry(name, meta["size"], meta["last_modified"], _version(meta))

    def delete(self, name: str) -> None:
        with self._told(name), contextlib.suppress(FileNotFoundError):
            obstore.delete(self._bucket, self._prefix + name)

    def move(self, name: str, new: str) -> None:
        with self._told(name):
            obstore.copy(self._bucket, self._prefix + name, self._prefix + new)
            obstore.delete(self._bucket, self._prefix + name)

    @contextlib.contextmanager
    def _told(self, name: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:  # no object is missing here, so the bucket is
            raise PlaceError(
                f"{self._location}: there is no such bucket or container; make it, or correct the address"
            ) from error
        except BaseError as error:
            raise PlaceError(f"{self._location}/{name}: {_plain(error)}; {_remedy(error)}") from error


def _stamp(path: Path) -> str:
    status = path.stat()
    return f"{status.st_ino}-{status.st_mtime_ns}"


def _version(meta: "obstore.ObjectMeta") -> str:
    return str(meta["e_tag"] or meta["last_modified"].isoformat())


def _plain(error: BaseException) -> str:
    return " ".join(str(error).split("\n\nDebug source")[0].split()).rstrip(".")


def _remedy(error: BaseError) -> str:
    if "Authentic" in type(error).__name__ or "Permission" in type(error).__name__:
        return "check the credentials in the environment, and what they may do"
    return "check the address, the network and the settings of the store in the environment; `fsclap doctor` tries them"


@functools.lru_cache(maxsize=256)
def _bucket(location: str, process: int) -> _Bucket:
    """Open an object store, once in a process: a fork can't use the connections of its parent."""
    parts = urlsplit(location)
    folder = parts.path.strip("/")
    root = f"{parts.scheme}://{parts.netloc}"
    try:
        store = _memory(root) if parts.scheme == "memory" else from_url(root)
    except (BaseError, ValueError) as error:
        raise PlaceError(f"{location}: {_plain(error)}; {_remedy(BaseError())}") from error
    return _Bucket(store, f"{folder}/" if folder else "", location)


@functools.cache
def _memory(root: str) -> MemoryStore:
    return MemoryStore()
