"""Embed the wordings of the package for the reader of queries: `python -m bench.wordings`.

Run it after a change of `fsclap/queries/wordings.json`, of `wordings_held_out.json` or of the sentence
encoder. It takes half a minute and writes `fsclap/queries/wordings.npy`.
"""

from collections.abc import Sequence

import numpy as np

from bench import report
from fsclap.model.embedded import SentenceTokens
from fsclap.queries.reading import VECTORS
from fsclap.queries.wordings import held_out_wordings, load_wordings


def main(arguments: Sequence[str] | None = None) -> None:
    options = report.parser("bench.wordings", __doc__).parse_args(arguments)
    vectors = SentenceTokens().sentences([wording.phrase for wording in load_wordings() + held_out_wordings()])
    np.save(VECTORS, vectors.astype(np.float16))
    print(f"{VECTORS}: {vectors.shape[0]} wordings, {vectors.shape[1]} wide")
    report.write(options.json, {"wordings": vectors.shape[0], "width": vectors.shape[1]})


if __name__ == "__main__":
    main()
