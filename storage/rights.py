"""Licence, rights holder and consent of sources: `rights.parquet`, next to the tables.

People state them, for a build or later with `fsclap corpus rights`; where nobody states a licence, that of the page
counts. A source whose consent is withdrawn stays in the tables, and is left out of what is made of them: exports,
trainings and indexes (`consenting`).
"""

import datetime
import fnmatch
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import write_deltalake
from deltalake.exceptions import DeltaError
from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from storage.corpus import SCHEMAS, Corpus, carrying, parquet, plain
from storage.rows import CorpusError

RIGHTS = "rights.parquet"
Consent = Literal["given", "not asked", "withdrawn"]
By = Literal["user", "site", "data set"]
WITHDRAWN = "withdrawn"
NOT_STATED = "none"
"""What selects sources of which nothing is stated."""

STATED = pa.schema(
    [
        pa.field("licence", pa.string()),  # an SPDX expression, an address, or words
        pa.field("licence_from", pa.string()),  # who states it: "user", "site", "data set"
        pa.field("rights_holder", pa.string()),
        pa.field("consent", pa.string()),  # "given", "not asked", "withdrawn"
        pa.field("consent_note", pa.string()),
        pa.field("consent_date", pa.date32()),
    ]
)
"""What is stated of a source; null where nothing is."""
_SCHEMA = pa.schema([pa.field("source_id", pa.string(), nullable=False), *STATED])
_LONGEST = 1000

Row = dict[str, Any]


