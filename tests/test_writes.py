"""Every file is written by `msgdas.runs`: complete or not at all, with an error that names it."""

import ast
from pathlib import Path

import pytest

import msgdas

PACKAGE = Path(msgdas.__file__).parent
FILES = sorted(file for file in PACKAGE.rglob("*.py") if file.parent != PACKAGE / "runs")
METHODS = {"write_text", "write_bytes", "touch", "to_csv", "to_parquet", "to_json", "to_pickle", "tofile", "imsave"}
FUNCTIONS = {
    *("torch.save", "np.save", "np.savez", "numpy.save", "savetxt"),
    *("shutil.copy", "shutil.copy2", "shutil.copyfile", "shutil.copytree", "shutil.move"),
    *("os.rename", "os.replace", "os.link", "os.symlink", "save_file", "mkstemp", "NamedTemporaryFile"),
}
ALLOWED = {
    "bench/memory.py: Path('/proc/self/clear_refs').write_text('5')",  # the kernel's, not a file
    "report/terminal.py: os.open(os.devnull, os.O_WRONLY)",
}


def writes(tree):
    """The calls that write a file, as text."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _writes(node):
            yield ast.unparse(node)


def _writes(call):
    name = ast.unparse(call.func)
    last = name.rpartition(".")[2]
    first = ast.unparse(call.args[0]) if call.args else ""
    if last == "open":
        return any(_may_write(node) for node in (*call.args, *(keyword.value for keyword in call.keywords)))
    if last == "savefig":
        return first != "buffer"
    if last in ("dump", "safe_dump"):
        return len(call.args) > 1 or any(keyword.arg in ("fp", "stream") for keyword in call.keywords)
    if last == "to_csv":
        return bool(call.args) or any(keyword.arg == "path_or_buf" for keyword in call.keywords)
    if last == "save" and name not in ("save", "run.save"):  # safetensors' returns bytes, `Run` is ours
        return True
    return last in METHODS or name in FUNCTIONS


def _may_write(argument):
    text = ast.unparse(argument)
    mode = isinstance(argument, ast.Constant) and isinstance(argument.value, str) and len(argument.value) <= 3
    return (mode and bool(set("wax+") & set(text))) or "O_WRONLY" in text or "O_RDWR" in text or "O_CREAT" in text


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_only_runs_writes_files(file):
    found = {f"{file.relative_to(PACKAGE)}: {call}" for call in writes(ast.parse(file.read_text(encoding="utf-8")))}
    assert found <= ALLOWED, "use msgdas.runs.write_atomic or write_json"


@pytest.mark.parametrize(
    ("code", "is_write"),
    [
        ("open(path, 'w')", True),
        ("open(path, mode='ab')", True),
        ("path.open('x')", True),
        ("open(path)", False),
        ("open(path, 'rb')", False),
        ("os.open(path, os.O_RDONLY)", False),
        ("os.open(path, os.O_WRONLY | os.O_CREAT)", True),
        ("path.write_text(text)", True),
        ("figure.savefig('a.png')", True),
        ("figure.savefig(buffer, format='svg')", False),
        ("frame.to_csv(path)", True),
        ("frame.to_csv(index=False)", False),
        ("torch.save(state, path)", True),
        ("image.save(path)", True),
        ("os.replace(a, b)", True),
        ("text.replace('a', 'b')", False),
        ("json.dumps(values)", False),
        ("json.dump(values, file)", True),
    ],
)
def test_a_write_is_recognised(code, is_write):
    assert bool(list(writes(ast.parse(code)))) == is_write
