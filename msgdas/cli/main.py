"""The command line. Bad input is one line on standard error and exit code 2."""

from __future__ import annotations

import signal
import sys
import warnings
from collections.abc import Sequence

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
from msgdas.compare.queue import QueueStopped
from msgdas.errors import InputError
from msgdas.fast.memory import keep_freed_memory
from msgdas.search.loop import Stopped

__all__ = ["cli", "main"]

EXIT_INPUT, EXIT_TERMINATED, EXIT_INTERRUPTED = 2, 75, 130


@click.group(help=about, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80})
def cli() -> None:
    pass


for command in (bench, check, methods, predict, report, search, show, spaces, train):
    cli.add_command(command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of ``msgdas``.

    Exit codes: 0; 1, a ratio grew (``bench speed --compare``); 2, bad input; 75 and 130, stopped by SIGTERM or Ctrl-C
    and saved.
    """
    keep_freed_memory()
    warnings.showwarning = lambda message, *_, **__: click.echo(f"msgdas: warning: {message}", err=True)
    try:
        code = cli.main(args=arguments, prog_name="msgdas", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        code = EXIT_INPUT
    except (click.ClickException, InputError) as error:
        message = error.format_message() if isinstance(error, click.ClickException) else str(error)
        click.echo(f"msgdas: error: {message}", err=True)
        code = EXIT_INPUT
    except Stopped as stopped:
        again = "the same command" if isinstance(stopped, QueueStopped) else "the same command with --resume"
        click.echo(f"msgdas: stopped and saved; {again} goes on", err=True)
        code = EXIT_TERMINATED if stopped.signal == signal.SIGTERM else EXIT_INTERRUPTED
    except (KeyboardInterrupt, click.Abort):
        code = EXIT_INTERRUPTED
    sys.exit(code if isinstance(code, int) else 0)
