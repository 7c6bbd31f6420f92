"""A server of recordings, and builds of them that take milliseconds.

Listing, planning, the work store, the download task's stage and the commit are the real ones. What is said in
a recording is of no account here, so no engine runs: the decoder accepts what begins with "good", and a recording
gives one utterance.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fsclap.corpus import download as downloads
from fsclap.corpus.download import Episode, Media
from fsclap.corpus.fingerprint import to_text
from fsclap.corpus.settings import BuildSettings
from fsclap.refusal import Refused, Unavailable
from storage.corpus import Corpus
from storage.requests import add_requests
from storage.sounds import SHAPE
from storage.work import WorkStore
from tasks import commit as commits
from tasks.batches import Batch, Item, Refusal
from tasks.declared import Declared, Plan
from tasks.download import download_stage
from tasks.outputs import DOWNLOAD, SEPARATION
from tasks.plan import plan_build, plan_orphans
from tasks.stages import Product, Stage, folder, outcome, run_stage
from tests.storage.conftest import utterance

Row = dict[str, Any]


class World:
    """A server and a corpus.

    Attributes:
        files: Name -> content, as the server has it now.
        local: Names that are files of this machine, whose size and time a build sees.
        down: The server answers nothing.
        gone: Names that it lists and does not have.
        fetched: Names that were downloaded, in order.
        ffmpeg: Version of the decoder; contents that begin with "new" are refused by version 4.
    """

    def __init__(self, root: Path) -> None:
        self.files: dict[str, str] = {}
        self.local: set[str] = set()
        self.versions: dict[str, int] = {}
        self.down = False
        self.gone: set[str] = set()
        self.fetched: list[str] = []
        self.ffmpeg = "6"
        self.work = str(root / "work")
        self.corpus = Corpus.open(root / "corpus", create=True)

    def put(self, name: str, content: str) -> None:
        """Put a recording under a name, or another in its place."""
        self.files[name] = content
        self.versions[name] = self.versions.get(name, 0) + 1

    def build(self, *, fetch_again: bool = False) -> list[str]:
        """Build everything on the server; the names that were done, in order."""
        listed = [Item(episode=self.episode(name)) for name in sorted(self.files)]
        location, plan = self.corpus.location, self.plan(fetch_again=fetch_again)
        done = self._process(plan_build.fn(listed, location, self.work, plan))
        return done + self._process(plan_orphans.fn(listed, location, plan))

    def _process(self, batches: list[Batch]) -> list[str]:
        store, plan = WorkStore(self.work), self.plan()
        for batch in batches:
            fetched = run_stage(download_stage(store, plan), batch, store)
            commits.commit.fn(run_stage(self.separation(store), fetched, store), self.corpus.location, self.work, plan)
        return [item.episode.name for batch in batches for item in batch.items]

    def kept(self) -> dict[str, str]:
        """Name -> digest of each recording that the corpus keeps."""
        return {row["episode"]: row["media_sha256"] for row in self.corpus.ledger().values() if row["status"] == "kept"}

    def refused(self) -> dict[str, str]:
        """Name -> reason."""
        ledger = self.corpus.ledger()
        return {ledger[source]["episode"]: reason for source, (_, reason, _) in self.corpus.refusals().items()}

    def id(self, name: str) -> str:
        return self.episode(name).source_id

    def episode(self, name: str) -> Episode:
        address = f"https://example.org/{name}"
        fingerprint = str(self.versions.get(name)) if name in self.local else ""
        return Episode(downloads.source_id(address), address, "The Show", name, "media", fingerprint)

    def plan(self, *, fetch_again: bool = False) -> Plan:
        by = {DOWNLOAD: {"yt-dlp": "1"}, SEPARATION: {"ffmpeg": self.ffmpeg}}
        engines = (DOWNLOAD, SEPARATION, "diarization", "captioning")
        stages = {name: Declared(engine="x", parameters={}, version=1, decided_by=by.get(name, {})) for name in engines}
        settings = BuildSettings.model_validate({"download": {"limits": {"fetch_again": fetch_again}}})
        return Plan(settings=settings, stages=stages)

    def separation(self, store: WorkStore) -> Stage:
        def produce(items: list[Item]) -> Iterator[Product | Refusal]:
            for item in items:
                said = (folder(store, item.steps[DOWNLOAD]) / "media").read_text()
                if said.startswith("good") or (said.startswith("new") and self.ffmpeg != "4"):
                    facts = {"duration": 60.0, "fingerprint": sound_of(said)}
                    yield Product(write=lambda target: (target / "x").write_text("x"), seconds={}, facts=facts)
                else:
                    yield Refusal(stage="decode", reason="truncated", detail="it ends early")

        def inputs(item: Item) -> list[str]:
            return [outcome(store, item.steps[DOWNLOAD]).facts["sha256"]]

        return Stage(SEPARATION, self.plan().stages[SEPARATION], inputs, produce)

    # The library's functions, on this server

    def fetch(self, episode: Episode, target: Path, _: object) -> Media:
        if self.down:
            raise Unavailable("http_503", f"{episode.locator}: HTTP 503")
        if episode.name in self.gone:
            raise Refused("http_404", f"{episode.locator}: HTTP 404")
        self.fetched.append(episode.name)
        content = self.files[episode.name]
        (target / "media").write_text(content)
        return Media(target / "media", hashlib.sha256(content.encode()).hexdigest(), "media", self.served(episode))

    def served(self, episode: Episode, _: object = None) -> str:
        if self.down:
            raise Unavailable("http_503", f"{episode.locator}: HTTP 503")
        return f"ETag {self.versions[episode.name]}"


def sound_of(said: str) -> str:
    """Fingerprint of a content: "good talk|mp3" sounds like "good talk|mp4"."""
    rng = np.random.default_rng(list(said.partition("|")[0].encode()))
    return to_text(rng.integers(0, 1 << 32, SHAPE, dtype=np.uint32))


def one_row(item: Item, _: WorkStore, plan: Plan) -> tuple[list[Row], list[Row]]:
    identity = commits._identity(item, plan) | {"title": item.episode.title}
    row = utterance(identity, 0, emotion=None)
    return [row | {"speaker": commits._speaker(item, 0)}], []


@contextmanager
def world(root: Path) -> Iterator[World]:
    made = World(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(downloads, "fetch", made.fetch)
        patch.setattr(downloads, "served", made.served)
        patch.setattr(commits, "_rows", one_row)
        for module in ("tasks.plan", "tasks.download"):
            patch.setattr(f"{module}.download_slot", lambda: None)
        yield made


def ask(made: World, name: str, *, fetch: bool) -> None:
    add_requests(made.corpus, [made.id(name)], fetch=fetch)
