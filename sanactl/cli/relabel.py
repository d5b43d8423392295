"""`sanactl relabel`: prompts in other languages (paper, appendix C, figures 13 to 15)."""

from __future__ import annotations

from typing import Annotated

import typer

from sanactl.cli.frame.options import Device, Dtype, Force, Output, ShardOf
from sanactl.cli.frame.rewriting import (
    AllowFailed,
    Asking,
    Failed,
    Llm,
    LlmOptions,
    MaxRequests,
    MaxTokens,
    NoCache,
    Price,
    PromptsArgument,
    Tries,
    run_tasks,
)

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command()
def relabel(
    prompts: PromptsArgument = None,
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="FORMS",
            help="Language forms, with commas between them: en, zh, en-zh (a mixture), emoji (English with emoji).",
        ),
    ] = "en,zh,en-zh,emoji",
    llm: Llm = None,
    llm_options: LlmOptions = None,
    tries: Tries = 3,
    max_requests: MaxRequests = None,
    max_tokens: MaxTokens = None,
    price: Price = None,
    shard: ShardOf = None,
    device: Device = None,
    dtype: Dtype = None,
    no_cache: NoCache = False,
    failed: Failed = None,
    allow_failed: AllowFailed = False,
    output: Output = None,
    force: Force = False,
) -> None:
    """Translate prompts into four language forms (paper, appendix C).

    Prompts of the built-in world, by rules:
    [bold]sanactl relabel shapes --to zh,en-zh,emoji[/bold]
    With a model behind a server; OPENAI_API_KEY has the key:
    [bold]sanactl relabel prompts.txt --llm https://HOST/v1#MODEL --max-requests 100[/bold]
    With a chat model on this machine:
    [bold]sanactl relabel prompts.txt --llm hf:Qwen/Qwen3-4B-Instruct-2507[/bold]
    The second of four jobs of a cluster:
    [bold]sanactl relabel prompts.txt --llm hf:FOLDER --shard 1/4[/bold]
    Captions of images for a training in four forms:
    [bold]sanactl relabel images.jsonl | sanactl finetune base.st --data -[/bold]

    Each record becomes one for each form: prompt is the translation,
    prompt_original the prompt before it. They go to stdout and to relabel.jsonl.
    Answers are checked, and asked for again if they fail. All answers are kept in
    .sanactl/answers: a stopped run goes on where it was, and nothing is paid for
    twice.
    """
    from sanactl.prompts.rewrite import relabel_tasks
    from sanactl.records.shards import read_shard

    asking = Asking(
        llm,
        llm_options,
        {"device": device, "dtype": dtype},
        tries,
        (max_requests, max_tokens, price),
        no_cache,
        read_shard(shard),
    )
    run_tasks(
        "relabel",
        prompts,
        relabel_tasks(to),
        asking,
        output=output,
        failed=failed,
        force=force,
        allow_failed=allow_failed,
    )
