"""Find the sound of a row: below the roots, by path, by file name, or by a path with dashes."""

import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from storage.importers.settings import Join

SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".opus")
EVERY = "*"


class Sound:
    """The sound files of a data set.

    Args:
        roots: Folders by the name of their source; EVERY is for rows of any source.
        join: How a row names its sound.
        prefixes: What a name may begin with that is not part of the file's name, as "LJSpeech_".
    """

    def __init__(self, roots: Mapping[str, Path], *, join: Join, prefixes: tuple[str, ...] = ()) -> None:
        self.roots = {name: root.absolute() for name, root in roots.items()}
        self.join, self.prefixes = join, prefixes

    def find(self, name: str, source: str | None = None) -> Path | None:
        """Return the file that a row names; None if there is none, or several that can't be told apart."""
        if self.join != "path":
            return self._files.get(self._key(name))
        for root in self._of(source):
            # Strings: a table has a quarter of a million rows, and most of this is asking the disk.
            path = os.path.normpath(os.path.join(root, name.lstrip("/")))  # noqa: PTH118
            if not path.startswith(f"{root}{os.sep}"):
                continue  # a table of others must not read the rest of the disk
            named = path.lower().endswith(SUFFIXES)
            for candidate in (path,) if named else (path, *(path + suffix for suffix in SUFFIXES)):
                if os.path.isfile(candidate):  # noqa: PTH113
                    return Path(candidate)
        return None

    def unused(self, used: set[Path], count: int) -> list[str]:
        """Name sound files that no row asked for."""
        return [str(path) for path in self._all if path not in used][:count]

    def _of(self, source: str | None) -> list[Path]:
        return [self.roots[name] for name in (source, EVERY) if name is not None and name in self.roots]

    def _key(self, name: str) -> str:
        bare = name.rpartition(".")[0] if name.lower().endswith(SUFFIXES) else name
        if self.join == "dashes":
            return bare.replace("/", "-")
        bare = bare.rsplit("/", 1)[-1]
        return next((bare.removeprefix(prefix) for prefix in self.prefixes if bare.startswith(prefix)), bare)

    @cached_property
    def _all(self) -> list[Path]:
        return [
            Path(folder, name)
            for root in dict.fromkeys(self.roots.values())
            for folder, _, names in sorted(os.walk(root))
            for name in sorted(names)
            if name.lower().endswith(SUFFIXES)
        ]

    @cached_property
    def _files(self) -> dict[str, Path | None]:
        found: dict[str, Path | None] = {}
        for path in self._all:
            root = next(root for root in self.roots.values() if path.is_relative_to(root))
            key = self._key(str(path.relative_to(root)) if self.join == "dashes" else path.name)
            found[key] = None if key in found else path
        return found
