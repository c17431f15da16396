import sys, copy, itertools, pickle
from pathlib import Path
import numpy as np, torch
sys.argv = ["ev", *sys.argv[1:]]
hold = sys.argv[1]
exec(open("results/trial/row4.py").read().split("windows = {}")[0].replace("hold, whats = sys.argv[1], sys.argv[2:]", "whats=[]"))
from common.model import TwoLooks
C = OUT / f"{hold}_views.pkl"
train, test = pools(128)
def net(name): return torch.load(OUT / f"{hold}_{name}.pt", weights_only=False)
def exists(name): return (OUT / f"{hold}_{name}.pt").exists()
frames = [i for i in (0, 1) if exists(f"frame_{i}")]
finders = {str(i): Predictor([net(f"frame_{i}")], True) for i in frames}
finders |= {str(i) + "n": Predictor([net(f"frame_{i}")], False) for i in frames}
if len(frames) == 2: finders["01"] = Predictor([net("frame_0"), net("frame_1")], True); finders["01n"] = Predictor([net("frame_0"), net("frame_1")], False)
store = pickle.load(open(C, "rb")) if C.exists() else {}
if "given" not in store:
    store["given"] = looks.look(finders["0"], test, given=True).images.network_input("window"); store["train"] = looks.look(finders["0"], train, given=True).images.network_input("window")
for k, f in finders.items():
    if k not in store: store[k] = looks.look(f, test).images.network_input("window")
pickle.dump(store, open(C, "wb"))
b = test.boxed; y = test.labels; pat = np.array(test.table["patient"]) if hold == "busbra" else None
def auc(z, m=None):
    m = np.ones(len(y), bool) if m is None else m
    s = f"{metrics.auc(y[m], z[m]):.4f}"
    if pat is not None:
        p = np.unique(pat[m]); zz = np.array([z[m][pat[m] == q].mean() for q in p]); yy = np.array([y[m][pat[m] == q].max() for q in p])
        s += f" ({metrics.auc(yy, zz):.4f})"
    return s
def soup(names):
    nets = [net(n) for n in names]; s = copy.deepcopy(nets[0]); sd = s.state_dict()
    for k in sd:
        if sd[k].is_floating_point(): sd[k] = torch.stack([n.state_dict()[k] for n in nets]).mean(0)
    s.load_state_dict(sd)
    return s
def rebn(s):
    s = copy.deepcopy(s); 
    for m in s.modules():
        if isinstance(m, torch.nn.BatchNorm2d): m.reset_running_stats(); m.momentum = None
    s.train()
    with torch.no_grad():
        for part in torch.from_numpy(store["train"]).split(64): s(part.float() / 255)
    return s.eval()
Z = {}
def z(nets, key, mirror):
    return predict(Predictor(nets, mirror), store[key])
fr = {(i, m): predict(Predictor([net(f"frame_{i}")], m), test.pixels) for i in frames for m in (True, False)}
def report(name, nets, fs=("0",), frame=(0,)):
    for m in (True, False):
        f = np.mean([fr[i, m] for i in frame], 0)
        g = z(nets, "given", m)
        row = [hold, name, "mirror" if m else "none", "given " + auc(g, b), "given2 " + auc(g * 2 / 3 + f / 3, b)]
        for k in fs:
            h = z(nets, k if m else k + "n", m)
            row += [f"found{k} " + auc(h), f"found{k}+frame " + auc(h * 2 / 3 + f / 3)]
        print(" | ".join(row), flush=True)
print(hold, "frame", {k: auc(v) for k, v in fr.items()})
W = sorted(p.stem[len(hold) + 1:] for p in OUT.glob(f"{hold}_window*.pt"))
for w in W: report(w, [net(w)], list(map(str, frames)))
for kind in ("", "_stages=3"):
    a = [w for w in ("window_0_0" + kind, "window_0_1" + kind) if w in W]
    if len(a) == 2:
        s = soup(a); report("soup" + kind, [s]); report("soup rebn" + kind, [rebn(s)])
        report("ensemble" + kind, [net(x) for x in a])
        if len(frames) == 2: report("ensemble all" + kind, [net(x) for x in a], ("01",), (0, 1))
