"""What is stated of a source goes with its rows; who has withdrawn consent is left out of what is made of them."""

import datetime
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from cli import main as cli
from storage.card import write_card
from storage.corpus import Corpus
from storage.erasure import erase
from storage.export import EXPORTED
from storage.interop import export_webdataset
from storage.models import FINISHED, ModelStore
from storage.rights import RIGHTS, Rights, consenting, read_rights, selected, state, state_found, withdrawn
from storage.rows import CorpusError
from storage.verify import verify
from storage.versions import CorpusVersion
from tasks.training import open_clips
from tests.storage.conftest import rows_of, source_id

Shown = pytest.CaptureFixture[str]
FREE, SITE, GONE, BARE = map(source_id, ("free", "site", "gone", "bare"))


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.slow)])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "corpus") if request.param == "local" else f"{request.getfixturevalue('bucket')}/corpus"


def fill(location: str | Path) -> Corpus:
    corpus = Corpus.open(location, create=True)
    for name in ("free", "site", "gone", "bare"):
        corpus.commit_source(**rows_of(name, kept=2, rejected=1))
    state(corpus, {FREE: Rights(licence="cc-by-4.0", rights_holder="Ada", consent="given")})
    state_found(corpus, {SITE: " Creative Commons\n Attribution ", FREE: "All rights reserved"}, by="site")
    state(
        corpus, {GONE: Rights(consent="withdrawn", consent_note="by letter", consent_date=datetime.date(2026, 1, 31))}
    )
    return corpus


@pytest.mark.usefixtures("no_card")
def test_what_is_stated_goes_with_every_row_of_an_export(location: str, tmp_path: Path, capsys: Shown) -> None:
    corpus = fill(location)
    assert cli.main(["corpus", "export", location, str(tmp_path / "out")]) == 0
    assert "1 sources stay out" in capsys.readouterr().err
    table = pq.read_table(tmp_path / "out" / "utterances")
    assert table.column_names == EXPORTED.names
    rows = {row["source_id"]: row for row in table.drop_columns(["audio"]).to_pylist()}
    assert len(table) == 6
    told = {
        key: (row["licence"], row["licence_from"], row["rights_holder"], row["consent"]) for key, row in rows.items()
    }
    assert told == {
        FREE: ("CC-BY-4.0", "user", "Ada", "given"),
        SITE: ("Creative Commons Attribution", "site", None, None),
        BARE: (None, None, None, None),
    }
    for name in ("rejects", "sources"):
        assert GONE not in pq.read_table(tmp_path / "out" / name)["source_id"].to_pylist()
    assert pq.read_table(tmp_path / "out" / "sources")["licence"].null_count == 1
    assert len(corpus.utterances()) == 8, "the tables keep all rows"
    assert verify(corpus).problems == []


def test_exports_are_chosen_by_licence_and_consent(tmp_path: Path) -> None:
    corpus = fill(tmp_path / "corpus")

    def chosen(**how: list[str]) -> set[str]:
        return set(selected(corpus, **how).utterances(columns=["source_id"])["source_id"].to_pylist())

    assert chosen() == {FREE, SITE, BARE}
    assert chosen(licences=["cc-*", "creative*"]) == {FREE, SITE}
    assert chosen(licences=["none"]) == {BARE}
    assert chosen(consents=["given", "withdrawn"]) == {FREE, GONE}
    assert chosen(consents=["none"]) == {SITE, BARE}
    with pytest.raises(CorpusError, match=r"no utterance of .* is of a source with this licence"):
        selected(corpus, licences=["MIT"])
    with pytest.raises(CorpusError, match="consent 'yes' is none of given, not asked, withdrawn, none"):
        selected(corpus, consents=["yes"])
    (shard,) = export_webdataset(selected(corpus, consents=["withdrawn"]), tmp_path / "tar")
    assert b'"consent_date": "2026-01-31"' in shard.read_bytes()


def test_trainings_and_indexes_leave_withdrawn_sources_out(tmp_path: Path) -> None:
    corpus = fill(tmp_path / "corpus")
    version = corpus.version()
    rows = CorpusVersion.open(corpus.location).rows()
    assert GONE not in rows["source_id"].to_pylist()
    assert rows["licence"].to_pylist().count("CC-BY-4.0") == 2
    clips = open_clips(corpus, version, str(tmp_path / "work"))
    assert len(clips.table) == 6
    state(corpus, {GONE: Rights(consent="given")})
    assert corpus.version() == version + 1, "what follows the corpus is made again"
    assert len(open_clips(corpus, version + 1, str(tmp_path / "work")).table) == 8
    state(corpus, {GONE: Rights(consent="withdrawn")})
    assert len(open_clips(corpus, version + 1, str(tmp_path / "work")).table) == 6, "a copy made before doesn't count"
    assert verify(corpus).problems == []


