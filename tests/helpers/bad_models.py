"""Directories of models that must be refused, by what is wrong with them; see `tests.helpers.bad_inputs`."""

import json
import shutil
import struct
from pathlib import Path

TEMPLATE: list[Path] = []  # a directory with a tiny model, set by the test


def hub(directory):
    return ["model=hub", f"model.id={directory}"]


def fresh_model(place):
    return Path(shutil.copytree(TEMPLATE[0], place / "model"))


def changed_config(place, entries, name="config.json"):
    path = fresh_model(place) / name
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))
    return path.parent


def config_file(rng, place):
    path = fresh_model(place) / "config.json"
    content = path.read_bytes()
    damages = [
        b"",
        b"[]",
        b"{}",
        b"null",
        b"\xff\xfe",
        b"<!DOCTYPE html>",
        b"version https://git-lfs.github.com/spec/v1\n",
    ]
    path.write_bytes(rng.choice([*damages, content[: rng.randrange(1, len(content) - 2)]]))
    if rng.random() < 0.5:
        wrong = {
            "num_hidden_layers": -1,
            "hidden_size": "wide",
            "num_attention_heads": 0,
            "vocab_size": -5,
            "model_type": None,
        }
        key = rng.choice(list(wrong))
        path.write_text(json.dumps(json.loads(content) | {key: wrong[key]}))
    return hub(path.parent)


def weights(rng, place):
    path = fresh_model(place) / "model.safetensors"
    content = path.read_bytes()
    header = bytearray(content[: 8 + struct.unpack("<Q", content[:8])[0]])
    header[rng.randrange(9, 60)] = rng.randrange(128, 256)  # no UTF-8 any more
    garbage = rng.randbytes(rng.randrange(1, 5000))
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
    damages = [
        b"",
        content[: rng.randrange(len(content))],
        content + garbage,
        garbage,
        pointer,
        b"<html></html>",
        bytes(header) + content[len(header) :],
    ]
    path.write_bytes(rng.choice(damages))
    if rng.random() < 0.1:
        path.unlink()
    return hub(path.parent)


def shards(rng, place):
    model = fresh_model(place)
    names = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    wrong = rng.choice(["missing", "surplus", "twice", "promise", "outside", "empty"])
    for name in names[: 1 if wrong == "missing" else 2]:
        shutil.copy(model / "model.safetensors", model / name)  # the same tensors: twice
    (model / "model.safetensors").unlink()
    outside = rng.choice(
        ["../x.safetensors", "/etc/passwd", "a/b.safetensors", "x.bin", "", "\u202ex.safetensors"]
    )
    weight_map = {
        "missing": {"a": names[1]},
        "promise": {"ghost": names[0]},
        "outside": {"a": outside},
        "empty": {},
    }
    index = weight_map.get(wrong, {"a": names[0], "b": names[1]})
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return hub(model)


def pickled(rng, place):
    model = fresh_model(place)
    (model / "model.safetensors").unlink()
    name = rng.choice(["pytorch_model.bin", "consolidated.00.pth", "model.pt"])
    (model / name).write_bytes(
        rng.choice(
            [b"\x80\x04K\x01.", b"PK\x03\x04" + rng.randbytes(99), b"cposix\nsystem\n(S'true'\ntR.", b""]
        )
    )
    return [*hub(model), f"model.allow_pickle={rng.choice(['true', 'false'])}"]


def architecture(rng, place):
    kinds = [
        "gpt2",
        "bert",
        "t5",
        "mixtral",
        "qwen3_moe",
        "mamba",
        "vit",
        "whisper",
        "phi",
        "gptj",
        "no_such_model",
        "../llama",
        "deepseek_v3",
    ]
    return hub(changed_config(place, {"model_type": rng.choice(kinds)}))


def remote_code(rng, place):
    key = rng.choice(
        ["model.trust_remote_code", "trust_remote_code", "eval.trust_remote_code", "data.trust_remote_code"]
    )
    if rng.random() < 0.4:
        return [f"{rng.choice(['', '+', '++'])}{key}={rng.choice(['true', '1', 'yes'])}"]
    entry = rng.choice(
        [
            {"auto_map": {"AutoModelForCausalLM": "evil.M"}},
            {"text_config": {"auto_map": "x"}},
            {"_attn_implementation": "evil/kernel"},
        ]
    )
    return hub(
        changed_config(
            place,
            entry,
            rng.choice(["config.json", "tokenizer_config.json"]) if "auto_map" in entry else "config.json",
        )
    )


def quantized(rng, place):
    method = rng.choice(["gptq", "awq", "bitsandbytes", "fp8", "hqq", "compressed-tensors", "mxfp4"])
    if rng.random() < 0.7:
        return hub(
            changed_config(
                place, {"quantization_config": rng.choice([{"quant_method": method}, {"bits": 4}, [4]])}
            )
        )
    model = fresh_model(place)
    (model / "model.safetensors").rename(model / "quantized.safetensors")
    return hub(model)


def tokenizer(rng, place):
    path = fresh_model(place) / "tokenizer.json"
    content = path.read_bytes()
    path.write_bytes(
        rng.choice([b"", b"{}", b'{"model": 3}', content[: rng.randrange(len(content))], b"<html>"])
    )
    if rng.random() < 0.4:
        path.unlink()
    return hub(path.parent)


def shape(rng, place):
    key, values = rng.choice(
        [("intermediate_size", (64, 256)), ("hidden_size", (128, 32)), ("num_key_value_heads", (1, 4))]
    )
    return hub(changed_config(place, {key: rng.choice(values)}))
