"""The systems of the paper on speakers never seen: the same clips, encoders, texts, split and budget for all.

    python -m bench.style_corpus          the corpus, once
    python -m bench.systems [--style data/style] [--out data/systems] [--seeds 3] [--rows NAME ...]

The embedded preset: all systems have the same frozen encoders and functionals, so that ideas are compared
(docs/systems.md). Figures, intervals and pools are those of bench.ablation; "against clap_laion" is the
difference from plain CLAP, paired by clip. Each row is trained with the budget of bench.ablation; --epochs changes
it. A run that is finished is not repeated, one that was interrupted goes on.
"""

import functools
from collections.abc import Sequence
from typing import Any

from bench.ablation import BUDGET, POOL, command_line, show
from fsclap.model.settings import ModelSettings
from fsclap.training.settings import TrainSettings

BASE = "clap_laion"
ROWS: dict[str, dict[str, Any]] = {
    BASE: {"system": BASE},
    "clap_microsoft": {"system": "clap_microsoft"},
    "audioclip": {"system": "audioclip"},
    "ra_clap": {"system": "ra_clap"},
    "mga_clap": {"system": "mga_clap", "systems": {"mga": {"codes": 1024, "temperature": 100.0}}},
    "emotion_rank_clap": {"system": "emotion_rank_clap"},
    "fs_clap": {"system": "fs_clap", "fusion": "shared"},
    "fs_clap, no fusion": {"system": "fs_clap"},
}
"""The paper's systems. MGA-CLAP has a codebook in the size of the embedded preset. fs_clap has all the parts
of the paper; without fusion it is the default of this project."""


def train_settings(row: str, seed: int, *, epochs: int | None = None) -> TrainSettings:
    budget = BUDGET if epochs is None else BUDGET | {"epochs": epochs}
    return TrainSettings(model=ModelSettings(**ROWS[row]), seed=seed, **budget)


def markdown(rows: dict[str, Any]) -> str:
    """Make the table of docs/results.md; in pools of POOL clips where nothing else is said."""
    heads = (
        "system", "audio to text", "text to audio", f"mean mAP@10, pool {POOL}", f"against {BASE}", "by seed",
        "R@1", "mAP@10, all", "weights", "seconds",
    )  # fmt: skip
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for name, figures in rows.items():
        apart = "{:+.2f} ({:+.2f} to {:+.2f})".format(*figures["against base"]) if "against base" in figures else ""
        one_rank = figures[f"R@1 {POOL} by seed"]
        whole = figures["mAP@10 all by seed"]
        cells = [
            name,
            f"{figures[f'mAP@10 audio_to_text {POOL}']:.2f}",
            f"{figures[f'mAP@10 text_to_audio {POOL}']:.2f}",
            "{:.2f} ({:.2f} to {:.2f})".format(*figures[f"mAP@10 {POOL}"]),
            apart,
            ", ".join(f"{value:.2f}" for value in figures[f"mAP@10 {POOL} by seed"]),
            f"{sum(one_rank) / len(one_rank):.2f}",
            f"{sum(whole) / len(whole):.2f}",
            f"{figures['parameters'] / 1e6:.2f} M",
            f"{figures['seconds']:.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = command_line("systems", __doc__, list(ROWS), list(ROWS))
    parser.add_argument("--epochs", type=int, help="default: those of bench.ablation")
    options = parser.parse_args(arguments)
    settings = functools.partial(train_settings, epochs=options.epochs)
    show(parser, options, "systems", settings=settings, against=BASE)


if __name__ == "__main__":
    main()
