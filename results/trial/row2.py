"""row2.py NAME SET squash|letter|window SEED key=value"""
from base import *
name,sets,kind,seed=sys.argv[1:5]; seed=int(seed); opt=dict(a.split("=") for a in sys.argv[5:])
b=dict(np.load("x/bank.npz",allow_pickle=True))
H=b["hospitals"]; y=b["labels"]; SETS={"A":["busi","breast"],"B":["busbra"],"C":["busi","busbra"],"D":["breast","busbra"]}
tr=np.isin(H,SETS[sets]); te=~tr
s=Settings(epochs=int(opt.get("epochs",12)),weights="resnet18_imagenet_trunk.pth",view="lesion",patience=0,mirror=True)
win=letterwin(b["sizes"]) if kind=="letter" else np.concatenate([np.zeros((len(y),2)),b["sizes"][:,::-1]],1).astype(np.float32)
t0=time.time(); msg=[]
if kind=="window":
    px=b["given"]; use=tr&b["boxed"]
    if opt.get("normals"):
        z=np.load(opt["normals"]); px=px.copy(); w=~b["boxed"]&tr; px[w]=z["found_px"][w]; use=tr
    ex=training.Examples(px[use],y[use])
else:
    px=b[kind]
    bx=np.concatenate([(b["boxes"][:,:2]-win[:,:2])/win[:,2:],b["boxes"][:,2:]/win[:,2:]],1).astype(np.float32)
    ex=training.Examples(px[tr],y[tr],training.Boxes(torch.from_numpy(bx[tr]),torch.from_numpy(b["annotated"][tr])))
m=training.fit_network(ex,None,s,seed,torch.device("cpu"),name).model.eval()
secs=time.time()-t0; P=Predictor([m],True).eval(); out={}
if kind=="window":
    z=predict(P,px); out["given"]=z
    for h in HOSP:
        w=(H==h)&te&b["boxed"]
        if w.any(): msg.append(f"{h} given {metrics.auc(y[w],z[w]):.4f}")
else:
    z=predict(P,px); heat=explain(P,px).heat; out|=dict(frame=z,heat=heat.numpy())
    for h in HOSP:
        w=(H==h)&te
        if w.any(): msg.append(f"{h} frame {metrics.auc(y[w],z[w]):.4f}")
    for hot in (.3,.4,.5):
        sh=lesion.box_around(lesion.hottest_part(heat,hot)).numpy()
        bx=np.concatenate([sh[:,:2]*win[:,2:]+win[:,:2],sh[:,2:]*win[:,2:]],1).round()
        out[f"box{hot}"]=bx.astype(np.float32)
        for h in HOSP:
            w=(H==h)&te&b["boxed"]
            if w.any():
                iou=overlap(bx[w],b["boxes"][w]); r=bx[w][:,2:].max(1)/b["boxes"][w][:,2:].max(1)
                msg.append(f"{h} hot{hot} iou {np.median(iou):.3f} <.3 {(iou<.3).mean():.3f} >.5 {(iou>.5).mean():.3f} r {np.quantile(r,[.1,.5,.9]).round(2)}")
    p=pool(); W=lesion_window(torch.from_numpy(out["box0.4"]),2.5).numpy(); fp=np.empty_like(px)
    for i,fr in enumerate(preparation.frames(p)): fp[i]=preparation.cut(fr,W[i].tolist(),128)
    out["found_px"]=fp
np.savez(f"x/out/{name}_{sets}_{seed}.npz",**out); torch.save(m.state_dict(),f"x/out/{name}_{sets}_{seed}.pt")
open("x/rows.txt","a").write(f"{name} {sets} seed {seed} {secs:.0f}s | "+" | ".join(msg)+"\n")
