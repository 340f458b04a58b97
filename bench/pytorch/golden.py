"""Writes the golden cases: inputs as float32 values, results by autograd in float64 (stored float32, losses float64).

    python golden.py [--out ../../tests/golden]

For each case NAME: NAME.case.safetensors (docs/step-format.md) and NAME.want.safetensors with the arrays of the result and with
`mass.<array>`, the scale rounding errors are measured by, one value per row: the array's shape without the last dimension (a vector: shape
(1)). mass.loss.total (1) serves all loss terms; new.* have none. manifest.json holds SHA-256 and CRC-32 of every file. A second run of the
same PyTorch writes the same bytes; on another processor sums may differ in the last bit of a float64, and files that differ by no more stay.
The cases are those of golden_cases.py and golden_hard.py, results and masses are computed by golden_results.py.
"""
import argparse
import hashlib
import json
import os
import zlib

import numpy as np
import torch

import golden_cases as C
import golden_hard
import golden_results as R
import safetensors_io as st

TOLERANCE = {
    "forward": "1e-6 * mass (loss.*: 1e-6 * mass.loss.total)",
    "gradient": "1e-5 * mass",
    "new": "1e-6 * |new| + 1e-2 * learning_rate, only where |grad| >= 1e-6 * mass.grad (or mass.grad is 0)",
    "pool": "1e-6 * mass",
}


def stored(x, name):
    """Losses: one float64 value; the rest float32."""
    x = x.detach().double().numpy()
    return x.reshape(1) if name.removeprefix("mass.").startswith("loss.") else x.astype(np.float32)


def holds(path, arrays, metadata):
    """A file is there already, with the same arrays but for rounding in float64: other processors add in other orders. Such a file stays."""
    if not os.path.exists(path):
        return False
    old, about = st.load(path)

    def equal(x, y):
        if x.dtype != y.dtype or x.shape != y.shape or x.dtype.kind != "f":
            return x.dtype == y.dtype and np.array_equal(x, y)
        return np.allclose(x, y, rtol=1e-7 if x.dtype == np.float32 else 1e-13, atol=1e-15)

    return about == metadata and set(old) == set(arrays) and all(equal(old[n], np.asarray(x)) for n, x in arrays.items())


def written(out, manifest, file, arrays, metadata):
    """Writes a file, unless it is there, and its checksums into the manifest. -> bytes"""
    path = os.path.join(out, file)
    if not holds(path, arrays, metadata):
        st.save(path, arrays, metadata)
    with open(path, "rb") as f:
        raw = f.read()
    manifest["files"][file] = hashlib.sha256(raw).hexdigest()
    manifest["crc32"][file] = f"{zlib.crc32(raw):08x}"
    return len(raw)


def all_cases():
    """name -> (kind, settings, function that makes arrays and metadata)"""
    out = {n: ("step", setting, lambda n=n, x=setting, y=shape: C.make_step(n, x, **y)) for n, (setting, shape) in C.STEPS.items()}
    out.update({n: ("reverse", setting, lambda n=n, x=setting, y=shape: C.make_reverse(n, x, **y)) for n, (setting, shape) in C.REVERSES.items()})
    out.update({n: ("step", setting, make) for n, (setting, make) in golden_hard.cases().items()})
    return out


def write_all(out, cases, others):
    """Cases, other files and the manifest. others: file name -> function that makes arrays and metadata"""
    os.makedirs(out, exist_ok=True)
    manifest = {"torch": torch.__version__, "numpy": np.__version__, "seed": C.SEED, "tolerance": TOLERANCE, "files": {}, "crc32": {}, "cases": {}}
    total = 0
    for name, (kind, setting, make) in cases.items():
        everything = name in C.EVERYTHING
        arrays, metadata = make()
        if kind == "step":
            want, mass = R.step_result(arrays, metadata, everything=everything), R.step_mass(arrays, metadata, everything)
        else:
            want, mass = R.reverse_result(arrays, metadata, everything=everything)
        missing = [n for n in want if not n.startswith(("new.", "loss.")) and f"mass.{n}" not in mass]
        assert not missing, missing
        result = {n: stored(x, n) for n, x in {**want, **mass}.items()}
        files = {f"{name}.case.safetensors": (arrays, metadata),
                 f"{name}.want.safetensors": (result, {"format": metadata["format"] + "-result", "version": "1"})}
        for file, (content, about) in files.items():
            total += written(out, manifest, file, content, about)
        manifest["cases"][name] = {"kind": kind, "settings": setting}
        if everything:
            manifest["cases"][name]["everything"] = True
        if kind == "step":
            print(f"{name:32s} loss {want['loss.total'].item():.9f}")
    for name, make in others.items():
        total += written(out, manifest, f"{name}.safetensors", *make())
    with open(os.path.join(out, "manifest.json"), "w") as f:
        json.dump(manifest, f, indent=1, sort_keys=True)
        f.write("\n")
    print(f"{len(manifest['cases'])} cases, {len(manifest['files'])} files, {total / 1e3:.0f} KB, in {os.path.normpath(out)}")


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    parser = argparse.ArgumentParser(description="Writes the golden cases of tests/golden.")
    parser.add_argument("--out", default=os.path.join(here, "..", "..", "tests", "golden"))
    out = os.path.normpath(parser.parse_args().out)
    torch.set_num_threads(1)
    write_all(out, all_cases(), {"similar_negative": C.make_selection, "hard_choice": golden_hard.make_choices, "denoise": C.make_denoising})


if __name__ == "__main__":
    main()