class Rights(BaseModel):
    """What a person states of a source; nothing changes what isn't stated."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    licence: str | None = Field(
        None, description="SPDX id or expression (CC-BY-4.0), LicenseRef-..., the address of a licence, or its words."
    )
    rights_holder: str | None = Field(None, description="Who has the rights.")
    consent: Consent | None = Field(
        None,
        description="Consent of the people who are heard. Withdrawn: left out of exports, trainings and indexes.",
    )
    consent_note: str | None = Field(None, description="How, or by whom, it was given or withdrawn.")
    consent_date: datetime.date | None = Field(None, description="When: 2026-01-31.")

    @field_validator("licence", "rights_holder", "consent_note")
    @classmethod
    def _is_text(cls, text: str | None) -> str | None:
        if text is not None and not (text.strip() and text.isprintable() and len(text) <= _LONGEST):
            raise ValueError(f"{text[:50]!r} is not one line of 1 to {_LONGEST} characters")
        return text and text.strip()

    @field_validator("licence")
    @classmethod
    def _is_licence(cls, text: str | None) -> str | None:
        return text and licence_of(text)

    @field_validator("consent_date")
    @classmethod
    def _has_been(cls, date: datetime.date | None) -> datetime.date | None:
        if date is not None and date > datetime.datetime.now(datetime.UTC).date() + datetime.timedelta(days=1):
            raise ValueError(f"{date} has not come yet")
        return date

    @model_validator(mode="after")
    def _of_a_consent(self) -> "Rights":
        if self.consent is None and (self.consent_note or self.consent_date):
            raise ValueError("a note or date of the consent needs the consent: given, not asked or withdrawn")
        return self

    def stated(self, *, by: By) -> Row:
        """Return the columns that it states. Note and date go with the consent."""
        row: Row = {"licence": self.licence, "licence_from": by} if self.licence else {}
        row |= {"rights_holder": self.rights_holder} if self.rights_holder else {}
        consent = {"consent": self.consent, "consent_note": self.consent_note, "consent_date": self.consent_date}
        return row | (consent if self.consent else {})


def licence_of(text: str) -> str:
    """Return an SPDX expression as SPDX writes it; addresses and words as they are.

    Raises:
        ValueError: It looks like an SPDX id and is none.
    """
    try:
        return str(canonicalize_license_expression(text))
    except InvalidLicenseExpression as error:
        is_word = " " not in text and "://" not in text
        if is_word and (text.count("-") or any(character.isdigit() for character in text)):
            raise ValueError(
                f"{text!r} is no SPDX id ({error}): https://spdx.org/licenses has them. For another licence, write its "
                "address, words, or LicenseRef- before a name"
            ) from error
        return text


def read_rights(corpus: Corpus) -> dict[str, Row]:
    """Return what is stated, by source id; sources of which nothing is stated are not there.

    Raises:
        CorpusError: The file is damaged.
    """
    return _rows(corpus, corpus.place.read(RIGHTS))


def state(corpus: Corpus, stated: Mapping[str, Rights], *, only_new: bool = False) -> list[str]:
    """Keep what a person states of sources; return those of which it was not known, sorted.

    A change makes a new version of the utterances, with the same rows, so that what is made of them follows.

    Args:
        corpus: The corpus.
        stated: Source id -> what is stated of it.
        only_new: What a person stated before stays.
    """
    rows = {key: rights.stated(by="user") for key, rights in stated.items()}
    changed = _change(corpus, rows, _unstated if only_new else lambda _, row: row)
    if changed and not corpus.ledger().keys().isdisjoint(changed):
        _make_version(corpus)
    return changed


def state_found(corpus: Corpus, licences: Mapping[str, str], *, by: By) -> list[str]:
    """Keep the licences that a page or data set states, where no person states one."""
    found = {key: {"licence": _lenient(text), "licence_from": by} for key, text in licences.items() if text.strip()}
    return _change(corpus, found, _unstated)


def _unstated(known: Row, row: Row) -> Row:
    """Return the part of a statement that no person has made before."""
    has_consent, has_licence = known.get("consent"), known.get("licence_from") == "user"
    left = {key: value for key, value in row.items() if not (key.startswith("consent") and has_consent)}
    left = {key: value for key, value in left.items() if not (key.startswith("licence") and has_licence)}
    return {key: value for key, value in left.items() if key != "rights_holder" or not known.get(key)}


def drop_rights(corpus: Corpus, source_ids: Iterable[str]) -> None:
    """Take sources out, of which no trace may be left."""
    gone = frozenset(source_ids)

    def to(content: bytes | None) -> bytes | None:
        known = _rows(corpus, content)
        return _content({key: row for key, row in known.items() if key not in gone}) if gone & known.keys() else None

    corpus.place.change(RIGHTS, to)


def _change(corpus: Corpus, stated: Mapping[str, Row], part: Callable[[Row, Row], Row]) -> list[str]:
    """Keep a part of what is stated, which depends on what is known; return the sources that it changes."""
    changed: list[str] = []

    def to(content: bytes | None) -> bytes | None:
        known = _rows(corpus, content)
        empty = dict.fromkeys(STATED.names)
        before = {key: known.get(key, empty) for key in stated}
        after = {key: {**before[key], **part(before[key], row)} for key, row in stated.items()}
        changed[:] = sorted(key for key, row in after.items() if row != before[key])
        return _content({**known, **{key: after[key] for key in changed}}) if changed else None

    if stated:
        corpus.place.change(RIGHTS, to)
    return changed


def _make_version(corpus: Corpus) -> None:
    try:
        write_deltalake(
            corpus.delta("utterances"),
            SCHEMAS["utterances"].empty_table(),
            mode="append",
            commit_properties=carrying({}, fsclapRights="changed"),
        )
    except (DeltaError, OSError) as error:
        raise CorpusError(
            f"cannot write to {corpus.uri('utterances')}: {plain(error)}; what was stated is kept, and holds from the "
            "next version on"
        ) from error


# What follows from it


def withdrawn(corpus: Corpus) -> frozenset[str]:
    """Return the sources whose consent is withdrawn."""
    return frozenset(key for key, row in read_rights(corpus).items() if row["consent"] == WITHDRAWN)


def consenting(corpus: Corpus) -> Corpus:
    """Return the corpus without sources whose consent is withdrawn: what trainings and indexes read."""
    return corpus.excluding(withdrawn(corpus))


def exclusion_key(corpus: Corpus) -> str:
    """Identify what `consenting` leaves out; empty if nothing is."""
    return hashlib.sha256("\n".join(sorted(corpus.without)).encode()).hexdigest()[:16] if corpus.without else ""


def selected(corpus: Corpus, *, licences: Sequence[str] = (), consents: Sequence[str] = ()) -> Corpus:
    """Return the corpus with the sources of some licences and consents alone.

    Args:
        corpus: The corpus.
        licences: Patterns such as CC-BY-*, in any case; "none" for sources without a licence. Empty: all.
        consents: given, not asked, withdrawn, or "none". Empty: all but withdrawn.

    Raises:
        CorpusError: A consent is another word, or no utterance is left.
    """
    allowed = (*get_args(Consent), NOT_STATED)
    for consent in consents:
        if consent not in allowed:
            raise CorpusError(f"consent {consent!r} is none of {', '.join(allowed)}")
    rights = read_rights(corpus)
    patterns = [pattern.casefold() for pattern in licences]

    def fits(source_id: str) -> bool:
        row = rights.get(source_id, {})
        consent, licence = row.get("consent") or NOT_STATED, (row.get("licence") or NOT_STATED).casefold()
        by_consent = consent in consents if consents else consent != WITHDRAWN
        return by_consent and (not patterns or any(fnmatch.fnmatchcase(licence, pattern) for pattern in patterns))

    sources = {*corpus.sources()["source_id"].to_pylist(), *rights}
    chosen = corpus.excluding(source_id for source_id in sources if not fits(source_id))
    if chosen.without and not len(chosen.utterances(columns=["utterance_id"])):
        raise CorpusError(
            f"no utterance of {corpus.location} is of a source with this licence and consent; "
            f"`fsclap corpus rights {corpus.location}` lists what is stated"
        )
    return chosen


def with_rights(table: pa.Table, rights: Mapping[str, Row]) -> pa.Table:
    """Add the columns of STATED to rows that have a `source_id`."""
    rows = [rights.get(source_id, {}) for source_id in table["source_id"].to_pylist()]
    for field in STATED:
        table = table.append_column(field, pa.array([row.get(field.name) for row in rows], field.type))
    return table


def _lenient(text: str) -> str:
    line = "".join(character for character in " ".join(text.split()) if character.isprintable())[:_LONGEST]
    try:
        return licence_of(line)
    except ValueError:
        return line  # as the page has it


def _rows(corpus: Corpus, content: bytes | None) -> dict[str, Row]:
    if content is None:
        return {}
    try:
        rows = pq.read_table(pa.BufferReader(content), schema=_SCHEMA).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise CorpusError(
            f"{corpus.location}/{RIGHTS} is damaged ({plain(error)}): restore it from a backup, or remove it and state "
            "licences and consent again"
        ) from error
    return {row.pop("source_id"): row for row in rows}


def _content(rows: Mapping[str, Row]) -> bytes:
    listed = [{"source_id": key, **dict.fromkeys(STATED.names), **row} for key, row in sorted(rows.items())]
    return parquet(pa.Table.from_pylist(listed, schema=_SCHEMA))
