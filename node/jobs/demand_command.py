"""`warpgrid job demand`: a client asks the chain for the receipt behind a payment, or takes its money back."""

import time
from typing import Any

from rich.console import Console

from market.contracts import ESCROW_ADDRESS, JOB_ESCROW, EscrowStatus
from node.errors import ServiceError
from node.jobs.network import JobId, JobNetwork, on_network
from node.jobs.submit import KeyFile, payer_of
from node.wallet import Wallet

__all__ = ["demand"]

notes = Console(stderr=True)


@on_network
def demand(network: JobNetwork, job_id: JobId, key_file: KeyFile = None) -> None:
    """Have a settled job's receipt shown on chain, or take the money back.

    Asks first; called again once the time to show it is over, it takes all the money back. For a payment that you have
    no receipt of: a coordinator or worker that cannot show one gets nothing.
    Example:  warpgrid job demand 0x5f0a...
    """
    wallet = Wallet(payer_of(network, key_file), network.rpc)
    status, until = _standing(wallet, job_id)
    if status == EscrowStatus.DEMANDED and until < time.time():
        wallet.transact(JOB_ESCROW, ESCROW_ADDRESS, "expire", job_id)
        notes.print("nobody showed the receipt: all the money is yours again")
        return
    if status == EscrowStatus.DEMANDED:
        raise ServiceError(f"it is demanded already; come again after {_clock(until)} if nobody has shown it by then")
    wallet.transact(JOB_ESCROW, ESCROW_ADDRESS, "demand", job_id)
    notes.print(f"demanded: if the receipt is not shown by {_clock(_standing(wallet, job_id)[1])}, come again")


def _standing(wallet: Wallet, job_id: bytes) -> tuple[EscrowStatus, int]:
    """A job's status, and until when it has it (Unix time in seconds)."""
    job: Any = wallet.read(JOB_ESCROW, ESCROW_ADDRESS, "jobOf", job_id)
    return EscrowStatus(job[3]), int(job[5])


def _clock(unix_s: int) -> str:
    return time.strftime("%H:%M:%S", time.localtime(unix_s))
