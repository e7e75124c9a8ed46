"""gRPC of the sequencer: the services of protos/warpgrid/v1, served over TLS.

Two ports. On one, workers attach over mutual TLS, with the certificates that enrolment gave them. On the other,
anybody may enrol, hand in jobs, and ask for health and reflection. Turns bytes into messages and typed errors into gRPC
status codes; decides nothing.
"""

import hashlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import grpc
import structlog
from grpc import aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from core.errors import InvalidInput, WarpgridError
from protos.errors import PeerLost
from protos.gen.warpgrid.v1 import jobs_pb2, network_pb2
from protos.job_messages import JobEvent, JobList, JobQuery, JobRecord, ListJobs, SubmitJob
from protos.messages import DescribeRequest, EnrolRequest, SnapshotRequest
from protos.rpc import FRAME_BYTES_MAX, decode, encode, sequencer_writer
from sequencer.coordinator.catch_up import SnapshotServer
from sequencer.coordinator.errors import JobConflict, JobNotFunded, JobUnknown, JoinRefused, QueueFull
from sequencer.coordinator.fleet import Fleet
from sequencer.coordinator.membership import Membership

__all__ = ["JobDesk", "NetworkServer", "ServerConfig", "ServerTls"]

_NETWORK = network_pb2.DESCRIPTOR.services_by_name["Network"].full_name
_ENROLMENT = network_pb2.DESCRIPTOR.services_by_name["Enrolment"].full_name
_JOBS = jobs_pb2.DESCRIPTOR.services_by_name["Jobs"].full_name
_UNARY_BYTES_MAX = 2 * 1024 * 1024
_FRAME_SLACK_BYTES = 1024
_END: Any = aio.EOF  # type: ignore[attr-defined]  # missing in grpc-stubs

_log = structlog.get_logger(__name__)
_Request = TypeVar("_Request")

_STATUS: dict[type[WarpgridError], grpc.StatusCode] = {
    JoinRefused: grpc.StatusCode.PERMISSION_DENIED,
    QueueFull: grpc.StatusCode.RESOURCE_EXHAUSTED,
    JobUnknown: grpc.StatusCode.NOT_FOUND,
    JobNotFunded: grpc.StatusCode.FAILED_PRECONDITION,
    JobConflict: grpc.StatusCode.FAILED_PRECONDITION,
}


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Port 0 takes a free one. `streams_max` bounds calls in progress on each port."""

    host: str = "127.0.0.1"
    attach_port: int = 8550
    service_port: int = 8551
    streams_max: int = 1024
    keepalive_ms: int = 10_000
    stop_grace_s: float = 5.0


class ServerTls(Protocol):
    """The sequencer's certificate and key, PEM."""

    @property
    def certificate_pem(self) -> bytes: ...

    @property
    def key_pem(self) -> bytes: ...


class JobDesk(Protocol):
    """Takes jobs; implemented by `sequencer.coordinator.jobs`."""

    def submit(self, request: SubmitJob) -> AsyncIterator[JobEvent]: ...

    def status(self, query: JobQuery) -> JobRecord: ...

    def list_jobs(self, request: ListJobs) -> JobList: ...

    async def cancel(self, query: JobQuery) -> JobRecord: ...


