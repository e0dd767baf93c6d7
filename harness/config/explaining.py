"""What is wrong with a configuration, in a sentence that names the key and a remedy."""

import re

from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness.config.compose import composed
from harness.config.run_config import no_such_key
from harness.foundation.did_you_mean import nearest_name


def explain(error: Exception, overrides: list[str]) -> str:
    """A Hydra error in one line, with the nearest existing name."""
    text = str(error)
    unknown = re.search(r"Could not override '([^']+)'", text) or re.search(
        r"Key '[^']+' is not in struct.*?full_key: (\S+)", text, re.S
    )
    if unknown:
        key = unknown[1]
        reason = no_such_key(key)
        return reason if "not supported" in reason else reason + _nearest(key, _keys(key, overrides))
    if match := re.search(
        r"Could not (?:find|load) '([^']+)/([^'/]+)'.*?Available options in '[^']+':\s*(.*)", text, re.S
    ):
        options = re.split(r"\n\s*(?:\n|Config search path)", match[3])[0].split()
        wrong = f"{match[1]}={match[2]}: no such option{_nearest(match[2], options)}"
        return f"{wrong}; choose among {', '.join(options)}"
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
    try:
        config = composed("config", others)
    except HydraException:
        config = composed("config")
    keys: list[str] = []

    def walk(node: dict, prefix: str) -> None:
        for key, value in node.items():
            keys.append(prefix + key)
            if isinstance(value, dict):
                walk(value, f"{prefix}{key}.")

    walk(OmegaConf.to_container(config), "")
    return keys
