"""gRPC of the worker: finds the sequencer's certificate, enrols, and opens the stream that everything travels on.

Turns gRPC's errors into typed ones; decides nothing.
"""

import asyncio
import contextlib
import hashlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Protocol

import grpc
from grpc import aio

from protos.errors import PeerLost, PeerRefused
from protos.gen.warpgrid.v1 import network_pb2
from protos.handshake import SEQUENCER_TLS_NAME, Signer, enrolment_digest
from protos.messages import Certificate, DescribeRequest, Description, EnrolRequest, SequencerMessage, SnapshotRequest
from protos.rpc import FRAME_BYTES_MAX, decode, encode, sequencer_reader
from worker.client import DialedStream

__all__ = ["DialerConfig", "GrpcDialer", "SequencerCertificate", "WorkerCertificate"]

_ATTACH = f"/{network_pb2.DESCRIPTOR.services_by_name['Network'].full_name}/Attach"
_ENROL = f"/{network_pb2.DESCRIPTOR.services_by_name['Enrolment'].full_name}/Enrol"
_DESCRIBE = f"/{network_pb2.DESCRIPTOR.services_by_name['Enrolment'].full_name}/Describe"
_SNAPSHOT = f"/{network_pb2.DESCRIPTOR.services_by_name['Enrolment'].full_name}/Snapshot"
_FRAME_SLACK_BYTES = 1024
_CLOSE_GRACE_S = 1.0
_END: Any = aio.EOF  # type: ignore[attr-defined]  # missing in grpc-stubs


@dataclass(frozen=True, slots=True)
class DialerConfig:
    """Where the sequencer's service port is; its attach port is learnt from there."""

    host: str
    service_port: int
    connect_timeout_s: float = 10.0
    keepalive_ms: int = 20_000


class SequencerCertificate(Protocol):
    """The sequencer's certificate as this worker knows it (`node.keys.SequencerPin`)."""

    def certificate(self, host: str, port: int) -> bytes:
        """PEM. May ask host:port, and block. Raises OSError when nobody answers."""


class WorkerCertificate(Protocol):
    """This worker's TLS key and certificate (`node.keys.WorkerTls`)."""

    @property
    def key_pem(self) -> bytes: ...

    def signing_request(self) -> bytes: ...

    def certificate(self) -> bytes | None: ...

    def store_certificate(self, pem: bytes) -> None: ...


