from base import *
p=pool()
print(len(p), p.boxed.sum(), np.unique(p.hospitals,return_counts=True))
out=dict(pixels=p.pixels,labels=p.labels,boxed=p.boxed,boxes=p.boxes,sizes=p.sizes,hospitals=np.asarray(p.hospitals).astype(str),patients=np.asarray(p.table["patient"].astype(str)))
# found boxes by LOHO finder
found=np.full((len(p),4),np.nan,np.float32); conf=np.zeros(len(p)); heat=np.zeros((len(p),16,16),np.float32); fl=np.zeros(len(p))
for i,h in enumerate(HOSP):
    m=BreastResNet(128,"auto",True); m.load_state_dict(torch.load(f"ckpt/fold_{i+1}_frame.pt",weights_only=False)["best"])
    P=Predictor([m],True).eval(); w=p.hospitals==h
    he=explain(P,p.pixels[w]).heat
    heat[w]=he; found[w]=lesion.in_pixels(lesion.box_of(he),lesion.scale_of(p.sizes[w])).numpy(); conf[w]=he.amax((1,2))
    fl[w]=predict(P,p.pixels[w])
out|=dict(found=found,conf=conf,heat=heat,frame_logit=fl)
# windows: given boxes where boxed; found otherwise
for f in (1.5,2.0,2.5):
  for kind in ("given","found"):
    b=found.copy()
    if kind=="given": b[p.boxed]=p.boxes[p.boxed]
    win=lesion_window(torch.from_numpy(b),f).numpy()
    px=np.empty_like(p.pixels)
    for i,(fr,w) in enumerate(zip(preparation.frames(p),win)): px[i]=preparation.cut(fr,w.tolist(),128)
    out[f"{kind}{f}"]=px
    print(f,kind,flush=True)
np.savez("x/bank.npz",**out)
wl=np.zeros(len(p));wg=wl.copy()
for i,h in enumerate(HOSP):
    m=BreastResNet(128); m.load_state_dict(torch.load(f"ckpt/fold_{i+1}_window.pt",weights_only=False)["best"])
    P=Predictor([m],True).eval(); w=p.hospitals==h; b=p.boxed[w]; y=p.labels[w]
    wf=predict(P,out["found2.0"][w]); wg=predict(P,out["given2.0"][w]); f=fl[w]
    for n,z in dict(frame=f,found=wf,both=f+wf).items(): print(h,n,round(metrics.auc(y,z),4), "lesions", round(metrics.auc(y[b],z[b]),4))
    for n,z in dict(given=wg,both=f+wg).items(): print(h,n,"lesions", round(metrics.auc(y[b],z[b]),4))
