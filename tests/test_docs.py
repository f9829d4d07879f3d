"""What the documentation shows has been run: every Python block of it and the examples."""

import pkgutil
import re
import runpy
import shlex
from pathlib import Path
from textwrap import dedent

import click
import pytest

from msgdas.cli.main import cli
from msgdas.methods import METHODS

ROOT = Path(__file__).parents[1]
PAGES_WITH_CODE = (
    "README.md",
    "docs/index.md",
    "docs/guides/model.md",
    "docs/guides/parts.md",
    "docs/reference/python.md",
)
ALL_PAGES = ("README.md", *(str(p.relative_to(ROOT)) for p in sorted((ROOT / "docs").rglob("*.md"))))
METHOD_PAGES = sorted(p for p in (ROOT / "docs/methods").glob("*.md") if p.name != "index.md")
EXCERPTS = {str(p.relative_to(ROOT)) for p in METHOD_PAGES}  # of the library: compared, not run


def blocks(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for match in re.finditer(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        line = text.count("\n", 0, match.start()) + 1
        yield pytest.param("\n" * line + match[1], page, id=f"{page}:{line}")


@pytest.mark.parametrize(
    ("code", "page"), [block for page in ALL_PAGES if page not in EXCERPTS for block in blocks(page)]
)
def test_python_blocks_run(code, page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, str(ROOT / page), "exec"), {"__name__": "__docs__"})
    assert not list(tmp_path.iterdir())  # nothing is left behind unasked


def test_the_pages_have_python_blocks():
    assert all(list(blocks(page)) for page in PAGES_WITH_CODE)


@pytest.mark.parametrize("page", ALL_PAGES)
def test_names_of_the_package_exist(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for dotted in re.findall(r"(?<![\w./-])msgdas((?:\.\w+)+)(?=[^\w.])", text):
        if dotted in (".svg", ".md"):
            continue
        pkgutil.resolve_name(f"msgdas{dotted}")  # AttributeError or ModuleNotFoundError names what is missing


@pytest.mark.parametrize("page", METHOD_PAGES, ids=lambda page: page.name)
def test_a_method_page_shows_the_librarys_own_lines(page):
    source = dedent((ROOT / "msgdas/methods.py").read_text(encoding="utf-8").replace("\n    ", "\n"))
    shown = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert shown
    for block in shown:
        assert block in source


def commands(page):
    """The ``msgdas`` commands of a page's shell blocks, as lists of words, with continued lines joined."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for block in re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line.partition(" >")[0], comments=True)
            if words[:1] == ["msgdas"] and "--help" not in words:
                yield words[1:]


def parsed(words):
    """The innermost command's click context: an option that does not exist is an error."""
    command = cli
    while isinstance(command, click.Group) and words and words[0] in command.commands:
        command, words = command.commands[words[0]], words[1:]
    return command.make_context("msgdas", words)


@pytest.mark.parametrize("page", ALL_PAGES)
def test_commands_have_the_options_that_a_page_gives_them(page):
    for words in commands(page):
        parsed(words)


def test_every_method_has_a_page_and_a_command():
    """The commands were run by hand; here they are read, options and all."""
    searched = {"msgdas"}  # docs/how-it-works.md
    for page in METHOD_PAGES:
        searched |= {parsed(words).params["method"] for words in commands(page) if words[0] == "search"}
    assert searched == set(METHODS), "write docs/methods/NAME.md with a msgdas search command; see CONTRIBUTING.md"
    index = (ROOT / "docs/methods/index.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| \[`([\w-]+)`\]", index, re.MULTILINE)) == set(METHODS), (
        "give each method a row in docs/methods/index.md"
    )


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    listed = re.findall(r"(\S+\.md)$", navigation, re.MULTILINE)
    assert sorted(f"docs/{page}" for page in listed) == sorted(set(ALL_PAGES) - {"README.md"})


def test_every_promise_names_a_test_that_exists():
    text = (ROOT / "docs/reliability.md").read_text(encoding="utf-8")
    rows = [
        line
        for line in text.splitlines()
        if line.startswith("| ") and not line.startswith(("| ---", "| promise", "| code"))
    ]
    named = [re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row.rsplit(" | ", 1)[-1]) for row in rows]
    assert len(named) > 30
    for row, tests in zip(rows, named):
        assert tests, row
        for file, name in tests:
            assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8"), f"{file}::{name}"


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/results/README.md"])
def test_links_outside_the_site_lead_somewhere(page):
    """Those inside it are checked by ``mkdocs build --strict``."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith("http"):
            assert (ROOT / page).parent.joinpath(target.partition("#")[0]).exists(), target


def test_pages_that_the_code_names_exist():
    for folder in ("msgdas", "benchmarks", "examples"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for page in re.findall(r"docs/[\w/-]+\.md", path.read_text(encoding="utf-8")):
                assert (ROOT / page).exists(), f"{path.relative_to(ROOT)}: {page}"


def test_own_model(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(ROOT / "examples/own_model.py"), run_name="__main__")
    out = capsys.readouterr().out
    assert re.search(r"^found: first=\w+, second=\w+$", out, re.MULTILINE)
    assert "in the found network" in out


def test_own_sampler_finds_the_answer(capsys):
    runpy.run_path(str(ROOT / "examples/own_sampler.py"), run_name="__main__")
    found, answer = (line.partition(":")[2].strip() for line in capsys.readouterr().out.splitlines())
    assert found == answer


def test_own_op_is_found(capsys):
    """The only candidate that sees what the classes differ in."""
    runpy.run_path(str(ROOT / "examples/own_op.py"), run_name="__main__")
    assert capsys.readouterr().out == "found: operation=mirror\n"


def test_own_space(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(ROOT / "examples/own_space.py"), run_name="__main__")
    found, left, accuracy = (line.partition(":")[2].strip() for line in capsys.readouterr().out.splitlines())
    assert re.fullmatch(r"(stage[01]/block[01]=\w+(, )?){4}", found)
    assert left == "0"
    assert float(accuracy) > 0.8


def test_own_constraint_makes_it_cheaper(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(ROOT / "examples/own_constraint.py"), run_name="__main__")
    free, limited = (int(n) for n in re.findall(r": (\d+) k of ", capsys.readouterr().out))
    assert limited < free
    assert limited <= 100
