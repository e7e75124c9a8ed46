"""The network that a `warpgrid job` command speaks to, and the options that name it."""

import inspect
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from node.client import RpcClient, parse_address
from node.errors import ConfigError, TestnetError
from node.jobs.records import JobRecords
from node.jobs.rpc import JobsClient
from node.options import taking
from node.paths import keys_dir
from node.testnet import layout

__all__ = ["AsJson", "JobId", "JobNetwork", "on_network"]

AsJson = Annotated[bool, typer.Option("--json", help="JSON lines; the last one is one object holding `id`")]


@dataclass(frozen=True, slots=True)
class JobNetwork:
    """Chain, coordinator, and the files that remember what was submitted from here.

    `certificate` is the coordinator's (PEM); None trusts the one that it shows.
    """

    rpc: RpcClient
    grpc: str
    certificate: bytes | None
    records: JobRecords
    is_local: bool

    @classmethod
    def local(cls, network: layout.Testnet) -> "JobNetwork":
        """A local network. Raises TestnetError when it never ran."""
        try:
            certificate = (keys_dir(network.data_dir / "sequencer") / "tls.crt").read_bytes()
        except FileNotFoundError as error:
            raise TestnetError(
                f"the network in {network.data_dir} never ran: `warpgrid testnet up` starts it"
            ) from error
        records = JobRecords(network.data_dir / "client" / "jobs")
        return cls(RpcClient(network.rpc_url), network.grpc_address, certificate, records, is_local=True)

    @classmethod
    def named(cls, data_dir: Path, rpc: str, grpc: str) -> "JobNetwork":
        """The network of the options: a local one by its folder, or another by its addresses. Raises ConfigError."""
        if bool(rpc) != bool(grpc):
            raise ConfigError("--rpc and --grpc go together: both name the network")
        if not rpc:
            return cls.local(layout.find(data_dir))
        return cls(RpcClient(rpc), grpc, None, JobRecords(Path.home() / ".warpgrid" / "jobs"), is_local=False)

    @contextmanager
    def coordinator(self) -> Iterator[JobsClient]:
        """The coordinator of jobs. Raises ServiceUnreachable."""
        with closing(JobsClient(*parse_address(self.grpc), self.certificate)) as client:
            yield client


def _parse_job_id(text: str) -> bytes:
    """The 32 bytes of a job's id. Raises ConfigError."""
    try:
        raw = bytes.fromhex(text.removeprefix("0x"))
    except ValueError as error:
        raise ConfigError(f"`{text}` is not a job id: it must be 0x and 64 hex digits") from error
    if len(raw) != 32:
        raise ConfigError(f"`{text}` is not a job id: it has {len(raw)} bytes, expected 32")
    return raw


JobId = Annotated[
    bytes, typer.Argument(parser=_parse_job_id, metavar="JOB_ID", help="the job's id, 0x and 64 hex digits")
]


def _option(name: str, kind: object, default: object, sentence: str) -> inspect.Parameter:
    option = typer.Option(f"--{name.replace('_', '-')}", help=sentence)
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option])


on_network = taking(
    [
        _option("data_dir", Path, layout.DATA_DIR, "folder of a local network (`testnet up`)"),
        _option("rpc", str, "", "JSON-RPC of another network; with --grpc"),
        _option("grpc", str, "", "host:port of that network's coordinator"),
    ],
    JobNetwork.named,
)
"""For a command whose first parameter is a JobNetwork."""
