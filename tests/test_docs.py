"""What the documentation shows has been run: every Python block of it and both examples."""

import pkgutil
import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "docs/index.md", "docs/python.md")
ALL_PAGES = ("README.md", *(f"docs/{p.name}" for p in sorted((ROOT / "docs").glob("*.md"))))


def blocks(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for match in re.finditer(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        line = text.count("\n", 0, match.start()) + 1
        yield pytest.param("\n" * line + match[1], page, id=f"{page}:{line}")


@pytest.mark.parametrize(("code", "page"), [block for page in PAGES for block in blocks(page)])
def test_python_blocks_run(code, page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, str(ROOT / page), "exec"), {"__name__": "__docs__"})
    assert not list(tmp_path.iterdir())  # nothing is left behind unasked


def test_the_pages_have_python_blocks():
    assert all(list(blocks(page)) for page in PAGES)


@pytest.mark.parametrize("page", ALL_PAGES)
def test_names_of_the_package_exist(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for dotted in re.findall(r"(?<![\w./-])msgdas((?:\.\w+)+)(?=[^\w.])", text):
        if dotted in (".svg", ".md"):
            continue
        pkgutil.resolve_name(f"msgdas{dotted}")  # AttributeError or ModuleNotFoundError names what is missing


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
