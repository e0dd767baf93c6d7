"""What the code itself must never do: read pickles without care, run text or a checkpoint's code, build what
a configuration names, draw random numbers that depend on the device or on whoever drew before.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted(
    path
    for package in ("harness", "methods", "conf", "hydra_plugins")
    for path in (ROOT / package).rglob("*.py")
)
MODULES = {
    "pickle",
    "cPickle",
    "dill",
    "cloudpickle",
    "joblib",
    "shelve",
    "marshal",
    "jsonpickle",
    "sqlitedict",
}
CALLS = {"eval", "exec", "__import__", "instantiate", "read_pickle", "unsafe_load", "system", "popen"}
BARE = {"eval", "exec"}  # as a method these are something else: model.eval()
# Random numbers are drawn on the CPU by a generator of their own, then moved: one seed, one number.
DRAWS = {"rand", "randn", "randint", "randperm", "normal", "multinomial", "bernoulli", "poisson"}
NOWHERE = {"rand_like", "randn_like", "randint_like", "manual_seed_all"}  # of a tensor's device, or of all
IN_PLACE = {
    "normal_",
    "uniform_",
    "random_",
    "bernoulli_",
    "exponential_",
    "trunc_normal_",
    "cauchy_",
    "geometric_",
}


def violations(source):
    """Why a file is unsafe, with the line."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            named = (
                [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            )
            found += [(node.lineno, name) for name in named if name.split(".")[0] in MODULES]
        elif isinstance(node, ast.Call):
            found += [(node.lineno, reason) for reason in _of_call(node)]
    return found


def _of_call(node):
    attribute = isinstance(node.func, ast.Attribute)
    name = node.func.attr if attribute else getattr(node.func, "id", "")
    owner = ast.unparse(node.func.value) if attribute else ""
    given = {keyword.arg: getattr(keyword.value, "value", "?") for keyword in node.keywords}
    if name in CALLS - (BARE if attribute else set()):
        yield name
    if name == "load" and owner == "torch" and "weights_only" not in given:
        yield "torch.load"
    if name == "load" and owner == "yaml":
        yield "yaml.load"
    for switch, harmless in (("trust_remote_code", False), ("weights_only", True), ("shell", False)):
        if given.get(switch, harmless) is not harmless:
            yield switch
    if given.get("allow_pickle", False) is True:
        yield "allow_pickle"
    yield from _random(node, name, owner, given)


def _random(node, name, owner, given):
    of_torch = owner.split(".")[0] == "torch" and "(" not in owner
    if name == "Generator" and (of_torch or not owner) and (node.args or node.keywords):
        yield "torch.Generator of a device"
    if name in NOWHERE or (of_torch and name == "manual_seed"):
        yield name
    if (of_torch and name in DRAWS) or name in IN_PLACE:
        if "generator" not in given:
            yield f"{name} without a generator"
        elif "device" in given:
            yield f"{name} on a device"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_package_never_does(path):
    assert violations(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from dill import loads",
        "import joblib.numpy_pickle",
        "torch.load(path)",
        "torch.load(path, weights_only=flag)",
        "torch.load(path, weights_only=False)",
        "eval('1')",
        "exec(text)",
        "hydra.utils.instantiate(node)",
        "instantiate(node)",
        "from_pretrained(x, trust_remote_code=True)",
        "from_pretrained(x, trust_remote_code=config.trust)",
        "from_pretrained(x, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "pd.read_pickle(path)",
        "yaml.load(text)",
        "subprocess.run(text, shell=True)",
        "os.system(text)",
        "torch.Generator(weight.device)",
        "torch.Generator(device='cuda')",
        "Generator(device)",
        "torch.randn(3, generator=g, device=d)",
        "torch.randperm(3)",
        "torch.rand_like(x)",
        "x.normal_()",
        "nn.init.normal_(x)",
        "torch.manual_seed(0)",
        "torch.cuda.manual_seed_all(0)",
    ],
)
def test_the_rules_find_what_they_are_for(source):
    assert len(violations(source)) == 1


def test_the_rules_let_the_rest_pass():
    assert (
        violations(
            "model.eval()\ntorch.load(p, weights_only=True)\nf(x, trust_remote_code=False)\nlaunch.instantiate_launcher(c)\ntorch.randn(3, generator=torch.Generator().manual_seed(0)).to(d)"  # noqa: E501
        )
        == []
    )
    assert len(FILES) > 60
