"""python -m results.trial.row5 HOSPITAL WHAT...  Train networks without a hospital, score them there.

WHAT: frame:SEED | window:SEED[:key=value...]. Keys: settings; freeze=STAGES, bn=eval, trunk=RATE, heat=SHARE, size, aug fields,
balance=1, hist=P, fourier=P, randconv=P, norm=1, cross=P. Rows go to rows/.
"""
import copy, math, os, sys, time
from dataclasses import fields, replace
from pathlib import Path
import numpy as np, torch, torch.nn.functional as F
from common import augment, data, lesion, looks, loss, metrics, training
from common.boxes import in_shares
from common.model import Predictor, predict
from common.preparation import cut, frames
from common.seed import set_seed
from common.settings import KINDS, Settings, check
from common.weights import initial_model
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

set_seed(0, 1)
hold, whats = sys.argv[1], sys.argv[2:]
OUT = Path("rows"); OUT.mkdir(exist_ok=True)
TABLES = {"busi": "busi.csv", "breast": "breast", "busbra": "busbra.csv"}
base = Settings(epochs=16, weights="resnet18_imagenet_trunk.pth", view="lesion")
dev = torch.device("cpu")

def load(names, size=128):
    found = data.find([TABLES[n] for n in names], None, size, 0, None, undivided="train", view="lesion")
    return data.load(found, "train", "val", optional=["val", "test"])

whole = load(list(TABLES))
h = np.array([x.lower().replace("-", "") for x in whole.hospitals])
mine = np.array([hold in x for x in h])
trained = ~np.isin(whole.groups, whole.groups[mine])
train, test = whole[trained], whole[mine]
sites = np.unique(h[trained], return_inverse=True)[1]
patient = np.array(test.table["patient"]) if hold == "busbra" else None

def auc(z, m=None):
    m = np.ones(len(test), bool) if m is None else m
    s = f"{metrics.auc(test.labels[m], z[m]):.4f}"
    if patient is not None:
        p, g = np.unique(patient[m], return_inverse=True)
        zz = np.bincount(g, z[m]) / np.bincount(g); yy = np.bincount(g, test.labels[m]) > 0
        s += f" ({metrics.auc(yy.astype(np.uint8), zz):.4f})"
    return s

def frame_net(seed):
    path = OUT / f"{hold}_frame_{seed}.pt"
    if not path.exists():
        t = time.time()
        net = training.fit_network(training.frames_of(train), None, base, seed, dev, "frame").model
        torch.save(net, path); print("frame", time.time() - t, "s", flush=True)
    return torch.load(path, weights_only=False)

def windows_at(ims, boxes, size, factor=lesion.WINDOW_FACTOR):
    w = lesion.square_around(torch.from_numpy(boxes), factor).numpy()
    return np.stack([cut(f, x.tolist(), size) for f, x in zip(frames(ims), w)])

cache = {}
def placed(size):
    if size not in cache:
        path = OUT / f"{hold}_windows_{size}.npz"
        if not path.exists():
            f = Predictor([frame_net(0)], True)
            bt = looks.look(f, train, given=True).boxes; bf = looks.look(f, test).boxes; bg = looks.look(f, test, given=True).boxes
            np.savez(path, bt=bt, bf=bf, bg=bg, train=windows_at(train, bt, size), given=windows_at(test, bg, size), found=windows_at(test, bf, size),
                     wider=windows_at(test, bf, size, 3.0), nearer=windows_at(test, bf, size, 2.0), z=predict(f, test.pixels))
        cache[size] = dict(np.load(path))
    return cache[size]

def heat_boxes(windows_px, boxes):
    """boxes in shares of the window"""
    return windows_px

def histogram_match(x, y):
    """grey levels of x get the histogram of y, [n, h, w] in [0, 1]"""
    n = len(x); a = x.flatten(1); order = a.argsort(1); b = y.flatten(1).sort(1).values
    return torch.empty_like(a).scatter_(1, order, b).view_as(x)

def fourier(x, y, share, beta=0.1):
    fx, fy = torch.fft.fft2(x), torch.fft.fft2(y)
    ax, ay = fx.abs(), fy.abs()
    f = torch.fft.fftfreq(x.shape[-1]).abs(); low = ((f[:, None] < beta / 2) & (f[None] < beta / 2)).float()
    amp = ax.lerp(ay, low * share[:, None, None])
    return torch.fft.ifft2(torch.polar(amp, fx.angle())).real.clamp(0, 1)

