"""The errors of inference.

    InferenceError(WarpgridError)
    ├── CheckpointError           a float checkpoint that cannot be imported: missing, malformed, not finite
    ├── ModelError                an imported model that cannot be used
    │   ├── ModelNotFound         no model of that name or root in the store
    │   ├── ModelCorrupt          bytes that do not hash to what the manifest says; names the file or tensor
    │   └── ModelUnsupported      another specification, or shapes beyond its limits
    ├── EngineUnavailable         no engine for this instruction set or device, or too little memory for it
    └── RequestError              a request that no model could serve as asked
        ├── TokenOutOfRange       a token that the vocabulary lacks
        ├── ContextExceeded       more tokens than the model's context
        └── SamplingInvalid       sampling parameters outside their ranges

CheckpointError and RequestError are `InvalidInput` too: the user can change the input and try again.
"""

from core.errors import InvalidInput, WarpgridError

__all__ = [
    "CheckpointError",
    "ContextExceeded",
    "EngineUnavailable",
    "InferenceError",
    "ModelCorrupt",
    "ModelError",
    "ModelNotFound",
    "ModelUnsupported",
    "RequestError",
    "SamplingInvalid",
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


class RequestError(InferenceError, InvalidInput):
    code = "invalid_request"


class TokenOutOfRange(RequestError):
    code = "token_out_of_range"


class ContextExceeded(RequestError):
    code = "context_exceeded"


class SamplingInvalid(RequestError):
    code = "invalid_sampling"


class EngineUnavailable(InferenceError):
    code = "engine_unavailable"
