"""Emotion, sound events, language and transcript of clips, by SenseVoice-Small.

Source: An et al., "FunAudioLLM", 2024, arXiv:2407.04051; network, front end and tokenizer are
    FunASR's classes.

In front of the features go four queries: language, two for event and emotion, and how numbers are
written. The CTC head answers a tag at each of these positions, in the order in which FunASR trains
them (SenseVoiceCTCDataset): language, emotion, event, writing. Behind them comes the text, which
may hold more event tags.

The network is called here rather than by FunASR's `generate`, which gives no logits, hence no
confidence, and takes one clip at a time on a CPU. A test holds the two together.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from fsclap import Hertz
from fsclap.corpus.captioning.base import SenseVoiceSettings, Tags
from fsclap.corpus.funasr_weights import FunasrModel, load_model
from fsclap.corpus.ideographs import close_up
from fsclap.devices import Batches, by_length, torch_device
from fsclap.weights import WeightsError

SETTING = "captioning.sensevoice"
MEANS = "am.mvn"
TOKENIZER = "chn_jpn_yue_eng_ko_spectok.bpe.model"

EMOTIONS = {
    "HAPPY": "happy",
    "SAD": "sad",
    "ANGRY": "angry",
    "NEUTRAL": "neutral",
    "FEARFUL": "fearful",
    "DISGUSTED": "disgusted",
    "SURPRISED": "surprised",
}
"""SenseVoice's tags and the words of the caption grammar."""
OTHER_EMOTION, UNKNOWN_EMOTION = "OTHER", "EMO_UNKNOWN"
"""Tags at the place of the emotion that tell none."""
EVENTS = {
    "Applause": "applause",
    "BGM": "music",
    "Breath": "breath",
    "Cough": "cough",
    "Cry": "cry",
    "Laughter": "laughter",
    "Sneeze": "sneeze",
}
"""The tags that are events to a listener: not Speech, Speech_Noise, Sing, GBG (unintelligible) or
Event_UNK."""
LANGUAGES = ("zh", "en", "yue", "ja", "ko")
"""ISO 639-1, but for Cantonese, which has a code in ISO 639-3 only."""
NO_SPEECH = "nospeech"
PARTS = (*LANGUAGES, NO_SPEECH)
"""The tags that begin a part of an output."""

QUERIES = 4
EMOTION = 1
"""Which of the four queries' answers is the emotion."""

TAG = re.compile(r"<\|([^|<>]*)\|>")


@dataclass(frozen=True, slots=True)
class Transcription:
    """What one output of SenseVoice says. A tag that is not known here says nothing."""

    language: str | None
    """Language of the first part that has one; None: no speech, or a language that SenseVoice-Small
    was not made for."""
    emotion: str | None
    events: tuple[str, ...]
    """In order of first occurrence, each once."""
    text: str


def parse(output: str) -> Transcription:
    """Read an output such as "<|en|><|HAPPY|><|Speech|><|withitn|>Hello!<|Laughter|>".

    It may have several parts, each of which begins with a language or "nospeech". The first
    language and the first emotion count, and events wherever they stand; but the emotion of a part
    without speech is a guess about nothing.
    """
    languages: list[str] = []
    emotions: list[str] = []
    events: list[str] = []
    silent = False
    for tag in TAG.findall(output):
        if tag in PARTS:
            silent = tag == NO_SPEECH
        if tag in LANGUAGES:
            languages.append(tag)
        elif tag in EMOTIONS and not silent:
            emotions.append(EMOTIONS[tag])
        elif tag in EVENTS:
            events.append(EVENTS[tag])
    return Transcription(
        language=next(iter(languages), None),
        emotion=next(iter(emotions), None),
        events=tuple(dict.fromkeys(events)),
        text=_text(output),
    )


def _text(output: str) -> str:
    """Strip the tags of an output and put a space between its parts."""
    parts = TAG.sub(lambda match: " " if match[1] in PARTS else "", output)
    return close_up(" ".join(parts.split()))


