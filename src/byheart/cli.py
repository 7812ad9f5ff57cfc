"""The byheart command. Each verb reads the config, calls the library, and shows what came of it.

Verbs import what they need inside themselves, here and nowhere else: torch, transformers and the web framework take
seconds to import, and `byheart --help` or a mistyped flag must answer in under 0.3 s.
"""

from __future__ import annotations

import io
import json
import os
import shlex
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

import byheart
from byheart import cli_export, cli_serve
from byheart.cli_options import CONTEXT, HERE, Bot
from byheart.errors import ByheartError

if TYPE_CHECKING:
    from rich.console import Console

    from byheart.answer.base import Answerer
    from byheart.config import Project
    from byheart.store import Mark

StageName = Literal["ingest", "synthesize", "train", "evaluate"]  # pipeline.STAGES, not imported to stay quick

app = typer.Typer(
    name="byheart",
    help="Teach a small open language model a product's manual by heart, prove what it knows, and serve it.",
    epilog="Start with: byheart init my-bot --docs ADDRESS-OR-FOLDER, then: byheart run my-bot",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: drawing it with rich takes longer than all the rest
    context_settings=CONTEXT,
)

Sets = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a setting, such as train.epochs=3.")
]
Force = Annotated[bool, typer.Option("--force", help="Run it even if it is done.")]


def main() -> None:
    """Run the command. A fault that byheart foresaw is told in its own words; any other keeps its traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that cannot show "›" gets "?", not a crash
    verbose = {"-v", "--verbose"} & set(sys.argv[1:])  # wherever it stands
    try:
        try:
            app([word for word in sys.argv[1:] if word not in {"-v", "--verbose"}])
        finally:
            sys.stdout.flush()
    except ByheartError as fault:
        if verbose:
            traceback.print_exc()
        print(fault, file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:  # `byheart config | head`: whoever read has gone, which is no fault
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


@app.callback(invoke_without_command=True)
def common(
    context: typer.Context,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show where in the code an error arose.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    """Handle what comes before the verb; `verbose` is read in main, where errors arrive."""
    if version:
        typer.echo(f"byheart {byheart.__version__}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
def init(
    bot: Annotated[Path, typer.Argument(metavar="BOT", help="The folder to make, such as my-bot.")],
    docs: Annotated[
        list[str], typer.Option(help="The manual: an address, a folder, a zip or a file; may be repeated.")
    ],
    more: Annotated[list[str] | None, typer.Argument(metavar="DOCS", help="More of it, after --docs.")] = None,
) -> None:
    """Make a bot's folder with a short, commented config."""
    from byheart.config_file import FILE_NAME
    from byheart.config_template import write_new

    write_new(bot / FILE_NAME, [*docs, *(more or [])])
    typer.echo(f"Wrote {bot / FILE_NAME}. Next: byheart run {shlex.quote(str(bot))}")


@app.command()
def run(
    bot: Bot = HERE,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would run, why, and how long.")] = False,
    start: Annotated[
        StageName | None, typer.Option("--from", help="Run this stage and those after it, done or not.")
    ] = None,
    sets: Sets = None,
) -> None:
    """Do all that is not done: ingest, synthesize, train, evaluate. Resumes where it was stopped."""
    from byheart import cli_screen, pipeline

    project = _project(bot, sets)
    if dry_run:
        cli_screen.show_plan(_console(), pipeline.plan(project, start=start))
        return
    marks = _run(project, bot, start=start)
    cli_screen.show_summary(_console(), marks, project.run_path)
    typer.echo(f"Next: byheart chat {shlex.quote(str(bot))}, or: byheart serve {shlex.quote(str(bot))}")


