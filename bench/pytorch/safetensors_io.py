"""safetensors files, read and written with the standard library and NumPy.

Layout: 8 bytes little-endian length of the header, the header (JSON: name -> dtype, shape, data_offsets; "__metadata__" -> strings),
then the bytes of the arrays without gaps. Written deterministically: wide types first (so every array is aligned), then by name.
"""
import json
import struct

import numpy as np

from mistakes import UserError

TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1", "U8": "|u1", "BOOL": "|b1"}
NAMES = {np.dtype(v): k for k, v in TYPES.items()}


def save(path, arrays, metadata=None):
    """arrays: name -> NumPy array; metadata: string -> string."""
    arrays = {k: np.asarray(v, order="C") for k, v in arrays.items()}
    names = sorted(arrays, key=lambda k: (-arrays[k].itemsize, k))
    header, offset = {}, 0
    if metadata:
        header["__metadata__"] = {k: metadata[k] for k in sorted(metadata)}
    for name in names:
        a = arrays[name]
        if a.dtype not in NAMES:
            raise ValueError(f"{path}: array {name} has type {a.dtype}, which safetensors does not hold")
        header[name] = {"dtype": NAMES[a.dtype], "shape": list(a.shape), "data_offsets": [offset, offset + a.nbytes]}
        offset += a.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for name in names:
            f.write(arrays[name].tobytes())


def load(path):
    """-> (name -> NumPy array, metadata)."""
    try:
        with open(path, "rb") as f:
            raw = f.read()
    except OSError as e:
        raise UserError(f"{path}: {e.strerror}, expected a safetensors file") from None
    try:
        (n,) = struct.unpack("<Q", raw[:8])
        header = json.loads(raw[8:8 + n])
        metadata = header.pop("__metadata__", {})
        arrays = {}
        for name, entry in header.items():
            begin, end = (8 + n + x for x in entry["data_offsets"])
            arrays[name] = np.frombuffer(raw[begin:end], TYPES[entry["dtype"]]).reshape(entry["shape"]).copy()
    except (struct.error, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{path}: is no whole safetensors file, or has a type that is not read here") from None
    return arrays, metadata
