"""`warpgrid job dispute`: a client takes an exact answer to the contracts."""

import functools
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from node.disputes.challenge import challenge_job
from node.errors import ServiceError
from node.jobs.network import JobId, JobNetwork, on_network
from node.jobs.settled import settled_job
from node.jobs.submit import KeyFile, payer_of
from node.wallet import Wallet
from worker.inference.cli_options import MODELS_DIR

__all__ = ["dispute"]

notes = Console(stderr=True)


@on_network
def dispute(
    network: JobNetwork,
    job_id: JobId,
    key_file: KeyFile = None,
    models_dir: Annotated[Path, typer.Option(help="where exact models are kept")] = MODELS_DIR,
) -> None:
    """Compute an exact answer anew and, if the receipt is wrong, prove it on chain.

    The worker then pays, and the client is refunded. Needs the model here, and a bond, which a wrong challenge loses.
    The exit status is 1 when the worker won.
    Example:  warpgrid job dispute 0x5f0a...
    """
    tell = functools.partial(notes.print, highlight=False)
    known, _ = settled_job(network, job_id, tell)
    if known is None:
        raise ServiceError("this job was not submitted from here, and only who has the request can dispute it")
    wallet = Wallet(payer_of(network, key_file), network.rpc)
    won = challenge_job(network.rpc, wallet, known, models_dir, tell)
    notes.print("the receipt was wrong: it is rejected" if won else "the worker proved its answer; the bond is lost")
    if not won:
        raise typer.Exit(1)
