"""Tables: every form gives the same values, and every wrong row is one line that names it."""

import gzip
import json
import tracemalloc

import pytest

from msgdas.compare import Table, read_table
from msgdas.errors import InputError

OPS = ("none", "skip_connect", "nor_conv_3x3")
CELLS = [f"|{a}~0|+|{b}~0|none~1|+|none~0|none~1|none~2|" for a in OPS for b in OPS]
ROWS = [(cell, 10.0 + i, 100.0 * (i + 1)) for i, cell in enumerate(CELLS)]


def write_csv(path, rows=ROWS, header="arch_str,accuracy,train_seconds"):
    text = "\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n"
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


def write_parquet(path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    names = ("genotype", "valid_acc", "train_seconds")
    parquet.write_table(pyarrow.table(dict(zip(names, map(list, zip(*ROWS))))), path)
    return path


def write_json(path):
    path.write_text(json.dumps({cell: {"params": 1, "mean_acc": a, "train_seconds": s} for cell, a, s in ROWS}))
    return path


@pytest.mark.parametrize(
    ("name", "write"),
    [("t.csv", write_csv), ("t.csv.gz", write_csv), ("t.parquet", write_parquet), ("t.json", write_json)],
)
def test_every_form_gives_the_same(name, write, tmp_path):
    table = read_table(write(tmp_path / name), "nasbench201")
    assert table.accuracy == {cell: a for cell, a, _ in ROWS}
    assert table.seconds == {cell: s for cell, _, s in ROWS}
    assert table.best() == (CELLS[-1], 18.0)
    assert table.value(CELLS[0]) == 10.0


def test_what_is_written_is_read_again(tmp_path):
    for seconds in ({}, {cell: s for cell, _, s in ROWS}):
        table = Table("t", "accuracy", {cell: a for cell, a, _ in ROWS}, seconds)
        table.write(tmp_path / "t.csv")
        again = read_table(tmp_path / "t.csv", "nasbench201")
        assert (again.accuracy, again.seconds) == (table.accuracy, table.seconds)


def test_a_column_by_name_and_rows_twice_with_one_value(tmp_path):
    rows = [(*row, 50.0 + i) for i, row in enumerate(ROWS)]
    path = write_csv(tmp_path / "t.csv", [*rows, rows[0]], "arch,accuracy,seconds,other")
    table = read_table(path, "nasbench201", "other")
    assert (table.column, table.accuracy[CELLS[1]], table.seconds) == ("other", 51.0, {})
    with pytest.raises(InputError, match="has no 'other' for"):
        table.value("|nor_conv_1x1~0|")


HEADER = "arch_str,accuracy,train_seconds"


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("t.csv", f"{HEADER}\n{CELLS[0]},90,1\n{CELLS[1]},101,1\n", "line 3: accuracy is '101': give 0 to 100"),
        ("t.csv", f"{HEADER}\n{CELLS[0]},nan,1\n", "line 2: accuracy is 'nan'"),
        ("t.csv", f"{HEADER}\n{CELLS[0]},,1\n", "line 2: accuracy is ''"),
        ("t.csv", f"{HEADER}\n{CELLS[0]}\n", "line 2: accuracy is None"),
        ("t.csv", f"{HEADER}\n{CELLS[0]},90,-1\n", "line 2: train_seconds is '-1': give seconds"),
        ("t.csv", f"{HEADER}\n{CELLS[0]},90,1\n{CELLS[0]},91,1\n", "has 91 and, before, 90: keep one"),
        ("t.csv", f"{HEADER}\n{CELLS[0]},0.9,1\n", "give percent, not fractions"),
        ("t.csv", f"{HEADER}\n|x~0|,90,1\n", "line 2: '|x~0|' is not a NAS-Bench-201 string"),
        ("t.csv", f"{HEADER}\n", "is empty"),
        ("t.csv", f"arch_str,top1\n{CELLS[0]},90\n", "but arch_str, top1: name one with --column"),
        ("t.csv", f"cell,accuracy\n{CELLS[0]},90\n", "has no column genotype or arch_str or arch, but cell"),
        ("t.csv", "\xff\xfe", "is empty"),
        ("t.csv.gz", "no gzip", "cannot be read"),
        ("t.json", "[1]", "not an object of objects"),
        ("t.json", "{", "cannot be read"),
        ("t.json", '{"a": {"mean_acc": 1}, "a": {"mean_acc": 2}}', "'a' is there twice"),
        ("t.json", f'{{"{CELLS[0]}": {{"mean_acc": 1{"0" * 400}}}}}', "mean_acc is 1000"),
        ("t.json", f'{{"{CELLS[0]}": {{"mean_acc": 1{"0" * 5000}}}}}', "cannot be read"),
        ("t.json", f'{{"{CELLS[0]}": {{"mean_acc": NaN}}}}', f"entry {CELLS[0]!r}: mean_acc is nan: give 0 to 100"),
        ("t.json", f'{{"{CELLS[0]}": {{"mean_acc": true}}}}', "mean_acc is True"),
        ("t.json", f'{{"{CELLS[0]}": {{"mean_acc": [[1]]}}}}', "mean_acc is [[1]]"),
        ("t.json", f'{{"{CELLS[0]}": {{"mean_acc": 90, "train_seconds": 1{"0" * 400}}}}}', "give seconds"),
        ("t.json", "[" * 100_000, "nested more than 50 deep"),
        ("t.json", '{"a":' * 60 + "1" + "}" * 60, "nested more than 50 deep"),
        ("t.json", '{"' + "x" * 5000 + '": {"mean_acc": 1}}', "(5,000 characters)"),
        ("t.csv", f"{HEADER}\n{'x' * 200_000},90,1\n", "field larger than field limit"),
        ("t.csv", "x" * 2**21, "line 1 is longer than 1,048,576 characters"),
        ("t.csv", f"{HEADER}\n{CELLS[0]},90,1,5,6\n{CELLS[1]},x,1\n", "line 3: accuracy is 'x'"),
        ("t.csv", f"{HEADER}\n" + "\n" * 1_000_000, "more than 1,000,000 lines"),
        ("t.csv", f"{HEADER}\n{CELLS[0]},1{'0' * 5000},1\n", "line 2: accuracy is '1000"),
        ("t.txt", "", "use .csv"),
        ("t.parquet", "x", "cannot be read"),
    ],
)
def test_what_is_wrong_is_one_line(name, text, line, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError) as error:
        read_table(tmp_path / name, "nasbench201")
    assert line in str(error.value)
    assert str(tmp_path / name) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_small_file_that_unpacks_to_gigabytes_takes_little_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("msgdas.compare.tables.LARGEST", 2**20)  # a test of 64 MiB would take seconds
    line = f"{CELLS[0]},90,1,{'x' * 1000}\n".encode()
    with gzip.open(tmp_path / "t.csv.gz", "wb") as file:
        file.write(f"{HEADER},more\n".encode())
        for _ in range(150):
            file.write(line * 1000)
    assert (tmp_path / "t.csv.gz").stat().st_size < 2**20
    tracemalloc.start()
    with pytest.raises(InputError, match="more than 1,000,000 lines or 1 MiB"):
        read_table(tmp_path / "t.csv.gz", "nasbench201")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**23


@pytest.mark.parametrize("end", [0, 1, 10, 100, 400, -1, -4, -50])
def test_a_parquet_file_that_is_cut_is_one_line(end, tmp_path):
    write_parquet(tmp_path / "t.parquet")
    (tmp_path / "t.parquet").write_bytes((tmp_path / "t.parquet").read_bytes()[:end])
    with pytest.raises(InputError, match=r"t\.parquet' cannot be read: ") as raised:
        read_table(tmp_path / "t.parquet", "nasbench201")
    assert "\n" not in str(raised.value)


def test_too_many_rows_of_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = 1_000_001
    parquet.write_table(pyarrow.table({"genotype": ["x"] * rows, "accuracy": [1.0] * rows}), tmp_path / "t.parquet")
    with pytest.raises(InputError, match="more than 1,000,000 rows"):
        read_table(tmp_path / "t.parquet", "nasbench201")


def test_a_table_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        read_table(tmp_path / "t.csv", "nasbench201")
