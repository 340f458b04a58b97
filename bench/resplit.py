"""Another draw of the split that the Amazon sets were published with: bench/resplit.py DATA_FOLDER OUT_FOLDER SEED

Per user, at random: of n rows k are held out, k = 2 if n < 10, else int(0.2 n); k // 2 of them validation, the others test. Writes OUT_FOLDER/NAME.inter
(NAME is OUT_FOLDER's own) with columns userID, itemID, x_label; features are linked. Needs nothing but Python.
"""
import os
import random
import sys


def main(data, out, seed):
    name = os.path.basename(os.path.abspath(data))
    rows = {}
    with open(os.path.join(data, name + ".inter")) as f:
        header = f.readline().rstrip("\n").split("\t")
        user, item = header.index("userID"), header.index("itemID")
        for line in f:
            cells = line.rstrip("\n").split("\t")
            rows.setdefault(int(cells[user]), []).append(int(cells[item]))
    os.makedirs(out)
    draw = random.Random(int(seed))
    with open(os.path.join(out, os.path.basename(os.path.abspath(out)) + ".inter"), "w") as f:
        f.write("userID\titemID\tx_label\n")
        for u in sorted(rows):
            items = rows[u]
            draw.shuffle(items)
            held = 2 if len(items) < 10 else int(0.2 * len(items))
            labels = [0] * (len(items) - held) + [1] * (held // 2) + [2] * (held - held // 2)
            f.writelines(f"{u}\t{i}\t{x}\n" for i, x in zip(items, labels))
    for file in os.listdir(data):
        if file.endswith("_feat.npy"):
            os.symlink(os.path.abspath(os.path.join(data, file)), os.path.join(out, file))


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__.splitlines()[0])
    main(*sys.argv[1:])
