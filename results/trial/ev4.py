from ev import *
h="busbra"; w=H==h; yy=y[w]; a=lambda z: round(metrics.auc(yy,z),4)
for nm in ("jnew3",):
    P=net(f"x/out/{nm}_A_0.pt",finds=True); n2=net("x/out/w2.5big_A_0.pt")
    for mj,mw in ((True,True),(True,False),(False,False)):
        P.mirror=mj; n2.mirror=mw
        he=explain(P,b["pixels"][w]).heat.numpy(); f=predict(P,b["pixels"][w]); g=predict(n2,b["given2.5"][w])
        print(nm,mj,mw,"frame",a(f),"given",a(g),a(2*g+f),flush=True)
        for hot in (.3,.4,.5):
            bx=heat_boxes(he,w,hot); iou=overlap(bx,b["boxes"][w]); z=predict(n2,cutall(h,bx,2.5)); print("  ",hot,"iou %.3f <.3 %.3f"%(np.median(iou),(iou<.3).mean()),"found",a(z),a(2*z+f),a(z+f),flush=True)
