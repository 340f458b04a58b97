"""Raw ids of a data folder and the rows they stand for, by the rules of the main README ("Your own data").

A column of integers from 0 is taken as it is. A column of names (its first value is no number) is numbered as the mapping file says, where there
is one, else in order of first appearance. Under a typed header (`user_id:token`) one name anywhere, or integers with gaps too wide for matrices,
make the whole column names.
"""
import os
import re

import numpy as np

from mistakes import UserError

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
LARGEST = 2147483646


def looks_numeric(s):
    """A number in any spelling. Digits that begin with 0 and go on (0005019281) are a name: as a number they would lose their zeros."""
    return bool(NUMBER.fullmatch(s)) and not re.fullmatch(r"0\d+", s, re.ASCII)


def index_of(s):
    """The integer from 0 to LARGEST that s spells, or -1."""
    return int(s) if s.isascii() and s.isdigit() and len(s) <= 10 and int(s) <= LARGEST else -1


def mapping(path, names):
    """raw id -> index from a file of two tab-separated columns with a header, in either order; None where there is no file. The index column is the one
    called as in `names`, else the second."""
    if not os.path.exists(path):
        return None
    with open(path, encoding="utf-8", newline="") as f:
        lines = [x.rstrip("\r").split("\t") for x in f.read().split("\n")]
    header = [x.split(":")[0] for x in lines[0]]
    if len(header) != 2:
        raise UserError(f"{path}: line 1 has {len(header)} columns, expected two separated by a tab: the raw id and {names[0]}")
    at = 0 if header[0] == names[0] and header[1] != names[0] else 1
    out, taken = {}, set()
    for k, cells in enumerate(lines[1:], 2):
        if cells == [""]:
            continue
        i = index_of(cells[at]) if len(cells) == 2 else -1
        if i < 0:
            raise UserError(f"{path}: line {k}: expected a raw id and an index from 0 separated by a tab")
        if cells[1 - at] in out or i in taken:
            raise UserError(f"{path}: line {k}: raw id '{cells[1 - at]}' or index {i} stands on an earlier line already; each may occur once")
        out[cells[1 - at]] = i
        taken.add(i)
    if not out:
        raise UserError(f"{path}: lists no ids, expected one line per id; remove the file if ids are their own numbers")
    if max(taken) != len(taken) - 1:
        raise UserError(f"{path}: lists {len(taken)} ids and the index {max(taken)}, expected every index from 0 to {len(taken) - 1}")
    return out


def numbered(column, header, known, path, map_path):
    """-> (index of every row, how many there are, whether in order of first appearance). column: array of strings; known: a mapping or None."""
    distinct, first, inverse = np.unique(column, return_index=True, return_inverse=True)
    distinct = distinct.tolist()
    if distinct[0] == "":
        raise UserError(f"{path}: interaction {first[0] + 1}: {header} is empty, expected an id")
    typed, number = ":token" in header, None
    if looks_numeric(str(column[0])):
        number = np.array([index_of(x) for x in distinct], np.int64)
        bad = np.flatnonzero(number < 0)
        if len(bad) and not typed:
            j = bad[np.argmin(first[bad])]
            raise UserError(f"{path}: interaction {first[j] + 1}: {header} is '{distinct[j]}', expected an integer from 0 to {LARGEST}; ids that are names are "
                            f"read when the header says {header.split(':')[0]}:token")
        wide = not known and int(number.max()) >= 100000 + 100 * len(column)
        if wide and not typed:
            raise UserError(f"{path}: {header} reaches {number.max()} in {len(column)} interactions; number the ids from 0 without gaps, or write "
                            f"{header.split(':')[0]}:token in the header")
        if len(bad) or wide:
            number = None
    if number is None and not known:                          # in order of first appearance
        number = np.empty(len(distinct), np.int64)
        number[np.argsort(first)] = np.arange(len(distinct))
        return number[inverse], len(distinct), True
    if number is None:
        unknown = next((x for x in distinct if x not in known), None)
        if unknown is not None:
            raise UserError(f"{path}: {header} '{unknown}' is not in {map_path}; use the mapping written together with this file, or remove it")
        number = np.array([known[x] for x in distinct], np.int64)
    elif known and number.max() >= len(known):
        raise UserError(f"{path}: {header} reaches {number.max()}, but {map_path} lists only {len(known)} ids; use the mapping written together with this file, "
                        "or remove it")
    return number[inverse], len(known) if known else int(number.max()) + 1, False
