"""python -m results.trial.row4 HOSPITAL WHAT...  Train networks without a hospital, score them there. WHAT: frame:SEED | window:INIT:ORDER[:key=value...] | square:..."""
import sys, time, json, copy
from pathlib import Path
from dataclasses import replace
import numpy as np, torch
from common import data, looks, training, metrics
from common.model import Predictor, predict, explain
from common.settings import Settings
from common.seed import set_seed
set_seed(0, 1)
hold, whats = sys.argv[1], sys.argv[2:]
OUT = Path("rows"); OUT.mkdir(exist_ok=True)
TABLES = {"busi": "busi.csv", "breast": "breast", "busbra": "busbra.csv"}
base = Settings(epochs=16, weights="resnet18_imagenet_trunk.pth", view="lesion")
def load(names, size=128):
    found = data.find([TABLES[n] for n in names], None, size, 0, None, undivided="train", view="lesion")
    return data.load(found, "train", "val", optional=["val", "test"])
loaded = {}
def pools(size):
    if size not in loaded:
        whole = load(list(TABLES), size)
        print(set(whole.hospitals), len(whole))
        h = np.array(whole.hospitals); mine = np.array([hold in x.lower().replace("-", "") for x in h])
        groups = whole.groups; trained = ~np.isin(groups, groups[mine])
        loaded[size] = whole[trained], whole[mine]
    return loaded[size]
dev = torch.device("cpu")
def scores(name, pool, given, found, sec):
    b = pool.boxed
    np.savez(OUT / f"{hold}_{name}.npz", given=given, found=found, labels=pool.labels, boxed=b, groups=pool.groups)
    line = f"{hold},{name},given {metrics.auc(pool.labels[b], given[b]):.4f},found {metrics.auc(pool.labels, found):.4f},{sec:.0f} s"
    print(line, flush=True); open(OUT / "rows.csv", "a").write(line + "\n")
windows = {}
def finder_of(seed, size=128):
    net = torch.load(OUT / f"{hold}_frame_{seed}.pt", weights_only=False)
    return Predictor([net], True)
def placed(seed, size):
    if (seed, size) not in windows:
        train, test = pools(size); f = finder_of(seed)
        if size == 128:
            windows[seed, size] = looks.look(f, train, given=True).images, looks.look(f, test).images, looks.look(f, test, given=True).images
        else:
            t128, s128 = pools(128)
            bx = lambda ims, given: looks.look(f, ims, given).boxes
            def place(big, small, given):
                return looks.place_windows(big, looks.lesion_windows(bx(small, given)))
            windows[seed, size] = place(train, t128, True), place(test, s128, False), place(test, s128, True)
    return windows[seed, size]
def fit_with_order(examples, settings, init, order, name):
    real = torch.Generator.manual_seed
    # the model starts from `init`; the order, mixup and augmentation come from `order`
    class G(torch.Generator):
        pass
    orig = torch.Generator
    def make():
        g = orig(); g.manual_seed(0)
        class W: pass
        return g
    import common.training as T
    src = T.torch
    class Fake:
        def __getattr__(self, n): return getattr(src, n)
        def manual_seed(self, s): return src.manual_seed(init)
        class Generator:
            def manual_seed(self, s): return orig().manual_seed(order)
    T.torch = Fake()
    try:
        return T.fit_network(examples, None, settings, init, dev, name).model
    finally:
        T.torch = src
for what in whats:
    kind, *rest = what.split(":")
    name = what.replace(":", "_")
    if (OUT / f"{hold}_{name}.npz").exists():
        continue
    t0 = time.time()
    if kind == "frame":
        train, test = pools(128)
        settings = base
        if (OUT / f"{hold}_{name}.pt").exists(): net = torch.load(OUT / f"{hold}_{name}.pt", weights_only=False)
        else:
            net = training.fit_network(training.frames_of(train), None, settings, int(rest[0]), dev, name).model
            torch.save(net, OUT / f"{hold}_{name}.pt")
        z = predict(Predictor([net], True), test.pixels)
        scores(name, test, z, z, time.time() - t0)
    else:
        init, order, *options = rest
        o = dict(x.split("=") for x in options)
        size = int(o.pop("size", 128)); finder = int(o.pop("finder", 0))
        from common.settings import check
        settings = replace(base, **{k: check(k, v, "row") for k, v in o.items()})
        if kind == "square":
            train, test = pools(128)
            sq = lambda ims: looks.place_windows(ims, square(ims.sizes))
            def square(sizes):
                h, w = sizes.astype(float).T
                side = np.minimum(h, w)
                return np.stack([(w - side) // 2, (h - side) // 2, side, side], 1)
            tr, te = sq(train), sq(test)
            net = fit_with_order(training.windows_of(tr), settings, int(init), int(order), name)
            z = predict(Predictor([net], True), te.network_input("window")); scores(name, test, z, z, time.time() - t0)
        else:
            tr, fo, gi = placed(finder, size)
            net = fit_with_order(training.windows_of(tr), settings, int(init), int(order), name)
            p = Predictor([net], True)
            scores(name, fo, predict(p, gi.network_input("window")), predict(p, fo.network_input("window")), time.time() - t0)
        torch.save(net, OUT / f"{hold}_{name}.pt")
