import sys, numpy as np, torch, time, dataclasses

torch.set_num_threads(1)
from common import data, looks, metrics, training, augment, lesion
from common.images import *
from common.model import BreastResNet, Predictor, predict, explain
from common.settings import Settings
from common.window import window, lesion_window, frame_box
from common import preparation
import os
HOSP=["breast","busbra","busi"]
def pool():
    found=data.find(["busi.csv","breast","busbra"],None,128,0,None,undivided="train",view="lesion")
    return data.load(found,"train","val",optional=["val","test"])
