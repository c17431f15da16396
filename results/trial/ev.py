from base import *
from common.boxes import overlap
b=np.load("x/bank.npz",allow_pickle=True); H=b["hospitals"]; y=b["labels"]
p=None
def frames_of_h(h):
    f=f"x/frames_{h}.npy"
    if not os.path.exists(f):
        q=pool(); q=q[q.hospitals==h]
        np.save(f,np.array(list(preparation.frames(q)),dtype=object),allow_pickle=True)
    return np.load(f,allow_pickle=True)
def heat_boxes(heat,w,hot=.5):
    return lesion.in_pixels(lesion.box_around(lesion.hottest_part(torch.from_numpy(heat),hot)),lesion.scale_of(b["sizes"][w])).numpy()
def cutall(h,boxes,f):
    win=lesion_window(torch.from_numpy(boxes),f).numpy()
    return np.stack([preparation.cut(fr,w.tolist(),128) for fr,w in zip(frames_of_h(h),win)])
def net(path,stages="auto",finds=False):
    sd=torch.load(path,weights_only=False); sd=sd.get("best",sd)
    m=BreastResNet(128,stages,finds); m.load_state_dict(sd); return Predictor([m],True).eval()
