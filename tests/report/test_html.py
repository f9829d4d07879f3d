"""The page: everything given is on it, nothing is fetched, what is missing is said."""

import html
import json
import re
from html.parser import HTMLParser

import pytest

from msgdas.errors import InputError
from msgdas.report import write_report
from msgdas.spaces.cell_graph import CellGraph

CELL = CellGraph("cell", ("node 0", "node 1"), (("node 0", "node 1", "nor_conv_3x3"),))
SETTINGS = {
    "data": "digits",
    "space": "nasbench201",
    "method": "msgdas",
    "k": 3,
    "epochs": 4,
    "seed": 12345,
    "lr": 0.025,
}
RESULT = {
    "test_accuracy": 0.98056, "val_accuracy": 0.9912, "best_epoch": 2, "params": 73482, "macs": 3411968,
    "seconds": 58.3,
    "epochs": 3, "per_class": {"cat": 0.9123, "<b>dog</b>": 0.8765}, "confusion": [[31, 3], [7, 29]],
}  # fmt: skip


def search_epochs():
    return [
        {
            "epoch": e, "phase": "warmup" if e < 3 else "search", "train_loss": 2.125 / e, "train_accuracy": 0.5123,
            "valid_loss": None, "valid_accuracy": None, "teacher_accuracy": 0.6234,
            "derived_accuracy": 0.4321 + e / 100, "skip_share": 0.25, "genotype": "|a|", "tau": 10.0 / e, "drop": 0.2,
            "lr": 0.0125, "seconds": 3.25,
            "alphas": {"cell/0-1": {"none": 0.25, "nor_conv_3x3": 0.75}},
        }
        for e in range(1, 5)
    ]  # fmt: skip


def train_epochs():
    keys = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr", "seconds")
    return [{"epoch": e, **dict.fromkeys(keys, 0.1 * e)} for e in (1, 2, 3)]


@pytest.fixture
def run(tmp_path):
    path = tmp_path / "run"
    (path / "train").mkdir(parents=True)
    config = {"command": "search", "settings": SETTINGS, "versions": {"torch": "2.14.1", "msgdas": "0.1.0"}}
    write(path / "config.json", config)
    write(path / "genotype.json", {"space": "nasbench201", "string": "|nor_conv_3x3~0|+|none~0|none~1|"})
    write(path / "metrics.jsonl", *search_epochs())
    write(path / "train/metrics.jsonl", *train_epochs())
    write(path / "train/result.json", RESULT)
    return path


def write(path, *objects):
    path.write_text("".join(json.dumps(one) + "\n" for one in objects), encoding="utf-8")


def page(run, graphs=(CELL,)):
    return write_report(run, graphs).read_text(encoding="utf-8")


def body(html):
    """The text a reader sees, figures included; narrow spaces as spaces."""
    html = re.sub(r"<style>.*?</style>", "", html, flags=re.S)
    return re.sub(r"<[^>]*>", "\n", html).replace("\u202f", " ")


