"""One version of a corpus, for readers of all rows without audio, and of the audio of some."""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset

from storage.corpus import Corpus
from storage.rights import consenting, read_rights, with_rights
from storage.rows import CorpusError
from storage.schema import UTTERANCE

DESCRIBING = tuple(name for name in UTTERANCE.names if name not in ("audio", "speaker_embedding"))
"""The columns for people: without audio and speaker embedding."""
_IDS_AT_A_TIME = 1000


@dataclass(frozen=True)
class CorpusVersion:
    """A version of the utterances of a corpus.

    Attributes:
        location: Location of the corpus.
        table: Id of its Delta table of utterances. A corpus that was deleted and built again has
            another id.
        version: Version of the utterances.
    """

    location: str
    table: str
    version: int

    @classmethod
    def open(cls, location: str, version: int | None = None) -> "CorpusVersion":
        """Open a version of the corpus at a location; the current one by default.

        Raises:
            CorpusError: There is no corpus, or it has no such version.
        """
        corpus = Corpus.open(location)
        version = corpus.version() if version is None else version
        return cls(corpus.location, str(corpus.delta("utterances", version=version).metadata().id), version)

    def rows(self) -> pa.Table:
        """Read all utterances without their audio, in the order of their ids, with what is stated of their sources.

        Those of sources whose consent is withdrawn are left out.
        """
        corpus = consenting(Corpus.at(self.location))
        return with_rights(corpus.utterances(version=self.version, columns=DESCRIBING), read_rights(corpus))

    def audio(self, utterance_ids: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """Yield utterance id and FLAC file of each of these utterances, in the order of storage.

        Raises:
            CorpusError: The version has no such utterance, or its shards are gone (vacuum) or
                damaged.
        """
        for start in range(0, len(utterance_ids), _IDS_AT_A_TIME):
            missing = set(utterance_ids[start : start + _IDS_AT_A_TIME])
            try:
                for batch in self._read(missing):
                    for row in batch.to_pylist():
                        missing.discard(row["utterance_id"])
                        yield row["utterance_id"], row["audio"]["bytes"]
            except (OSError, pa.ArrowException) as error:
                raise CorpusError(
                    f"{self.location}: shards of version {self.version} are gone or damaged ({error}); "
                    f"`fsclap corpus verify {self.location}` lists them"
                ) from error
            if missing:
                raise CorpusError(f"{self.location} version {self.version} has no utterance {min(missing)}")

    @functools.cached_property
    def _dataset(self) -> pyarrow.dataset.Dataset:
        return Corpus.at(self.location).dataset(version=self.version)

    def _read(self, utterance_ids: set[str]) -> Iterator[pa.RecordBatch]:
        # The log has the sources of each shard, so Delta opens only the shards of these sources.
        sources = sorted({utterance_id.rsplit("-", 1)[0] for utterance_id in utterance_ids})
        chosen = pc.field("source_id").isin(sources) & pc.field("utterance_id").isin(sorted(utterance_ids))
        return self._dataset.to_batches(
            columns=["utterance_id", "audio"], filter=chosen, batch_size=256, batch_readahead=2, fragment_readahead=1
        )
