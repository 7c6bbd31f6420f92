"""Where decoded sound lies on the clock of a player.

A file's sound may begin after its picture, and stop for a while: packets were lost, a recorder
paused. A decoder gives the samples without the time between them, so the seconds of a decoded wave
are not those of a player. A `Clock` reads the timestamps of what is decoded and notes where they
part; a `Timeline` turns positions in the wave into the player's seconds.
"""

import itertools
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from fsclap import Hertz, Seconds

HOLE: Seconds = 0.1
"""Sound that is missing for longer is a hole. Shorter differences are what timestamps of milliseconds and
jitter of a recorder give; a player ignores them as well (min_hard_comp of ffmpeg's aresample)."""
SILENCE: Seconds = 1.0
"""What a hole of any length is in the decoded wave: long enough to end a turn, and it costs no room."""


@dataclass(frozen=True, slots=True)
class Section:
    """Sound without a hole.

    Attributes:
        wave: Where it begins in the decoded wave.
        player: Where it begins on the player's clock; 0 is where the file begins, picture included.
        seconds: How long it is.
    """

    wave: Seconds
    player: Seconds
    seconds: Seconds

    @property
    def end(self) -> Seconds:
        """Where it ends in the decoded wave."""
        return self.wave + self.seconds


@dataclass(frozen=True, slots=True)
class Timeline:
    """The sections of a decoded wave, in order, at least one.

    Neighbours that touch in the wave are one stretch of sound whose timestamps were corrected; between
    others lies SILENCE.
    """

    sections: tuple[Section, ...]

    @classmethod
    def of(cls, rows: Sequence[Sequence[float]]) -> "Timeline":
        """Make a timeline again from what `rows` returned."""
        return cls(tuple(Section(*row) for row in rows))

    def rows(self) -> list[list[float]]:
        """Return plain values, exact to a microsecond: wave, player, seconds of each section."""
        return [[round(value, 6) for value in (s.wave, s.player, s.seconds)] for s in self.sections]

    @property
    def sound(self) -> Seconds:
        """Seconds of sound, without the silence in its holes."""
        return sum(section.seconds for section in self.sections)

    @property
    def holes(self) -> list[tuple[Seconds, Seconds]]:
        """Return the start of each hole on the player's clock, and its length."""
        pairs = itertools.pairwise(self.sections)
        return [(a.player + a.seconds, b.player - a.player - a.seconds) for a, b in pairs if _apart(a, b)]

    def player(self, second: Seconds) -> Seconds:
        """Return the player's second of a second of the wave."""
        section = self.sections[self._at(second)]
        return max(0.0, section.player + second - section.wave)

    def trimmed(self, start: Seconds, end: Seconds) -> tuple[Seconds, Seconds]:
        """Cut the silence of holes off both ends of a stretch of the wave that holds sound."""
        inside = [s for s in self.sections if s.wave < end and s.end > start]
        return (max(start, inside[0].wave), min(end, inside[-1].end)) if inside else (start, end)

    def spans_hole(self, start: Seconds, end: Seconds) -> bool:
        """Whether a stretch of the wave has sound on both sides of a hole."""
        inside = [s for s in self.sections if s.wave < end and s.end > start]
        return any(_apart(a, b) for a, b in itertools.pairwise(inside))

    def _at(self, second: Seconds) -> int:
        return max(0, bisect_right([section.wave for section in self.sections], second) - 1)


def whole(seconds: Seconds) -> Timeline:
    """Make the timeline of a recording that begins at 0 and has no hole."""
    return Timeline((Section(0.0, 0.0, seconds),))


class Clock:
    """Collects the timestamps of decoded frames.

    Args:
        sample_rate: Of the frames.
        origin: The timestamp at which the file begins, picture included.
        back, ahead: A clock that jumps by more than this from one frame to the next, back or ahead, has
            started anew: nothing is missing there, and the player's clock goes on.
    """

    def __init__(self, sample_rate: Hertz, *, origin: Seconds, back: Seconds, ahead: Seconds) -> None:
        self._rate = sample_rate
        self._shift = -origin
        self._back, self._ahead = back, ahead
        self._samples = 0
        self._next_stamp: Seconds | None = None
        self._marks: list[tuple[int, Seconds, bool]] = []  # samples before, player's second, after a hole
        self._end: Seconds = 0.0

    def add(self, stamp: Seconds, samples: int) -> None:
        """Note the timestamp of the next decoded frame and its length in samples per channel."""
        if self._next_stamp is None:
            self._end = max(0.0, stamp + self._shift)
            self._marks.append((0, self._end, False))
        else:
            jump = stamp - self._next_stamp
            if not -self._back <= jump <= self._ahead:
                self._shift -= jump
            apart = stamp + self._shift - self._end
            if abs(apart) > HOLE:
                self._end += apart
                self._marks.append((self._samples, self._end, apart > 0))
        seconds = samples / self._rate
        self._next_stamp = stamp + seconds
        self._end += seconds
        self._samples += samples

    @property
    def end(self) -> Seconds:
        """The player's second at which the sound ends."""
        return self._end

    def cuts(self) -> list[int]:
        """Return the samples before each hole."""
        return [before for before, _, hole in self._marks if hole]

    def timeline(self, samples: int) -> Timeline:
        """Return the timeline of the wave in which every hole is SILENCE.

        Args:
            samples: Decoded in all; what frames did not tell of continues the last section.
        """
        marks = self._marks or [(0, 0.0, False)]
        ends = [before for before, _, _ in marks[1:]] + [samples]
        silence, sections = 0.0, []
        for (before, player, hole), end in zip(marks, ends, strict=True):
            silence += SILENCE if hole else 0.0
            if end > before:
                sections.append(Section(before / self._rate + silence, player, (end - before) / self._rate))
        return Timeline(tuple(sections))


def _apart(first: Section, second: Section) -> bool:
    return second.wave - first.end > SILENCE / 2
