"""Every format of `export`: `datasets` and `finetune --data` read back the images, captions and fields that went in."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sanactl.data import open_examples
from sanactl.exporting.formats.base import ExportFormat
from sanactl.exporting.formats.registry import EXPORTS
from sanactl.exporting.plan import ExportPlan, Shard
from sanactl.files.images import read_image
from sanactl.judging.dialogue import DIALOGUES
from tests.exporting.records import COUNT, write_records
from tests.program import Program

each_format = pytest.mark.parametrize("to", EXPORTS)


@pytest.fixture
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Records in `records.jsonl`, of images in several folders, with fields of changing types."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return write_records(tmp_path)


def loaded(to: str, folder: str) -> Any:
    """A dataset as its card says it is opened."""
    import datasets

    datasets.config.HF_DATASETS_CACHE = Path("cache").absolute()
    datasets.disable_progress_bars()
    line = EXPORTS[to].loading(folder)
    assert line in Path(folder, "README.md").read_text()
    values: dict[str, Any] = {"datasets": datasets}
    exec(line, values)
    return values["dataset"]


@each_format
def test_datasets_opens_what_was_written(sanactl: Program, records: list[dict[str, Any]], to: str) -> None:
    passed = sanactl("export", "records.jsonl", "--to", to, "-o", "set", "--shard-size", "3")
    assert passed == records  # the records go on
    assert not list(Path().glob(".set*"))
    data = loaded(to, "set")
    assert len(data) == COUNT
    files = [Path(r["path"]).read_bytes() for r in records]
    for row, record, file in zip(data, records, files, strict=True):
        if to == "nvila-json":
            human, answer = row["conversations"]
            assert Path("set", row["image"]).read_bytes() == file
            assert human["value"] == DIALOGUES["paper"].question(record["prompt"])
            assert human["value"].count("<image>") == 1 and record["prompt"] in human["value"]
            assert (human["from"], answer) == (
                "human",
                {"from": "gpt", "value": "yes" if record["correct"] else "no"},
            )
            continue
        image = row.get("image") or row.get("png") or row["jpg"]
        assert np.array_equal(np.asarray(image.convert("RGB")), read_image(Path(record["path"])))
        fields = row.get("json", row)
        text = row.get("text") or row.get("txt") or fields["prompt"]
        assert text == record["prompt"]
        assert (fields["width"], fields["height"]) == (64, 64)
        if to == "sana":
            assert fields.keys() == {"prompt", "width", "height"}
            continue
        assert fields["seed"] == record["seed"] and fields["correct"] is record["correct"]
        assert fields["judge_score"] == record["judge_score"] and isinstance(fields["judge_score"], float)
        assert json.loads(fields["include"]) == record["include"]
        assert fields["late"] == record.get("late")
        assert fields["checkpoint"] == "tiny.st"
        assert not {"path", "kind", "draft_path", "prompt"} & set(fields)
    if to in ("imagefolder", "webdataset", "sana"):  # byte for byte
        assert sorted(stored(Path("set"))) == sorted(files)


def stored(folder: Path) -> list[bytes]:
    """The image files in a dataset."""
    found = [p.read_bytes() for p in folder.rglob("*") if p.suffix in (".png", ".jpg")]
    for path in folder.glob("*.tar"):
        with tarfile.open(path) as tar:
            found += [tar.extractfile(m).read() for m in tar if m.name.endswith((".png", ".jpg"))]  # type: ignore[union-attr]
    return found


@pytest.mark.parametrize("to", [name for name in EXPORTS if name != "nvila-json"])
def test_finetune_reads_what_was_written(sanactl: Program, records: list[dict[str, Any]], to: str) -> None:
    sanactl("export", "records.jsonl", "--to", to, "-o", "set", "--shard-size", "4")
    examples = open_examples("set")
    assert examples.count == COUNT
    for number, record in enumerate(records):
        assert examples.texts(number) == [record["prompt"]]
        assert np.array_equal(examples.image(number), read_image(Path(record["path"])))


def test_a_tar_has_neither_times_nor_owners(sanactl: Program, records: list[dict[str, Any]]) -> None:
    sanactl("export", "records.jsonl", "--to", "webdataset", "-o", "set", "--shard-size", "3")
    assert [p.name for p in sorted(Path("set").glob("*.tar"))] == ["00000.tar", "00001.tar", "00002.tar"]
    with tarfile.open("set/00001.tar") as tar:
        members = tar.getmembers()
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in members} == {(0, 0, 0, "", "", 0o644)}
    names = [m.name for m in members]
    assert names[:3] == ["00000003.png", "00000003.json", "00000003.txt"]
    assert all(name.count(".") == 1 for name in names)


def test_the_files_of_sana(sanactl: Program, records: list[dict[str, Any]]) -> None:
    """NVlabs/Sana reads {key: {caption: text}} and {key: {caption: "27.1234"}} beside each shard."""
    fields = ["--text-field", "prompt", "--text-field", "long"]
    sanactl("export", "records.jsonl", "--to", "sana", "-o", "set", "--shard-size", "3", *fields)
    index = json.loads(Path("set/wids-meta.json").read_text())
    assert [(s["url"], s["nsamples"]) for s in index["shardlist"]] == [
        ("00000.tar", 3),
        ("00001.tar", 3),
        ("00002.tar", 1),
    ]
    assert index["wids_version"] == 1
    captions = json.loads(Path("set/00001_long.json").read_text())
    scores = json.loads(Path("set/00001_prompt_clip_score.json").read_text())
    assert captions == {f"{n:08d}": {"long": records[n]["long"]} for n in (3, 4, 5) if "long" in records[n]}
    assert captions
    assert not Path("set/00001_long_clip_score.json").exists()
    assert scores == {f"{n:08d}": {"prompt": f"{records[n]['clip_score']:.4f}"} for n in (3, 4, 5)}


def test_one_shard_holds_as_much_as_was_asked_for(sanactl: Program, records: list[dict[str, Any]]) -> None:
    size = max(Path(r["path"]).stat().st_size for r in records)
    sanactl("export", "records.jsonl", "--to", "parquet", "-o", "set", "--shard-size", f"{2 * size}B")
    shards = sorted(Path("set/data").iterdir())
    assert 1 < len(shards) < COUNT
    assert [p.name for p in shards] == [
        f"train-{n:05d}-of-{len(shards):05d}.parquet" for n in range(len(shards))
    ]


def test_hard_links_are_the_same_files(sanactl: Program, records: list[dict[str, Any]]) -> None:
    sanactl("export", "records.jsonl", "-o", "copied")
    sanactl("export", "records.jsonl", "-o", "linked", "--link")
    source = Path(records[0]["path"])
    assert Path("linked/images/00000/00000000.png").samefile(source)
    copied = Path("copied/images/00000/00000000.png")
    assert not copied.samefile(source) and copied.read_bytes() == source.read_bytes()


def test_a_column_that_begins_late_is_text(
    sanactl: Program, records: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`datasets` takes the types of an imagefolder from its first 10 MB, where such a column has no value."""
    monkeypatch.setattr("sanactl.exporting.formats.imagefolder.LATE", 600)
    lines = [{**r, "x_file_name": "b.png", **({"number": n} if n > 4 else {})} for n, r in enumerate(records)]
    sanactl("export", "-", "-o", "set", stdin="".join(json.dumps(line) + "\n" for line in lines))
    rows = [json.loads(line) for line in Path("set/metadata.jsonl").read_text().splitlines()]
    assert [r["number"] for r in rows] == ["", "", "", "", "", "5", "6"]
    assert [r["late"] for r in rows] == [""] * 6 + ["only here"]
    assert rows[0]["seed"] == records[0]["seed"] and "x_file_name" not in rows[0]


class Listing(ExportFormat):
    """A format of one's own: a class and a line in the registry."""

    name = "listing"
    about = "A text file for each shard."

    def shard_files(self, number: int, shards: int) -> tuple[str, ...]:
        return (f"{number}.txt",)

    def write_shard(self, folder: Path, shard: Shard, plan: ExportPlan) -> None:
        (folder / f"{shard.number}.txt").write_text("\n".join(row.text for row in plan.rows(shard)))

    def index_files(self, plan: ExportPlan) -> tuple[str, ...]:
        return ()

    def write_index(self, folder: Path, plan: ExportPlan) -> None:
        pass

    def data_files(self) -> list[str]:
        return ["*.txt"]


def test_a_format_of_ones_own(
    sanactl: Program, records: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(EXPORTS, "listing", Listing())
    sanactl("export", "records.jsonl", "--to", "listing", "-o", "set", "--shard-size", "4")
    assert Path("set/1.txt").read_text().splitlines() == [r["prompt"] for r in records[4:]]
    assert loaded("listing", "set")["text"] == [r["prompt"] for r in records]