def test_verify_names_what_still_has_a_withdrawn_source(tmp_path: Path, capsys: Shown) -> None:
    corpus = fill(tmp_path / "corpus")
    store = ModelStore.open(tmp_path / "models")
    for name, source in (("old", GONE), ("new", FREE)):
        store.root.write(f"{name}/split.json", json.dumps({"train": [f"{source}-00000"]}).encode())
        store.root.write(f"{name}/{FINISHED}", b"{}")
    assert cli.main(["corpus", "verify", corpus.location, "--models", str(tmp_path / "models")]) == 0
    shown = capsys.readouterr().out
    assert "consent is withdrawn for 1 sources: 2 clips" in shown
    assert "models/old was trained on 1 clips of them: train again" in shown
    assert "models/new" not in shown


def test_the_command_states_and_lists(tmp_path: Path, capsys: Shown) -> None:
    corpus = fill(tmp_path / "corpus")
    command = ["corpus", "rights", corpus.location]
    assert cli.main([*command, BARE, "--licence", "MIT or apache-2.0", "--consent", "not asked"]) == 0
    assert "1 of 1 sources changed" in capsys.readouterr().out
    assert cli.main([*command, "--series", "series-*", "--rights-holder", "The Show"]) == 0
    assert cli.main([*command, FREE, "--consent", "withdrawn", "--consent-note", "by mail"]) == 0
    assert "out of exports from now on" in capsys.readouterr().out
    assert withdrawn(corpus) == {FREE, GONE}
    assert cli.main([*command, "--json"]) == 0
    listed = {row["source_id"]: row for row in json.loads(capsys.readouterr().out)}
    assert (listed[BARE]["licence"], listed[BARE]["rights_holder"]) == ("MIT OR Apache-2.0", "The Show")
    assert listed[FREE]["consent_note"] == "by mail"
    assert listed[GONE]["consent_date"] == "2026-01-31"
    assert cli.main(command) == 0
    assert "CC-BY-4.0: 1 sources" in capsys.readouterr().out

    before = read_rights(corpus)
    for wrong, said in (
        ([BARE, "--licence", "CC-BY-9.0"], "licence: 'CC-BY-9.0' is no SPDX id"),
        ([BARE, "--licence", " "], "licence: ' ' is not one line"),
        ([BARE, "--consent", "yes"], "consent: Input should be 'given', 'not asked' or 'withdrawn'"),
        ([BARE, "--consent-note", "x"], "a note or date of the consent needs the consent"),
        ([BARE, "--consent", "given", "--consent-date", "2999-01-01"], "2999-01-01 has not come yet"),
        (["abcd", "--licence", "MIT"], "not in "),
        (["--licence", "MIT"], "name the sources"),
        (["--series", "other", "--licence", "MIT"], "no series of"),
    ):
        assert cli.main([*command, *wrong]) == 1
        assert said in capsys.readouterr().err
    assert read_rights(corpus) == before


@pytest.mark.parametrize("text", ["CC BY 4.0", "https://example.org/terms", "proprietary", "LicenseRef-Show-1.0"])
def test_addresses_and_words_are_licences_too(text: str) -> None:
    assert Rights(licence=text).licence == text


def test_a_line_that_is_none_is_refused() -> None:
    with pytest.raises(ValidationError, match="not one line"):
        Rights(rights_holder="a\nb")
    with pytest.raises(ValidationError, match="Extra inputs"):
        Rights.model_validate({"license": "MIT"})


@pytest.mark.usefixtures("quick_plots")
def test_the_card_counts_the_clips_of_each_licence(tmp_path: Path) -> None:
    corpus = Corpus.open(tmp_path / "corpus", create=True)
    corpus.commit_source(**rows_of("free", kept=3))
    corpus.commit_source(**rows_of("gone", kept=2))
    paths = write_card(corpus, title="T", settings={}, threshold=None, folder=tmp_path / "card")
    assert "No licence is stated of any source." in paths.readme.read_text()
    assert "No licence is stated of any source." in paths.page.read_text()
    state(corpus, {FREE: Rights(licence="CC0-1.0")})
    paths = write_card(corpus, title="T", settings={}, threshold=None, folder=tmp_path / "card", schema=EXPORTED)
    readme = paths.readme.read_text()
    assert "| CC0\\-1.0 | 3 |" in readme
    assert "| not stated | 2 |" in readme
    assert "name: consent_date" in readme


def test_nothing_is_kept_of_an_erased_source(tmp_path: Path) -> None:
    corpus = fill(tmp_path / "corpus")
    erase(corpus, [GONE])
    assert GONE not in read_rights(corpus)
    assert consenting(corpus) is not corpus or not withdrawn(corpus)
    (corpus.folder / RIGHTS).write_bytes(b"PAR1 no")
    with pytest.raises(CorpusError, match=r"rights\.parquet is damaged"):
        read_rights(corpus)
