"""Find out whether a store keeps the promise that commits rest on: of two writers of one name, one wins."""

import uuid
from concurrent.futures import ThreadPoolExecutor

from storage.objects import Place

_ROUNDS = 5
_WRITERS = 2
_REMEDY = "Use another store, or a newer release of this one"


def race_problem(place: Place, *, rounds: int = _ROUNDS, writers: int = _WRITERS) -> str | None:
    """Let writers race for one name, and try to replace an object that has changed.

    A store that ignores `If-None-Match` lets two writers create one entry of a log, and the second replaces
    what the first was told is committed.

    Returns:
        What is wrong with the store, in a sentence; None if nothing is.

    Raises:
        PlaceError: The store can't be reached or written to.
    """
    folder = place / f".race-{uuid.uuid4().hex}"
    try:
        for number in range(rounds):
            problem = _race(folder, str(number), writers)
            if problem:
                return f"{place}: {problem}. {_REMEDY}"
        problem = _swap(folder, "0")
        return f"{place}: {problem}. {_REMEDY}" if problem else None
    finally:
        folder.delete(*map(str, range(rounds)))
        if folder.is_local:
            folder.folder.rmdir()


def _race(folder: Place, name: str, writers: int) -> str | None:
    with ThreadPoolExecutor(writers) as pool:
        won = list(pool.map(lambda writer: folder.create(name, f"{writer}".encode()), range(writers)))
    # A server may be quick enough to see one after the other: then the first has to stay.
    again = folder.create(name, b"again")
    winners = won.count(True) + again
    if winners == 1 and folder.read(name) == str(won.index(True)).encode():
        return None
    return (
        f"{winners} of {writers + 1} writers were told that they created one and the same object. This store "
        "ignores conditional puts (If-None-Match), so commits that are reported done would be lost"
    )


def _swap(folder: Place, name: str) -> str | None:
    before = folder.store.get(name)
    folder.write(name, b"newer")
    if before is None or folder.store.swap(name, b"older", before.version):
        return (
            "an object was replaced on the condition that it is as it was, and it was not. This store ignores "
            "conditional puts (If-Match), so two writers would overwrite each other"
        )
    after = folder.store.get(name)
    if after is None or not folder.store.swap(name, b"newest", after.version):
        return "an object that nobody else writes could not be replaced on the condition that it is as it was"
    return None
