from base import *
from common.boxes import overlap, in_shares
b=np.load("x/bank.npz",allow_pickle=True)
for h in HOSP:
    w=(b["hospitals"]==h)&b["boxed"]
    f,t=b["found"][w],b["boxes"][w]
    iou=overlap(f,t); r=f[:,2:].max(1)/t[:,2:].max(1)
    c=np.abs((f[:,:2]+f[:,2:]/2)-(t[:,:2]+t[:,2:]/2)).max(1)/t[:,2:].max(1)
    print(h,len(iou),"iou med %.3f <.3 %.3f >.5 %.3f"%(np.median(iou),(iou<.3).mean(),(iou>.5).mean()),"ratio",np.quantile(r,[.1,.5,.9]).round(2),"shift",np.quantile(c,[.5,.75,.9]).round(2))