@app.command()
def plan(
    bot: Bot = HERE,
    *,
    model: Annotated[str | None, typer.Option(help="A base_model, without a bot.")] = None,
    gpus: Annotated[int | None, typer.Option(min=1, help="Plan for so many GPUs.")] = None,
    gpu_memory_gb: Annotated[
        float | None, typer.Option(min=0.1, help="Memory of each; default: as found here.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Rows computed at once; default: train.batch_size.")
    ] = None,
    tokens: Annotated[int | None, typer.Option(min=1, help="Tokens a row; default: as in the bot's pairs.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON, in bytes.")] = False,
    sets: Sets = None,
) -> None:
    """Say what memory the model takes, and how it can be trained."""
    from byheart import cli_plan

    project = None if model else _project(bot, sets, need_sources=False)
    made = cli_plan.make_plan(
        project.config.base_model if project else str(model),
        cli_plan.train_settings(project.config if project else None),
        cli_plan.Flags(gpus=gpus, gpu_memory_gb=gpu_memory_gb, batch_size=batch_size, tokens=tokens),
        pairs=cli_plan.pairs_of(project.run_path) if project else [],
        find_gpus=_gpus,
        reads=project is not None and project.config.answer.grounding == "retrieve",
    )
    typer.echo(cli_plan.as_json(made)) if as_json else cli_plan.show(_console(), made)


@app.command()
def ingest(bot: Bot = HERE, force: Force = False, sets: Sets = None) -> None:
    """Read the manual: documents, sections, facts."""
    _run(_project(bot, sets), bot, only="ingest", start="ingest" if force else None)


@app.command()
def synthesize(bot: Bot = HERE, force: Force = False, sets: Sets = None) -> None:
    """Expand the manual into questions and answers."""
    _run(_project(bot, sets), bot, only="synthesize", start="synthesize" if force else None)


@app.command()
def train(
    bot: Bot = HERE,
    *,
    force: Force = False,
    auto: Annotated[
        bool, typer.Option("--auto", help="Let the loss doctor change the learning rate, and stop: train.auto=true.")
    ] = False,
    gpus: Annotated[int | None, typer.Option(min=1, help="Train on so many GPUs of this machine together.")] = None,
    nodes: Annotated[int, typer.Option(min=1, help="... and of so many machines; say the same on each.")] = 1,
    rendezvous: Annotated[str, typer.Option(help="Where the machines meet: HOST:PORT of one of them.")] = "",
    sets: Sets = None,
) -> None:
    """Fine-tune the model on the questions and answers."""
    sets = [*(sets or []), *(["train.auto=true"] if auto else [])]
    project, start = _project(bot, sets), "train" if force else None
    if gpus or nodes > 1:
        from byheart.train.launch import launch

        words = ["train", str(bot), *(["--force"] if force else []), *(f"--set={item}" for item in sets)]
        raise typer.Exit(launch(words, gpus=gpus or 1, nodes=nodes, rendezvous=rendezvous))
    if _rank():
        from byheart import pipeline

        pipeline.follow(project, "train", start=start)
        return
    _run(project, bot, only="train", start=start)


@app.command()
def evaluate(bot: Bot = HERE, force: Force = False, sets: Sets = None) -> None:
    """Measure what the model knows, and write the report."""
    from byheart import cli_screen

    project = _project(bot, sets)
    _run(project, bot, only="evaluate", start="evaluate" if force else None)
    cli_screen.show_figures(_console(), project.run_path)


@app.command()
def chat(bot: Bot = HERE, sets: Sets = None) -> None:
    """Talk to the bot in the terminal."""
    from byheart import cli_chat

    project = _project(bot, sets, need_sources=False)
    cli_chat.chat(_answerer(project), _console(), title=project.config.serve.title or project.folder.resolve().name)


@app.command()
def ask(
    bot: Annotated[str, typer.Argument(metavar="BOT", help="The bot's folder, or its YAML file.")],
    question: Annotated[str | None, typer.Argument(metavar="QUESTION", help="What to ask.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")] = False,
    sets: Sets = None,
) -> None:
    """Ask one question."""
    from byheart import cli_chat

    folder, asked = (Path(bot), question) if question is not None else (HERE, bot)
    answer = _answerer(_project(folder, sets, need_sources=False)).answer(asked)
    if as_json:
        typer.echo(cli_chat.answer_json(asked, answer))
    else:
        cli_chat.show_answer(_console(), answer)


