"""Files that somebody damaged, or made to do harm: of JSON and YAML, and of bytes."""

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

HUGE = 10**40
HOSTILE: tuple[Any, ...] = (
    None,
    True,
    -1,
    HUGE,
    1.5,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "../../secret",
    "/etc/passwd",
    "a\0b",
    "x" * 5000,
    "\ud800",
    [],
    {},
    [[]],
    {"size": "1"},
)
"""Values, and names where they are text, that some other place than the one they stand in may bear."""

hostile = st.sampled_from(HOSTILE).map(copy.deepcopy)


@st.composite
def documents(draw: st.DrawFn, content: bytes, *, huge: bool = True) -> bytes:
    """A JSON object (hence YAML too), altered in one to three places.

    Args:
        huge: Whether a number may become one of 40 digits; not where it is how many layers a network is built of.
    """
    document = json.loads(content)
    values = hostile if huge else hostile.filter(lambda value: value != HUGE)
    for _ in range(draw(st.integers(1, 3))):
        document = _altered(draw, document, values)
    text = json.dumps(document)
    wrapping = draw(st.sampled_from(["none", "none", "none", "twice", "deep", "bytes"]))
    if wrapping == "twice" and isinstance(document, dict) and document:  # a key twice: the last one counts
        name = draw(st.sampled_from(sorted(document)))
        text = "{" + f"{json.dumps(name)}: {json.dumps(draw(values))}, " + text[1:]
    if wrapping == "deep":
        depth = 3000
        return b"[" * depth + b"]" * depth if draw(st.booleans()) else b'{"files":' * depth
    return draw(flipped(text.encode())) if wrapping == "bytes" else text.encode()


def _altered(draw: st.DrawFn, document: Any, values: st.SearchStrategy[Any]) -> Any:
    places = list(_places(document))
    if not places:
        return draw(values)
    holder, key = draw(st.sampled_from(places))
    how = draw(st.sampled_from(["value", "value", "name", "remove"]))
    if how == "value":
        holder[key] = draw(values)
    elif how == "remove":
        del holder[key]
    elif isinstance(holder, dict):
        holder[draw(st.sampled_from([name for name in HOSTILE if isinstance(name, str)]))] = holder.pop(key)
    return document


def _places(document: Any) -> Iterator[tuple[Any, Any]]:
    items = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, value in list(items):
        yield document, key
        yield from _places(value)


@st.composite
def flipped(draw: st.DrawFn, content: bytes) -> bytes:
    """Bytes with some of them changed, cut out or put in."""
    found = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(found) - 1)))
        how = draw(st.sampled_from(["flip", "cut", "insert", "remove"]))
        if how == "flip" and found:
            found[at] ^= 1 << draw(st.integers(0, 7))
        elif how == "cut":
            del found[at:]
        elif how == "insert":
            found[at:at] = draw(st.binary(min_size=1, max_size=4))
        else:
            del found[at : at + draw(st.integers(1, 40))]
    return bytes(found)


def damaged(content: bytes, seed: int, *, header: int) -> bytes:
    """Bytes with one to eight changes, most of them within the first `header`; the same for the same seed."""
    rng = random.Random(seed)
    found = bytearray(content)
    for _ in range(rng.randint(1, 8)):
        at = rng.randrange(min(header, len(found)) if rng.random() < 0.8 else len(found))
        how = rng.random()
        if how < 0.5:
            found[at] ^= 1 << rng.randrange(8)
        elif how < 0.8:  # the sizes, counts and rates of headers are numbers of four bytes
            number = rng.choice([0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, rng.getrandbits(32)])
            found[at : at + 4] = number.to_bytes(4, rng.choice(["big", "little"]))
        elif how < 0.9:
            found[at:at] = rng.randbytes(rng.randint(1, 16))
        else:
            del found[at : at + rng.randint(1, 64)]
    return bytes(found[: rng.randrange(1, len(found))] if rng.random() < 0.1 else found) or b"\0"
