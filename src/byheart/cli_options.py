"""What verbs of every file share: the bot that they work on, and how a group of verbs shows its help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Bot = Annotated[Path, typer.Argument(metavar="BOT", help="The bot's folder, or its YAML file.")]
HERE = Path()
CONTEXT = {"help_option_names": ["-h", "--help"]}


def group(help: str) -> typer.Typer:
    """Return a verb that has verbs of its own. Plain help: drawing it with rich takes longer than all the rest."""
    return typer.Typer(help=help, no_args_is_help=True, rich_markup_mode=None, context_settings=CONTEXT)
