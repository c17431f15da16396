"""row3.py f|w|s SET SEED: networks of the trial of a square as second look. f: joint finder of three stages."""
from base import *
kind,sets,seed=sys.argv[1:4]; seed=int(seed); opt=dict(a.split("=") for a in sys.argv[4:])
b=dict(np.load("x/bank.npz",allow_pickle=True)); b["square"]=np.load("x/square.npz")["square"]
H=b["hospitals"]; y=b["labels"]; SETS={"B":["busbra"],"A":["busi","breast"],"C":["busi","busbra"],"D":["breast","busbra"]}
tr=np.isin(H,SETS[sets]); te=~tr; ep=int(opt.get("epochs",16))
s=Settings(epochs=ep,weights="resnet18_imagenet_trunk.pth",view="lesion",patience=0,mirror=True,stages=3 if kind=="f" else "auto")
full=np.concatenate([np.zeros((len(y),2)),b["sizes"][:,::-1]],1).astype(np.float32)
t0=time.time(); name=f"{kind}_{sets}_{seed}"
if kind=="f":
    bx=np.concatenate([b["boxes"][:,:2]/full[:,2:],b["boxes"][:,2:]/full[:,2:]],1).astype(np.float32)
    ex=training.Examples(b["squash"][tr],y[tr],training.Boxes(torch.from_numpy(bx[tr]),torch.from_numpy(b["annotated"][tr])))
elif kind=="w":
    z=np.load(f"x/out/f_{sets}_{seed}.npz"); px=b["given"].copy(); px[~b["boxed"]]=z["found_px"][~b["boxed"]]
    ex=training.Examples(px[tr],y[tr])
else: ex=training.Examples(b["square"][tr],y[tr])
m=training.fit_network(ex,None,s,seed,torch.device("cpu"),name).model.eval()
torch.save(m.state_dict(),f"x/out/{name}.pt"); secs=time.time()-t0; out={}
P0,P1=Predictor([m],False).eval(),Predictor([m],True).eval(); msg=[]
def say(tag,z,w0=True):
    for h in HOSP:
        w=(H==h)&te&w0
        if w.any(): msg.append(f"{h} {tag} {metrics.auc(y[w],z[w]):.4f}")
if kind=="f":
    for P,tag in ((P0,"plain"),(P1,"mirror")):
        out[f"frame_{tag}"]=z=predict(P,b["squash"]); say("frame "+tag,z)
        heat=explain(P,b["squash"]).heat; out[f"heat_{tag}"]=heat.numpy()
        sh=lesion.box_around(lesion.hottest_part(heat,.4)).numpy()
        bx=(sh*full[:,[2,3,2,3]]).round(); out[f"box_{tag}"]=bx.astype(np.float32)
        for h in HOSP:
            w=(H==h)&te&b["boxed"]
            if w.any():
                iou=overlap(bx[w],b["boxes"][w]); msg.append(f"{h} {tag} iou {np.median(iou):.3f} <.3 {(iou<.3).mean():.3f}")
    p=pool()
    W={t:lesion_window(torch.from_numpy(out[f"box_{t}"]),2.5).numpy() for t in ("plain","mirror")}
    fp,fq=np.empty_like(b["squash"]),np.empty_like(b["squash"])
    for i,fr in enumerate(preparation.frames(p)):
        fp[i]=preparation.cut(fr,W["mirror"][i].tolist(),128); fq[i]=preparation.cut(fr,W["plain"][i].tolist(),128)
    out["found_px"]=fp; out["found_px_plain"]=fq
elif kind=="w":
    for src,a in (("given",px),("found",z["found_px"]),("foundplain",z["found_px_plain"])):
        for P,tag in ((P0,"plain"),(P1,"mirror")):
            out[f"{src}_{tag}"]=l=predict(P,a); say(src+" "+tag,l,b["boxed"] if src=="given" else True)
else:
    for P,tag in ((P0,"plain"),(P1,"mirror")): out[f"square_{tag}"]=l=predict(P,b["square"]); say("square "+tag,l)
np.savez(f"x/out/{name}.npz",**out)
open("x/rows3.txt","a").write(f"{name} {ep} epochs {secs:.0f}s | "+" | ".join(msg)+"\n")
