#!/usr/bin/env bash
# Run the commands behind the numbers of README.md and models/README.md, from nothing but the downloads.
#
#   bash results/reproduce.sh [STEP ...]      all steps, or those named
#
# Before: pip install -r requirements.txt, and download BUSI, BrEaST and BUS-BRA (docs/datasets.md) into the folders
# busi, breast and busbra here, or link them. BreastMNIST and the ImageNet weights are downloaded by the scripts.
# WEIGHTS names other weights to start from, as --weights takes them: our numbers started from a file that is not the
# download (docs/results.md), so yours differ. The times are those of two cores with bf16 units. Results go into
# runs/, files into runs/models/.
set -euo pipefail
weights=${WEIGHTS:-imagenet}

export_run() { # with an int8 copy, or without one if int8 differs too much from fp32
    python export.py "runs/$1" --fp16 --int8 --benchmark --out "runs/models/$1.onnx" ||
        python export.py "runs/$1" --fp16 --benchmark --out "runs/models/$1.onnx"
}

seeds() { # 15 min: README, one model at 28 pixels, ten seeds
    for seed in 0 1 2 3 4 5 6 7 8 9; do
        python train.py --seed "$seed" --threads 1 --weights "$weights" --out "runs/seed_$seed"
    done
}

scratch() { # 30 min: README, one model and five folds at 28 pixels, and five folds at 128 pixels, from random weights, which need no weights file
    for seed in 0 1 2 3 4 5 6 7 8 9; do
        python train.py --seed "$seed" --threads 1 --weights none --precision fp32 --device cpu --out "runs/scratch_$seed"
    done
    python crossval.py --weights none --threads 2 --jobs 2 --no-test --precision fp32 --device cpu --out runs/scratch_28
    python crossval.py --size 128 --epochs 12 --weights none --threads 2 --jobs 2 --no-test --precision fp32 --device cpu --out runs/scratch_128
}

breastmnist_128() { # 10 min: README, five folds at 128 pixels
    python crossval.py --size 128 --epochs 12 --refit --weights "$weights" --out runs/crossval_128
}

breastmnist_28() { # 5 min: README and card, the file of 28 pixels
    python crossval.py --refit --weights "$weights" --out runs/breastmnist_28
    export_run breastmnist_28
}

breast_ultrasound() { # 100 min: README and card, each of three hospitals by models of the other two; the file of all three
    python -m results.busi_table busi busi.csv
    python -m results.busbra_table busbra busbra.csv
    python crossval.py --data busi.csv breast busbra.csv --groups hospital --size 128 --epochs 16 --refit \
        --weights "$weights" --out runs/breast_ultrasound
    python crossval.py --data busi.csv breast busbra.csv --groups hospital --view square --scanners on --size 128 --epochs 16 --no-test \
        --weights "$weights" --out runs/square
    python crossval.py --data busi.csv breast busbra.csv --groups hospital --size 128 --epochs 16 --no-test --weights none --threads 1 --jobs 1 \
        --out runs/scratch_hospitals
    export_run breast_ultrasound
}

card() { # 10 min: the tables of the card and of results/README.md, of the files in models/, not of those made above
    python -m results.busbra_table busbra busbra.csv
    python -m results.card breast busbra.csv
    python -m results.limits breast busbra.csv
    python -m results.robustness --data-root "${MEDMNIST_ROOT:-$HOME/.medmnist}" # with breastmnist_224.npz
    python -m results.table
}

for step in "${@:-seeds scratch breastmnist_128 breastmnist_28 breast_ultrasound card}"; do
    for name in $step; do
        echo "== $name"
        "$name"
    done
done
