"""`sanactl guard`: passes on the prompts that a safety model finds safe."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from sanactl.cli.frame.options import Device, Dtype, Force, Output, ShardOf, batch_size_option, choices
from sanactl.prompts.guard.registry import DEFAULT

if TYPE_CHECKING:
    from sanactl.prompts.guard.filter import Checked
    from sanactl.records.records import Record
    from sanactl.records.shards import Ending

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command()
def guard(
    prompts: Annotated[
        Optional[str],
        typer.Argument(
            metavar="PROMPTS",
            help="A file of prompts: plain text with one prompt a line, or JSONL; - for stdin. Default: stdin.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            metavar="GUARD",
            help="The guard: the folder or Hub id of a language model that answers yes or no, or builtin:words, a list of "
            "words for trying the pipe and no protection.",
            autocompletion=lambda: [DEFAULT, "builtin:words"],
        ),
    ] = DEFAULT,
    policy: Annotated[
        Optional[str],
        typer.Option(
            help="What a model is asked: the four policies of ShieldGemma's model card one by one, or the one of SANA's "
            "apps. Default: shieldgemma.",
            show_default=False,
            **choices("shieldgemma", "sana"),
        ),
    ] = None,
    threshold: Annotated[
        float,
        typer.Option(metavar="FLOAT", help="A prompt is blocked if a policy's probability is above this."),
    ] = 0.2,
    non_english: Annotated[
        str,
        typer.Option(
            help="What happens to prompts that are not in Latin letters: they get a flag, or they are blocked, too.",
            **choices("flag", "block"),
        ),
    ] = "flag",
    blocked: Annotated[
        Optional[Path],
        typer.Option(
            metavar="FILE",
            help="File of the blocked prompts, with policy, probability and reason. Default: guard-blocked.jsonl.",
            show_default=False,
        ),
    ] = None,
    batch_size: Annotated[
        int,
        batch_size_option(
            "Prompts that are checked, kept and passed on together. Jobs with --shard all need the same number."
        ),
    ] = 8,
    shard: ShardOf = None,
    device: Device = None,
    dtype: Dtype = None,
    no_cache: Annotated[
        bool,
        typer.Option(
            "--no-cache",
            help="Ask again about prompts whose findings are known from earlier runs. The new ones take their place.",
        ),
    ] = False,
    output: Output = None,
    force: Force = False,
) -> None:
    """Pass on the prompts that a safety model finds safe, in their order.

    [bold]sanactl guard prompts.txt > safe.jsonl[/bold]
    [bold]sanactl guard prompts.txt --policy sana --blocked blocked.jsonl[/bold]
    The second of four jobs of a cluster:
    [bold]sanactl guard prompts.txt --shard 1/4[/bold]
    Try the pipe without a model:
    [bold]sanactl guard prompts.txt -m builtin:words | sanactl sample -n 1[/bold]

    The safe prompts' records go to stdout and to guard.jsonl, the blocked ones
    only to --blocked. A prompt that cannot be checked is blocked, too. Findings
    are kept in .sanactl/guards: a stopped run goes on where it was.
    """
    from dataclasses import asdict

    from sanactl.cli.frame.render import show_prompts
    from sanactl.cli.frame.run import Invocation
    from sanactl.cli.frame.stdin import first_reads_alone, is_stdin, prompt_stream, stdin_is_piped
    from sanactl.cli.frame.terminal import is_first_process, note
    from sanactl.errors import UsageError
    from sanactl.prompts.guard.filter import Rules, Tally, guard_prompts, serve_guard
    from sanactl.prompts.guard.kept import KeptFindings
    from sanactl.prompts.guard.registry import open_guard
    from sanactl.records.prompts import numbered
    from sanactl.records.shards import Ending, Taken, read_shard

    run = Invocation("guard")
    part = read_shard(shard)

    def find() -> Any:
        """The first process's inputs and outputs; the others get only a guard."""
        if not is_first_process():
            return None
        target = run.records_file(output, "guard", force=force, shard=part)
        aside = run.records_file(blocked, "guard-blocked", force=force, shard=part)
        if target.absolute() == aside.absolute():
            raise UsageError(f"{target}: the file of safe prompts and of blocked ones; name two files")
        if prompts is None and not stdin_is_piped():
            raise UsageError(
                "no prompts: name a file, or pipe them in", hint="sanactl prompts geneval | sanactl guard"
            )
        stream = prompt_stream(prompts)
        run.progress.start(None, f"loading the guard {model}")
        return target, aside, stream

    rules = Rules(threshold, non_english)
    from sanactl.model.sharing import leading, on_each

    with first_reads_alone():
        found = on_each(find)
        chosen = on_each(lambda: open_guard(model, device=device, dtype=dtype, policy=policy))
        if found is None:
            serve_guard(chosen)
            return
        target, aside, stream = found
        with leading():
            if notice := getattr(chosen, "notice", None):
                run.progress.note(notice)
            source = "stdin" if prompts is None or is_stdin(prompts) else prompts
            run.uses(source)
            tally = Tally()
            every = numbered(run.counted(stream, "prompts to check", source=source))
            taken = None if part is None else Taken(part, batch_size)
            checked = guard_prompts(
                every if taken is None else taken.of(every),
                chosen,
                rules,
                batch_size=batch_size,
                kept=KeptFindings(Path.cwd(), chosen, ask_again=no_cache, tell=run.progress.note),
                tally=tally,
                progress=run.progress,
            )
            ends: list[Ending] = []
            if part is not None and taken is not None:
                decides = {"guard": dict(chosen.identity), "rules": asdict(rules), "batch_size": batch_size}
                ends = [Ending(part, name, decides, taken.whole) for name in ("guard", "guard-blocked")]
            run.progress.keeps("the findings so far are kept")
            passed = _split(
                checked, aside, ends, taken.places if taken else (), force=run.replaces(aside, force)
            )
            run.emit(run.tee(passed, target, force=force), show=show_prompts, take_all=True)
    for line in tally.lines(chosen):
        note(line)
    if tally.blocked:
        note(f"the blocked prompts are in {aside}")
    run.finish((aside, "blocked"), (target, "shard" if part else "prompt"), guard=chosen.name)


def _split(
    checked: Iterable[Checked], aside: Path, ends: Sequence[Ending], places: Sequence[int], *, force: bool
) -> Iterator[Record]:
    """The records that pass; the others are written to a file, whole or not at all.

    Args:
        ends: of a shard, for the records that pass and for the others; with `places`, those of the prompts.
    """
    from sanactl.files.atomic import atomic_path
    from sanactl.records.records import dumps

    with atomic_path(aside, force=force) as temporary, temporary.open("w", encoding="utf-8") as stream:
        for number, one in enumerate(checked):
            if ends:
                ends[not one.passes].add(places[number], one.record)
            if one.passes:
                yield one.record
            else:
                stream.write(dumps(one.record) + "\n")
        if ends:
            yield ends[0].record()
            stream.write(dumps(ends[1].record()) + "\n")
