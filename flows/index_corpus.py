"""From a corpus version and the current model to an index that `fsclap search` and `fsclap app` ask.

Starts by itself after an evaluation, which may have made another model the current one.
"""

from prefect import flow

from flows.parameters import CorpusFolder, Location
from tasks.indexing import build_index, show_index
from tasks.limits import model_slot
from tasks.outcomes import Indexed


@flow(name="index-corpus", flow_run_name="index {corpus}", persist_result=True)
def index_corpus(
    corpus: CorpusFolder = "data/corpus",
    version: int | None = None,
    models: Location = "data/models",
    index: Location | None = None,
) -> Indexed:
    """Make a corpus searchable, or bring its index up to date.

    The model is the current one; while none was promoted, the newest. Only clips are embedded that the index has no
    vector of by that model; an index that is up to date is left alone.

    Args:
        corpus: Folder of the corpus.
        version: Version of its utterances; the current one by default.
        models: Folder of the models.
        index: Folder of the index, made if there is none; by default beside the corpus, with -index to its name.
    """
    with model_slot():
        indexed = build_index(corpus, version, models, index)
    show_index(indexed)
    return indexed
