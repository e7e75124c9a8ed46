"""gRPC client of the Jobs service (protos/warpgrid/v1/jobs.proto): dataclasses in, dataclasses out."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import grpc

from node.errors import ServiceError, ServiceUnreachable
from protos.handshake import SEQUENCER_TLS_NAME
from protos.job_messages import JobEvent, JobList, JobQuery, JobRecord, ListJobs, SubmitJob
from protos.rpc import MESSAGE_BYTES_MAX, decode, encode

__all__ = ["JobsClient"]

_JOBS = "/warpgrid.v1.Jobs/"
_CALL_TIMEOUT_S = 15.0

_Answer = TypeVar("_Answer")


class JobsClient:
    """Talks to one coordinator. `certificate` (PEM) is the sequencer's; None trusts what host:port shows.

    Every call raises ServiceError with the coordinator's sentence when it refuses, or saying that nobody answers.
    """

    def __init__(self, host: str, port: int, certificate: bytes | None = None) -> None:
        self._address = f"{host}:{port}"
        try:
            root = certificate or ssl.get_server_certificate((host, port), timeout=_CALL_TIMEOUT_S).encode()
        except OSError as error:
            raise ServiceUnreachable(f"no coordinator at {self._address}: {error}") from error
        self._channel: Any = grpc.secure_channel(
            self._address,
            grpc.ssl_channel_credentials(root),
            [
                ("grpc.ssl_target_name_override", SEQUENCER_TLS_NAME),
                ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
            ],
        )

    def submit(self, request: SubmitJob) -> Iterator[JobEvent]:
        """Hand in a funded job and follow it to its end; handing it in again follows it from its beginning."""
        with self._errors():
            for raw in self._channel.unary_stream(_JOBS + "Submit")(encode(request)):
                yield decode(JobEvent, raw)

    def status(self, query: JobQuery) -> JobRecord:
        return self._call("Status", query, JobRecord)

    def list(self, request: ListJobs) -> JobList:
        return self._call("List", request, JobList)

    def cancel(self, query: JobQuery) -> JobRecord:
        return self._call("Cancel", query, JobRecord)

    def close(self) -> None:
        self._channel.close()

    def _call(self, method: str, request: Any, kind: type[_Answer]) -> _Answer:
        with self._errors():
            return decode(kind, self._channel.unary_unary(_JOBS + method)(encode(request), timeout=_CALL_TIMEOUT_S))

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except grpc.RpcError as error:
            status: Any = error
            if status.code() == grpc.StatusCode.UNAVAILABLE:
                raise ServiceUnreachable(f"no coordinator at {self._address}: {status.details()}") from error
            trailers = dict(status.trailing_metadata() or ())
            wait = f" (try again in {trailers['retry-after-ms']} ms)" if "retry-after-ms" in trailers else ""
            raise ServiceError(f"{status.details()}{wait}") from error
