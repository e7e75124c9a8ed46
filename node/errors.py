"""The errors of `node`.

WarpgridError
├── ConfigError        a setting is unknown, of the wrong type, or out of range; the message names where it came from
├── KeysError          a key or certificate file cannot be used, or is not the one that was expected
├── TestnetError       a local network cannot be started, found or stopped as asked
└── ServiceError       a node that was asked over the network refused
    └── ServiceUnreachable  nobody answers there; it may later
"""

from core.errors import WarpgridError

__all__ = ["ConfigError", "KeysError", "ServiceError", "ServiceUnreachable", "TestnetError"]


class ConfigError(WarpgridError):
    code = "invalid_config"


class KeysError(WarpgridError):
    code = "keys"


class TestnetError(WarpgridError):
    code = "testnet"
    __test__ = False  # not a test class, whatever pytest makes of the name


class ServiceError(WarpgridError):
    """`data` is what the node gave beside its message: a revert's bytes."""

    code = "service"

    def __init__(self, message: str, data: bytes = b"") -> None:
        super().__init__(message)
        self.data = data


class ServiceUnreachable(ServiceError):
    code = "service_unreachable"
