import numpy as np, sys, csv
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score as auc
s=np.load("rows/shape.npz"); B,S,y,site=(s[k] for k in ("B","S","y","site"))
X=lambda b,size: np.log(b[:,2:]/size.max(1,keepdims=True))
rows=[]
for i,h in enumerate(("busi","breast","busbra")):
    l=LogisticRegression(C=25,tol=1e-8).fit(X(B,S)[site!=i],y[site!=i]); print(h,"box alone, given",round(auc(y[site==i],l.decision_function(X(B[site==i],S[site==i]))),4),l.coef_.round(2),l.intercept_.round(2))
    for name in ("window_0","window_0_heat=1","window_0_freeze=1"):
        try: Z=np.load(f"rows/{h}_{name}.npz")
        except FileNotFoundError: continue
        P=np.load(f"rows/{h}_windows_128.npz"); m=Z["boxed"]; Y=Z["labels"]; f=Z["frame"]; size=np.load(f"rows/{h}_sizes.npy")
        zg,zf=(l.decision_function(X(P[k],size)) for k in ("bg","bf"))
        print(name,"box found alone",round(auc(Y,zf),4))
        for q in (0,.25,.5,.75,1):
            a=auc(Y[m],(2/3*Z["given"]+f/3+q*zg)[m]); b=auc(Y,2/3*Z["found"]+f/3+q*zf)
            print("  ",q,round(a,4),round(b,4)); rows.append((h,name,q,f"{a:.4f}",f"{b:.4f}"))
csv.writer(open("rows/mix2.csv","w")).writerows(rows)