class GrpcDialer:
    """Implements `worker.client.Dialer` over gRPC."""

    def __init__(
        self,
        config: DialerConfig,
        chain_id: int,
        signer: Signer,
        tls: WorkerCertificate,
        sequencer: SequencerCertificate,
    ) -> None:
        self._config = config
        self._chain_id = chain_id
        self._signer = signer
        self._tls = tls
        self._sequencer = sequencer
        self._attach_port: int | None = None

    async def dial(self, *, renew_certificate: bool) -> DialedStream:
        config = self._config
        root = await self._root()
        own = self._tls.certificate()
        if own is None or renew_certificate or self._attach_port is None:
            own = await self._enrol(root)
        credentials = grpc.ssl_channel_credentials(root, self._tls.key_pem, own)
        channel = self._channel(self._attach_port, credentials)
        try:
            async with asyncio.timeout(config.connect_timeout_s):
                await channel.channel_ready()
        except TimeoutError as error:
            await channel.close()
            raise PeerLost(f"{config.host}:{self._attach_port} does not answer") from error
        call = channel.stream_stream(_ATTACH)()
        return DialedStream(_ClientTransport(channel, call), _fingerprint(root), _fingerprint(own))

    async def describe(self) -> Description:
        """Ask the sequencer which chain it has and where it stands. Raises PeerLost when it does not answer."""
        root = await self._root()
        channel = self._channel(self._config.service_port, grpc.ssl_channel_credentials(root))
        try:
            raw = await channel.unary_unary(_DESCRIBE)(
                encode(DescribeRequest()), timeout=self._config.connect_timeout_s
            )
        except aio.AioRpcError as error:
            raise PeerLost(f"the sequencer does not answer: {error.details()}") from error
        finally:
            await channel.close()
        return decode(Description, raw)

    async def snapshot(self) -> AsyncIterator[SequencerMessage]:
        """The messages of a snapshot of the newest block.

        Raises PeerLost when the stream breaks, ProtocolError for frames that are none.
        """
        root = await self._root()
        channel = self._channel(self._config.service_port, grpc.ssl_channel_credentials(root))
        reader = sequencer_reader()
        try:
            async for frame in channel.unary_stream(_SNAPSHOT)(encode(SnapshotRequest())):
                message = reader.read(frame)
                if message is not None:
                    yield message
        except aio.AioRpcError as error:
            raise PeerLost(f"the snapshot broke off: {error.details()}") from error
        finally:
            await channel.close()

    async def _root(self) -> bytes:
        config = self._config
        try:
            return await asyncio.to_thread(self._sequencer.certificate, config.host, config.service_port)
        except OSError as error:
            raise PeerLost(f"no sequencer at {config.host}:{config.service_port}: {error}") from error

    async def _enrol(self, root: bytes) -> bytes:
        """Have a certificate issued for this worker's TLS key, and keep it."""
        request = self._tls.signing_request()
        digest = enrolment_digest(self._chain_id, _fingerprint(root), request)
        message = EnrolRequest(self._signer.address, request, self._signer.sign(digest))
        channel = self._channel(self._config.service_port, grpc.ssl_channel_credentials(root))
        try:
            raw = await channel.unary_unary(_ENROL)(encode(message), timeout=self._config.connect_timeout_s)
        except aio.AioRpcError as error:
            if error.code() in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.INVALID_ARGUMENT):
                raise PeerRefused(_warpgrid_code(error), error.details() or "") from error
            raise PeerLost(f"enrolment: {error.details()}") from error
        finally:
            await channel.close()
        certificate = decode(Certificate, raw)
        self._tls.store_certificate(certificate.pem)
        self._attach_port = certificate.attach_port
        return certificate.pem

    def _channel(self, port: int | None, credentials: grpc.ChannelCredentials) -> Any:
        return aio.secure_channel(
            f"{self._config.host}:{port}",
            credentials,
            options=[
                ("grpc.ssl_target_name_override", SEQUENCER_TLS_NAME),
                ("grpc.max_receive_message_length", FRAME_BYTES_MAX + _FRAME_SLACK_BYTES),
                ("grpc.max_send_message_length", FRAME_BYTES_MAX + _FRAME_SLACK_BYTES),
                ("grpc.keepalive_time_ms", self._config.keepalive_ms),
                ("grpc.keepalive_timeout_ms", self._config.keepalive_ms),
                ("grpc.use_local_subchannel_pool", 1),
            ],
        )


class _ClientTransport:
    """The worker's end of Attach. Implements `protos.connection.Transport`."""

    def __init__(self, channel: Any, call: Any) -> None:
        self._channel = channel
        self._call = call

    async def send(self, frame: bytes) -> None:
        try:
            await self._call.write(frame)
        except (grpc.RpcError, asyncio.InvalidStateError) as error:
            raise PeerLost(f"the sequencer is gone: {error}") from error

    async def receive(self) -> bytes | None:
        try:
            frame = await self._call.read()
        except aio.AioRpcError as error:
            raise PeerLost(f"the sequencer is gone: {error.details()}") from error
        return None if frame is _END else frame

    async def close(self) -> None:
        with contextlib.suppress(grpc.RpcError, asyncio.InvalidStateError):
            await self._call.done_writing()
        await self._channel.close(grace=_CLOSE_GRACE_S)


def _fingerprint(pem: bytes) -> bytes:
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem.decode())).digest()


def _warpgrid_code(error: Any) -> str:
    trailers = dict(error.trailing_metadata() or ())
    return str(trailers.get("warpgrid-code", error.code().name.lower()))
