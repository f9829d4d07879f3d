"""Print the report on a folder as lines for a terminal."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from humanize import naturalsize
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from msgdas.data.check.proposal import Proposal
from msgdas.data.check.report import Copies, Report

__all__ = ["describe", "to_dict"]

NAMED = 3  # files named in the text
WIDTH = 80


def describe(report: Report) -> list[str]:
    """The report as lines of at most 80 columns, problems first. Commands are broken between words only."""
    said = [line for text in report.problems for line in _wrapped("problem: ", text)]
    said += [line for text, details in _warned(report) for line in (*_wrapped("warning: ", text), *details)]
    blocks = [said, _notes(report), _contents(report), [] if report.problems else _proposed(report.proposal)]
    return [line for block in blocks if block for line in (*block, "")][:-1]


def to_dict(report: Report) -> dict[str, Any]:
    """The report as plain values, with ``ok``, ``leaks``, ``conflicts`` and ``warnings``, one line each."""
    found = {"ok": report.ok, **asdict(report)}
    found |= {"leaks": [asdict(c) for c in report.leaks], "conflicts": [asdict(c) for c in report.conflicts]}
    found["warnings"] = [text for text, _ in _warned(report)]
    del found["likely_wrong"]
    return found


def _warned(report: Report) -> list[tuple[str, list[str]]]:
    """Each warning, and lines of details."""
    found: list[tuple[str, list[str]]] = [(text, []) for text in report.likely_wrong]
    if report.unreadable:
        every = len(report.unreadable) + _total(report)
        files = _listed(f"{file}: {reason}" for file, reason in report.unreadable.items())
        found.append((f"{len(report.unreadable):,} of {every:,} image files cannot be read and are left out", files))
    found += _leaks(report, report.copies, "are in {} too", "LEAK: ")
    found += _leaks(report, report.near_copies, "look like images in {}", "NEAR-COPIES: ")
    for copies, word in ((report.conflicts, "LABEL CONFLICT"), (_conflicts(report.near_copies), "near-copies")):
        if copies:
            text = f"{word}: {_images(copies)} under two classes; keep the right one"
            found.append((text, _groups(copies, lambda c: c.classes)))
    repeats = [c for c in report.copies if len(c.parts) > len(set(c.parts)) and not c.conflict]
    if repeats:
        count = sum(len(c.parts) - len(set(c.parts)) for c in repeats)
        text = f"copies within a part, besides the first of each: {count:,}; they weigh more"
        found.append((text, _groups(repeats, lambda c: c.files)))
    near = [c for c in report.near_copies if not c.leak and not c.conflict]
    if near:
        text = f"near-copies within a part, besides the first of each: {sum(len(c.files) - 1 for c in near):,}"
        found.append((text, _groups(near, lambda c: c.files)))
    if any((report.copies, report.near_copies)):
        found.append(("--drop-duplicates leaves out all but one of each", []))
    if report.compared < _total(report):
        found.append((f"copies were looked for among {report.compared:,} of {_total(report):,} images", []))
    for part, classes in report.missing.items():
        found.append((f"classes without images in {part}: {_few(classes)}", []))
    return found


def _conflicts(copies: Iterable[Copies]) -> list[Copies]:
    return [c for c in copies if c.conflict]


def _leaks(report: Report, copies: Iterable[Copies], how: str, word: str) -> list[tuple[str, list[str]]]:
    """Each pair of parts that share images: accuracy on the first is too high if the second was trained on."""
    found = []
    for part, other in (("test", "train"), ("val", "train"), ("test", "val")):
        shared = [c for c in copies if {part, other} <= set(c.parts)]
        if shared:
            count, every = sum(c.parts.count(part) for c in shared), sum(report.images[part].values())
            text = f"{word}{count:,} of {every:,} {part} images {how.format(other)}, so accuracy on {part} is too high"
            found.append((f"{text}; keep one of each", _groups(shared, lambda c: c.parts)))
    return found


def _notes(report: Report) -> list[str]:
    return _wrapped("note: ", f"files that are not read: {_counts(report.other_files)}") if report.other_files else []


def _contents(report: Report) -> list[str]:
    parts = {part: sum(counts.values()) for part, counts in report.images.items()}
    kinds = asdict(report.kinds)
    names = ("grey", "colour", "transparent", "animated", "rotated")
    split = f" ({' and '.join(report.split_off)} split off train)" if report.split_off else ""
    facts = {
        "images": f"{_total(report):,}: {_counts(parts)}{split}",
        "classes": _classes(report),
        "sides": "{smallest_side:,} to {largest_side:,} pixels, median of the shorter {median_side:,}".format(**kinds),
        "kinds": _counts({name: kinds[name] for name in names if kinds[name]}),
        "formats": _counts(report.kinds.formats),
        "mirror": f"{'on' if report.mirror['on'] else 'off'}: {report.mirror['why']}",
    }
    lines = [line for name, text in facts.items() for line in _wrapped(f"  {name:<9}", text)]
    return [*_wrapped("", report.folder), *lines]


def _classes(report: Report) -> str:
    train = report.images["train"]
    small, large = min(train, key=train.__getitem__), max(train, key=train.__getitem__)
    if train[small] == train[large]:
        return f"{len(train):,}, of {train[small]:,} training images each"
    ratio = f", 1 : {report.imbalance:.1f}" if report.imbalance else ""
    return f"{len(train):,}, of {train[small]:,} ({small}) to {train[large]:,} ({large}) training images{ratio}"


def _proposed(proposal: Proposal) -> list[str]:
    width = max(map(len, proposal.reasons)) + 4
    lines = [line for option, why in proposal.reasons.items() for line in _wrapped(f"  {option:<{width - 2}}", why)]
    needed, free = (naturalsize(n, binary=True) for n in (proposal.memory_needed, proposal.memory_free))
    memory = f"{needed} of pixels, {free} free: "
    fits = "kept in memory" if proposal.in_memory else "too much, so read from disk in every epoch"
    lines += _wrapped(f"  {'memory':<{width - 2}}", memory + fits)
    return ["proposal", *(line for command in proposal.commands for line in _continued(command)), *lines]


def _continued(command: str) -> list[str]:
    """A POSIX shell command over several lines."""
    lines = ["  "]
    for word in map(shlex.quote, shlex.split(command)):
        if lines[-1].strip() and cell_len(f"{lines[-1]}{word} \\") > WIDTH:
            lines.append("      ")
        lines[-1] += f"{word} "
    return [f"{line}\\" for line in lines[:-1]] + [lines[-1].rstrip()]


def _wrapped(head: str, text: str) -> list[str]:
    """Wrap text after ``head`` with a hanging indent; unprintable characters become ``?``."""
    plain = "".join(c if c.isprintable() else "?" for c in text)
    wrapped = Text(plain).wrap(Console(), WIDTH - len(head))
    first, *others = (line.plain.rstrip() for line in wrapped)
    return [head + first, *(" " * len(head) + line for line in others)]


def _groups(copies: Iterable[Copies], what: Callable[[Copies], Sequence[str]]) -> list[str]:
    """One line per group of equal files, with one file for each value of ``what``."""
    files = [list(dict(reversed([*zip(what(c), c.files)])).values()) for c in copies]
    return _listed(" = ".join(some[:NAMED]) + (" = …" if len(some) > NAMED else "") for some in files)


def _listed(texts: Iterable[str]) -> list[str]:
    """The first few texts, a line each."""
    texts = list(texts)
    lines = [line for text in texts[:NAMED] for line in _wrapped("    ", text)]
    return [*lines, f"    … and {len(texts) - NAMED:,} more (--json)"] if len(texts) > NAMED else lines


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED:,} more (--json)" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def _images(copies: Sequence[Copies]) -> str:
    return f"{len(copies):,} images lie" if len(copies) > 1 else "1 image lies"


def _total(report: Report) -> int:
    return report.kinds.grey + report.kinds.colour
