"""What people see: text from files is data, never markup and never a command to the terminal; stderr never ends a run."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sanactl as package
from sanactl.cli.app import COMMANDS
from sanactl.cli.frame.terminal import drawable, json_for_terminal, one_line, safe
from tests.program import Program, on_terminal

ROOT = Path(package.__file__).parent
SANACTL = f"{sys.executable} -m sanactl"
# Everything that may reach a terminal besides printable text: rich's colours, a line up, a line cleared, the cursor.
KNOWN_CODES = re.compile(r"\x1b\[[0-9;]*[mAK]|\x1b\[\?25[lh]|\x1b\[[12]K|\r|\n")
UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
NASTY = "say [/INST] [bold]x[/bold] \x1b]0;OWNED\x07\x1b[2J\x9b31m \u202egnp.exe\u2066 a\nb\tc \x7f :smile:"


def bash(command: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", command],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="backslashreplace",
        timeout=250,
    )


def check_shown(shown: str) -> None:
    """That nothing but text, lines and rich's own codes went to the terminal."""
    left = KNOWN_CODES.sub("", shown)
    assert not UNSAFE.search(left), ascii(shown)
    assert "unexpected" not in shown
    assert "Traceback" not in shown


# A loaded machine is no fault.
CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@CALM
@given(st.text())
def test_safe_text_has_nothing_unsafe_and_is_safe_already(text: str) -> None:
    shown = safe(text)
    assert not UNSAFE.search(shown)
    assert safe(shown) == shown
    assert len(one_line(text * 1000)) <= 3000


def test_text_of_every_script_stays_as_it_is() -> None:
    for text in ("a photo of a café", "می‌خواهم", "👩‍👧 🇩🇪", "日本語 — “q”", "[bold]x[/bold]"):
        assert safe(text) == text
    assert safe("caf\udce9.st") == r"caf\xe9.st"
    assert safe("a\x1b[2J\nb\u202e") == r"a\x1b[2J\nb\u202e"


@CALM
@given(st.text())
def test_json_on_a_terminal_is_the_same_json(text: str) -> None:
    for encoding in ("utf-8", "iso-8859-1", "ascii"):
        line = json.dumps({"prompt": text}, ensure_ascii=False)
        shown = json_for_terminal(line, encoding)
        assert not UNSAFE.search(shown)
        assert json.loads(shown) == {"prompt": text}
        assert encoding == "utf-8" or shown.isascii()


def test_drawings_become_what_the_encoding_has() -> None:
    assert drawable("╭─ a ─╮", "ascii") == "+- a -+"
    assert drawable("╭─ café 日", "iso-8859-1") == "+- café ?"
    assert drawable("╭─ café 日", "utf-8") == "╭─ café 日"
    assert drawable("é", "no such codec") == "?"


def test_only_the_console_for_data_talks_to_rich() -> None:
    """Rich reads markup in any string by default; so its consoles are made in one place, and markup in none."""
    for file in sorted(ROOT.rglob("*.py")):
        text = file.read_text(encoding="utf-8")
        if file.parent.name != "cli" and not re.search(r"\brich\b|\bprint\(", text):
            continue
        tree = ast.parse(text)
        docs = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef)
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        for node in ast.walk(tree):
            if not isinstance(node, ast.ImportFrom | ast.Call | ast.Constant):
                continue
            where = f"{file.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rich"):
                names = {alias.name for alias in node.names}
                assert file.name == "console.py" or not names & {"Console", "print", "inspect"}, where
                assert node.module != "rich.markup", where
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
                assert file.name == "app.py" or file.parent.name == "bench", (
                    f"{where} prints; use write_line, write_text or note"
                )
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
                ("Text.from_markup", "Text.from_ansi")
            ):
                raise AssertionError(where)
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
                help_of_typer = file.name in ("app.py", "startup.py")
                assert help_of_typer or not re.search(r"\[/?(bold|dim|red|green|cyan)\b", node.value), where


@pytest.fixture
def nasty(place: Path, sanactl: Program) -> Path:
    """A folder whose records, checkpoint and journal are full of markup and escape codes."""
    image: dict[str, object] = {
        "kind": "image",
        "path": f"{NASTY}.png",
        "prompt": NASTY,
        "verdict": NASTY,
        "judge_score": 0.5,
    }
    image |= {"correct": True, "rank": 0, "checkpoint": NASTY, "prompt_id": "[/x]"}
    (place / "i.jsonl").write_text(json.dumps(image) + "\n")
    sanactl("grow", "tiny.st", "--to", "4", "-o", "d4.st")
    entry = {"command": NASTY, "outputs": [{"path": NASTY, "kind": "image"}], "inputs": [{"path": NASTY}]}
    with (place / ".sanactl/journal.jsonl").open("a") as journal:
        journal.write(json.dumps(entry) + "\n")
    os.link("tiny.st", "[bold]\x1b[2J.st")
    return place


