from ev import *
h="busbra"; w=H==h; yy=y[w]; a=lambda z: round(metrics.auc(yy,z),4)
j=np.load("x/out/jbig_A_0.npz"); he=j["heat"][w]; fj=j["frame"][w]; fb=np.load("x/out/framebig_A_0.npz")["frame"][w]
n1,n2=net("x/out/w2big_A_0.pt"),net("x/out/w2.5big_A_0.pt")
g1,g2=predict(n1,b["given2.0"][w]),predict(n2,b["given2.5"][w])
pat=b["patients"][w]
def rep(n,z): print(n,a(z),flush=True)
for nm,z in (("w2",g1),("w2.5",g2),("both",g1+g2)):
    rep(f"given {nm}",z)
    for fn,f in (("fj",fj),("fb",fb)):
        k=2 if nm=="both" else 1
        rep(f"  +{fn} 1:1",z/k+f); rep(f"  +{fn} 2:1",2*z/k+f)
rep("fj+fb",fj+fb)
for hot in (.2,.3,.4,.5):
    bx=heat_boxes(he,w,hot); p2=cutall(h,bx,2.0)
    z1,z2=predict(n1,p2),predict(n2,cutall(h,bx,2.5))
    for nm,z in (("w2",z1),("w2.5",z2),("both",(z1+z2)/2)): print(hot,nm,a(z),"+fj",a(z+fj),a(2*z+fj),"+fb",a(z+fb),a(2*z+fb),flush=True)
