import sys
sys.argv=["x","busbra"]
src=open("results/trial/row5.py").read().split("for what in whats:")[0]
exec(src)
from common.model import explain
from sklearn.linear_model import LogisticRegression
net=torch.load(OUT/"busbra_window_0_heat=1.pt",weights_only=False); p=Predictor([net],True)
P=placed(128); m=test.boxed; f=P["z"]; g=P["bg"]; b=P["bf"]; y=test.labels
s=np.load("rows/shape.npz"); B,S,yy,site=(s[k] for k in ("B","S","y","site"))
X=lambda b,size: np.log(b[:,2:]/size.max(1,keepdims=True))
l=LogisticRegression(C=25).fit(X(B,S)[site!=2],yy[site!=2]); print(l.coef_,l.intercept_)
w=lesion.square_around(torch.from_numpy(b),2.5).numpy()
e=explain(p,P["found"]); heat=e.heat; zw=e.logits.numpy()
print("heat max", np.quantile(heat.amax((1,2)),[.01,.1,.5]))
sh=lesion.box_of(heat).numpy(); x=np.concatenate([w[:,:2]+sh[:,:2]*w[:,2:],sh[:,2:]*w[:,2:]],1).astype(np.float32)
gm=np.concatenate([b[:,:2],np.sqrt(b[:,2:]*x[:,2:])],1)
def iou(a,b):
    x=np.maximum(a[:,:2],b[:,:2]); y=np.minimum(a[:,:2]+a[:,2:],b[:,:2]+b[:,2:]); i=np.clip(y-x,0,None).prod(1)
    return i/(a[:,2:].prod(1)+b[:,2:].prod(1)-i)
z0=np.load(OUT/"busbra_window_0.npz")["found"]
for n,q in (("first",b),("in window",x),("mean",gm)):
    zs=l.decision_function(X(q,test.sizes)); u=iou(g,q)
    print(n,"iou",np.quantile(u[m],[.05,.25,.5]).round(3),"shape",auc(zs),"with heat net",auc(2/3*zw+f/3+.5*zs),"with plain net",auc(2/3*z0+f/3+.5*zs))
