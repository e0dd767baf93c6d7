"""Inputs that must be refused, by class: each function makes one, as overrides of a run that would be fine
without them.

`place` is a directory to put files into; `rng` decides everything.
"""

from tests.helpers import bad_models

CONTEXT, WIDTHS = 512, (64, 128)  # of the tiny model: tokens, and inputs of its linears
INTEGERS = [
    "seed",
    "data.samples",
    "data.window",
    "data.batch_size",
    "eval.window",
    "eval.windows",
    "eval.limit",
    "eval.batch_size",
]
INTEGERS += [
    "eval.seed",
    "scheme.bits",
    "scheme.group_size",
    "scheme.act_bits",
    "scheme.kv_bits",
    "scheme.scale_bits",
]
BOOLEANS = [
    "save",
    "retry",
    "data.true_sequential",
    "data.block_error",
    "scheme.symmetric",
    "scheme.act_symmetric",
    "model.allow_pickle",
]
ENUMS = {
    **{
        "model.dtype": "float64",
        "model.bos": "begin",
        "data.propagate": "both",
        "device": "tpu",
        "scheme.zero_point": "real",
    },
    **{"scheme.range": "best", "scheme.outlier_structure": "row", "scheme.act_range": "channel"},
}
GROUPS = [
    "model",
    "data",
    "scheme",
    "method",
    "eval",
    "tracker",
    "experiment",
    "method/solver",
    "method/transform",
]
LETTERS = "abcdefghijklmnopqrstuvwxyz_"


def typo(rng, word):
    """One letter more, less or other, never the first."""
    i = rng.randrange(1, len(word))
    return rng.choice(
        [word[:i] + word[i + 1 :], word[:i] + rng.choice(LETTERS) + word[i:], word[:i] + "zq" + word[i + 1 :]]
    )


def key_typo(rng, place):
    group, _, leaf = rng.choice([key for key in (*INTEGERS, *BOOLEANS, *ENUMS) if "." in key]).partition(".")
    wrong = f"{group}.{typo(rng, leaf)}x"
    return [rng.choice(["", "+", "++"]) + f"{wrong}=1"]


def key_beside_the_groups(rng, place):
    return [
        rng.choice(["+", "++", ""])
        + typo(rng, rng.choice(["seed", "device", "save", "retry", "bits", "method_config"]))
        + "x=1"
    ]


def option_typo(rng, place):
    return [
        f"{rng.choice(GROUPS)}={typo(rng, rng.choice(['tiny', 'gptq', 'synthetic', 'smoke', 'w4g32']))}zz"
    ]


def wrong_type(rng, place):
    key = rng.choice([*INTEGERS, *BOOLEANS])
    return [
        f"{key}={rng.choice(['abc', '[1]', '{a:1}', '1x', 'maybe', '[]', '1e400', 'nan'] + (['1.5'] if key in INTEGERS else []))}"  # noqa: E501
    ]


def out_of_range(rng, place):
    key = rng.choice([key for key in INTEGERS if key != "eval.seed"])
    return (
        [f"{key}={-rng.randrange(1, 10**6)}"]
        if rng.random() < 0.7
        else [f"scheme.bits={rng.choice([0, 1, 9, 16, 32])}"]
    )


def wrong_word(rng, place):
    key = rng.choice(list(ENUMS))
    return [f"{key}={rng.choice([ENUMS[key], typo(rng, ENUMS[key]) + 'x', 'null'])}"]


def broken_rule(rng, place):
    rules = [
        ["scheme.symmetric=true", "scheme.zero_point=float"],
        ["eval.corpora=[]", "eval.tasks=[]"],
        ["method/transform=awq", "method.solver=null"],
        ["tracker.name=mlflow"],
        ["model.revision=main"],
        ["scheme.outlier_ratio=0.9"],
        ["paths.cache_gib=-1"],
        ["method.solver.damping=-1"],
        ["method.solver.damping=null"],
    ]
    return [*rng.choice(rules), f"seed={rng.randrange(100)}"]


def group_size(rng, place):
    return [
        f"scheme.group_size={rng.choice([size for size in range(3, 300) if any(width % size for width in WIDTHS)])}"  # noqa: E501
    ]


