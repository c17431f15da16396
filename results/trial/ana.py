import sys
sys.argv=["x","busbra"]
src=open("results/trial/row5.py").read().split("for what in whats:")[0]
exec(src)
net=torch.load(OUT/"busbra_window_0.pt",weights_only=False); p=Predictor([net],True)
P=placed(128); m=test.boxed; f=P["z"]
g=P["bg"]; b=P["bf"]
def cs(x): return x[:,:2]+x[:,2:]/2, x[:,2:].max(1,keepdims=True)
cg,sg=cs(g); cb,sb=cs(b)
def mk(c,s): return np.concatenate([c-s/2,np.repeat(s,2,1)],1).astype(np.float32)
from common.boxes import *
def iou(a,b):
    x=np.maximum(a[:,:2],b[:,:2]); y=np.minimum(a[:,:2]+a[:,2:],b[:,:2]+b[:,2:]); i=np.clip(y-x,0,None).prod(1)
    return i/(a[:,2:].prod(1)+b[:,2:].prod(1)-i)
u=iou(g,b); r=np.log2(sb/sg)[:,0]; d=np.linalg.norm(cg-cb,axis=1)/sg[:,0]
print("iou",np.quantile(u[m],[.05,.25,.5,.75]),"size",np.quantile(r[m],[.05,.25,.5,.75,.95]),"dist",np.quantile(d[m],[.5,.75,.9,.95]))
Z={"given":predict(p,P["given"]),"found":predict(p,P["found"])}
Z["found centre, given size"]=predict(p,windows_at(test,mk(cb,sg),128))
Z["given centre, found size"]=predict(p,windows_at(test,mk(cg,sb),128))
for k,z in Z.items():
    print(k,auc(z,m),auc(z*2/3+f/3,m), "| iou>.5",auc(z,m&(u>.5)), "|<.5",auc(z,m&(u<.5)),"sure",auc(z,m&(r>-.3)&(r<.3)))
print(m.sum(),(u[m]<.5).mean())
y=test.labels
print("log size given vs label auc", auc(sg[:,0]/test.sizes.max(1),m), "found",auc(sb[:,0]/test.sizes.max(1),m))
print("r by label", np.median(r[m&(y==1)]),np.median(r[m&(y==0)]), r[m&(y==1)].std(), r[m&(y==0)].std())
asp=np.log(g[:,2]/g[:,3]); aspf=np.log(b[:,2]/b[:,3]); print("aspect auc",auc(-asp,m),auc(-aspf,m))
np.savez(OUT/"ana.npz",**{k.replace(" ","_"):v for k,v in Z.items()},u=u,r=r,d=d,f=f,y=y,m=m,g=g,b=b)
