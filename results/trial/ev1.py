from ev import *
h="busbra"; w=H==h; yy=y[w]
out={f:np.load(f"x/out/{f}_{s}_0.npz")["heat"] for f,s in (("fT","T"),("fS","S"),("fA","A"))}
joint=b["heat"][w]
cands={"joint":joint,"fA":out["fA"][w],"fA+joint":(out["fA"][w]+joint)/2,"mean3":np.mean([out[k][w] for k in out],0),"mean3+j":np.mean([out[k][w] for k in out]+[joint],0),"T+S":(out["fT"][w]+out["fS"][w])/2}
n2=net("ckpt/fold_2_window.pt"); n15=net("x/out/w1.5_A_0.pt")
fl=b["frame_logit"][w]
g2=predict(n2,b["given2.0"][w]); g15=predict(n15,b["given1.5"][w])
np.savez("x/out/w2_A_0.npz",given=np.where(w,0,0).astype(float))
a=lambda z: round(metrics.auc(yy,z),4)
print("given: 2",a(g2),"1.5",a(g15),"both",a(g2+g15),"both+frame",a(g2+g15+fl), "2+frame",a(g2+fl),flush=True)
sv=dict(g2=g2,g15=g15)
for k,he in cands.items():
  for hot in (.5,.3):
    bx=heat_boxes(he,w,hot); iou=overlap(bx,b["boxes"][w]); r=bx[:,2:].max(1)/b["boxes"][w][:,2:].max(1)
    f2=predict(n2,cutall(h,bx,2.0)); f15=predict(n15,cutall(h,bx,1.5))
    sv[f"{k}{hot}_2"]=f2; sv[f"{k}{hot}_15"]=f15
    print(k,hot,"iou %.3f <.3 %.3f >.5 %.3f"%(np.median(iou),(iou<.3).mean(),(iou>.5).mean()),np.quantile(r,[.1,.5,.9]).round(2),"found 2",a(f2),"1.5",a(f15),"both",a(f2+f15),"both+frame",a(f2+f15+fl),flush=True)
np.savez("x/ev1.npz",**sv)
