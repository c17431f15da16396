import numpy as np, sys
sys.argv=["x"]
from common import metrics
b=np.load("x/bank.npz",allow_pickle=True); y=b["labels"];H=b["hospitals"];bo=b["boxed"];pat=b["patients"]
f=np.load("x/out/f_A_0.npz");s=np.load("x/out/s_A_0.npz");w=np.load("x/out/w_A_0.npz")
m=(H=="busbra")
def pa(z):
    import collections
    d=collections.defaultdict(list); l={}
    for p,v,t in zip(pat[m],z[m],y[m]): d[p].append(v); l[p]=max(l.get(p,0),t)
    k=list(d); return metrics.auc(np.array([l[i] for i in k]),np.array([max(d[i]) for i in k]))
def show(n,z): print(f"{n:45s} image {metrics.auc(y[m],z[m]):.4f} patient {pa(z):.4f}")
W={"found":w["found_mirror"],"given":w["given_mirror"],"foundP":w["found_plain"],"givenP":w["given_plain"]}
S,SP,F,FP=s["square_mirror"],s["square_plain"],f["frame_mirror"],f["frame_plain"]
for k in ("found","given"):
    show(k,W[k]); show(k+" no mirror",W[k+"P"])
    for sh in (1/3,.5,.2): show(f"{k} + square {sh:.2f}",(1-sh)*W[k]+sh*S)
    for sh in (1/3,.5): show(f"{k} + frame3 {sh:.2f}",(1-sh)*W[k]+sh*F)
    show(f"{k} + sq + frame3 (.5,.25,.25)",.5*W[k]+.25*S+.25*F)
    show(f"{k} + sq + frame3 no mirror",.5*W[k+"P"]+.25*SP+.25*FP)
    show(f"{k} mirror + sq plain .33",2/3*W[k]+1/3*SP)
    show(f"{k} plain + sq plain .33",2/3*W[k+'P']+1/3*SP)
    show(f"{k} plain + frame3 plain .33",2/3*W[k+'P']+1/3*FP)
show("square",S);show("frame3",F); show("sq+frame3",S+F)
