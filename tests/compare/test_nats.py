"""NATS-Bench's pickles: what is read is right, and nothing that one wants called is called."""

import bz2
import pickle
import pickletools
import tracemalloc
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from msgdas.compare import nats, read_nats, read_table
from msgdas.errors import InputError

SHARED = Path(__file__).parents[3] / "shared/data"
CELL = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"


def result(dataset, epochs, accuracy, **other):
    part = "ori-test" if dataset == "cifar10" else "x-valid"
    return {
        "name": dataset,
        "epochs": epochs,
        "eval_names": [part],
        "eval_acc1es": {f"{part}@{epochs - 1}": accuracy, f"{part}@0": 1.0},
        "train_times": OrderedDict.fromkeys(range(epochs), 2.0),
        "params": np.float64(1.5),  # a NumPy scalar, as in the official files
        **other,
    }


def write(path, content=None):
    content = content or {
        hp: {
            "arch_str": CELL,
            "all_results": {
                (name, seed): result(name, hp, accuracy + seed)
                for name, accuracy in (("cifar10-valid", 80.0), ("cifar100", 50.0), ("cifar10", 90.0))
                for seed in (1, 2)
            },
        }
        for hp in (12, 200)
    }
    path.write_bytes(bz2.compress(content if isinstance(content, bytes) else pickle.dumps(content)))
    return path


def test_means_over_seeds(tmp_path):
    write(tmp_path / "000000.pbz2")
    write(tmp_path / "meta.pbz2", {"meta_archs": [CELL]})
    for path in (tmp_path, tmp_path / "000000.pbz2"):
        table = read_nats(path)
        assert (table.accuracy, table.seconds) == ({CELL: 81.5}, {CELL: 400.0})
    assert read_nats(tmp_path, "cifar100", 12).accuracy == {CELL: 51.5}
    table = read_table(tmp_path, "nasbench201", "cifar100:12")
    assert (table.accuracy, table.column) == ({CELL: 51.5}, "cifar100:12")


class Evil:
    def __reduce__(self):
        return eval, ("open('ran', 'w').close()",)


def stack_global(module, name, argument):
    return f"c{module}\n{name}\n(V{argument}\ntR.".encode()


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ({12: Evil()}, "wants 'builtins.eval', which is not run"),
        (stack_global("os", "system", "touch ran"), "wants 'os.system'"),
        (stack_global("numpy", "load", "ran"), "wants 'numpy.load'"),
        (stack_global("collections", "OrderedDict.fromkeys.__globals__", "x"), "wants 'collections.OrderedDict."),
        ({"200": {"arch_str": CELL}}, "is not of the form of NATS-Bench: KeyError"),
        ({"200": 3}, "is not of the form of NATS-Bench: TypeError"),
        ({"meta_archs": []}, "no training of 200 epochs, but of none"),
        ([1], "holds no NATS-Bench results, but list"),
        (b"nonsense", "is damaged"),
        (pickle.dumps({1: 2})[:-3], "is damaged"),
    ],
)
def test_nothing_is_run(content, line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "000001.pbz2", content)
    with pytest.raises(InputError) as error:
        read_nats(path)
    assert line in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "ran").exists()


def test_the_malicious_pickle_would_have_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = pickle.dumps(Evil())
    assert any(op.name == "REDUCE" for op, _, _ in pickletools.genops(data))
    pickle.loads(data)
    assert (tmp_path / "ran").exists()


def test_a_bomb_and_a_torn_file(tmp_path, monkeypatch):
    bomb = tmp_path / "1.pbz2"
    bomb.write_bytes(bz2.compress(bytes(nats.LARGEST + 1)))
    with pytest.raises(InputError, match="more than 1 MiB"):
        read_nats(bomb)
    whole = write(tmp_path / "2.pbz2").read_bytes()
    bomb.write_bytes(whole[:-10])
    with pytest.raises(InputError, match="cut short"):
        read_nats(bomb)


def nested_keys():
    """69 bytes whose hash takes 2^30 steps: a tuple of itself twice, thirty times, as a key."""
    return b"\x80\x04}K\x01" + b"2\x86" * 30 + b"K\x01s."


@pytest.mark.parametrize(
    "content",
    [
        nested_keys(),
        b"\x80\x04}" + b"K\x01\x94" + b"h\x00h\x00\x86\x94" + b"h\x01h\x01\x86" + b"K\x01s.",  # nested by memo
        b"\x80\x04}(" + b"K\x01" * 1000 + b"tK\x01s.",  # a long key, which costs as much at each use
        b"\x80\x04}" + b"r\xff\xff\xff\x7f.",  # a memo of 2^31 places
        b"\x80\x04ccollections\nOrderedDict\n(]\x85R.",  # copies of what is there
        b"\x80\x04\x8a\xff" + b"\xff" * 255 + b".",  # integers without bounds
        b"\x80\x04" + b"(" * 100_000 + b".",
    ],
)
def test_memory_and_time_are_bounded_by_the_size_of_the_file(content, tmp_path):
    path = write(tmp_path / "1.pbz2", content)
    tracemalloc.start()
    try:
        with pytest.raises(InputError) as error:
            read_nats(path)
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()
    assert len(str(error.value)) < 1000
    assert "\n" not in str(error.value)


def test_what_is_not_there(tmp_path):
    path = write(tmp_path / "000000.pbz2")
    for arguments, line in (
        ((path, "cifar"), "no data set 'cifar'"),
        ((path, "cifar10"), "no validation accuracy"),
        ((path, "cifar100", 90), "no training of 90 epochs, but of 12, 200"),
        ((tmp_path / "nowhere.pbz2",), "No such file"),
    ):
        with pytest.raises(InputError, match=line):
            read_nats(*arguments)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="has no NATS-Bench files"):
        read_nats(tmp_path / "empty")


@pytest.mark.skipif(not (SHARED / "nats").exists(), reason="the official files are not here")
def test_official_files():
    """Architectures 0, 11 and 284 against a table that was extracted from all of NATS-Bench."""
    table = read_table(SHARED / "nasbench201_valid.csv.gz", "nasbench201")
    assert len(table.accuracy) == 15_625
    found = read_nats(SHARED / "nats")
    assert len(found.accuracy) == 3
    for genotype, accuracy in found.accuracy.items():
        assert accuracy == pytest.approx(table.value(genotype), abs=1e-4)
        assert found.seconds[genotype] == pytest.approx(table.seconds[genotype], abs=1e-3)
    assert sorted(found.accuracy.values()) == pytest.approx([81.9827, 86.0467, 87.94], abs=1e-4)