@pytest.mark.parametrize(
    ("code", "arguments"),
    [
        (0, ["filter", "i.jsonl", "--correct"]),
        (0, ["log"]),
        (0, ["log", "--json"]),
        (0, ["inspect", "[bold]\x1b[2J.st"]),
        (0, ["inspect", "[bold]\x1b[2J.st", "--json"]),
        (0, ["grow", "[bold]\x1b[2J.st", "--to", "5", "--dry-run"]),
        (0, ["grow", "[bold]\x1b[2J.st", "--to", "5"]),
        (1, ["inspect", "no [/such]\x1b[2J.st"]),
        (1, ["filter", "\x9b2J.jsonl", "--correct"]),
        (2, ["\x1b[2J"]),
        (2, ["grow", "--[/nonsense]\x1b[2J"]),
        (2, ["grow", "tiny.st", "--to", "\x1b[2J"]),
        (1, ["--debug", "inspect", "no [/such]\x1b[2J.st"]),
    ],
    ids=str,
)
def test_nothing_from_a_file_commands_the_terminal(nasty: Path, code: int, arguments: list[str]) -> None:
    got, shown = on_terminal(arguments, nasty)
    assert got == code, shown
    if "--debug" in arguments:
        assert "Traceback" in shown
        shown = shown.replace("Traceback", "")
    check_shown(shown)
    if arguments[0] == "filter" and code == 0:
        assert "say [/INST]" in shown


@pytest.mark.parametrize("columns", [1, 20, 40, 200])
def test_any_width_of_a_terminal_will_do(nasty: Path, columns: int) -> None:
    for arguments in (
        ["inspect", "tiny.st"],
        ["grow", "tiny.st", "--to", "5", "--dry-run"],
        ["--help"],
        ["log", "-h"],
    ):
        code, shown = on_terminal(arguments, nasty, COLUMNS=str(columns), NO_COLOR="1")
        assert code == 0
        check_shown(shown)
        plain = KNOWN_CODES.sub("", shown.replace("\r\n", " "))
        words = {"inspect": ["parameters", "lineage"], "grow": ["came8bit"], "log": ["--json"]}
        assert all(word in plain for word in words.get(arguments[0], list(COMMANDS))), shown
        drawn = [line for line in shown.splitlines() if not line.startswith("sanactl: ")]
        longest = max(len(KNOWN_CODES.sub("", line)) for line in drawn)
        assert longest <= max(columns, 45), shown


def test_plain_terminals_get_no_colours(nasty: Path) -> None:
    for variables in ({"TERM": "dumb"}, {"NO_COLOR": "1", "TERM": "dumb"}):
        for arguments in (["inspect", "tiny.st"], ["--help"]):
            code, shown = on_terminal(arguments, nasty, **variables)
            assert code == 0
            assert "\x1b" not in shown


FULL_STDERR = ["2>/dev/full", "2>&-", "2> >(true)"]


@pytest.mark.parametrize("stderr", FULL_STDERR)
def test_nothing_that_is_wrong_with_stderr_ends_a_run(place: Path, stderr: str) -> None:
    done = bash(f"{SANACTL} grow tiny.st --to 5 -o out.st {stderr}", place)
    assert done.returncode == 0
    assert json.loads(done.stdout)["path"] == "out.st"
    assert (place / "out.st").exists()
    done = bash(f"{SANACTL} inspect gone.st {stderr}; echo $?", place)
    assert done.stdout == "1\n"


def test_warnings_and_logging_do_not_end_a_run_either(place: Path) -> None:
    """Libraries write to stderr by themselves: tqdm, warnings, logging handlers."""
    driver = (
        "import sys, sanactl.cli.app as app\n"
        "def main():\n"
        "    import warnings, logging, time\n"
        "    from tqdm import tqdm\n"
        "    logging.basicConfig(); logging.raiseExceptions = True\n"
        "    for _ in tqdm(range(3), mininterval=0): warnings.warn(str(time.time())); logging.warning('x' * 9000)\n"
        "    print('{}', flush=True)\n"
        "    return 0\n"
        "app.main = main\n"
        "from sanactl.__main__ import run; run()\n"
    )
    for stderr in FULL_STDERR:
        done = bash(f"{sys.executable} -c {shlex.quote(driver)} {stderr}", place)
        assert (done.returncode, done.stdout) == (0, "{}\n")


