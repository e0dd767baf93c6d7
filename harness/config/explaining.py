"""What is wrong with a configuration, in a sentence that names the key and a remedy."""

import difflib
import re

from hydra.errors import HydraException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness.config.compose import composed
from harness.config.run_config import no_such_key
from harness.foundation.did_you_mean import nearest_name

CANNOT_BE_READ = "cannot be read; a value with other characters than letters goes in quotes: key=\"'…'\""
ELSE = {  # by group: how what is no option of it is asked for
    "model": "a directory is model=./{0}, a model of the hub model=hub model.id={0}",
    "eval": "a task is eval.tasks={0}, a corpus eval.corpora={0}",
    "scheme": "single fields are scheme.bits=3, scheme.group_size=128 and so on",
}


def explain(error: Exception, overrides: list[str]) -> str:
    """A Hydra error in one line, with the nearest existing name."""
    text = str(error)
    if isinstance(error, OverrideParseException):
        return f"{error.override}: {CANNOT_BE_READ}"
    if key := _unknown_key(error):
        if key in likely_keys(key, overrides):
            return f"{key}: has other fields than these; set them one by one, as {key}.NAME=VALUE"
        reason = no_such_key(key)
        return reason if "not supported" in reason else reason + _instead(key, overrides)
    if match := re.search(
        r"Could not (?:find|load) '([^']+)/([^'/]+)'.*?Available options in '[^']+':\s*(.*)", text, re.S
    ):
        options = re.split(r"\n\s*(?:\n|Config search path)", match[3])[0].split()
        return _no_such_option(match[1], match[2], options)
    return sentence(error)


def not_in_all(failed: dict[tuple[str, ...], Exception], composed: list[tuple[str, ...]]) -> str:
    """A key that the options of some points have and those of others lack, in one line; "" for other errors.

    Args:
        failed: what went wrong, by the overrides of the point.
        composed: the overrides of the points that have every key.
    """
    key = _unknown_key(next(iter(failed.values())))
    group = key.partition(".")[0]
    lack = {_chosen(overrides, group) for overrides, error in failed.items() if _unknown_key(error) == key}
    have = {_chosen(overrides, group) for overrides in composed} - lack
    if not (key and have):
        return ""
    missing, there = (_listed(sorted(entries)) for entries in (lack, have))
    remedy = "sweep them apart, or give the key in the grid of those that have it"
    return f"{no_such_key(key)} with {missing}, but with {there}; {remedy}"


def _listed(names: list[str], most: int = 6) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _chosen(overrides: tuple[str, ...], group: str) -> str:
    """The options of a group and of its parts that these overrides choose."""
    chosen = [item for item in overrides if re.match(rf"\+*{re.escape(group)}(/\w+)*=", item)]
    return " ".join(chosen) or f"the default {group}"


def _unknown_key(error: Exception) -> str:
    """The key that a Hydra error calls unknown; "" for other errors."""
    unknown = re.search(
        r"Could not override '([^']+)'|Key '[^']+' is not in struct.*?full_key: (\S+)", str(error), re.DOTALL
    )
    return (unknown[1] or unknown[2]) if unknown else ""


def sentence(error: BaseException) -> str:
    cause = f": {error.__cause__}" if isinstance(error.__cause__, OmegaConfBaseException) else ""
    text = " ".join(f"{error}{cause}".split())
    if located := re.fullmatch(r"(.*?) full_key: (\S+)( reference_type=.*?)?( object_type=.*)?", text):
        text = f"{located[2]}: {located[1]}"
    is_variable = "Interpolation key" in text
    return text + ("; an environment variable is ${oc.env:NAME}" if is_variable else "")


def likely_keys(wrong: str, overrides: list[str]) -> list[str]:
    """The keys of the configuration that somebody who wrote this one may have meant, the likeliest first."""
    names = _keys(wrong, overrides)
    same_leaf = [name for name in names if name.rpartition(".")[2] == wrong.rpartition(".")[2]]
    if wrong in names or ("." not in wrong and same_leaf):
        return [wrong] if wrong in names else same_leaf[:3]
    return difflib.get_close_matches(wrong, names, n=1) or same_leaf[:1]


def _instead(wrong: str, overrides: list[str]) -> str:
    """ "; did you mean KEY=VALUE?", or nothing."""
    written = [item for item in overrides if item.lstrip("+~").partition("=")[0] == wrong]
    value = "=" + written[0].partition("=")[2] if written else ""
    keys = [f"{key}{value}" for key in likely_keys(wrong, overrides)]
    return f"; did you mean {' or '.join(keys)}?" if keys else ""


def _no_such_option(group: str, name: str, options: list[str]) -> str:
    hint = nearest_name(name, options)
    line = f"{group}={name}: no such option" + (f"; {hint}" if hint else "")
    line += f"; {ELSE[group].format(name)}" if group in ELSE else ""
    return f"{line}; choose among {', '.join(options)}"


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
