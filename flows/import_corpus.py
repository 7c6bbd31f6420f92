"""From a published data set of described speech to a corpus, which everything downstream takes."""

from typing import Literal

from prefect import flow, get_run_logger

from flows.parameters import CorpusFolder, Folder
from storage.corpus import Corpus
from storage.importers import PRESETS, ImportSettings
from tasks.importing import blocks, check_copy, import_block, publish_import
from tasks.limits import compute_slot
from tasks.outcomes import Committed, Published

Dataset = Literal[
    "generic", "expresso", "emovoice-db", "paraspeechcaps", "capspeech", "textrolspeech", "vccm", "promptspeech",
    "libritts-p", "speechcraft",
]  # fmt: skip


@flow(name="import-corpus", flow_run_name="import {dataset} into {corpus}", persist_result=True)
def import_corpus(
    dataset: Dataset,
    root: Folder,
    corpus: CorpusFolder = "data/imported",
    settings: ImportSettings = ImportSettings(),  # noqa: B008 (frozen)
) -> Published:
    """Check a copy of a data set, then import it block by block; a run that was killed goes on.

    Published parts become series: train with `split.validation_series=["*-validation"]` and
    `split.test_series=["*-test"]` to keep them. Published speakers are kept.

    Args:
        dataset: Name of the data set; generic for your own tables.
        root: Folder of the data set on the worker's machine, or one table.
        corpus: Folder of the corpus; made if there is none.
        settings: Tables, columns and sound, where they are not as published.
    """
    log = get_run_logger()
    preset = PRESETS[dataset]
    found = check_copy(root, preset, settings)
    licence = "" if dataset == "generic" else found.licence
    Corpus.open(corpus, create=True)
    done: list[Committed] = []
    for block in blocks(root, preset, settings):
        with compute_slot("cpu"):
            committed = import_block(block, root, corpus, settings, licence)
        if committed is not None:
            done.append(committed)
            log.info("%s %s: %d kept, %d refused", block.series, committed.episode, committed.kept, committed.rejected)
    return publish_import(corpus, done, found, settings)