@app.command()
def serve(
    bot: Bot = HERE,
    host: Annotated[str | None, typer.Option(help="Address to listen on; default: serve.host.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; default: serve.port.")] = None,
    engine: Annotated[
        Literal["in-process", "http", "vllm", "llama"] | None,
        typer.Option(help="Where the model runs; default: serve.engine."),
    ] = None,
    *,
    workers: Annotated[int | None, typer.Option(help="Processes that serve; default: serve.workers.")] = None,
    sets: Sets = None,
) -> None:
    """Open the chat page and the OpenAI-compatible API."""
    from byheart.serve import entrance

    given = {"host": host, "port": port, "engine": engine, "workers": workers}
    values = [*(sets or []), *(f"serve.{name}={value}" for name, value in given.items() if value is not None)]
    again = [sys.executable, "-m", "byheart", "serve", str(bot), *(word for v in values for word in ("--set", v))]
    entrance.run(_project(bot, values, need_sources=False), again=again, ready=_announce)


@app.command()
def status(bot: Bot = HERE, sets: Sets = None) -> None:
    """Say what is done, what is stale and why, and the last figures."""
    from byheart import cli_screen, pipeline

    project = _project(bot, sets)
    cli_screen.show_plan(_console(), pipeline.plan(project))
    cli_screen.show_figures(_console(), project.run_path)


@app.command()
def config(
    bot: Bot = HERE,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON schema of byheart.yaml, for editors.")
    ] = False,
    sets: Sets = None,
) -> None:
    """Show every setting, and where its value came from.

    From the default, the file, a flag, or chosen by a stage when it ran.
    """
    from byheart import config_file, config_settings, pipeline

    if schema:
        typer.echo(json.dumps(config_settings.json_schema(), indent=1))
        return
    loaded = config_file.load(bot, sets or (), need_sources=False)
    chosen = pipeline.choices(loaded.project)
    notes = loaded.origins | {key: f"chosen: {why}" for key, why in chosen.items() if key in loaded.origins}
    typer.echo(config_settings.as_yaml(loaded.project.config, notes), nl=False)
    for key in chosen.keys() - loaded.origins.keys():
        typer.echo(f"# chosen: {key}: {chosen[key]}")


# Last, as help lists the verbs in this order.
app.command()(cli_serve.feedback)
app.command()(cli_serve.forget)
app.add_typer(cli_serve.keys, name="keys")
app.add_typer(cli_export.export, name="export")


def _project(bot: Path, sets: list[str] | None, *, need_sources: bool = True) -> Project:
    from byheart.config_file import load

    return load(bot, sets or (), need_sources=need_sources).project


def _run(project: Project, bot: Path, *, only: str | None = None, start: str | None = None) -> dict[str, Mark]:
    """Run stages with their progress on the screen; Ctrl-C ends them in peace."""
    from byheart import pipeline
    from byheart.cli_screen import Screen

    try:
        with Screen(_console()) as screen:
            return pipeline.run(project, screen.notify, only=only, start=start)
    except KeyboardInterrupt:
        typer.echo(f"Stopped. What is finished is kept; go on with: byheart run {shlex.quote(str(bot))}", err=True)
        raise typer.Exit(130) from None


def _rank() -> int:
    """Return which of the processes that torchrun or SLURM started this is; 0 for the first, or the only one."""
    if not {"WORLD_SIZE", "SLURM_STEP_NUM_TASKS"} & os.environ.keys():
        return 0
    from byheart.train.ranks import world

    return int(world(os.environ).get("RANK", "0"))


def _answerer(project: Project) -> Answerer:
    from byheart.answer.bot import load
    from byheart.store import RunFolder

    settings = project.config.answer
    folder = RunFolder(project.run_path)
    return load(
        folder, system="byheart", max_words=settings.max_words, max_citations=settings.max_citations,
        grounding=settings.grounding, unsupported=settings.unsupported,
    )  # fmt: skip


def _gpus() -> list[tuple[str, int]]:
    from byheart.models.devices import gpus

    return gpus()


def _announce(address: str) -> None:
    typer.echo(f"The chat page is open on {address} (Ctrl-C ends it)")


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False)