def fit(pixels, labels, boxes, size, seed, o, name):
    settings = replace(base, **{k: check(k, v, "row") for k, v in o.items() if k in KINDS})
    names = {f.name for f in fields(augment.Strength)}
    strength = replace(augment.Strength(zoom=settings.zoom), scanners=True, **{k: float(v) for k, v in o.items() if k in names and k not in KINDS})
    torch.manual_seed(seed); g = torch.Generator().manual_seed(seed)
    heat_share = float(o.get("heat", 0))
    model = initial_model(size, replace(settings, stages=4) if heat_share and settings.stages == "auto" else settings, finds=heat_share > 0)
    frozen = int(o.get("freeze", 0)); trunk_rate = float(o.get("trunk", 1)); bn_eval = o.get("bn") == "eval"
    t = model.trunk
    parts = [t.conv1, t.bn1, t.layer1, t.layer2, t.layer3]
    if frozen:
        for p in [t.conv1, t.bn1] + [t.layer1, t.layer2, t.layer3][: frozen]:
            p.requires_grad_(False)
    optimiser = training.make_optimiser(model, settings)
    if trunk_rate != 1:
        low = {id(p) for q in parts for p in q.parameters()}
        groups = []
        for gr in optimiser.param_groups:
            for is_low in (True, False):
                ps = [p for p in gr["params"] if (id(p) in low) == is_low]
                if ps: groups.append({"params": ps, "weight_decay": gr["weight_decay"], "lr": settings.lr * (trunk_rate if is_low else 1)})
        optimiser = torch.optim.AdamW(groups, lr=settings.lr, fused=True)
    images, y = torch.from_numpy(pixels), torch.from_numpy(labels)
    steps = settings.epochs * math.ceil(len(images) / settings.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda s: training.learning_rate(s, steps, settings.warmup))
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(settings.ema), use_buffers=True)
    cw = loss.class_weights(y, settings.class_weights)
    heat_map = lesion.ellipses(torch.from_numpy(boxes), size) if heat_share else None
    site = torch.from_numpy(sites)
    cross = torch.from_numpy(np.load(OUT / f"{hold}_cross_{size}.npy")) if "cross" in o else None
    cell = site * 2 + y.long()
    weight = 1 / torch.bincount(cell).float()[cell]
    for epoch in range(settings.epochs):
        model.train()
        if bn_eval:
            for q in parts:
                for m in q.modules():
                    if isinstance(m, torch.nn.BatchNorm2d): m.eval()
        if frozen:
            for q in [t.bn1] + [t.layer1, t.layer2, t.layer3][: frozen]: q.eval()
        order = torch.multinomial(weight, len(images), True, generator=g) if "balance" in o else torch.randperm(len(images), generator=g)
        for batch in order.split(settings.batch_size):
            x = images[batch].float() / 255
            if cross is not None:
                use = torch.rand(len(batch), generator=g) < float(o["cross"])
                x = torch.where(use[:, None, None], cross[batch].float() / 255, x)
            for key, change in (("hist", histogram_match), ("fourier", fourier)):
                if key in o:
                    other = images[torch.randint(len(images), (len(batch),), generator=g)].float() / 255
                    use = (torch.rand(len(batch), generator=g) < float(o[key]))
                    z = change(x, other) if key == "hist" else change(x, other, torch.rand(len(batch), generator=g))
                    s = torch.rand(len(batch), generator=g)[:, None, None] if key == "hist" else 1.0
                    x = torch.where(use[:, None, None], x + s * (z - x), x)
            targets = y[batch].float()
            planes = x[:, None] if heat_map is None else torch.stack([x, heat_map[batch]], 1)
            planes = augment.augment(planes, strength, g)
            planes, targets = augment.mixup((planes, targets), settings.mixup, g)
            x = planes[:, 0]
            if "randconv" in o:
                use = torch.rand(len(batch), generator=g) < float(o["randconv"])
                k = torch.randn(len(batch), 1, 3, 3, generator=g) * 0.15; k[:, :, 1, 1] += 1
                k = k / k.sum((2, 3), keepdim=True).clamp(min=0.3)
                z = F.conv2d(x[None], k, padding=1, groups=len(batch))[0].clamp(0, 1)
                x = torch.where(use[:, None, None], z, x)
            with training.autocast(dev, settings.precision):
                logits, heat = model.logits_and_heat(x)
            b = loss.training_loss(logits.float(), targets, settings.loss, settings.label_smoothing, cw)
            if heat is not None: b = b + heat_share * lesion.heat_loss(heat.float(), planes[:, 1])
            optimiser.zero_grad(); b.backward(); optimiser.step(); schedule.step(); average.update_parameters(model)
    model.load_state_dict(average.module.state_dict())
    return model.eval()

for what in whats:
    kind, seed, *rest = what.split(":")
    name = what.replace(":", "_")
    if (OUT / f"{hold}_{name}.npz").exists(): continue
    if kind == "frame": frame_net(int(seed)); placed(128); continue
    t0 = time.time(); o = dict(x.split("=") for x in rest); size = int(o.get("size", 128)); P = placed(size)
    w = lesion.square_around(torch.from_numpy(P["bt"]), lesion.WINDOW_FACTOR).numpy()
    b = train.boxes.copy(); b[:, :2] -= w[:, :2]; shares = (b / w[:, 2:3]).astype(np.float32)
    net = fit(P["train"], train.labels, shares, size, int(seed), o, name)
    p = Predictor([net], True); sec = time.time() - t0
    Z = {k: predict(p, P[k]) for k in ("given", "found", "wider", "nearer")}
    f = P["z"]; m = test.boxed
    mean = (Z["found"] + Z["wider"] + Z["nearer"]) / 3
    line = [hold, name, "frame " + auc(f), "given " + auc(Z["given"], m), "given+f " + auc(Z["given"] * 2 / 3 + f / 3, m), "found " + auc(Z["found"]),
            "found+f " + auc(Z["found"] * 2 / 3 + f / 3), "three+f " + auc(mean * 2 / 3 + f / 3), f"{sec:.0f} s"]
    print(" | ".join(line), flush=True)
    with open(OUT / "rows.txt", "a") as file: file.write(" | ".join(line) + "\n")
    np.savez(OUT / f"{hold}_{name}.npz", **Z, frame=f, labels=test.labels, boxed=m)
    torch.save(net, OUT / f"{hold}_{name}.pt")
