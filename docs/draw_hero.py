"""Draws docs/images/hero.png, the README's picture, from a run: images by checkpoint, the judge's choice, the scores.

    python docs/draw_hero.py FOLDER

Every image, mark and number comes from the records in FOLDER. The run of the picture took 9 minutes on 2 busy cores:

    sanactl init shapes -o base.st
    sanactl init shapes-grown -o grown.st
    sanactl importance grown.st --prompts calib.txt -o grown.importance.jsonl          # four prompts
    sanactl prune grown.st --importance grown.importance.jsonl --keep 10 -o pruned-d10.st
    sanactl finetune pruned-d10.st --steps 100 -o recovered-d10.st
    for name in base grown pruned-d10 recovered-d10; do
      sanactl sample $name.st --prompts shapes --limit 42 -n 1 -o $name-samples | sanactl eval geneval -o $name.geneval.jsonl
    done
    sanactl sample recovered-d10.st --prompts shapes --limit 12 -n 8 -o many-samples \
      | sanactl judge --all -o judged.jsonl | sanactl eval geneval -o scaling.jsonl
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import Any

from matplotlib import get_data_path
from PIL import Image, ImageDraw, ImageFont

from sanactl.files.images import read_image
from sanactl.records.journal import Journal
from sanactl.records.records import stream_records
from sanactl.report.headline import find_headline, main_scores
from sanactl.report.pictures import Thumbnails
from sanactl.report.run import RunRecords, newest, read_run
from sanactl.report.samples import Strip, strip
from sanactl.report.text import interval_of

TARGET = Path(__file__).parent / "images/hero.png"
SIDE, GAP, LABEL, TOP, LINE = 128, 12, 232, 58, 20  # pixels
INK, SOFT, GOOD, BAD = "#1b1f24", "#5b636e", "#1a7a54", "#b93c30"


def font(size: int, *, bold: bool = False) -> Any:
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(get_data_path()) / "fonts/ttf" / name), size)


class Pictures(Thumbnails):
    """The strip's images as files in place of data URIs."""

    def embed(self, path: str, *, large: bool = False) -> tuple[str, bool, str]:
        return str(self.folder / path), large, ""


def scores_of(run: RunRecords, rows: Strip) -> list[list[str]]:
    """Lines for each row's label: the score of all images, and for the judge's choice that of the best of n."""
    found = []
    scores = {str(r.get("checkpoint")): r for r in main_scores(run).values()}
    for row in rows.rows:
        if not row.note.startswith("the judge"):
            record = scores[row.name]
            found.append([row.note, f"GenEval {record['value']:.2f}", *between(record)])
            continue
        (record,) = [r for r in newest(run.scores) if r.get("curves") and "judge" in r["curves"]]
        last = {**record["curves"]["judge"][-1], "prompts": record.get("prompts")}
        found.append([row.note, f"GenEval {last['value']:.2f}", *between(last)])
    return found


def between(record: Any) -> list[str]:
    """The interval, and the number of prompts."""
    ends = interval_of(record.get("ci"))
    interval = "no interval" if ends is None else f"95 %: {ends[0]:.2f} to {ends[1]:.2f}"
    return [interval, f"{record.get('prompts')} prompts"]


def draw(run: RunRecords) -> Image.Image:
    headline = find_headline(run)
    # The base is not in the lineage of the one that was pruned, and stands above it.
    chain = ["base.st", *headline.chain[1:]]
    rows = strip(run, chain, Pictures(run.folder))
    assert rows is not None
    width = LABEL + len(rows.prompts) * (SIDE + GAP)
    sheet = Image.new("RGB", (width, TOP + len(rows.rows) * (SIDE + LINE + GAP)), "white")
    pen = ImageDraw.Draw(sheet)
    for column, prompt in enumerate(rows.prompts):
        for line, text in enumerate(reversed(wrapped(prompt, 19))):
            place = (LABEL + column * (SIDE + GAP), TOP - 22 - 16 * line)
            pen.text(place, text, fill=SOFT, font=font(12))
    for number, (row, told) in enumerate(zip(rows.rows, scores_of(run, rows), strict=True)):
        top = TOP + number * (SIDE + LINE + GAP)
        pen.text((8, top + 12), row.name, fill=INK, font=font(17, bold=True))
        pen.text((8, top + 36), told[0], fill=SOFT, font=font(13))
        pen.text((8, top + 62), told[1], fill=INK, font=font(17))
        pen.text((8, top + 86), told[2], fill=SOFT, font=font(13))
        pen.text((8, top + 104), told[3], fill=SOFT, font=font(13))
        for column, picture in enumerate(row.pictures):
            if picture is None:  # the judge did not choose among this prompt's images
                continue
            left = LABEL + column * (SIDE + GAP)
            image = Image.fromarray(read_image(Path(picture.source)))
            sheet.paste(image.resize((SIDE, SIDE), Image.Resampling.NEAREST), (left, top))
            if picture.winner:
                pen.rectangle((left - 3, top - 3, left + SIDE + 2, top + SIDE + 2), outline=GOOD, width=3)
            for text, tone in picture.lines:
                if tone in ("good", "bad"):
                    said = text if tone == "good" else "✗ wrong"
                    pen.text(
                        (left, top + SIDE + 3), said, fill=GOOD if tone == "good" else BAD, font=font(12)
                    )
    return sheet


def wrapped(text: str, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) > width and lines[-1]:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description="Draws the README's picture from a run.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=TARGET)
    arguments = parser.parse_args()
    files = sorted(arguments.folder.glob("*.jsonl"))
    records = itertools.chain.from_iterable(map(stream_records, files))
    run = read_run(records, Journal(arguments.folder))
    picture = draw(run)
    picture.save(arguments.output, optimize=True)
    print(f"wrote {arguments.output} ({arguments.output.stat().st_size / 1000:.0f} kB)")


if __name__ == "__main__":
    main()
