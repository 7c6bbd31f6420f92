"""How a stage refuses an input: it is recorded, and the rest of the run goes on."""


class Refused(Exception):  # noqa: N818 (an outcome, not a programming error)
    """A source that a stage cannot use, for good: the same bytes will be refused again.

    Args:
        reason: A short code in snake_case, one per cause, which a table can be grouped by
            ("no_audio_track").
        detail: A sentence for a person: what is wrong, where, and what would help.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type["Refused"], tuple[str, str]]:
        return type(self), (self.reason, self.detail)


class Unavailable(Refused):
    """A source that is unavailable for now (network, server error); a later try may succeed."""