class NetworkServer:
    """Serves fleet, membership and jobs. `attach_port` and `service_port` are the ports that were taken."""

    def __init__(
        self,
        config: ServerConfig,
        tls: ServerTls,
        fleet: Fleet,
        membership: Membership,
        jobs: JobDesk | None = None,
        snapshots: SnapshotServer | None = None,
    ) -> None:
        self._config = config
        self._fleet = fleet
        self._membership = membership
        self._jobs = jobs
        self._snapshots = snapshots
        pair = [(tls.key_pem, tls.certificate_pem)]
        self._mutual = grpc.ssl_server_credentials(pair, tls.certificate_pem, require_client_auth=True)
        self._server_only = grpc.ssl_server_credentials(pair)
        self._attach_server: Any = None
        self._service_server: Any = None
        self._health: Any = health.aio.HealthServicer()  # type: ignore[attr-defined]  # missing in the stubs
        self.attach_port = config.attach_port
        self.service_port = config.service_port

    async def start(self) -> None:
        """Listen on both ports. Raises OSError when one is taken."""
        self._attach_server = self._make_server(FRAME_BYTES_MAX + _FRAME_SLACK_BYTES)
        self._attach_server.add_generic_rpc_handlers((self._network_handler(),))
        self.attach_port = self._listen(self._attach_server, self._config.attach_port, self._mutual)
        self._membership.attach_port = self.attach_port
        self._service_server = self._make_server(_UNARY_BYTES_MAX)
        services = [_ENROLMENT, health.SERVICE_NAME, reflection.SERVICE_NAME]
        self._service_server.add_generic_rpc_handlers((self._enrolment_handler(),))
        if self._jobs is not None:
            self._service_server.add_generic_rpc_handlers((self._jobs_handler(self._jobs),))
            services.append(_JOBS)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._service_server)
        reflection.enable_server_reflection([*services, _NETWORK], self._service_server)
        self.service_port = self._listen(self._service_server, self._config.service_port, self._server_only)
        await self._attach_server.start()
        await self._service_server.start()
        await self._health.set("", health_pb2.HealthCheckResponse.SERVING)
        _log.info("listening", attach_port=self.attach_port, service_port=self.service_port)

    async def stop(self) -> None:
        """Take no more calls, and end those in progress after a grace."""
        if self._service_server is not None:
            await self._health.enter_graceful_shutdown()
        for server in (self._service_server, self._attach_server):
            if server is not None:
                await server.stop(self._config.stop_grace_s)

    def _make_server(self, receive_bytes_max: int) -> Any:
        keepalive_ms = self._config.keepalive_ms
        return aio.server(
            maximum_concurrent_rpcs=self._config.streams_max,
            options=[
                ("grpc.max_receive_message_length", receive_bytes_max),
                ("grpc.max_send_message_length", _UNARY_BYTES_MAX),
                ("grpc.keepalive_time_ms", keepalive_ms),
                ("grpc.keepalive_timeout_ms", keepalive_ms),
                ("grpc.http2.min_recv_ping_interval_without_data_ms", keepalive_ms // 2),
                ("grpc.so_reuseport", 0),
            ],
        )

    def _listen(self, server: Any, port: int, credentials: grpc.ServerCredentials) -> int:
        try:
            taken = server.add_secure_port(f"{self._config.host}:{port}", credentials)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {self._config.host}:{port}: is another process using it?") from error
        return int(taken)

    def _network_handler(self) -> "grpc.GenericRpcHandler[Any, Any]":
        async def attach(_: AsyncIterator[bytes], context: Any) -> None:
            pem = context.auth_context()["x509_pem_cert"][0].decode()
            fingerprint = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).digest()
            await self._fleet.serve(_ServerTransport(context), fingerprint)

        return grpc.method_handlers_generic_handler(_NETWORK, {"Attach": grpc.stream_stream_rpc_method_handler(attach)})

    def _enrolment_handler(self) -> "grpc.GenericRpcHandler[Any, Any]":
        async def enrol(raw: bytes, context: Any) -> bytes:
            return encode(await _answered(context, raw, EnrolRequest, _sync(self._membership.enrol)))

        async def describe(raw: bytes, context: Any) -> bytes:
            return encode(await _answered(context, raw, DescribeRequest, _sync(lambda _: self._fleet.describe())))

        methods = {
            "Enrol": grpc.unary_unary_rpc_method_handler(enrol),
            "Describe": grpc.unary_unary_rpc_method_handler(describe),
        }
        if self._snapshots is not None:
            methods["Snapshot"] = _snapshot_handler(self._snapshots)
        return grpc.method_handlers_generic_handler(_ENROLMENT, methods)

    def _jobs_handler(self, jobs: JobDesk) -> "grpc.GenericRpcHandler[Any, Any]":
        async def submit(raw: bytes, context: Any) -> None:
            async def follow(request: SubmitJob) -> None:
                async for event in jobs.submit(request):
                    await context.write(encode(event))

            await _answered(context, raw, SubmitJob, follow)

        async def status(raw: bytes, context: Any) -> bytes:
            return encode(await _answered(context, raw, JobQuery, _sync(jobs.status)))

        async def list_jobs(raw: bytes, context: Any) -> bytes:
            return encode(await _answered(context, raw, ListJobs, _sync(jobs.list_jobs)))

        async def cancel(raw: bytes, context: Any) -> bytes:
            return encode(await _answered(context, raw, JobQuery, jobs.cancel))

        return grpc.method_handlers_generic_handler(
            _JOBS,
            {
                "Submit": grpc.unary_stream_rpc_method_handler(submit),
                "Status": grpc.unary_unary_rpc_method_handler(status),
                "List": grpc.unary_unary_rpc_method_handler(list_jobs),
                "Cancel": grpc.unary_unary_rpc_method_handler(cancel),
            },
        )


def _snapshot_handler(snapshots: SnapshotServer) -> Any:
    async def snapshot(raw: bytes, context: Any) -> None:
        async def send(_: SnapshotRequest) -> None:
            writer = sequencer_writer()
            async for message in snapshots.messages():
                for frame in writer.frames(message):
                    await context.write(frame)

        await _answered(context, raw, SnapshotRequest, send)

    return grpc.unary_stream_rpc_method_handler(snapshot)


def _sync(function: Callable[[_Request], Any]) -> Callable[[_Request], Awaitable[Any]]:
    async def call(request: _Request) -> Any:
        return function(request)

    return call


async def _answered(
    context: Any, raw: bytes, kind: type[_Request], answer: Callable[[_Request], Awaitable[Any]]
) -> Any:
    """Decode, answer, and turn a typed error into a status with the error's code and sentence."""
    try:
        return await answer(decode(kind, raw))
    except WarpgridError as error:
        status = _STATUS.get(type(error))
        if status is None and isinstance(error, InvalidInput | PeerLost):
            status = grpc.StatusCode.INVALID_ARGUMENT
        if status is None:
            raise
        trailers = [("warpgrid-code", error.code)]
        if isinstance(error, QueueFull):
            trailers.append(("retry-after-ms", str(error.retry_after_ms)))
        await context.abort(status, str(error), tuple(trailers))


class _ServerTransport:
    """The server's end of one Attach. Implements `protos.connection.Transport`."""

    def __init__(self, context: Any) -> None:
        self._context = context

    async def send(self, frame: bytes) -> None:
        try:
            await self._context.write(frame)
        except grpc.RpcError as error:
            raise PeerLost("the worker is gone") from error

    async def receive(self) -> bytes | None:
        try:
            frame = await self._context.read()
        except grpc.RpcError as error:
            raise PeerLost("the worker is gone") from error
        return None if frame is _END else frame

    async def close(self) -> None:
        """gRPC ends the stream when the handler returns."""
