"""The errors of the wire.

WarpgridError
├── ProtocolError          a peer broke the rules of the stream; it is told `code` and a sentence, counted, and dropped
│   ├── MalformedMessage   bytes that are no message, or a field out of its limits
│   ├── MessageTooLarge    a frame or a chunked message above the limit
│   ├── SequenceBroken     a repeated, missing or reordered message
│   └── UnexpectedMessage  a message that may not come at this point
├── PeerRefused            the other side ended the stream and said why (its `code` and sentence)
└── PeerLost               the stream ended without a word, or the peer was silent for too long
"""

from core.errors import WarpgridError

__all__ = [
    "MalformedMessage",
    "MessageTooLarge",
    "PeerLost",
    "PeerRefused",
    "ProtocolError",
    "SequenceBroken",
    "UnexpectedMessage",
]


class ProtocolError(WarpgridError):
    code = "protocol_error"


class MalformedMessage(ProtocolError):
    code = "malformed_message"


class MessageTooLarge(ProtocolError):
    code = "message_too_large"


class SequenceBroken(ProtocolError):
    code = "sequence_broken"


class UnexpectedMessage(ProtocolError):
    code = "unexpected_message"


class PeerRefused(WarpgridError):
    """`code` is the peer's own."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{detail} [{code}]")
        self.code = code
        self.detail = detail


class PeerLost(WarpgridError):
    code = "peer_lost"
