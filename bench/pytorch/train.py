"""Whole training loops in three forms, the same mathematics in each (models.py):

published   the way of the released programs: negatives drawn row by row in Python, all items projected at every step, dense Adam over
            everything, COO products, a dense (U,I) membership matrix, an I x I similarity matrix for the item graph (LATTICE: several, at every build,
            and a dense product in every step), the propagation and LATTICE's build repeated for every batch of users in the evaluation, metrics user by user
tuned       only the batch's distinct items projected, gradients of features written by rows, fused Adam, CSR products in Horner form, one
            propagation per evaluation, vectorised sampling and metrics, the constant tokens of the reverse chain computed once;
            torch.compile where a try shows a gain; on CUDA the step is one CUDA graph
tuned-rows  the same with raw feature rows updated on demand (rows.py)

    python train.py --data FOLDER --model CCDRec --form tuned --epochs 5 --threads 2 --device cpu [--set key=value ...]

prints one JSON line: seconds by phase and epoch, losses, validation and test Recall@20, peak memory.
"""
import json
import resource
import sys
import time

import torch

import data as D
import models as M
from mistakes import Parser, UserError, run as run_main
from published import Published
from tuned import Tuned, TunedRows

FORMS = {f.name: f for f in (Published, Tuned, TunedRows)}


class Run:
    """One (model, form) on one data folder: set up, then one epoch at a time."""

    def __init__(self, folder, form, s, device="cpu", threads=0, seed=999, compile="auto", graphs="auto"):
        if threads:
            torch.set_num_threads(threads)
        if device == "cuda" and not torch.cuda.is_available():
            raise UserError("--device cuda: this PyTorch sees no CUDA device")
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False      # full float32 (spec 2.4)
        torch.manual_seed(seed)
        before, begin = self.peak_rss_mb(), time.perf_counter()
        data = D.load(folder, with_features=M.reads_features(s))
        loaded = time.perf_counter()
        self.form, self.n = FORMS[form](data, s, device, seed, compile, graphs), 0
        if device == "cuda":
            torch.cuda.synchronize()
        self.facts = dict(model=s.model, form=form, data=data.name, device=device, threads=torch.get_num_threads(), torch=torch.__version__,
                          mkl=torch.backends.mkl.is_available(), users=data.U, items=data.I, train=len(data.train_u), batch=s.train_batch_size,
                          seconds_load=loaded - begin, seconds_setup=time.perf_counter() - loaded, rss_before_data_mb=before)

    @staticmethod
    def peak_rss_mb():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6

    def epoch(self):
        """Trains and evaluates -> dict: seconds, phases, losses of the steps, Recall@20 and NDCG@20 of both splits."""
        f, begin = self.form, time.perf_counter()
        losses = f.epoch(self.n)
        trained = time.perf_counter()
        result = {split: f.evaluate(split) for split in ("valid", "test")}
        e = dict(epoch=self.n, seconds=time.perf_counter() - begin, seconds_train=trained - begin, phases=f.clock.take(), loss=sum(losses) / len(losses),
                 losses=losses, **{f"{split}_{m}": v for split, r in result.items() for m, v in r.items() if m.endswith("@20")})
        self.n += 1
        print(f"{self.facts['model']} {self.facts['form']} epoch {e['epoch']}: {e['seconds']:.2f} s "
              f"({', '.join(f'{k} {v:.2f}' for k, v in e['phases'].items())}), loss {e['loss']:.5f}, valid Recall@20 {e.get('valid_Recall@20', 0):.4f}",
              file=sys.stderr, flush=True)
        return e

    def end(self):
        cuda = self.facts["device"] == "cuda"
        return dict(peak_rss_mb=self.peak_rss_mb(), peak_cuda_mb=torch.cuda.max_memory_allocated() / 1e6 if cuda else None, notes=self.form.notes)


def on_command(run):
    """One line of JSON when set up, one for each line "epoch" on the standard input, a last one at its end (bench/race.py)."""
    say = lambda x: print(json.dumps(x), flush=True)   # noqa: E731
    say(run.facts)
    for line in sys.stdin:
        if line.strip() != "epoch":
            raise UserError(f"read '{line.strip()}' on the standard input, expected 'epoch' or its end")
        say(run.epoch())
    say(run.end())


def parse_settings(model, pairs):
    given = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or key == "model":
            raise UserError(f"--set {pair}: expected KEY=VALUE" + (", and the model by --model" if equals else ""))
        try:
            given[key] = json.loads(value)
        except json.JSONDecodeError:
            given[key] = value
    return M.settings(model=model, **given)


def arguments(parser):
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="0: PyTorch's choice")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--seed", type=int, default=999)
    parser.add_argument("--compile", choices=("auto", "on", "off"), default="auto", help="tuned forms; auto: what a try shows to be faster, on: all, or stop")
    parser.add_argument("--graphs", choices=("auto", "off"), default="auto", help="CUDA graphs of the step (tuned, CUDA)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting, named as in ccdrec train --help-keys")


def main():
    parser = Parser(description="Trains one model in one form and prints one JSON line.")
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", choices=list(M.MODEL_DEFAULTS), default="CCDRec")
    parser.add_argument("--form", choices=list(FORMS), default="tuned")
    parser.add_argument("--on-command", action="store_true", help="an epoch for every line 'epoch' on the standard input")
    arguments(parser)
    a = parser.parse_args()
    for name, least, most in (("epochs", 1, 10 ** 6), ("threads", 0, 4096), ("seed", 0, 2 ** 32 - 1)):
        if not least <= getattr(a, name) <= most:
            raise UserError(f"--{name} is {getattr(a, name)}, expected {least} to {most}")
    if a.compile == "on" and a.form == "published" and not a.on_command:     # race.py gives one option to all forms: there a note says it
        raise UserError("--compile on: nothing of the form published is compiled, as in the released programs; expected the form tuned or tuned-rows")
    run = Run(a.data, a.form, parse_settings(a.model, a.set), a.device, a.threads, a.seed, a.compile, a.graphs)
    if a.on_command:
        return on_command(run)
    epochs = [run.epoch() for _ in range(a.epochs)]
    print(json.dumps({**run.facts, "epochs": epochs, **run.end()}), flush=True)


if __name__ == "__main__":
    run_main(main)
