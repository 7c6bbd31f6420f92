import dataclasses
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from safetensors.torch import load_file, save_file

from fsclap.audio import decode_flac, resample
from fsclap.data.measured import speaker_context
from fsclap.retrieval.build import build_index
from fsclap.retrieval.index import RECORD, Index, ModelStatus, SearchError, model_digest, read_record
from fsclap.retrieval.status import model_status
from storage.corpus import Corpus
from storage.versions import CorpusVersion
from tests.fsclap.evaluation.examples import LEAKING, evaluation
from tests.fsclap.retrieval.fixtures import CLIPS, commit, make_model


class Listened(CorpusVersion):
    """A version that remembers which clips were asked for."""

    def audio(self, utterance_ids: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        self.__dict__.setdefault("asked", []).extend(utterance_ids)
        yield from super().audio(utterance_ids)

    @property
    def heard(self) -> list[str]:
        asked: list[str] = self.__dict__.get("asked", [])
        return asked


def listened(folder: Path) -> Listened:
    version = CorpusVersion.open(str(folder))
    return Listened(**{field.name: getattr(version, field.name) for field in dataclasses.fields(version)})


def build(folder: Path, model: Path, version: CorpusVersion) -> Index:
    return build_index(folder, model, version, device="cpu", progress=False)


@pytest.fixture
def own_corpus(small_corpus: Path, tmp_path: Path) -> Path:
    """A corpus of one episode that a test may change."""
    return shutil.copytree(small_corpus, tmp_path / "corpus")


@pytest.fixture
def own_index(small_index: Path, tmp_path: Path) -> Path:
    """The index of `own_corpus`, which a test may change."""
    return shutil.copytree(small_index, tmp_path / "index")


def test_a_row_of_the_index_is_the_embedding_of_its_clip(index_folder: Path, version: CorpusVersion) -> None:
    from fsclap.model.systems import load_system

    index = Index.open(index_folder)
    model = load_system(Path(index.record.model), "cpu")
    assert len(index.rows) == 2 * CLIPS
    assert np.allclose(np.linalg.norm(index.vectors, axis=1), 1, atol=1e-5)
    ids = index.rows["utterance_id"].to_pylist()
    for id_, flac in version.audio(ids[:3] + ids[-3:]):
        wave, rate = decode_flac(flac)
        alone = model.embed_audio([resample(wave, rate, model.audio_encoder.sample_rate)])[0].numpy()
        assert np.allclose(index.vectors[ids.index(id_)], alone, atol=1e-5)
    captions = index.captions.to_pylist()
    assert sorted(captions) == sorted(set(index.rows["caption"].to_pylist()))
    assert np.allclose(index.caption_vectors[5], model.embed_text([captions[5]])[0].numpy(), atol=1e-5)


def test_an_index_that_is_up_to_date_is_left_alone(own_corpus: Path, own_index: Path, model_folder: Path) -> None:
    before = Index.open(own_index).record
    version = listened(own_corpus)
    assert build(own_index, model_folder, version).record == before
    assert version.heard == []


def test_only_new_clips_are_embedded(
    own_corpus: Path, own_index: Path, index_folder: Path, model_folder: Path, waves: dict[str, np.ndarray]
) -> None:
    before = Index.open(own_index).record
    new = commit(Corpus.open(own_corpus), "Dvě ryby", waves["Dvě ryby"])
    grown = listened(own_corpus)
    second = build(own_index, model_folder, grown)
    assert sorted(grown.heard) == [f"{new}-{number:05d}" for number in range(CLIPS)]
    whole = Index.open(index_folder)
    assert second.rows == whole.rows
    assert np.allclose(second.vectors, whole.vectors, atol=1e-6)
    assert second.captions == whole.captions
    assert second.record.version > before.version
    assert len([path for path in own_index.iterdir() if path.is_dir()]) == 1


def test_a_clip_that_was_made_again_is_embedded_again(
    own_corpus: Path, own_index: Path, model_folder: Path, waves: dict[str, np.ndarray], tmp_path: Path
) -> None:
    commit(Corpus.open(own_corpus), "Crossed Lines", waves["Crossed Lines"][::-1].copy(), recipe="recipe-2", clips=5)
    changed = listened(own_corpus)
    index = build(own_index, model_folder, changed)
    assert len(changed.heard) == len(index.rows) == 5
    fresh = build(tmp_path / "fresh", model_folder, CorpusVersion.open(str(own_corpus)))
    assert np.allclose(index.vectors, fresh.vectors, atol=1e-6)


def test_another_model_embeds_everything(own_corpus: Path, own_index: Path, model_folder: Path, tmp_path: Path) -> None:
    version = listened(own_corpus)
    other = make_model(tmp_path / "other", version, seed=1)
    index = build(own_index, other, version)
    assert len(version.heard) == CLIPS
    assert index.record.weights == model_digest(other) != model_digest(model_folder)


def test_a_build_that_was_killed_continues_where_it_stopped(
    own_corpus: Path, small_index: Path, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fsclap.retrieval.build._CLIPS_AT_A_TIME", 6)

    class Killed(CorpusVersion):
        def audio(self, utterance_ids: Sequence[str]) -> Iterator[tuple[str, bytes]]:
            for number, clip in enumerate(super().audio(utterance_ids)):
                if number == 14:
                    raise KeyboardInterrupt
                yield clip

    whole = CorpusVersion.open(str(own_corpus))
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "index", model_folder, Killed(whole.location, whole.table, whole.version))
    with pytest.raises(SearchError, match="holds no index"):
        Index.open(tmp_path / "index")
    resumed = listened(own_corpus)
    index = build(tmp_path / "index", model_folder, resumed)
    assert len(resumed.heard) == CLIPS - 12
    assert np.allclose(index.vectors, Index.open(small_index).vectors, atol=1e-6)


def test_a_clip_that_cannot_be_decoded_is_left_out_and_named(
    own_corpus: Path, small_index: Path, model_folder: Path, tmp_path: Path
) -> None:
    class Damaged(CorpusVersion):
        def audio(self, utterance_ids: Sequence[str]) -> Iterator[tuple[str, bytes]]:
            for id_, flac in super().audio(utterance_ids):
                yield id_, b"no flac" if id_.endswith("-00003") else flac

    whole = CorpusVersion.open(str(own_corpus))
    index = build(tmp_path / "index", model_folder, Damaged(whole.location, whole.table, whole.version))
    (id_,) = index.record.left_out
    assert id_.endswith("-00003")
    ids = index.rows["utterance_id"].to_pylist()
    assert len(ids) == len(index.vectors) == CLIPS - 1
    assert id_ not in ids
    expected = Index.open(small_index)
    assert np.allclose(index.vectors, np.delete(expected.vectors, 3, axis=0), atol=1e-6)


def test_a_corpus_without_clips_is_refused(own_corpus: Path, model_folder: Path, tmp_path: Path) -> None:
    class Empty(CorpusVersion):
        def rows(self) -> pa.Table:
            return super().rows().slice(0, 0)

    whole = CorpusVersion.open(str(own_corpus))
    with pytest.raises(SearchError, match="no clip that can be embedded"):
        build(tmp_path / "index", model_folder, Empty(whole.location, whole.table, whole.version))


def test_a_model_that_fuses_pairs_is_refused(own_corpus: Path, tmp_path: Path) -> None:
    version = CorpusVersion.open(str(own_corpus))
    with pytest.raises(SearchError, match="fusion=paired"):
        build(tmp_path / "index", make_model(tmp_path / "paired", version, fusion="paired"), version)


def test_a_folder_without_a_model_is_refused(own_corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(SearchError, match=r"config\.json"):
        build(tmp_path / "index", tmp_path, CorpusVersion.open(str(own_corpus)))


@pytest.mark.parametrize("damage", ["record", "vectors", "fewer", "gone"])
def test_a_damaged_index_is_refused_and_can_be_built_again(
    damage: str, own_index: Path, model_folder: Path, small_corpus: Path
) -> None:
    folder = own_index
    place = folder / Index.open(folder).record.build
    if damage == "record":
        (folder / "index.json").write_text(json.dumps({"corpus": "c"}))
    elif damage == "vectors":
        (place / "vectors.npy").write_bytes(b"\x93NUMPY")
    elif damage == "fewer":
        np.save(place / "vectors.npy", np.load(place / "vectors.npy")[:-1])
    else:
        (place / "rows.arrow").unlink()
    with pytest.raises(SearchError, match=r"damaged.*build"):
        Index.open(folder)
    assert len(build(folder, model_folder, CorpusVersion.open(str(small_corpus))).rows) == CLIPS


GOOD = ModelStatus(promoted=True, figure=0.3, low=0.2, chance=0.01, metric="mAP@10 among 300 clips")
POOR = GOOD.model_copy(update={"promoted": False, "low": 0.005})


def test_the_status_of_the_model_goes_with_the_index(
    own_index: Path, own_corpus: Path, model_folder: Path, waves: dict[str, np.ndarray]
) -> None:
    def build_with(status: ModelStatus | None) -> ModelStatus | None:
        version = CorpusVersion.open(str(own_corpus))
        built = build_index(own_index, model_folder, version, device="cpu", status=status, progress=False)
        assert built.record == read_record(own_index)
        return built.record.model_status

    assert build_with(None) is None
    assert build_with(POOR) == POOR, "the vectors are the same, the status is not"
    assert build_with(GOOD) == GOOD
    commit(Corpus.open(own_corpus), "Dvě ryby", waves["Dvě ryby"], clips=2)
    assert build_with(None) == GOOD, "of the same model"


def test_an_index_from_before_the_status_was_kept_can_be_opened(own_index: Path) -> None:
    file = own_index / "index.json"
    record = json.loads(file.read_text())
    del record["model_status"]
    file.write_text(json.dumps(record))
    assert Index.open(own_index).record.model_status is None


def test_a_status_says_whether_the_order_can_be_trusted() -> None:
    assert GOOD.warning() == ""
    assert GOOD.sentence() == "The model is the current one: mAP@10 among 300 clips is 30.0 %, chance is 1.0 %."
    assert POOR.warning().startswith("The model was not promoted: mAP@10 among 300 clips is 30.0 %, chance is 1.0 %.")
    assert GOOD.model_copy(update={"low": 0.01}).warning(), "its interval includes chance"
    assert "not evaluated" in ModelStatus(promoted=False).warning()


def test_the_status_is_that_of_the_newest_evaluation(tmp_path: Path) -> None:
    assert model_status(tmp_path, promoted=True) == ModelStatus(promoted=True)
    for number, found in enumerate([evaluation(leak=LEAKING, retrieval=[]), evaluation()], start=1):
        folder = tmp_path / "evaluation" / f"corpus-v{number}"
        folder.mkdir(parents=True)
        found.save(folder / "evaluation.json")
        os.utime(folder / "evaluation.json", (number, number))
        status = model_status(tmp_path, promoted=False)
        assert (status.figure is None) is (number == 1), "a model that leaks has no figure"
    assert status.low is not None
    assert status.figure is not None
    assert status.low < status.figure
    assert status.chance == 0.001
    assert status.metric == "mAP@10 among 1,000 clips of speakers that it was not trained on"
    (folder / "evaluation.json").write_text("{")
    with pytest.raises(SearchError, match="damaged"):
        model_status(tmp_path, promoted=False)


def test_a_row_of_the_index_knows_its_speakers_other_clips(version: CorpusVersion, tmp_path: Path) -> None:
    from fsclap.model.systems import load_system

    folder = make_model(tmp_path / "model", version, functionals="speaker")
    index, model = build(tmp_path / "index", folder, version), load_system(folder, "cpu")
    context = speaker_context(index.rows, model.audio_encoder)
    assert context is not None
    assert np.isfinite(context).any()
    ids = index.rows["utterance_id"].to_pylist()
    for id_, flac in version.audio(ids[:3]):
        wave, rate = decode_flac(flac)
        heard = resample(wave, rate, model.audio_encoder.sample_rate)
        known = model.embed_audio_features([model.audio_features(heard, context[ids.index(id_)])])[0].numpy()
        assert np.allclose(index.vectors[ids.index(id_)], known, atol=1e-5)


def test_an_index_is_used_from_any_folder_and_moved_with_its_corpus_and_model(
    own_index: Path, own_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = Index.open(own_index).record
    place = Path(record.model)
    home, other = tmp_path / "home", tmp_path / "other"
    (home / "models").mkdir(parents=True)
    other.mkdir()
    shutil.copytree(own_index, home / "corpus-index")
    shutil.copytree(record.corpus, home / "corpus")
    shutil.copytree(place, home / "models" / "m")
    # As an earlier version noted them: as they were typed, from the folder that it worked in.
    typed = record.model_copy(update={"corpus": "home/corpus", "model": "home/models/m", "beside": {}})
    (home / "corpus-index" / RECORD).write_text(typed.model_dump_json())
    monkeypatch.chdir(other)
    found = Index.open(home / "corpus-index").record
    assert (found.corpus, found.model) == (str(home / "corpus"), str(home / "models" / "m"))
    # As it is noted now.
    (home / "corpus-index" / RECORD).write_text(found.noted(home / "corpus-index").model_dump_json())
    home.rename(tmp_path / "moved")
    found = Index.open(tmp_path / "moved" / "corpus-index").record
    assert (found.corpus, found.model) == (str(tmp_path / "moved/corpus"), str(tmp_path / "moved/models/m"))


def test_a_model_with_a_weight_that_is_no_number_builds_no_index(
    own_corpus: Path, model_folder: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(model_folder, broken)
    weights = load_file(broken / "model.safetensors")
    name = next(name for name, tensor in weights.items() if tensor.is_floating_point() and tensor.dim() > 1)
    weights[name][0, 0] = float("nan")
    save_file(weights, broken / "model.safetensors")
    with pytest.raises(SearchError, match=r"1 of the model's weights, such as .* hold NaN or infinity"):
        build(tmp_path / "index", broken, CorpusVersion.open(str(own_corpus)))