class Tags(HTMLParser):
    """Checks nesting and collects attributes."""

    VOID = frozenset({"meta", "br", "hr", "img", "link", "input"})

    def __init__(self, html):
        super().__init__()
        self.open, self.attributes, self.names = [], [], set()
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.names.add(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.names.add(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_every_number_given_is_on_the_page(run):
    text = body(page(run))
    for shown in ("98.06 %", "99.12 %", "73.5 k", "73,482", "3.41 M", "3,411,968", "58 seconds", "91.23 %", "87.65 %"):
        assert shown in text
    for count in ("31", "3", "7", "29"):
        assert f"\n{count}\n" in text
    for value in (*SETTINGS.values(), "2.14.1", "0.1.0", "|nor_conv_3x3~0|+|none~0|none~1|"):
        assert str(value) in text
    for shown in ("2.125", "51.23 %", "62.34 %", "47.21 %", "25.00 %", "3.333", "0.2", "0.0125", "3.2"):
        assert f"\n{shown}\n" in text
    assert "node 0" in text
    assert "cell/0-1" in text
    assert "nor_conv_3x3" in text


def test_the_page_is_well_formed_and_fetches_nothing(run):
    html = page(run)
    tags = Tags(html)
    assert not tags.open
    assert not tags.names & {"script", "link", "img", "iframe", "object"}
    for name, value in tags.attributes:
        if name in ("href", "src", "xlink:href"):
            assert value.startswith("#")
    assert "@import" not in html
    assert not re.search(r"url\((?!#)", html)


def test_names_are_escaped(run):
    write(run / "config.json", {"settings": {**SETTINGS, "data": "<script>x</script>", "<kbd>": "<u>"}, "versions": {}})
    html = page(run, [CellGraph("<em>", ("<s>", "y"), (("<s>", "y", "<q>"),))])
    assert "&lt;b&gt;dog&lt;/b&gt;" in html
    assert "<b>dog" not in html
    assert not Tags(html).names & {"script", "kbd", "u", "em", "s", "q"}


def test_search_without_retraining_is_said(run):
    for file in (run / "train").iterdir():
        file.unlink()
    text = body(page(run))
    assert "Not retrained yet" in text
    assert "not known yet" in text
    assert "98.06" not in text


def test_retraining_under_way_is_said(run):
    (run / "train/result.json").unlink()
    assert "Retraining has no result yet: 3 epochs recorded" in body(page(run))


def test_interrupted_search_is_said(run):
    (run / "genotype.json").unlink()
    write(run / "metrics.jsonl", *search_epochs()[:2])
    text = body(page(run, ()))
    assert "The search stopped after epoch 2 of 4" in text
    assert "No cell to draw" in text
    assert "|a|" in text


def test_nothing_but_a_config_is_said(run):
    for name in ("metrics.jsonl", "genotype.json", "train/metrics.jsonl", "train/result.json"):
        (run / name).unlink()
    assert "No epoch of the search is recorded" in body(page(run, ()))


def test_torn_last_line_is_skipped_and_a_damaged_one_is_said(run):
    lines = (run / "metrics.jsonl").read_text().splitlines()
    (run / "metrics.jsonl").write_text("\n".join([lines[0], '{"epoch": 2, "tra', *lines[2:], '{"epo']))
    text = body(page(run))
    assert "metrics.jsonl line 2 is damaged and left out" in text
    assert text.count("is damaged") == 1


def test_damaged_files_are_said(run):
    (run / "config.json").write_text("{")
    (run / "train/result.json").write_text("[1]")
    text = body(page(run))
    assert "config.json could not be read" in text
    assert "train/result.json is not a JSON object" in text


@pytest.mark.parametrize(
    "result", [{"per_class": None}, {"per_class": {"a": None}}, {"confusion": [[1, 2]]}, {"odd": [1]}]
)
def test_odd_results_break_nothing(run, result):
    write(run / "train/result.json", result)
    assert "Retraining" in body(page(run))


def test_of_many_classes_only_the_lowest_are_shown(run):
    accuracies = {f"class_{i:04d}": (i + 1) / 2000 for i in range(2000)}
    mistakes = [["class_0000", "class_1999", 3]] * 100
    write(run / "train/result.json", RESULT | {"per_class": accuracies, "confusion": None, "confused": mistakes})
    text = page(run)
    assert "test accuracy per class, the 100 lowest of 2,000" in text
    assert ("class_0099" in text, "class_0100" in text, "class_1999" in text) == (True, False, False)
    few = dict(list(accuracies.items())[:100])
    write(run / "train/result.json", RESULT | {"per_class": few})
    assert len(text) < len(page(run)) + 1000


def test_names_that_html_may_not_hold_are_shown_with_backslashes(run):
    write(run / "train/result.json", RESULT | {"per_class": {"caf\udce9": 0.5, "x\x1b[31m\0": 0.25}})
    text = page(run)
    assert all(name in text for name in (r"caf\xe9", r"x\x1b[31m\x00"))


def test_epochs_with_holes_break_nothing(run):
    write(run / "metrics.jsonl", {}, {"epoch": None, "alphas": {"c": None}}, {"train_loss": float("nan"), "alphas": 3})
    assert "Alphas" in body(page(run))


def test_no_run_is_an_error(tmp_path):
    with pytest.raises(InputError, match="holds no run"):
        write_report(tmp_path)
    with pytest.raises(InputError, match="is not a folder"):
        write_report(tmp_path / "absent")


def test_the_page_is_replaced_and_nothing_is_left_behind(run):
    first = write_report(run, [CELL])
    assert first == run / "report.html"
    assert first.read_text() == write_report(run, [CELL]).read_text()
    assert not list(run.glob(".report*"))


def test_groups_of_choices_have_their_own_figure(run):
    names = [f"{cell}/{i}" for cell in ("normal", "reduce") for i in range(5)]
    write(run / "metrics.jsonl", {"epoch": 1, "alphas": {name: {"a": 0.5, "b": 0.5} for name in names}})
    assert page(run).count('aria-label="alphas') == 2


def test_what_was_made_of_the_images_is_said(run):
    config = json.loads((run / "config.json").read_text())
    form = {"channels": 1, "height": 32, "width": 200, "resize": "pad", "integers": [0, 4000], "floats": None}
    config["dataset"] = {"train": 54, "form": form, "mirror": {"on": False, "why": "class 'left' names a side"}}
    (run / "config.json").write_text(json.dumps(config))
    shown = html.unescape(body(page(run)))
    for words in ("1 × 32 × 200", "pad", "0 to 4000", "no: class 'left' names a side"):
        assert words in shown
    for damaged in (None, [], {"form": 3, "mirror": "x"}):
        config["dataset"] = damaged
        (run / "config.json").write_text(json.dumps(config))
        write_report(run)
