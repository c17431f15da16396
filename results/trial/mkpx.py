from ev import *
# cross-fitted boxes for set A at factor 2.5 and 2: BUSI by fT, BrEaST by fS
hT=np.load("x/out/fT_T_0.npz")["heat"]; hS=np.load("x/out/fS_S_0.npz")["heat"]
for f in (2.0,2.5):
    px=b["given%s"%f].copy()
    for h,he in (("busi",hT),("breast",hS)):
        w=H==h; px[w]=cutall(h,heat_boxes(he[w],w,.3 if False else .5),f)
    np.savez(f"x/cf{f}.npz",px=px)
