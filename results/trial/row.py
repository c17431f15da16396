"""row.py NAME SET KIND key=value... ; KIND window|frame|finder ; saves x/out/NAME_SET_seed.npz and .pt"""
from base import *
from common.boxes import overlap, in_shares
import torch.nn.functional as F
name,sets,kind=sys.argv[1:4]
opt=dict(a.split("=") for a in sys.argv[4:])
b=np.load("x/bank.npz",allow_pickle=True)
H=b["hospitals"]; y=b["labels"]
SETS={"A":["busi","breast"],"B":["busbra"],"C":["busi","busbra"],"D":["breast","busbra"],"all":HOSP,"S":["busi"],"T":["breast"]}
tr=np.isin(H,SETS[sets]); te=~tr
seed=int(opt.pop("seed",0)); 
aug=opt.pop("aug",""); AS=float(opt.pop("astr",1)); mixstyle=float(opt.pop("mixstyle",0)); FZ0=opt.pop("fz",0); data_=opt.pop("px","given2.0"); test_=opt.pop("test",None)
st=dict(epochs=12,weights="resnet18_imagenet_trunk.pth",view="lesion",size=None); st.pop("size")
for k,v in opt.items(): st[k]=type(getattr(Settings,k))(v) if k!="stages" else int(v)
if "mirror" in st: st["mirror"]=st["mirror"]=="1"
s=Settings(**st)
FZ=float(FZ0)
gain0=augment.gain

def big(images,strength,gen):
    x=gain0(images,strength,gen)
    n=len(x)
    u=lambda lo,hi: augment.uniform(images,lo,hi,gen)[:,None,None]
    if "gamma" in aug: x=x.clamp(1e-4,1)**((AS*u(-.5,.5)).exp())
    if "blur" in aug: # random mix of a 3x3 binomial blur twice, or unsharp
        k=torch.tensor([1.,4,6,4,1])/16
        bl=F.conv2d(F.conv2d(F.pad(x[:,None],(2,2,2,2),mode="reflect"),k.view(1,1,1,5)),k.view(1,1,5,1))[:,0]
        x=(x+AS*u(-1,1)*(bl-x)).clamp(0,1)
    if "noise" in aug: # speckle multiplicative
        nz=torch.randn(x.shape,generator=gen)
        x=(x*(1+AS*u(0,.25)*nz)).clamp(0,1)
    if "lowres" in aug:
        if torch.rand(1,generator=gen)<.5:
            f=int(torch.randint(56,112,(1,),generator=gen)); 
            sel=(torch.rand(n,generator=gen)<.5)
            lo=F.interpolate(F.interpolate(x[:,None],size=(f,f),mode="bilinear",antialias=True),size=x.shape[1:],mode="bilinear")[:,0]
            x=torch.where(sel[:,None,None],lo,x)
    return x
if "gain2" in aug:
    base=augment.Strength
    S2=dataclasses.replace(base(),contrast=.4,brightness=.2)
    def big(images,strength,gen,_b=big): return _b(images,dataclasses.replace(strength,contrast=.4,brightness=.2),gen)
if aug: augment.gain=big
if mixstyle:
    f0=BreastResNet.first_stage
    def fs(self,images):
        x=f0(self,images)
        if self.training and torch.rand(1)<.5:
            n=len(x); mu=x.mean((2,3),keepdim=True).detach(); sd=(x.var((2,3),keepdim=True)+1e-6).sqrt().detach()
            l=torch.distributions.Beta(mixstyle,mixstyle).sample((n,1,1,1)); p=torch.randperm(n)
            l=l.to(x.dtype)
            x=(x-mu)/sd*(l*sd+(1-l)*sd[p])+l*mu+(1-l)*mu[p]
        return x
    BreastResNet.first_stage=fs
if "fz" in opt or FZ:
    augment.FINDING=dataclasses.replace(augment.FINDING,scale=FZ,shift=FZ/2)
t0=time.time()
px=b["pixels"] if kind!="window" else b[data_] if data_ in b else np.load(data_)["px"]
if kind=="window":
    ex=training.Examples(px[tr],y[tr])
    if "+" in opt.get("also",""): pass
elif kind=="frame": ex=training.Examples(px[tr],y[tr])
else:
    bx=torch.from_numpy(in_shares(b["boxes"],b["sizes"]).astype(np.float32))[torch.from_numpy(tr)]
    ex=training.Examples(px[tr],y[tr],training.Boxes(bx,torch.ones(tr.sum(),dtype=torch.bool)))
    if kind=="finder":
        f00=training.loss.training_loss
        training.loss.training_loss=lambda lo,*a: lo.sum()*0
m=training.fit_network(ex,None,dataclasses.replace(s,patience=0),seed,torch.device("cpu"),name).model.eval()
secs=time.time()-t0
out={}
P=Predictor([m],True).eval()
msg=[f"{name} {sets} seed {seed} {secs:.0f}s"]
if kind in("finder","joint"):
    heat=explain(P,b["pixels"]).heat.numpy() 
    out["heat"]=heat
    for hot in (.5,.3):
        bx=lesion.in_pixels(lesion.box_around(lesion.hottest_part(torch.from_numpy(heat),hot)),lesion.scale_of(b["sizes"])).numpy()
        for h in HOSP:
            w=(H==h)&te&b["boxed"]
            if not w.any(): continue
            iou=overlap(bx[w],b["boxes"][w]); r=bx[w][:,2:].max(1)/b["boxes"][w][:,2:].max(1)
            msg.append(f"{h} hot{hot}: iou {np.median(iou):.3f} <.3 {(iou<.3).mean():.3f} >.5 {(iou>.5).mean():.3f} ratio {np.quantile(r,[.1,.5,.9]).round(2)}")
if kind in ("frame","joint"):
    z=predict(P,b["pixels"]); out["frame"]=z
    for h in HOSP:
        w=(H==h)&te
        if w.any(): msg.append(f"{h} frame {metrics.auc(y[w],z[w]):.4f}")
if kind=="window":
    f=data_.replace("given","").replace("found","")
    if data_ not in b: f=test_ 
    for k in("given","found"):
        z=predict(P,b[k+f]); out[k]=z
        for h in HOSP:
            w=(H==h)&te&(b["boxed"] if k=="given" else True)
            if w.any(): msg.append(f"{h} {k} {metrics.auc(y[w],z[w]):.4f}")
os.makedirs("x/out",exist_ok=True)
np.savez(f"x/out/{name}_{sets}_{seed}.npz",**out); torch.save(m.state_dict(),f"x/out/{name}_{sets}_{seed}.pt")
with open("x/rows.txt","a") as fo: fo.write(" | ".join(msg)+"  ## "+" ".join(sys.argv[1:])+"\n")
