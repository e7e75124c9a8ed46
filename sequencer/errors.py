"""The sequencer's errors.

WarpgridError
├── ExecutionUnavailable (sequencer.ports)   no agreed outcome can be had now; the same block may be asked for again
└── MempoolError                             a transaction that the mempool refuses; the message is geth's
    ├── TransactionRefused                   against the rules whatever the state is
    ├── AlreadyKnown                         the very same transaction is waiting already
    ├── NonceTooLow                          the account has used this nonce
    ├── InsufficientFunds                    the account cannot pay for it and for what it has waiting
    ├── ReplacementUnderpriced               does not pay enough more than the one with the same nonce
    ├── TransactionUnderpriced               the mempool is full of better paying ones, or below the minimum tip
    └── SenderLimitExceeded                  the sender has too many waiting
"""

from core.errors import WarpgridError

__all__ = [
    "AlreadyKnown",
    "InsufficientFunds",
    "MempoolError",
    "NonceTooLow",
    "ReplacementUnderpriced",
    "SenderLimitExceeded",
    "TransactionRefused",
    "TransactionUnderpriced",
]


class MempoolError(WarpgridError):
    code = "mempool"


class TransactionRefused(MempoolError):
    code = "transaction_refused"


class AlreadyKnown(MempoolError):
    code = "already_known"


class NonceTooLow(MempoolError):
    code = "nonce_too_low"


class InsufficientFunds(MempoolError):
    code = "insufficient_funds"


class ReplacementUnderpriced(MempoolError):
    code = "replacement_underpriced"


class TransactionUnderpriced(MempoolError):
    code = "transaction_underpriced"


class SenderLimitExceeded(MempoolError):
    code = "sender_limit_exceeded"
