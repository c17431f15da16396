from base import *
p=pool(); n=len(p); print(n,p.boxed.sum())
out=dict(squash=p.pixels,labels=p.labels,boxed=p.boxed,boxes=p.boxes,sizes=p.sizes,annotated=p.annotated,hospitals=np.asarray(p.hospitals).astype(str),patients=np.asarray(p.table["patient"].astype(str)))
L=letterwin(p.sizes); g=np.where(p.boxed[:,None],p.boxes,0)
W=lesion_window(torch.from_numpy(g.astype(np.float32)),2.5).numpy()
letter=np.zeros_like(p.pixels); given=np.zeros_like(p.pixels)
big=[]
for i,fr in enumerate(preparation.frames(p)):
    letter[i]=preparation.cut(fr,L[i].tolist(),128)
    if p.boxed[i]: given[i]=preparation.cut(fr,W[i].tolist(),128)
out|=dict(letter=letter,given=given)
np.savez("x/bank.npz",**out)
