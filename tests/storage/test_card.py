import base64
import hashlib
import io
import re

import matplotlib.image
import numpy as np
import pytest
import soundfile
import yaml
from markdown_it import MarkdownIt

from storage.card import escape_markdown, write_card
from storage.corpus import Corpus
from storage.plots import draw
from storage.statistics import measure, retention

HOSTILE = "<script>alert(1)</script> | $\\frac{$ *a* `b` [c](javascript:d)"


@pytest.fixture(scope="module")
def filled(tmp_path_factory, make_rows):
    corpus = Corpus.open(tmp_path_factory.mktemp("corpus"), create=True)
    corpus.commit_source(**make_rows("e1", kept=1, recipe="replaced"))
    corpus.commit_source(**make_rows("e1", kept=8, rejected=4, series=HOSTILE, emotion="joy"))
    corpus.commit_source(**make_rows("e2", kept=4, rejected=0))
    corpus.commit_source(**make_rows("e3", kept=0, rejected=0, status="failed"))
    return corpus


@pytest.fixture(scope="module")
def card(filled):
    return write(filled)


def write(corpus, **options):
    usual = {"title": HOSTILE, "settings": {"a": {"b|c": HOSTILE}}, "threshold": 0.65, "folder": corpus.folder}
    return write_card(corpus, **usual | options)


def files(folder):
    wanted = [folder / "README.md", folder / "card.html", *sorted((folder / "plots").iterdir())]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in wanted}


def test_the_same_corpus_gets_the_same_card(filled, card):
    first = files(card.readme.parent)
    write(filled)
    assert files(card.readme.parent) == first
    assert len(first) > 8


def test_text_shows_literally_in_the_page(card):
    page = card.page.read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "javascript:" not in re.sub(r"\[c\]\(javascript:d\)", "", page)


def test_text_shows_literally_in_the_readme(card):
    _, front, body = card.readme.read_text().split("---\n", 2)
    assert yaml.safe_load(front)["pretty_name"] == HOSTILE
    rendered = MarkdownIt("gfm-like", {"linkify": False, "html": True}).render(body)
    assert "<script" not in rendered
    assert "javascript:d)" in rendered
    assert 'href="javascript' not in rendered
    row = rf"<td>a\.b\|c</td>\s*<td>{re.escape(escaped_for_html(HOSTILE))}</td>"
    assert re.search(row, rendered), "a pipe must not end its cell"


def escaped_for_html(text):
    return text.replace("<", "&lt;").replace(">", "&gt;")


@pytest.mark.parametrize("text", ["a\nb", "# no heading", "- no list", "~~a~~", "a_b_c", "<!-- -->"])
def test_markdown_is_escaped(text):
    rendered = MarkdownIt("gfm-like", {"linkify": False, "html": True}).render(escape_markdown(text))
    assert rendered == f"<p>{escaped_for_html(text).replace(chr(10), ' ')}</p>\n"


def test_the_figures_are_those_of_the_tables(filled):
    statistics = measure(filled)
    assert statistics.totals.sources == {"kept": 2, "rejected": 0, "failed": 1}
    assert [(group.name, group.utterances) for group in statistics.series] == [(HOSTILE, 8), ("series-a", 4)]
    assert len(statistics.speakers) == 4
    assert sum(group.hours for group in statistics.speakers) == pytest.approx(statistics.totals.hours_out)
    assert statistics.emotions == {"joy": 8}
    assert statistics.reasons == {("consistency", "below_threshold"): 4, ("download", "http_404"): 1}
    captions = sum(size * count for size, count in statistics.caption_groups.items())
    assert captions == 12
    assert statistics.similarities.size == 16
    separation = next(cost for cost in statistics.costs if cost.stage == "separation")
    assert separation.seconds == pytest.approx(7.0)
    assert separation.real_time_factor == pytest.approx(7.0 / 120)
    assert statistics.attributes["pitch_slope_st"].size == 0
    assert statistics.duration_quantiles()[0.5] == pytest.approx(np.median(statistics.durations))


def test_retention_counts_the_turns_that_reach_the_threshold():
    kept = retention(np.array([0.5, 0.7, 0.7, 0.9]), np.array([0.0, 0.5, 0.6, 0.7, 0.71, 1.0]))
    np.testing.assert_allclose(kept, [1, 1, 0.75, 0.75, 0.25, 0])
    with pytest.raises(ValueError, match="no turn has a similarity"):
        retention(np.array([]), np.array([0.5]))


def test_the_page_plays_an_utterance_of_each_large_speaker(filled, card):
    page = card.page.read_text()
    clips = re.findall(r'src="data:audio/flac;base64,([^"]+)"', page)
    assert len(clips) == 6
    stored = {row["audio"]["bytes"] for row in filled.utterances(columns=["audio"]).to_pylist()}
    assert {base64.b64decode(clip) for clip in clips} <= stored
    assert soundfile.info(io.BytesIO(base64.b64decode(clips[0]))).samplerate == 24_000
    speakers = re.findall(r'class="who">([^·]+) ·', page)
    assert len(set(speakers[:4])) == 4


def test_every_plot_is_drawn_and_none_is_blank(card):
    plots = card.plots
    assert list(plots) == [
        "durations", "series", "speakers", "prosody", "emotions", "retention", "rejects", "cost",
    ]  # fmt: skip
    for path in plots.values():
        image = matplotlib.image.imread(path)
        assert image.shape[1] == 1170
        assert image[..., :3].std() > 0.02


def test_a_plot_without_data_is_left_out_and_names_are_drawn_as_they_are(corpus, make_rows, tmp_path):
    corpus.commit_source(**make_rows("e1", kept=4, emotion="joy", series="$\\frac{$"))  # looks like a formula
    assert "emotions" in draw(measure(corpus), tmp_path, threshold=None)
    corpus.commit_source(**make_rows("e1", kept=4, recipe="recipe-2"))
    assert "emotions" not in draw(measure(corpus), tmp_path, threshold=None)
    assert not (tmp_path / "emotions.png").exists()


def test_an_empty_corpus_has_a_card(corpus):
    paths = write(corpus, title="Empty")
    assert paths.plots == {}
    assert "0 single-speaker utterances" in paths.readme.read_text()


def test_the_card_names_the_shards_of_the_version(filled, card):
    front = yaml.safe_load(card.readme.read_text().split("---\n", 2)[1])
    (config,) = front["configs"]
    assert config["data_files"][0]["path"] == [f"utterances/{shard}" for shard in filled.shards()]
    assert len(filled.shards()) < len(list((filled.folder / "utterances").glob("*.parquet")))


def test_a_card_can_be_written_to_any_folder(corpus, tmp_path):
    write(corpus, folder=tmp_path / "card")
    assert (tmp_path / "card" / "card.html").is_file()
