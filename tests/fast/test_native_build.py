"""Libraries are compiled once per user, and nothing that another user could have written is loaded."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time

import platformdirs
import pytest

from msgdas.errors import InputError
from msgdas.fast.native import build

pytestmark = [
    pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler"),
    pytest.mark.skipif(not hasattr(os, "getuid"), reason="no users to tell apart: nothing is kept"),
]

COMPILER = """#!/bin/sh
case "$*" in *-shared*)
    echo x >> {log}
    while [ -e {hold} ]; do sleep 0.05; done
esac
exec cc "$@"
"""
PROCESS = """
import sys
from pathlib import Path
import platformdirs
from msgdas.fast.native import build
platformdirs.user_cache_path = lambda name: Path(sys.argv[1])
assert build.load(Path(sys.argv[2]), ["-fPIC"]).answer() == 42
"""


class Place:
    """A cache folder, a library's source, and a compiler that counts the libraries it links."""

    def __init__(self, path):
        self.cache, self.source, self.compiler = path / "cache", path / "answer.c", path / "compiler"
        self.log, self.hold = path / "log", path / "hold"
        self.source.write_text("int answer(void) { return 42; }")
        self.compiler.write_text(COMPILER.format(log=self.log, hold=self.hold))
        self.compiler.chmod(0o755)

    @property
    def folder(self):
        return self.cache / "kernels"

    @property
    def kept(self):
        return list(self.folder.glob("*.so"))

    @property
    def compiled(self):
        """How often, until now."""
        return self.log.read_text().count("x") if self.log.exists() else 0

    def answer(self, *flags):
        return build.load(self.source, ["-fPIC", *flags]).answer()

    def process(self):
        """One that compiles, and has come to the linker, where ``hold`` keeps it."""
        self.hold.touch()
        command = [sys.executable, "-c", PROCESS, str(self.cache), str(self.source)]
        started = subprocess.Popen(command, start_new_session=True)
        while not self.compiled:
            assert started.poll() is None
            time.sleep(0.02)
        return started


@pytest.fixture
def place(tmp_path, monkeypatch):
    place = Place(tmp_path)
    monkeypatch.setenv("CC", str(place.compiler))
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda name: place.cache)
    return place


def test_two_processes_at_once_compile_once(place, monkeypatch):
    other = place.process()
    # the second one comes while the first holds the lock, which is let go once it waits
    monkeypatch.setattr(
        build, "FileLock", lambda *given, of=build.FileLock, **more: (place.hold.unlink(), of(*given, **more))[1]
    )
    assert place.answer() == 42
    assert other.wait(60) == 0
    assert place.compiled == 1
    monkeypatch.setattr(build, "FileLock", None)  # a third one finds the library and takes no lock
    assert place.answer() == 42
    assert place.compiled == 1


def test_a_killed_process_leaves_no_lock(place, monkeypatch):
    killed = place.process()
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait(60)
    assert not place.kept
    place.hold.unlink()
    monkeypatch.setattr(build, "WAIT", 0.0)
    locked = []
    monkeypatch.setattr(
        build, "FileLock", lambda *given, of=build.FileLock, **more: locked.append(of(*given, **more)) or locked[0]
    )
    monkeypatch.setattr(
        build, "write_atomic", lambda *given, of=build.write_atomic: (of(*given), locked.append(locked[0].is_locked))
    )
    assert place.answer() == 42
    assert locked[1] is True
    assert len(place.kept) == 1


def test_a_process_that_holds_the_lock_too_long_is_not_waited_for(place, monkeypatch):
    assert place.answer() == 42
    (lock,) = place.folder.glob("*.lock")
    place.kept[0].unlink()
    monkeypatch.setattr(build, "WAIT", 0.0)
    with build.FileLock(lock):
        assert place.answer() == 42
    assert place.compiled == 2


def test_source_flags_and_compiler_each_have_their_library(place, monkeypatch):
    assert place.answer() == 42
    place.source.write_text("int answer(void) { return 43; }")
    assert place.answer() == 43
    place.source.write_text("int answer(void) { return ANSWER; }")
    assert [place.answer(f"-DANSWER={n}") for n in (44, 45, 44)] == [44, 45, 44]
    assert place.compiled == len(place.kept) == 4
    monkeypatch.setenv("CC", "cc")
    assert place.answer("-DANSWER=44") == 44
    assert len(place.kept) == 5


