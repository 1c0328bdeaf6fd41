"""Models by folder or Hugging Face id: what is wrong with one, said before anything heavy tries to load it."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path

from agentgym.errors import ModelError

WEIGHTS = ("*.safetensors", "pytorch_model*.bin")


def check_model(path: str, revision: str = "") -> None:
    """Raises `ModelError` for a folder that holds no model, and for an id that the hub does not have or cannot give."""
    folder = Path(path)
    if folder.exists():
        _check_folder(folder)
        return
    if path.startswith((".", "/", "~")) or path.count("/") > 1:
        raise ModelError(f"model {path!r}: there is no such folder")
    from huggingface_hub import HfApi, try_to_load_from_cache

    try:
        info = HfApi().model_info(path, revision=revision or None, timeout=20)
    except Exception as e:
        if (problem := hub_problem(e)) is None:
            raise
        # whoever works offline has it in the cache
        if "reached" not in problem or not isinstance(try_to_load_from_cache(path, "config.json"), str):
            raise ModelError(f"model {path!r}: there is no such folder here, and {problem}") from None
        return
    names = [file.rfilename for file in info.siblings or ()]
    if not any(fnmatch(name, pattern) for name in names for pattern in WEIGHTS):
        raise ModelError(f"model {path!r}: has no weights (*.safetensors) on the hub")


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise ModelError(f"model {str(folder)!r}: is a file; give the model's folder or a Hugging Face id")
    if not (folder / "config.json").is_file():
        raise ModelError(f"model {str(folder)!r}: has no config.json, so it is no model folder")
    if not any(found for pattern in WEIGHTS for found in folder.glob(pattern)):
        raise ModelError(f"model {str(folder)!r}: has no weights (*.safetensors); is the download complete?")


def hub_problem(error: Exception) -> str | None:
    """What an error of huggingface_hub means to the user; None for one that is not of the hub."""
    from huggingface_hub import constants, errors

    where = constants.ENDPOINT
    match error:
        case errors.GatedRepoError():
            return f"{where} gives it only to those who accepted its terms (hf auth login)"
        case errors.RepositoryNotFoundError():
            return f"{where} has none of that name (or it is private: hf auth login)"
        case errors.RevisionNotFoundError():
            return f"{where} has no such revision of it"
        case errors.LocalEntryNotFoundError() | errors.OfflineModeIsEnabled():
            return f"{where} cannot be reached, nor is it in the cache"
        case errors.EntryNotFoundError():
            return f"on {where} it lacks a file that is needed: {_first_line(error)}"
        case errors.HFValidationError():
            return f"it is no id that {where} could have"
        case errors.HfHubHTTPError():
            return f"{where} answered: {_first_line(error)}"
        case _ if isinstance(error, OSError) or type(error).__module__.startswith(("http", "requests")):
            return f"{where} cannot be reached ({_first_line(error)})"
    return None


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
