import sys
hold0=sys.argv[1]
sys.argv=["x",hold0]
src=open("results/trial/row5.py").read().split("for what in whats:")[0]
exec(src)
from common.model import explain
net=torch.load(OUT/f"{hold0}_window_0.pt",weights_only=False); p=Predictor([net],True)
fi=Predictor([frame_net(0)],True)
P=placed(128); m=test.boxed; f=P["z"]; g=P["bg"]; b=P["bf"]
def iou(a,b):
    x=np.maximum(a[:,:2],b[:,:2]); y=np.minimum(a[:,:2]+a[:,2:],b[:,:2]+b[:,2:]); i=np.clip(y-x,0,None).prod(1)
    return i/(a[:,2:].prod(1)+b[:,2:].prod(1)-i)
def stat(name,x,z=None):
    u=iou(g,x); r=np.log2(x[:,2:].max(1)/g[:,2:].max(1))[m]
    print(name,"iou",np.round(np.quantile(u[m],[.05,.25,.5]),3),"<.3",round((u[m]<.3).mean(),3),"size q",np.round(np.quantile(r,[.05,.25,.5,.75,.95]),2),"mae",round(np.abs(r-np.median(r)).mean(),3),"aspect",auc(-np.log(x[:,2]/x[:,3]),m),flush=True)
stat("first",b)
H={}
for factor in (2.5,3.5):
    w=lesion.square_around(torch.from_numpy(b),factor).numpy()
    px=P["found"] if factor==2.5 else windows_at(test,b,128,factor)
    heat=explain(fi,px).heat
    s=lesion.box_of(heat).numpy(); x=np.concatenate([w[:,:2]+s[:,:2]*w[:,2:],s[:,2:]*w[:,2:]],1).round().astype(np.float32); x[:,2:]=np.maximum(x[:,2:],1)
    stat(f"second {factor}",x)
    H[factor]=x
    for lam in (.5,):
        y=np.concatenate([(1-lam)*b[:,:2]+lam*x[:,:2],(b[:,2:]**(1-lam))*(x[:,2:]**lam)],1).astype(np.float32)
        stat(f"mean of first and second {factor}",y); H[f"m{factor}"]=y
np.savez(OUT/f"{hold0}_second.npz",**{str(k):v for k,v in H.items()})
for k,x in H.items():
    z=predict(p,windows_at(test,x,128)); print(k,auc(z),auc(z*2/3+f/3),flush=True)
z=predict(p,P["found"]); print("first",auc(z),auc(z*2/3+f/3))