def test_an_included_file_counts(place):
    place.source.write_text('#include "number.c"\nint answer(void) { return NUMBER; }')
    for number in (1, 2):
        place.source.with_name("number.c").write_text(f"#define NUMBER {number}")
        assert place.answer() == number


@pytest.mark.parametrize("damage", [lambda content: b"", lambda content: content[:-1], lambda content: b"?" + content])
def test_a_damaged_library_is_compiled_anew(place, damage):
    assert place.answer() == 42
    (kept,) = place.kept
    whole = kept.read_bytes()
    kept.unlink()  # this process runs what is in it
    kept.write_bytes(damage(whole))
    kept.chmod(0o600)
    assert place.answer() == 42
    assert place.compiled == 2
    assert place.answer() == 42
    assert place.compiled == 2


def test_a_library_that_cannot_be_loaded_is_compiled_anew(place):
    """Its digest is right: it is another system's, say."""
    assert place.answer() == 42
    (kept,) = place.kept
    key, _, _ = kept.stem.rpartition("-")
    kept.unlink()
    strange = kept.with_name(f"{key}-{build._digest(b'another')}.so")
    strange.write_bytes(b"another")
    strange.chmod(0o600)
    assert place.answer() == 42
    assert place.compiled == 2


# ------------------------------------------------------------------ other users


def test_what_is_kept_is_for_this_user_alone(place):
    before = os.umask(0)
    try:
        assert place.answer() == 42
    finally:
        os.umask(before)
    assert place.folder.stat().st_mode & 0o777 == 0o700
    assert place.kept[0].stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("mode", [0o770, 0o777, 0o1777])
def test_a_folder_that_others_may_write_to_is_not_used(place, mode):
    place.folder.mkdir(parents=True)
    place.folder.chmod(mode)
    assert [place.answer(), place.answer()] == [42, 42]
    assert not list(place.folder.iterdir())
    assert place.compiled == 2


def test_nor_is_one_in_a_folder_that_others_may_write_to(place):
    place.cache.mkdir()
    place.cache.chmod(0o777)
    assert place.answer() == 42
    assert not place.kept
    place.cache.chmod(0o1777)  # as /tmp: what is there stays its owner's
    assert place.answer() == 42
    assert place.kept


@pytest.mark.parametrize("mode", [0o660, 0o666])
def test_nor_a_library_that_others_may_write_to(place, mode):
    assert place.answer() == 42
    place.kept[0].chmod(mode)
    assert place.answer() == 42
    assert place.compiled == 2


def test_nor_anything_of_another_user(place, monkeypatch):
    assert place.answer() == 42
    monkeypatch.setattr(os, "getuid", lambda of=os.getuid: of() + 1)
    assert place.answer() == 42
    assert place.compiled == 2


# ---------------------------------------------------------------- nowhere to keep


def test_without_a_folder_every_process_compiles(place, monkeypatch):
    place.cache.write_text("a file: no folder can be made here")
    assert [place.answer(), place.answer()] == [42, 42]
    assert place.compiled == 2


def test_without_a_home_nothing_is_written_to_the_working_directory(place, monkeypatch, tmp_path):
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda name: build.Path("~/.cache/msgdas"))
    monkeypatch.chdir(tmp_path)
    assert place.answer() == 42
    assert not (tmp_path / "~").exists()


def test_on_a_full_disk_the_library_is_used_and_not_kept(place, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(build, "write_atomic", full)
    assert place.answer() == 42
    assert not place.kept


@pytest.mark.parametrize(("compiler", "said"), [("no-such-compiler", "No such file"), ("false", "non-zero")])
def test_without_a_compiler_there_is_one_line(place, compiler, said, monkeypatch):
    monkeypatch.setenv("CC", compiler)
    with pytest.raises(InputError, match=said) as error:
        place.answer()
    assert str(error.value).startswith(f"native kernels need a C compiler with OpenMP, and '{compiler}' failed on")
    assert "\n" not in str(error.value)


def test_what_the_compiler_says_is_in_the_line(place):
    place.source.write_text("int answer(void) {\n")
    with pytest.raises(InputError, match=r"failed on answer\.c: .*answer\.c"):
        place.answer()
    assert not place.kept
