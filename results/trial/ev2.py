from ev import *
for h,i in (("breast",1),("busi",3)):
    w=H==h; yy=y[w]; bx0=b["boxed"][w]; fl=b["frame_logit"][w]; n=net(f"ckpt/fold_{i}_window.pt"); he=b["heat"][w]
    a=lambda z: (round(metrics.auc(yy,z),4),round(metrics.auc(yy[bx0],z[bx0]),4))
    for hot in (.2,.3,.4,.5):
        bx=heat_boxes(he,w,hot); iou=overlap(bx[bx0],b["boxes"][w][bx0]); z=predict(n,cutall(h,bx,2.0))
        print(h,hot,"iou %.3f <.3 %.3f"%(np.median(iou),(iou<.3).mean()),"found",a(z),"+frame",a(z+fl),"2w+f",a(2*z+fl),flush=True)
h="busbra"; w=H==h; yy=y[w]; fl=b["frame_logit"][w]; he=b["heat"][w]
a=lambda z: round(metrics.auc(yy,z),4)
n1,n2,n3=net("x/out/w2big_A_0.pt"),net("x/out/w2.5big_A_0.pt"),net("x/out/w2mixstyle_A_0.pt")
g1,g2=predict(n1,b["given2.0"][w]),predict(n2,b["given2.5"][w])
print("given",a(g1),a(g2),"both",a(g1+g2),"+frame",a(g1+g2+fl),flush=True)
for hot in (.2,.3,.4):
    bx=heat_boxes(he,w,hot); p2=cutall(h,bx,2.0)
    z1,z2,z3=predict(n1,p2),predict(n2,cutall(h,bx,2.5)),predict(n3,p2)
    print(hot,"w2big",a(z1),"w2.5big",a(z2),"mixst",a(z3),"big both",a(z1+z2),"+frame",a(z1+z2+fl),"4w+f",a(2*z1+2*z2+fl),flush=True)
