"""`sanactl rewrite`: prompts with more detail (paper, appendix D, figure 19)."""

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
def rewrite(
    prompts: PromptsArgument = None,
    style: Annotated[
        str,
        typer.Option(
            "--style",
            metavar="detail|chi|FILE",
            help="What is made of a prompt: detail (the paper's prompt enhancement), chi (SANA's complex human "
            "instruction, asked of the language model), or a text file with {prompt} in it.",
            autocompletion=lambda: ["detail", "chi"],
        ),
    ] = "detail",
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
    """Add detail to prompts with a language model (paper, figure 19).

    Prompts of the built-in world, by rules:
    [bold]sanactl rewrite shapes | sanactl sample | sanactl eval geneval[/bold]
    With a model behind a server; OPENAI_API_KEY has the key:
    [bold]sanactl rewrite "a bench" --llm https://HOST/v1#MODEL[/bold]
    The second of four jobs of a cluster:
    [bold]sanactl rewrite prompts.txt --llm hf:FOLDER --shard 1/4[/bold]
    With instructions of one's own:
    [bold]sanactl rewrite prompts.txt --style mine.txt --llm hf:FOLDER[/bold]

    A record's prompt becomes the new one, prompt_original the one before it.
    Records go to stdout and to rewrite.jsonl. Answers are checked, and asked for
    again if they fail. All answers are kept in .sanactl/answers: a stopped run
    goes on where it was, and nothing is paid for twice.
    """
    from sanactl.files.paths import user_path
    from sanactl.prompts.rewrite import rewrite_task
    from sanactl.prompts.templates import STYLES
    from sanactl.records.shards import read_shard

    tasks = [rewrite_task(style if style in STYLES else str(user_path(style)))]
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
        "rewrite",
        prompts,
        tasks,
        asking,
        output=output,
        failed=failed,
        force=force,
        allow_failed=allow_failed,
    )
