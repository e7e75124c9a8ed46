"""`warpgrid model import|list|show|verify|remove`: exact models on this machine."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from worker.inference.cli_options import MODELS_DIR, AsJson, ModelsDir, say, write_json
from worker.inference.errors import ModelCorrupt, ModelUnsupported
from worker.inference.exact.convert import Recipe, import_checkpoint, open_checkpoint
from worker.inference.exact.hub import fetch_checkpoint, is_hub_name
from worker.inference.exact.model import ExactModel, ModelStore
from worker.inference.packaged import PACKAGED_MODEL, packaged_model_file

__all__ = ["app"]

app = typer.Typer(help="Models that every machine runs to the same bytes.", no_args_is_help=True)
console = Console()

Reference = Annotated[str, typer.Argument(help="a model's name, its root, or the root's first digits")]


@app.command("import")
def import_model(
    source: Annotated[
        str,
        typer.Argument(help="folder with safetensors, GGUF file, Hugging Face id (organisation/name), or `smollm2`"),
    ],
    name: Annotated[str, typer.Option(help="what to call it; the source's name if left out")] = "",
    context: Annotated[int, typer.Option(help="longest context to serve; 0 keeps the checkpoint's", min=0)] = 0,
    models_dir: ModelsDir = MODELS_DIR,
    as_json: AsJson = False,
) -> None:
    """Quantise a float checkpoint into an exact model. Interrupted, it leaves nothing behind. Importing a model again
    mends its files and renames it.

    Examples:  warpgrid model import smollm2  ·  warpgrid model import ./Llama-3.1-8B --context 8192
    """
    path = _locate(source)
    checkpoint = open_checkpoint(path)
    chosen = name or (source if source == PACKAGED_MODEL else path.stem if path.is_file() else path.name)
    with Progress(console=console, disable=as_json, transient=True) as progress:
        task = progress.add_task(f"quantising {chosen}", total=None)
        root = import_checkpoint(
            checkpoint,
            ModelStore(models_dir),
            chosen,
            Recipe(context_max=context),
            lambda done, total: progress.update(task, completed=done, total=total),
        )
    if as_json:
        write_json({"name": chosen, "root": root.hex()})
    else:
        say(f"{chosen}  {root.hex()}")


@app.command("list")
def list_models(models_dir: ModelsDir = MODELS_DIR, as_json: AsJson = False) -> None:
    """The models on this machine, oldest first. A damaged one is listed with what is wrong.

    Example:  warpgrid model list --json
    """
    rows = [_summary(path) for path in ModelStore(models_dir).models()]
    if as_json:
        write_json(rows)
        return
    if not rows:
        say(f"no models in {models_dir}; `warpgrid model import smollm2` makes one")
        return
    table = Table("name", "root", "parameters", "context", "size", box=None)
    for row in rows:
        if "error" in row:
            table.add_row("?", row["root"][:12], row["error"], "", "")
        else:
            size = f"{row['bytes'] / 1e6:,.0f} MB"
            table.add_row(row["name"], row["root"][:12], f"{row['parameters'] / 1e6:,.0f} M", str(row["context"]), size)
    console.print(table)


@app.command()
def show(reference: Reference, models_dir: ModelsDir = MODELS_DIR) -> None:
    """Everything that is known of a model, as JSON: identity, shape, recipe, source.

    Example:  warpgrid model show smollm2
    """
    model = ExactModel(ModelStore(models_dir).find(reference))
    header = {name: getattr(model.header, name) for name in model.header.__dataclass_fields__}
    summary = {**_summary(model.directory), "directory": str(model.directory), "header": header}
    write_json({**summary, "provenance": dict(model.provenance), "chat_template": model.chat_template})


@app.command()
def verify(reference: Reference, models_dir: ModelsDir = MODELS_DIR, as_json: AsJson = False) -> None:
    """Recompute a model's root from its bytes. Exit status 1, naming the tensor, if a single bit differs.

    Example:  warpgrid model verify smollm2
    """
    model = ExactModel(ModelStore(models_dir).find(reference))
    model.verify()
    if as_json:
        write_json({"name": model.name, "root": model.root.hex(), "intact": True})
    else:
        say(f"{model.name}  {model.root.hex()}  every byte is as committed")


@app.command()
def remove(reference: Reference, models_dir: ModelsDir = MODELS_DIR, as_json: AsJson = False) -> None:
    """Delete a model from this machine.

    Example:  warpgrid model remove smollm2
    """
    path = ModelStore(models_dir).remove(reference)
    if as_json:
        write_json({"removed": path.name})
    else:
        say(f"removed {path.name}")


def _locate(source: str) -> Path:
    if source == PACKAGED_MODEL:
        return packaged_model_file()
    path = Path(source)
    return path if path.exists() or not is_hub_name(source) else fetch_checkpoint(source)


def _summary(directory: Path) -> dict[str, Any]:
    try:
        model = ExactModel(directory)
    except (ModelCorrupt, ModelUnsupported) as error:
        return {"root": directory.name, "error": str(error)}
    parameters = sum(spec.rows * spec.columns for spec in model.specs if spec.name.endswith(".weight"))
    return {
        "name": model.name,
        "root": model.root.hex(),
        "parameters": parameters,
        "context": model.header.context_max,
        "bytes": sum(spec.bytes for spec in model.specs),
    }
