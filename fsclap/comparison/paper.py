"""The figures of the paper's Tables 1 to 3, in %. They are of other clips than ours: only their order compares.

The paper's pools: 199 clips of TextrolSpeech and 237 of Zhvoice, which all figures are multiples of; that of
GigaSpeech is not known.
"""

from typing import Literal

DataSet = Literal["GigaSpeech", "TextrolSpeech", "Zhvoice"]
DATA_SETS: tuple[DataSet, ...] = ("GigaSpeech", "TextrolSpeech", "Zhvoice")
POOLS: dict[DataSet, int | None] = {"GigaSpeech": None, "TextrolSpeech": 199, "Zhvoice": 237}
"""Clips in the pools of the paper; None: not known."""

_RECALL = ("R@1", "R@5", "R@10")
# Row -> data set -> R@1, R@5, R@10 from audio to text, then from text to audio.
_TABLE_1: dict[str, dict[DataSet, tuple[float, ...]]] = {
    "clap_laion": {
        "GigaSpeech": (21.1, 53.3, 71.0, 21.1, 54.1, 69.8),
        "TextrolSpeech": (19.6, 57.8, 80.9, 23.1, 57.8, 84.4),
        "Zhvoice": (40.1, 74.3, 87.3, 39.2, 73.0, 85.7),
    },
    "clap_microsoft": {
        "GigaSpeech": (24.6, 58.4, 72.8, 23.6, 57.6, 72.5),
        "TextrolSpeech": (20.1, 60.3, 75.9, 21.6, 62.3, 79.9),
        "Zhvoice": (38.4, 77.2, 85.2, 35.4, 75.1, 86.1),
    },
    "audioclip": {
        "GigaSpeech": (24.1, 57.8, 70.6, 24.7, 56.4, 71.6),
        "TextrolSpeech": (20.1, 54.8, 76.4, 24.6, 60.3, 81.4),
        "Zhvoice": (43.9, 75.1, 83.5, 45.2, 74.3, 85.7),
    },
    "ra_clap": {"TextrolSpeech": (23.5, 59.0, 82.0, 25.5, 64.5, 81.0)},
    "mga_clap": {
        "GigaSpeech": (22.4, 52.0, 67.1, 20.3, 52.2, 67.0),
        "TextrolSpeech": (23.1, 55.8, 79.4, 22.1, 64.8, 78.4),
        "Zhvoice": (22.4, 53.6, 67.1, 19.4, 51.5, 65.4),
    },
    "fs_clap": {
        "GigaSpeech": (25.5, 56.8, 71.7, 24.8, 57.9, 72.2),
        "TextrolSpeech": (28.6, 63.3, 82.4, 28.6, 64.3, 84.9),
        "Zhvoice": (42.6, 77.6, 87.3, 43.5, 76.0, 86.1),
    },
}
# Row -> data set -> mAP@10 from audio to text, then from text to audio.
_TABLE_2: dict[str, dict[DataSet, tuple[float, float]]] = {
    "clap_laion": {"GigaSpeech": (35.0, 34.9), "TextrolSpeech": (36.6, 39.6), "Zhvoice": (54.5, 54.0)},
    "clap_microsoft": {"GigaSpeech": (38.5, 37.7), "TextrolSpeech": (36.4, 39.2), "Zhvoice": (54.2, 51.6)},
    "audioclip": {"GigaSpeech": (38.1, 38.5), "TextrolSpeech": (36.4, 40.1), "Zhvoice": (56.2, 57.1)},
    "ra_clap": {"TextrolSpeech": (39.9, 43.5)},
    "mga_clap": {"GigaSpeech": (34.9, 33.8), "TextrolSpeech": (37.8, 39.3), "Zhvoice": (35.0, 32.8)},
    "fs_clap": {"GigaSpeech": (38.6, 39.0), "TextrolSpeech": (43.4, 44.8), "Zhvoice": (57.6, 57.9)},
}
# Row -> data set -> mAP@10 and R@1 from audio to text, then from text to audio.
_TABLE_3: dict[str, dict[DataSet, tuple[float, float, float, float]]] = {
    "clap_laion": {"TextrolSpeech": (36.6, 19.6, 39.6, 23.1), "Zhvoice": (54.5, 40.1, 54.0, 39.2)},
    "FU": {"TextrolSpeech": (40.8, 25.6, 43.8, 29.7), "Zhvoice": (57.4, 44.3, 57.7, 43.9)},
    "SE": {"TextrolSpeech": (38.5, 22.6, 41.6, 24.1), "Zhvoice": (57.3, 41.4, 56.1, 40.9)},
    "HN": {"TextrolSpeech": (40.4, 25.6, 41.3, 25.6), "Zhvoice": (56.5, 42.2, 55.3, 40.9)},
    "FU+SE": {"TextrolSpeech": (40.8, 23.6, 43.6, 27.1), "Zhvoice": (55.4, 40.5, 56.4, 41.4)},
    "fs_clap": {"TextrolSpeech": (43.4, 28.6, 44.8, 28.6), "Zhvoice": (57.6, 42.6, 57.9, 43.5)},
}


def figure(row: str, data_set: DataSet | None, direction: str, metric: str) -> float | None:
    """Return what the paper prints, in %; None if it prints nothing.

    Args:
        row: Name of the row, as "fs_clap" or "FU".
        data_set: Name of the data set; None: another than the paper's.
        direction: "audio_to_text" or "text_to_audio".
        metric: "R@1", "R@5", "R@10" or "mAP@10".
    """
    if data_set is None or direction not in ("audio_to_text", "text_to_audio"):
        return None
    text_first = direction == "text_to_audio"
    if row in _TABLE_1:
        if metric == "mAP@10":
            both = _TABLE_2[row].get(data_set)
            return None if both is None else both[text_first]
        recalls = _TABLE_1[row].get(data_set)
        return None if recalls is None else recalls[_RECALL.index(metric) + 3 * text_first]
    four = _TABLE_3.get(row, {}).get(data_set)
    return None if four is None or metric not in ("mAP@10", "R@1") else four[2 * text_first + (metric == "R@1")]