def test_a_closed_stderr_is_no_file_to_write_into(place: Path) -> None:
    """Descriptor 2 would be the next file that is opened, and messages would end up in a checkpoint."""
    done = bash(
        f"{SANACTL} grow tiny.st --to 5 --seed 1 -o a.st 2>&- && {SANACTL} grow tiny.st --to 5 --seed 1 -o b.st",
        place,
    )
    assert done.returncode == 0
    assert (place / "a.st").read_bytes() == (place / "b.st").read_bytes()


CLOSED = """
import os, sys
from sanactl.cli.app import main
real = os.dup(1)
bad = []
for arguments in {runs}:
    read, write = os.pipe()
    os.close(read)
    os.dup2(write, 1)
    os.close(write)
    sys.stdout = open(1, "w", closefd=False)
    if (code := main(arguments)) != 0:
        bad.append((arguments, code))
os.dup2(real, 1)
os.write(1, repr(bad).encode())
os._exit(0)
"""


def test_a_reader_that_leaves_help_is_no_failure(tmp_path: Path) -> None:
    runs = [["--help"], ["--version"], ["eval", "geneval", "-h"], ["bench", "optim", "-h"]]
    runs += [[command, "--help"] for command in COMMANDS]
    done = bash(f"{sys.executable} -c {shlex.quote(CLOSED.format(runs=runs))}", tmp_path)
    assert (done.stdout, done.stderr) == ("[]", "")
    for command in (f"{SANACTL} --help", f"{SANACTL} log -h", f"_SANACTL_COMPLETE=source_bash {SANACTL}"):
        done = bash(f"{command} | true; echo ${{PIPESTATUS[0]}}", tmp_path)
        assert (done.stdout, done.stderr) == ("0\n", "")


def test_another_pipe_that_breaks_is_a_failure(place: Path) -> None:
    """A broken pipe that is not stdout's is no reader that has all it wanted."""
    driver = (
        "import sys, sanactl.surgery.grow\n"
        "def broken(*a, **k): raise BrokenPipeError(32, 'Broken pipe')\n"
        "import sanactl.checkpoint.open as c; c.open_checkpoint = broken\n"
        "from sanactl.cli.app import main; sys.exit(main(['log', 'tiny.st']))\n"
    )
    done = bash(f"{sys.executable} -c {shlex.quote(driver)}", place)
    assert (done.returncode, done.stderr) == (1, "sanactl: Broken pipe\n")


@pytest.fixture(scope="module")
def latin(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a locale that is not UTF-8."""
    folder = tmp_path_factory.mktemp("locale")
    made = subprocess.run(
        ["localedef", "-i", "en_US", "-f", "ISO-8859-1", str(folder / "en_US.ISO-8859-1")],
        capture_output=True,
    )
    if made.returncode not in (0, 1) or not list(folder.iterdir()):
        pytest.skip("this system has no localedef")
    return {"LOCPATH": str(folder), "LC_ALL": "en_US.ISO-8859-1"}


ASCII = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}


@pytest.mark.parametrize("name", ["latin", "ascii"])
def test_locales_that_are_not_utf8(
    place: Path, name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = ASCII if name == "ascii" else request.getfixturevalue("latin")
    prompt = "a café 日本"
    record = {"kind": "image", "path": "ü.png", "prompt": prompt, "correct": True}
    (place / "i.jsonl").write_text(json.dumps(record, ensure_ascii=False) + "\n", encoding="utf-8")
    for command in (
        f"{SANACTL} --help",
        f"{SANACTL} grow -h",
        f"{SANACTL} grow tiny.st --to 5",
        f"{SANACTL} log",
        f"{SANACTL} inspect tiny.st",
        f"{SANACTL} filter i.jsonl --correct -o o.jsonl",
    ):
        done = bash(command, place, **variables)
        assert done.returncode == 0, done.stderr
        assert "unexpected" not in done.stderr
    assert json.loads(done.stdout) == record
    assert json.loads((place / "o.jsonl").read_text(encoding="utf-8")) == record
    for arguments in (
        ["log"],
        ["--help"],
        ["filter", "i.jsonl", "--correct"],
        ["inspect", "tiny.st", "--json"],
    ):
        code, shown = on_terminal(arguments, place, **variables)
        assert code == 0, shown
        check_shown(shown)
