"""The errors of inference.

    InferenceError(WarpgridError)
    ├── CheckpointError           a float checkpoint that cannot be imported: missing, malformed, not finite
    ├── ModelError                an imported model that cannot be used
    │   ├── ModelNotFound         no model of that name or root in the store
    │   ├── ModelCorrupt          bytes that are not the model they should be; names the file or tensor
    │   ├── ModelUnsupported      another specification, or shapes beyond its limits
    │   └── ModelTooLarge         more memory than this machine has to spare
    ├── EngineError               the engine, not the request, is at fault; another worker may serve the same request
    │   ├── EngineBusy            as many requests are waiting as this engine lets wait
    │   └── EngineFailed          the engine gave up or answered what it must not
    ├── EngineUnavailable         no engine for this instruction set or device, or too little memory for it
    └── RequestError              a request that no model could serve as asked
        ├── TokenOutOfRange       a token that the vocabulary lacks
        ├── ContextExceeded       more tokens than the model's context
        ├── TermsMismatch         an exact order whose tokens or sampling are not those of its text
        └── SamplingInvalid       sampling parameters outside their ranges

CheckpointError and RequestError are `InvalidInput` too: the user can change the input and try again.
"""

from core.errors import InvalidInput, WarpgridError

__all__ = [
    "CheckpointError",
    "ContextExceeded",
    "EngineBusy",
    "EngineError",
    "EngineFailed",
    "EngineUnavailable",
    "InferenceError",
    "ModelCorrupt",
    "ModelError",
    "ModelNotFound",
    "ModelTooLarge",
    "ModelUnsupported",
    "RequestError",
    "SamplingInvalid",
    "TermsMismatch",
    "TokenOutOfRange",
]


class InferenceError(WarpgridError):
    code = "inference"


class CheckpointError(InferenceError, InvalidInput):
    code = "invalid_checkpoint"


class ModelError(InferenceError):
    code = "model"


class ModelNotFound(ModelError):
    code = "model_not_found"


class ModelCorrupt(ModelError):
    code = "model_corrupt"


class ModelUnsupported(ModelError):
    code = "model_unsupported"


class ModelTooLarge(ModelError):
    code = "model_too_large"


class EngineError(InferenceError):
    code = "engine"


class EngineBusy(EngineError):
    code = "engine_busy"


class EngineFailed(EngineError):
    code = "engine_failed"


class RequestError(InferenceError, InvalidInput):
    code = "invalid_request"


class TokenOutOfRange(RequestError):
    code = "token_out_of_range"


class ContextExceeded(RequestError):
    code = "context_exceeded"


class TermsMismatch(RequestError):
    code = "terms_mismatch"


class SamplingInvalid(RequestError):
    code = "invalid_sampling"


class EngineUnavailable(InferenceError):
    code = "engine_unavailable"