def window(rng, place):
    return [f"{rng.choice(['data.window', 'eval.window'])}={rng.randrange(CONTEXT + 1, 10**6)}"]


def unknown_name(rng, place):
    word = typo(rng, rng.choice(["wikitext2", "synthetic", "analogies", "lambada_openai", "piqa"])) + "x"
    return [
        rng.choice(
            [
                f"data.name={word}",
                f"eval.corpora=[{word}]",
                f"eval.tasks=[{word}]",
                f"eval.tasks=[analogies,{word}]",
            ]
        )
    ]


def mirror(rng, place):
    (place / "mirror").mkdir()
    (place / "file").touch()
    there = [
        "eval.mirror=" + str(place / "mirror"),
        rng.choice(["eval.tasks=[piqa]", "eval.corpora=[c4]", "data=wikitext2"]),
    ]
    return rng.choice(
        [there, [f"eval.mirror={place}/{rng.randrange(10**6)}"], [f"data.mirror={place / 'file'}"]]
    )


def model_id(rng, place):
    (place / "empty").mkdir()
    word = "".join(rng.choices(LETTERS, k=6))
    made = [
        f"asset:{word}",
        f"tiny:{word}",
        f"./{word}",
        f"{place}/{word}",
        f"a/b/{word}",
        "..",
        "/",
        "''",
        "'a b'",
        "asset:",
        str(place / "empty"),
    ]
    return ["model=hub", f"model.id={rng.choice([*made, f'{word}/{word}', '???'])}"]


def grammar(rng, place):
    broken = [
        "a=[",
        "=3",
        "model.id='x",
        "model.id={",
        "seed",
        "seed=1,2,[",
        "--seed=1",
        "seed=interval(0,1)",
        "~seed",
        "seed==",
        "\x00=1",
        "@x=1",
    ]
    return [
        rng.choice(
            [
                *broken,
                "seed=${nowhere}",
                "model.name=${seed",
                "data.samples=range(1",
                "tracker.tags=[a",
                "eval.corpora=wiki,",
            ]
        )
    ]


def directory(rng, place):
    (place / "file").touch()
    where = [
        f"{place / 'file'}/below",
        "/proc/results",
        str(place / "file"),
        "/dev/null/x",
        f"{'x' * 300}/y",
        "/sys/ptq",
    ]
    return [f"paths.results={rng.choice(where)}", f"seed={rng.randrange(100)}"]


def secret(rng, place):
    token = "hf_" + "".join(rng.choices("ABCDEFGHIJabcdefghij0123456789", k=34))
    key = rng.choice(
        [
            "model.name",
            "eval.name",
            "data.mirror",
            "eval.mirror",
            "model.id",
            "+x",
            "+tracker.project",
            "paths.results",
        ]
    )
    return [f"{key}={rng.choice([token, f'https://user:{token}@host/x', f'/data/{token}'])}"]


def target(rng, place):
    names = [
        "os.system",
        "builtins.eval",
        "subprocess.Popen",
        "logging.os.system",
        "harness.run.run",
        "methods.gptq",
        "methods..gptq.GPTQ",
    ]
    names += [
        "methods.rtn.torch",
        "methods.gptq.dataclass",
        "methods.contracts.linalg.cholesky",
        "methods.nothing.X",
        "",
        "../../x",
        "hydra.utils.call",
    ]
    place = rng.choice(["method.solver", "method/transform=awq method.transform"]).split()
    return [*place[:-1], f"{place[-1]}._target_='{rng.choice(names)}'"]


MODELS = (
    "config_file",
    "weights",
    "shards",
    "pickled",
    "architecture",
    "remote_code",
    "quantized",
    "tokenizer",
    "shape",
)
CLASSES = {
    function.__name__: function
    for function in (
        *(
            key_typo,
            key_beside_the_groups,
            option_typo,
            wrong_type,
            out_of_range,
            wrong_word,
            broken_rule,
            group_size,
            window,
        ),
        *(unknown_name, mirror, model_id, grammar, directory, secret, target),
        *(getattr(bad_models, name) for name in MODELS),
    )
}
