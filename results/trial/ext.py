import sys
H0=sys.argv[1]
sys.argv=["x",H0]
exec(open("results/trial/row5.py").read().split("for what in whats:")[0])
from common.model import explain
from sklearn.linear_model import LogisticRegression
s=np.load("rows/shape.npz"); B,S,yy,site=(s[k] for k in ("B","S","y","site"))
i={"busi":0,"breast":1,"busbra":2}[H0]
X=lambda b,size: np.log(b[:,2:]/size.max(1,keepdims=True))
l=LogisticRegression(C=25).fit(X(B,S)[site!=i],yy[site!=i])
p=OUT/f"{H0}_heat.pt"
if not p.exists(): torch.save(explain(Predictor([frame_net(0)],True),test.pixels).heat,p)
heat=torch.load(p); P=placed(128); Z=np.load(OUT/f"{H0}_window_0.npz"); f=P["z"]; w=Z["found"]; m=test.boxed
def rep(n,x):
    zs=l.decision_function(X(x,test.sizes)); r=np.log(x[m,2:]/P["bg"][m,2:]); print(n,"box",auc(zs),"mix",auc(2/3*w+f/3+.5*zs),"sd of log ratio",r.std(0).round(3),"mean",r.mean(0).round(3))
for share in (.1,.2,.3,.4,.5,.6):
    lesion.HOT_SHARE=share
    rep(share,lesion.in_pixels(lesion.box_of(heat),lesion.scale_of(test.sizes)).numpy())
lesion.HOT_SHARE=.4
b=lesion.in_pixels(lesion.box_of(heat),lesion.scale_of(test.sizes)).numpy()
# area by mass: scale the moments' box so that its ellipse has the mass of the part
for share in (.1,.2,.4):
    lesion.HOT_SHARE=share
    part=lesion.hottest_part(heat); mass=(part.sum((1,2))/heat.shape[1]**2).numpy()*test.sizes.prod(1)
    k=np.sqrt(mass/(np.pi/4*b[:,2]*b[:,3])); x=b.copy(); x[:,2:]*=k[:,None]; rep(f"mass {share}",x)
    part=(lesion.hottest_part(heat)>0).float(); mass=(part.sum((1,2))/heat.shape[1]**2).numpy()*test.sizes.prod(1)
    k=np.sqrt(mass/(np.pi/4*b[:,2]*b[:,3])); x=b.copy(); x[:,2:]*=k[:,None]; rep(f"cells {share}",x)
mass=(heat.sum((1,2))/heat.shape[1]**2).numpy()*test.sizes.prod(1); k=np.sqrt(mass/(np.pi/4*b[:,2]*b[:,3])); x=b.copy(); x[:,2:]*=k[:,None]; rep("whole mass",x)
