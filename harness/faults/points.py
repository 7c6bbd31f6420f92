"""The moments at which a fault can strike, each a call of a function of the project."""

from dataclasses import dataclass
from typing import Literal, get_args

Fault = Literal[
    "kill-run",
    "kill-worker",
    "kill-machine",
    "stop-worker",
    "kill-server",
    "freeze-server",
    "lock-database",
    "fill-disk",
    "drop-connection",
    "stall-download",
    "kill-at-random",
]
"""The kinds of faults.

kill-*: SIGKILL. kill-machine kills worker and run together, so that nothing reports the loss of the
run; kill-at-random kills the run at a random time. stop-worker: SIGTERM, as a redeployment sends.
freeze-server: no answer for a while, as in a network outage. lock-database: another process locks
the server's SQLite file. fill-disk: no space is left for corpus, work files and models.
drop-connection, stall-download: the site sends half of a file, then closes the connection, or sends
nothing more.
"""
FAULTS: tuple[Fault, ...] = get_args(Fault)


@dataclass(frozen=True)
class Moment:
    """A call of a function.

    Attributes:
        stage: Its name in the table of docs/reliability.md.
        function: "package.module:function" or "package.module:Class.method".
        when: Before or after the call.
        call: Which call within one process, from 1.
        argument: Count only calls that have this text, or an object of this name, among their
            arguments.
    """

    stage: str
    function: str
    when: Literal["before", "after"] = "before"
    call: int = 1
    argument: str | None = None


def stage_moments(stage: str) -> list[Moment]:
    """List the moments before a stage takes its first batch, within that batch, and after it."""
    return [
        Moment(stage, "tasks.stages:run_stage", "before", argument=stage),
        Moment(stage, "storage.work:_seal", "before", call=2, argument=stage),
        Moment(stage, "tasks.stages:run_stage", "after", argument=stage),
    ]


BUILD = [
    Moment("list", "fsclap.corpus.download:list_episodes", "before"),
    Moment("list", "fsclap.corpus.download:list_episodes", "after"),
    Moment("list", "storage.corpus:Corpus._create", "after", argument="utterances"),
    Moment("download", "fsclap.corpus.download:fetch", "before"),
    Moment("download", "fsclap.corpus.download:fetch", "after", call=2),
    *stage_moments("separation"),
    *stage_moments("diarization"),
    *stage_moments("attributes"),
    *stage_moments("consistency"),
    *stage_moments("captioning"),
    Moment("commit", "storage.corpus:Corpus._replace", "before", call=1, argument="rejects"),
    Moment("commit", "storage.corpus:Corpus._replace", "after", call=1, argument="rejects"),
    Moment("commit", "storage.corpus:Corpus._replace", "after", call=2, argument="utterances"),
    Moment("commit", "storage.corpus:Corpus._replace", "after", call=2, argument="sources"),
    Moment("publish", "storage.corpus:Corpus.write_speakers", "before"),
    Moment("publish", "storage.card:write_card", "before"),
    Moment("publish", "storage.card:write_card", "after"),
    Moment("publish", "tasks.events:announce_event", "before", argument="fsclap.corpus.committed"),
    Moment("publish", "tasks.events:announce_event", "after", argument="fsclap.corpus.committed"),
]
TRAINING = [
    Moment("training", "tasks.training:open_clips", "before"),
    Moment("training", "fsclap.data.clips:ClipStore.create", "after"),
    Moment("training", "fsclap.training.loop:_train", "before"),
    Moment("training", "fsclap.training.loop:_Loop._end_epoch", "before", call=2),
    Moment("training", "fsclap.training.checkpoint:save_checkpoint", "before"),
    Moment("training", "fsclap.training.checkpoint:save_checkpoint", "after"),
    Moment("training", "fsclap.training.loop:_finish", "before"),
    Moment("training", "tasks.events:announce_event", "before", argument="fsclap.training.finished"),
    Moment("training", "tasks.events:announce_event", "after", argument="fsclap.training.finished"),
]
EVALUATION = [
    Moment("evaluation", "fsclap.evaluation.run:evaluate_model", "before"),
    Moment("evaluation", "fsclap.evaluation.report:write_report", "before"),
    Moment("evaluation", "fsclap.evaluation.report:write_report", "after"),
    Moment("evaluation", "storage.models:ModelStore.record", "before"),
    Moment("evaluation", "storage.models:ModelStore.record", "after"),
    Moment("evaluation", "tasks.events:announce_event", "before", argument="fsclap.evaluation.finished"),
]
INDEX = [
    Moment("index", "fsclap.retrieval.build:build_index", "before"),
    Moment("index", "fsclap.retrieval.build:_Filling.put", "after"),
    Moment("index", "fsclap.retrieval.build:_Filling.finish", "after"),
    Moment("index", "fsclap.retrieval.build:_write", "after"),
    Moment("index", "fsclap.retrieval.build:build_index", "after"),
]
MOMENTS = [*BUILD, *TRAINING, *EVALUATION, *INDEX]
STAGES = (*dict.fromkeys(moment.stage for moment in MOMENTS), "any")
