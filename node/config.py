"""Settings of every role: frozen dataclasses, built once, from one file, the environment and flags.

This is the only module that reads the environment. A setting is declared once, as a field with its default, its
sentence and its limits; the TOML file, the environment variable, the command-line flag, `--help` and the commented
example that `warpgrid config init` writes all follow from that. Precedence: flag, environment, file, default.
"""

import difflib
import inspect
import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

import typer

from node.errors import ConfigError
from node.options import taking

__all__ = [
    "CONFIG_FILE_HELP",
    "ROLES",
    "SequencerConfig",
    "WorkerConfig",
    "example_toml",
    "load",
    "with_flags",
]

CONFIG_FILE_HELP = "TOML file with the settings of this role (see `warpgrid config init`)"

Role = TypeVar("Role")


def setting(default: Any, sentence: str, *, least: int | None = None, most: int | None = None) -> Any:
    """A field with its default, the sentence that explains it (with its unit), and limits for integers."""
    return field(default=default, metadata={"sentence": sentence, "least": least, "most": most})


@dataclass(frozen=True, slots=True)
class SequencerConfig:
    """A sequencer: orders transactions, coordinates workers and jobs, serves JSON-RPC."""

    data_dir: Path = setting(Path("warpgrid-sequencer"), "folder for blocks, state, keys and logs")
    genesis: Path = setting(Path("genesis.json"), "genesis file in geth's format; read on first start")
    rpc_host: str = setting("127.0.0.1", "address that JSON-RPC (HTTP and WebSocket) listens on")
    rpc_port: int = setting(8545, "port of JSON-RPC", least=0, most=65_535)
    grpc_host: str = setting("127.0.0.1", "address that workers and job clients connect to")
    grpc_port: int = setting(8550, "port where workers enrol and clients hand in jobs (TLS)", least=0, most=65_535)
    attach_port: int = setting(8551, "port of the workers' streams (mutual TLS)", least=0, most=65_535)
    metrics_port: int = setting(0, "port of Prometheus metrics on 127.0.0.1; 0 switches them off", least=0, most=65_535)
    block_interval_ms: int = setting(250, "time between blocks, milliseconds", least=10, most=60_000)
    block_transactions_max: int = setting(20_000, "transactions in one block", least=1, most=10_000_000)
    empty_block_interval_ms: int = setting(
        2_000, "with no transactions, time between blocks, milliseconds; 0 makes blocks only on demand", least=0
    )
    executors_wanted: int = setting(2, "workers that must agree on a block, where that many are connected", least=1)
    watchers: str = setting(
        "", "addresses of the watchers whose findings halt sealing, separated by commas; empty believes any watcher"
    )
    execution_timeout_ms: int = setting(30_000, "time a worker has to execute a block, milliseconds", least=100)
    settlement_interval_ms: int = setting(2_000, "time between looks at what can be settled, milliseconds", least=100)
    settlement_wait_ms: int = setting(
        0, "time that a receipt waits for others to be settled with it, milliseconds; 0 settles at once", least=0
    )
    audit_percent: int = setting(25, "share of jobs whose answer is checked", least=0, most=100)
    audit_models: str = setting(
        "", "folder of exact models to check answers with; empty leaves every check to a second worker"
    )
    audit_units: int = setting(16, "places of an exact answer that an audit opens", least=1, most=64)
    states_kept: int = setting(256, "blocks whose state can be queried; 0 keeps every state", least=0)
    log_level: str = setting("info", "debug, info, warning or error")


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """A worker: keeps a replica, executes blocks, runs AI jobs, earns."""

    data_dir: Path = setting(Path("warpgrid-worker"), "folder for blocks, state, keys and logs")
    genesis: Path = setting(Path("genesis.json"), "genesis file of the chain to join")
    sequencer: str = setting("127.0.0.1:8550", "host:port of the sequencer")
    sequencer_fingerprint: str = setting(
        "", "SHA-256 of the sequencer's certificate, hex; empty trusts the first one seen and remembers it"
    )
    rpc_url: str = setting("http://127.0.0.1:8545", "JSON-RPC of the sequencer, to register and stake")
    executor: str = setting("cpu", "what executes blocks: cpu (the native engine) or reference (EELS)")
    duty: str = setting("worker", "worker executes blocks and jobs; watcher re-checks blocks with a second EVM")
    model: str = setting(
        "",
        "directory of an exact model (`warpgrid model import`), GGUF file, or `smollm2` for the packaged float one; "
        "empty serves none",
    )
    price_per_token_wei: int = setting(1_000_000_000, "asking price of one output token, wei", least=0)
    jobs_max: int = setting(1, "jobs run at the same time", least=1, most=1_024)
    engine_threads: int = setting(0, "threads of the inference engine; 0 takes the number of cores", least=0)
    engine_device: str = setting("auto", "where an exact model runs: gpu, cpu, or auto (a GPU that can, else the CPU)")
    metrics_port: int = setting(0, "port of Prometheus metrics on 127.0.0.1; 0 switches them off", least=0, most=65_535)
    states_kept: int = setting(256, "blocks whose state can be queried; 0 keeps every state", least=0)
    log_level: str = setting("info", "debug, info, warning or error")


