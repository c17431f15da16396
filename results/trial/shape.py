import sys
sys.argv=["x","busi"]
src=open("results/trial/row5.py").read().split("def frame_net")[0]
exec(src)
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
W=whole[whole.boxed]; B=W.boxes; y=W.labels; S=W.sizes
hh=np.array([x.lower().replace("-","") for x in W.hospitals]); site=np.select([["busi" in x for x in hh],["breast" in x for x in hh],["bra" in x for x in hh]],[0,1,2])
print(np.bincount(site))
F={"aspect":np.log(B[:,2]/B[:,3]),"size":np.log(B[:,2:].max(1)/S.max(1)),"area":np.log(B[:,2]*B[:,3]/S.prod(1))/2,"height":np.log(B[:,3]/S[:,0]),"depth":(B[:,1]+B[:,3]/2)/S[:,0],"top":B[:,1]/S[:,0],"bottom":(B[:,1]+B[:,3])/S[:,0],"sizepx":np.log(B[:,2:].max(1))}
for n in ([k] for k in F): 
    X=np.stack([F[k] for k in n],1); print(n,[round(roc_auc_score(y[site==s],X[site==s,0]),3) for s in range(3)])
for n in (["aspect"],["aspect","size"],["aspect","sizepx"],["aspect","size","depth"],["aspect","area","top"],["aspect","size","bottom"]):
    X=np.stack([F[k] for k in n],1); out=[];co=[]
    for s in range(3):
        l=LogisticRegression(C=100).fit(X[site!=s],y[site!=s]); out.append(round(roc_auc_score(y[site==s],l.decision_function(X[site==s])),4)); co.append((l.coef_.round(2)[0].tolist(),l.intercept_.round(2)[0]))
    print(n,out,co)
np.savez("rows/shape.npz",B=B,S=S,y=y,site=site)
