import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score as auc
s=np.load("rows/shape.npz"); B,S,y,site=(s[k] for k in ("B","S","y","site"))
X=lambda b,size: np.log(b[:,2:]/size.max(1,keepdims=True))
l=LogisticRegression(C=25).fit(X(B,S)[site!=2],y[site!=2])
P=np.load("rows/busbra_windows_128.npz"); Z=np.load("rows/busbra_window_0.npz"); size=np.load("rows/busbra_sizes.npy"); Y=Z["labels"]; f=Z["frame"]; w=Z["found"]
H=np.load("rows/busbra_second.npz"); b=P["bf"]
def rep(n,x):
    zs=l.decision_function(X(x,size)); print(n,"box",round(auc(Y,zs),4),[round(auc(Y,2/3*w+f/3+q*zs),4) for q in (.25,.5,.75,1)])
rep("first",b)
for k in H: rep(k,H[k])
# robust: geometric mean only where both agree within a factor
x=H["2.5"]; r=np.abs(np.log(x[:,2:]/b[:,2:])).max(1)
for t in (.2,.4,.7):
    m=b.copy(); a=r<t; m[a,2:]=np.sqrt(b[a,2:]*x[a,2:]); rep(f"agree {t} {a.mean():.2f}",m)
for lo in (.5,.7):
    q=np.clip(x[:,2:]/b[:,2:],lo,1/lo); m=b.copy(); m[:,2:]=b[:,2:]*q; rep(f"clip {lo}",m); m[:,2:]=b[:,2:]*np.sqrt(q); rep(f"clip sqrt {lo}",m)
