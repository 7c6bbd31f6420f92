"""Whether a build came to nothing, and why: that is no success."""

from collections import Counter

from storage.card import SINGLETONS
from storage.corpus import Corpus
from tasks.batches import Item
from tasks.outputs import DUPLICATE


def nothing_kept(listed: list[Item], corpus: str) -> str:
    """Say why the corpus keeps no utterance of any source that a build listed; empty when it keeps one."""
    table = Corpus.open(corpus)
    ids = {item.episode.source_id for item in listed}
    rows = [row for source_id, row in table.ledger().items() if source_id in ids]
    refusals = table.refusals()
    in_the_corpus = (row["turns_kept"] or refusals.get(row["source_id"], ("", ""))[1] == DUPLICATE for row in rows)
    if not rows or any(in_the_corpus):
        return ""
    reasons = Counter(refusals[row["source_id"]][1] for row in rows if row["source_id"] in refusals)
    silent = ids - refusals.keys()
    turns = Counter(row["reason"] for row in table.rejects().to_pylist() if row["source_id"] in silent)
    counted = [*reasons.most_common(5), *((f"{reason} (turns)", count) for reason, count in turns.most_common(5))]
    example = next((refusals[row["source_id"]][2] for row in rows if row["source_id"] in refusals), "")
    hint = f"single_turn_speaker is {SINGLETONS}" if [*turns] == ["single_turn_speaker"] and not reasons else example
    listed_reasons = ", ".join(f"{count} {reason}" for reason, count in counted)
    return f"Nothing was kept of {len(rows)} sources: {listed_reasons}. {hint}".rstrip()