class SenseVoiceTagger:
    """An `EmotionTagger` (see fsclap.corpus.captioning).

    Raises:
        WeightsError: A file is missing or damaged, or the folder holds another model.
        DeviceError: The machine has no such device.
    """

    name = "sensevoice"

    def __init__(self, settings: SenseVoiceSettings, *, device: str) -> None:
        self._settings = settings
        self._device = torch_device(device, setting="device")
        model = load_model(
            settings.weights,
            setting=f"{SETTING}.weights",
            classes=("SenseVoiceSmall",),
            needs=(MEANS, TOKENIZER),
            device=self._device,
        )
        self.revision = model.revision
        self._network = model.network
        self._tokenizer = model.options["tokenizer"]
        self._frontend = model.options["frontend"]
        _check_means(model)
        self._tag_ids = _tag_ids(model)
        self.sample_rate: Hertz = self._frontend.fs
        # Noise is added in `dithered`.
        self._dither, self._frontend.dither = self._frontend.dither, 0.0
        self._emotions = [*EMOTIONS, OTHER_EMOTION, *([] if settings.ban_emo_unk else [UNKNOWN_EMOTION])]
        self._batches = Batches(self._read, setting=f"{SETTING}.batch_seconds")
        self._queries = self._embedded_queries(settings.language)

    def tag(self, clips: Sequence[np.ndarray]) -> list[Tags]:
        """Tag each clip; clips of any number of recordings go through the network together.

        Args:
            clips: Each (samples,) float32 mono in [-1, 1] at `sample_rate`.

        Returns:
            One `Tags` per clip, in order, empty for a clip of less than 25 ms.

        Raises:
            ValueError: A clip is not one-dimensional or holds a value that is not finite.
            DeviceError: One clip alone does not fit into the device's memory.
        """
        for number, clip in enumerate(clips):
            if clip.ndim != 1 or not np.isfinite(clip).all():
                raise ValueError(f"clip {number}: expected finite mono samples (samples,), got shape {clip.shape}")
        shortest = self.sample_rate * self._frontend.frame_length // 1000
        audible = [number for number, clip in enumerate(clips) if len(clip) >= shortest]
        tags = [Tags()] * len(clips)
        seconds = [len(clips[number]) / self.sample_rate for number in audible]
        for group in by_length(seconds, self._settings.batch_seconds):
            numbers = [audible[place] for place in group]
            features = [self._features(clips[number]) for number in numbers]
            for number, found in zip(numbers, self._batches(features), strict=True):
                tags[number] = found
        return tags

    def _features(self, clip: np.ndarray) -> Tensor:
        """Compute (frames, 560) features: 80 log-mels of 7 frames, every 6 (60 ms)."""
        wave = torch.from_numpy(dithered(clip, self._dither))
        features, _ = self._frontend(wave[None], [len(wave)])
        return features[0]

    @torch.inference_mode()
    def _read(self, features: list[Tensor]) -> list[Tags]:
        """Tag clips by their features, (frames, 560) each."""
        lengths = torch.tensor([len(clip) + QUERIES for clip in features])
        speech = pad_sequence(features, batch_first=True).to(self._device)
        inputs = torch.cat([self._queries.expand(len(features), -1, -1), speech], dim=1)
        states, _ = self._network.encoder(inputs, lengths.to(self._device))
        logits = self._network.ctc.ctc_lo(states)  # (batch, queries + frames, vocabulary)
        if self._settings.ban_emo_unk:
            logits[:, :, self._tag_ids[UNKNOWN_EMOTION]] = -torch.inf
        ids = [self._tag_ids[emotion] for emotion in self._emotions]
        shares = logits[:, EMOTION, ids].softmax(dim=1).cpu().numpy()
        tokens = logits.argmax(dim=2).cpu()
        return [
            self._tags(self._decode(row[:length]), dict(zip(self._emotions, share, strict=True)))
            for row, length, share in zip(tokens, lengths.tolist(), shares, strict=True)
        ]

    def _decode(self, tokens: Tensor) -> str:
        """Decode the best path of the CTC: repetitions once, no blanks."""
        path = torch.unique_consecutive(tokens)
        return self._tokenizer.decode(path[path != self._network.blank_id].tolist())

    def _tags(self, output: str, shares: dict[str, np.float32]) -> Tags:
        found = parse(output)
        confidence = next((float(shares[tag]) for tag, word in EMOTIONS.items() if word == found.emotion), None)
        sure = confidence is not None and confidence >= self._settings.min_confidence
        return Tags(
            emotion=found.emotion if sure else None,
            confidence=confidence,
            events=found.events,
            language=found.language,
            text=found.text,
        )

    @torch.inference_mode()
    def _embedded_queries(self, language: str) -> Tensor:
        """Embed the queries, (1, 4, 560).

        1 and 2 ask for event and emotion; "withitn": with punctuation, and numbers in digits.
        """
        network = self._network
        queries = [network.lid_dict[language], 1, 2, network.textnorm_dict["withitn"]]
        return network.embed(torch.tensor([queries], device=self._device))


def dithered(clip: np.ndarray, amplitude: float) -> np.ndarray:
    """Add white noise of `amplitude` units of 16 bits to a clip, the same noise each time.

    FunASR draws new noise for every frame, so the same clip can get other tags. Without any, the
    silence that separation leaves would be far below what the network was trained on.
    """
    noise = np.random.default_rng(0).standard_normal(len(clip), dtype=np.float32)
    return (clip + noise * (amplitude / 2**15)).astype(np.float32)


def _check_means(model: FunasrModel) -> None:
    """FunASR takes what it finds in the file, and fails at the first clip."""
    frontend = model.options["frontend"]
    found, expected = tuple(frontend.cmvn.shape), (2, frontend.output_size())
    if found != expected:
        raise WeightsError(
            f"{SETTING}.weights: {frontend.cmvn_file} holds {found} numbers, not {expected}: it is damaged or another "
            "model's. Fetch the folder again"
        )


def _tag_ids(model: FunasrModel) -> dict[str, int]:
    """Look up the token of each emotion; FunASR hard-codes one in the network's class."""
    tokenizer = model.options["tokenizer"]
    pieces = tokenizer.sp
    ids = {tag: pieces.piece_to_id(f"<|{tag}|>") for tag in (*EMOTIONS, OTHER_EMOTION, UNKNOWN_EMOTION)}
    unknown = [tag for tag, number in ids.items() if number == pieces.unk_id()]
    if unknown or ids[UNKNOWN_EMOTION] != model.network.emo_dict["unk"]:
        raise WeightsError(
            f"{SETTING}.weights: {tokenizer.bpemodel} is not SenseVoice-Small's: it has no token for "
            f"{', '.join(unknown) or UNKNOWN_EMOTION} where the network has one. Fetch the folder again"
        )
    return ids