ROLES: Mapping[str, type] = {"sequencer": SequencerConfig, "worker": WorkerConfig}
_CHOICES = {
    "executor": ("cpu", "reference"),
    "duty": ("worker", "watcher"),
    "log_level": ("debug", "info", "warning", "error"),
}


def load(role: type[Role], file: Path | None, flags: Mapping[str, Any], environ: Mapping[str, str]) -> Role:
    """The settings of one role.

    `flags` holds the command line's values, None where a flag was not given. A relative path in the file is taken from
    the file's folder. Raises ConfigError naming the setting, where it came from, and what is allowed.
    """
    section = next(name for name, known in ROLES.items() if known is role)
    values: dict[str, Any] = {}
    for name, value in _read_file(file, section, role).items():
        values[name] = _checked(role, name, value, f"{file}")
        if isinstance(values[name], Path) and file is not None:
            values[name] = file.parent / values[name]
    for one in fields(cast(Any, role)):
        variable = f"WARPGRID_{section}_{one.name}".upper()
        if variable in environ:
            values[one.name] = _checked(role, one.name, environ[variable], f"the environment ({variable})")
        if flags.get(one.name) is not None:
            values[one.name] = _checked(role, one.name, flags[one.name], f"--{one.name.replace('_', '-')}")
    return role(**values)


def _read_file(file: Path | None, section: str, role: type) -> Mapping[str, Any]:
    if file is None:
        return {}
    try:
        table = tomllib.loads(file.read_text("utf-8")).get(section, {})
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not TOML: {error}") from error
    if not isinstance(table, dict):
        raise ConfigError(f"{file}: [{section}] must be a table")
    known = [one.name for one in fields(role)]
    for name in table:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean `{near[0]}`?" if near else f"; known settings: {', '.join(known)}"
            raise ConfigError(f"{file}: unknown setting `{name}` in [{section}]{hint}")
    return table


def _checked(role: type, name: str, value: Any, origin: str) -> Any:
    declared = next(one for one in fields(role) if one.name == name)
    kind, least, most = declared.type, declared.metadata["least"], declared.metadata["most"]
    if kind is int and isinstance(value, str):
        try:
            value = int(value)
        except ValueError as error:
            raise ConfigError(f"{origin}: `{name}` must be a whole number, not {value!r}") from error
    if kind is Path and isinstance(value, str):
        value = Path(value)
    if not isinstance(value, cast(type, kind)) or isinstance(value, bool):
        raise ConfigError(f"{origin}: `{name}` must be {cast(type, kind).__name__}, not {value!r}")
    if isinstance(value, int) and not (least is None or value >= least) & (most is None or value <= most):
        raise ConfigError(f"{origin}: `{name}` is {value}; allowed: {least or 0} to {most or 'any'}")
    if value not in _CHOICES.get(name, (value,)):
        raise ConfigError(f"{origin}: `{name}` is {value!r}; allowed: {', '.join(_CHOICES[name])}")
    return value


def example_toml(role: str) -> str:
    """A commented file with every setting of a role at its default."""
    declared = ROLES[role]
    lines = [f"# {inspect.getdoc(declared)}", f"[{role}]"]
    for one in fields(declared):
        value = str(one.default) if isinstance(one.default, Path) else one.default
        text = f'"{value}"' if isinstance(value, str) else str(value)
        lines += ["", f"# {one.metadata['sentence']}", f"#{one.name} = {text}"]
    return "\n".join(lines) + "\n"


def with_flags(role: type) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorate a command's body so that it takes --config and one flag for each setting of `role`.

    The body's first parameter gets the settings; further ones stay options of its own.
    """
    shared = [_parameter("config", Path, CONFIG_FILE_HELP)]
    for one in fields(role):
        default = one.default if str(one.default) else "none"
        shared.append(_parameter(one.name, cast(type, one.type), f"{one.metadata['sentence']} [default: {default}]"))
    return taking(shared, lambda config, **flags: load(role, config, flags, os.environ))


def _parameter(name: str, kind: type, sentence: str) -> inspect.Parameter:
    option = typer.Option(f"--{name.replace('_', '-')}", help=sentence, show_default=False)
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, option]
    )
