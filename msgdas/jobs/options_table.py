"""The options as a page of the documentation: ``python -m msgdas.jobs.options_table > docs/reference/options.md``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby

from msgdas.jobs.option import Option, Settings, dashed, options
from msgdas.jobs.settings import CompareSettings, SearchSettings, TrainSettings

__all__ = ["options_table"]

COMMANDS: dict[str, type[Settings]] = {
    "msgdas search": SearchSettings,
    "msgdas train": TrainSettings,
    "msgdas bench SPACE": CompareSettings,
}
TYPES = {int: "integer", float: "number", bool: "`true` or `false`", str: "text"}


def options_table() -> str:
    """The page, as Markdown."""
    lines = [
        "# Options",
        "",
        "Made from `msgdas/jobs/settings.py` by `python -m msgdas.jobs.options_table`. A file for `--config` uses the",
        "same names without the dashes in front.",
    ]
    for command, model in COMMANDS.items():
        lines += ["", f"## {command}"]
        for group, found in groupby(options(model), key=lambda one: one.group):
            lines += ["", f"### {group.value} {{ #{_anchor(command, group.name)} }}", "", *_table(found)]
    return "\n".join(lines) + "\n"


def _anchor(command: str, group: str) -> str:
    return f"{command.split()[1]}-{group.lower().replace('_', '-')}"


def _table(found: Iterable[Option]) -> Iterator[str]:
    yield "| option | value | default | meaning |"
    yield "| --- | --- | --- | --- |"
    for one in found:
        names = ", ".join(f"`--{dashed(name)}`" for name in (one.name, *one.aliases))
        values = ", ".join(f"`{choice}`" for choice in one.choices) or " ".join(
            filter(None, (TYPES[one.type], one.bounds))
        )
        default = one.shown_default or ("`false`" if one.type is bool else "")
        cells = (names, values, default, one.help)
        yield f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


if __name__ == "__main__":
    print(options_table(), end="")
