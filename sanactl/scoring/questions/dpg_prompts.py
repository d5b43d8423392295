"""DPG-Bench's prompts as records, from its table or from its folder of texts."""

from __future__ import annotations

from pathlib import Path

from sanactl.errors import InputError
from sanactl.files.regular import open_regular
from sanactl.records.prompts import check_prompts
from sanactl.records.records import Record
from sanactl.scoring.questions.dpg_file import item_prompts, read_questions

__all__ = ["dpg_prompts"]

MAX_TEXT = 2**16  # bytes


def dpg_prompts(path: Path) -> list[Record]:
    """Prompt records with `id` and `item_id`.

    Args:
        path: the table (`dpg_bench.csv`), in its order; or the folder of `ITEM_ID.txt` (`dpg_bench/prompts`), in the
            order of the names.

    Raises:
        InputError: it cannot be read, or an item has no text.
    """
    prompts = _folder(path) if path.is_dir() else item_prompts(read_questions(path))
    records: list[Record] = [
        {"kind": "prompt", "id": item, "item_id": item, "prompt": " ".join(text.split())}
        for item, text in prompts.items()
    ]
    check_prompts(records, str(path))
    return records


def _folder(path: Path) -> dict[str, str]:
    try:
        files = sorted(p for p in path.iterdir() if p.suffix == ".txt" and not p.name.startswith("."))
    except OSError as error:
        raise InputError(f"{path}: cannot be read as a folder ({error.strerror})") from None
    prompts = {}
    for file in files:
        with open_regular(file, most=MAX_TEXT, what="prompt") as stream:
            try:
                text = stream.read().decode("utf-8-sig")
            except OSError as error:
                raise InputError(f"{file}: cannot be read ({error.strerror})") from None
            except UnicodeDecodeError:
                raise InputError(f"{file}: not UTF-8 text") from None
        if not text.strip():
            raise InputError(f"{file}: no text")
        prompts[file.stem] = text
    if not prompts:
        raise InputError(
            f"{path}: no prompts (ITEM_ID.txt) in it", hint="DPG-Bench's are in dpg_bench/prompts"
        )
    return prompts
