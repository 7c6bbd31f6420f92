"""Which faults strike where: campaigns, each a chain from empty folders to an index."""

from collections.abc import Mapping

from harness.faults.campaign import Strike, strikes
from harness.faults.points import BUILD, EVALUATION, INDEX, MOMENTS, TRAINING, Moment

DOWNLOAD = Moment("download", "the site")


def moments(stage: str) -> list[Moment]:
    return [moment for moment in MOMENTS if moment.stage == stage]


def first(*stages: str) -> list[Moment]:
    return [moments(stage)[0] for stage in stages]


def last(*stages: str) -> list[Moment]:
    return [moments(stage)[-1] for stage in stages]


COMPUTE = ("separation", "diarization", "attributes", "consistency", "captioning")

FULL: Mapping[str, list[Strike]] = {
    "the run, at every moment of the build": strikes("kill-run", BUILD),
    "the run, at every moment of training and evaluation": strikes("kill-run", [*TRAINING, *EVALUATION]),
    "the run, in the index": strikes("kill-run", INDEX),
    "the server": strikes("kill-server", [*last("list", "download", *COMPUTE, "publish", "training", "evaluation")]),
    "the worker, alone or with its run": [
        *strikes("kill-worker", first("separation", "commit", "training")),
        *strikes("stop-worker", [moments("diarization")[1], moments("evaluation")[1]]),
        *strikes("kill-machine", [moments("separation")[1], moments("commit")[2], moments("training")[4]]),
    ],
    "the way to the server, and its database": [
        *strikes("freeze-server", [*first("list", "diarization", "commit", "training", "evaluation")]),
        *strikes("lock-database", [moments("separation")[1], *first("captioning", "publish"), moments("training")[3]]),
    ],
    "the network of a download": [
        *strikes("drop-connection", [DOWNLOAD] * 4),
        *strikes("stall-download", [DOWNLOAD] * 2),
    ],
    "the disk": strikes("fill-disk", [*first("download", *COMPUTE[:2], "commit", "training"), moments("training")[4]]),
    "at random": strikes("kill-at-random", [Moment("any", "any")] * 6),
}
"""The campaigns of `make faults`."""

SHORT: Mapping[str, list[Strike]] = {
    "a bit of everything": [
        *strikes("drop-connection", [DOWNLOAD]),
        *strikes("kill-run", [*last("download"), *(moments(stage)[1] for stage in (*COMPUTE[:2], "index"))]),
        *strikes("kill-server", first("attributes")),
        *strikes("lock-database", first("captioning")),
        *strikes("kill-machine", [moments("commit")[2]]),
        *strikes("kill-worker", [moments("training")[4]]),
        *strikes("freeze-server", [moments("evaluation")[1]]),
    ],
}
"""The campaign of the slow tests, a few minutes long."""
