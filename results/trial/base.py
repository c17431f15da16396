import sys, os, time, dataclasses
import numpy as np, torch
torch.set_num_threads(1)
from common import data, looks, metrics, training, augment, lesion, preparation
from common.model import BreastResNet, Predictor, predict, explain
from common.settings import Settings
from common.window import window, lesion_window, frame_box
from common.boxes import overlap
HOSP=["breast","busbra","busi"]
def pool():
    found=data.find(["busi.csv","breast","busbra"],None,128,0,None,undivided="train",view="lesion")
    return data.load(found,"train","val",optional=["val","test"])
def letterwin(sizes):  # [n,4] pixels: side = longer, centred
    h,w=sizes[:,0],sizes[:,1]; s=np.maximum(h,w)
    return np.stack([(w-s)/2,(h-s)/2,s,s],1).astype(np.float32)
