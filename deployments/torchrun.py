r"""Train on several GPUs of several machines; torchrun starts this on each of them.

    torchrun --nnodes 2 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint HOST:29400 \
        -m deployments.torchrun --corpus data/corpus --settings '{"compute": {"devices": 16}}'

`compute.devices` is the number of processes on all machines together. Corpus and models lie on a disk that all of
them share; clips and features are copied to each machine's work folder. Afterwards a run of train-fsclap with the same
settings finds the model finished, and starts its evaluation.
"""

import argparse
import logging
import sys
from collections.abc import Sequence

from fsclap.training.settings import TrainSettings


def main(arguments: Sequence[str] | None = None) -> int:
    """Train as one process of many; the first one prints the folder of the model."""
    parser = argparse.ArgumentParser(
        prog="torchrun ... -m deployments.torchrun",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--corpus", default="data/corpus", help="default: %(default)s")
    parser.add_argument("--version", type=int, help="of its utterances; default: the current one")
    parser.add_argument("--models", default="data/models", help="default: %(default)s")
    parser.add_argument("--work", default="data/work", help="default: %(default)s")
    parser.add_argument("--settings", type=TrainSettings.model_validate_json, default=TrainSettings(), metavar="JSON")
    chosen = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    from fsclap.training.ranks import by_torchrun, is_first
    from tasks.outcomes import TooFewClips
    from tasks.training import train_model

    if not by_torchrun():
        print("Start this with torchrun; on one machine a run of train-fsclap is all that is needed.", file=sys.stderr)
        return 2
    trained = train_model.fn(chosen.corpus, chosen.version, chosen.models, chosen.work, chosen.settings)
    if isinstance(trained, TooFewClips):
        print(trained.reason, file=sys.stderr)
        return 1
    if is_first():
        print(trained.model)
    return 0


if __name__ == "__main__":
    sys.exit(main())
