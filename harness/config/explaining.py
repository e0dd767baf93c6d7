"""What is wrong with a configuration, in a sentence that names the key and a remedy."""

import re

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness.foundation.errors import nearest_name

NO_SUCH_KEY = "no such key"


def explain(error: Exception, overrides: list[str]) -> str:
    """A Hydra error in one line, with the nearest existing name."""
    text = str(error)
    unknown = re.search(r"Could not override '([^']+)'", text) or re.search(
        r"Key '[^']+' is not in struct.*?full_key: (\S+)", text, re.S
    )
    if unknown:
        told = no_such_key(unknown[1])
        return told if "not supported" in told else told + _nearest(unknown[1], _keys(unknown[1], overrides))
    if match := re.search(
        r"Could not (?:find|load) '([^']+)/([^'/]+)'.*?Available options in '[^']+':\s*(.*)", text, re.S
    ):
        options = re.split(r"\n\s*(?:\n|Config search path)", match[3])[0].split()
        return f"{match[1]}={match[2]}: no such option{_nearest(match[2], options)}; choose among {', '.join(options)}"
    return sentence(error)


def sentence(error: BaseException) -> str:
    cause = f": {error.__cause__}" if isinstance(error.__cause__, OmegaConfBaseException) else ""
    return " ".join(f"{error}{cause}".split())


def _nearest(name: str, names: list[str]) -> str:
    hint = nearest_name(name, names)
    if not hint and "." in name:  # the right leaf below the wrong group
        same_leaf = [known for known in names if known.rsplit(".", 1)[-1] == name.rsplit(".", 1)[-1]]
        hint = nearest_name(name, same_leaf[:1], cutoff=0)
    return f"; {hint}" if hint else ""


def _keys(wrong: str, overrides: list[str]) -> list[str]:
    """Every key of the configuration that the overrides ask for, but for the wrong one; dotted."""
    others = [
        item
        for item in overrides
        if not item.startswith("-") and item.lstrip("+~").split("=")[0] != wrong and "," not in item
    ]
    GlobalHydra.instance().clear()
    with hydra.initialize_config_module("conf", version_base="1.3"):
        try:
            config = hydra.compose("config", others)
        except HydraException:
            config = hydra.compose("config")
    keys: list[str] = []

    def walk(node: dict, prefix: str) -> None:
        for key, value in node.items():
            keys.append(prefix + key)
            if isinstance(value, dict):
                walk(value, f"{prefix}{key}.")

    walk(OmegaConf.to_container(config), "")
    return keys


def no_such_key(key: str) -> str:
    """What to tell of a key that the schema does not have."""
    if key.rpartition(".")[2] == "trust_remote_code":
        return f"{key}: not supported: code in a checkpoint is never run; use an architecture that transformers itself has"
    return f"{key}: {NO_SUCH_KEY}"


def reason_of(error: OmegaConfBaseException) -> str:
    message = (error.msg or str(error)).splitlines()[0]
    if "Structured config of type" in message or "not in" in message:
        return NO_SUCH_KEY
    if "Missing mandatory value" in message or "MISSING" in message:
        return "needs a value"
    return message
