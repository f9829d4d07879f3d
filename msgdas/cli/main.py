"""The command line. Bad input is one line on standard error and exit code 2."""

from __future__ import annotations

import io
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from typing import IO, Any

import click

from msgdas import __doc__ as about
from msgdas.cli.bench import bench
from msgdas.cli.check import check
from msgdas.cli.lists import methods, spaces
from msgdas.cli.predict import predict
from msgdas.cli.report import report
from msgdas.cli.search import search
from msgdas.cli.show import show
from msgdas.cli.train import train
from msgdas.errors import InputError, one_line
from msgdas.fast.memory import keep_freed_memory
from msgdas.report.terminal import drop
from msgdas.runs import Stopped, end_on_signals, told

__all__ = ["cli", "main"]

EXIT_INPUT, EXIT_TERMINATED, EXIT_INTERRUPTED, EXIT_PIPE = 2, 75, 130, 141


class _Group(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        """Run a command. What the machine refuses (a full disk, no permission) is one line like bad input."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # who read the output has seen enough
            drop(sys.stdout)
            raise click.exceptions.Exit(EXIT_PIPE) from None
        except OSError as error:
            _drop_if_lost(sys.stdout)
            raise InputError(f"{told(error)}: mend that, then give the same command again") from error


@click.group(cls=_Group, help=about, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80})
def cli() -> None:
    pass


for command in (bench, check, methods, predict, report, search, show, spaces, train):
    cli.add_command(command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of ``msgdas``.

    Exit codes: 0; 1, a ratio grew (``bench speed --compare``); 2, bad input, or the machine refused something; 75 and
    130, stopped by SIGTERM or Ctrl-C; 141, the reader of standard output closed it.
    """
    keep_freed_memory()
    if os.path.expanduser("~") == "~":
        os.environ["HOME"] = os.sep
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a Latin-1 terminal has no ×, a name may be no text at all
    warnings.showwarning = lambda message, *_, **__: _say(f"warning: {message}")
    try:
        with end_on_signals():
            code = cli.main(args=arguments, prog_name="msgdas", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        code = EXIT_INPUT
    except (click.ClickException, InputError) as error:
        _say(f"error: {error.format_message() if isinstance(error, click.ClickException) else error}")
        code = EXIT_INPUT
    except Stopped as stopped:
        _say(
            f"stopped and saved; {stopped.again} goes on" if stopped.again else "stopped; the same command starts anew"
        )
        code = EXIT_TERMINATED if stopped.signal == signal.SIGTERM else EXIT_INTERRUPTED
    except (KeyboardInterrupt, click.Abort):
        code = EXIT_INTERRUPTED
    sys.exit(code if isinstance(code, int) else 0)


def _drop_if_lost(stream: IO[str] | None) -> None:
    try:
        if stream:
            stream.flush()
    except OSError:
        drop(stream)


def _say(text: str) -> None:
    """One line on standard error, whatever ``text`` holds."""
    try:
        click.echo(f"msgdas: {one_line(text)}", err=True)
    except OSError:
        drop(sys.stderr)
