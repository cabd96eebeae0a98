#!/usr/bin/env bash
# Repeats the depth study: docs/depth-study.sh PHOTOS.tar CIFAR10-TRAIN.tar.gz CIFAR10-TEST.tar.gz [OUT]
# Prints one line for each run: data set, codes at a position, codebook size, bits at a position, PSNR, SSIM, use.
set -euo pipefail
photos=$1 train=$2 test=$3 out=${4:-runs/depth-study}
smalti=${SMALTI:-target/release/smalti}
configs=$(dirname "$0")/../configs

run() { # data set, depth, codebook size, settings...
    local folder="$out/$1-depth$2-codes$3"
    "$smalti" train "$configs/depth-$1.toml" --quiet --out "$folder" \
        --set model.quantizer.depth="$2" --set model.quantizer.codebook_size="$3" "${@:4}" >"$folder.log" 2>&1
    tail -n 1 "$folder/metrics.jsonl" | sed "s/^/$1 depth $2 codes $3: /"
}

mkdir -p "$out"
for set in cifar10 photos; do
    case $set in
    cifar10) data=(--set data.source.path="$train" --set data.eval_source.path="$test") ;;
    photos) data=(--set data.source.path="$photos") ;;
    esac
    for depth in 1 2 4 8; do run $set $depth 128 "${data[@]}"; done
    # One code of as many bits as two codes of 128: 14.
    run $set 1 16384 "${data[@]}"
done
