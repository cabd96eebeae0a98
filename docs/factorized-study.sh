#!/bin/sh
# Trains and measures every tokenizer of docs/factorized-study.md.
#
#   python docs/factorized-features.py cifar10-train.tar.gz alex_shift_tolerant.pth 10000 features.safetensors
#   docs/factorized-study.sh cifar10-train.tar.gz cifar10-test.tar.gz alex_shift_tolerant.pth features.safetensors
#
# The first two are CIFAR-10 as WebDataset shards, the third is from the package stlpips-pytorch 0.0.2. Learned
# from the first 10,000 images, measured on the first 1,000 for testing. Runs that are finished are not repeated.
# SMALTI names another program than the release build's, STEPS another length of training.
set -eu
train=$1 test=$2 judge=$3 features=$4
smalti=${SMALTI:-target/release/smalti}
steps=${STEPS:-500}
out=runs/factorized

mkdir -p "$out/all" "$out/test"
tar xzf "$test" -C "$out/all"
for image in $(ls "$out/all" | grep '\.jpg$' | head -n 1000); do
    mv -f "$out/all/$image" "$out/test/"
done

run() {
    name=$1 codes=$2 depth=$3
    shift 3
    folder=$out/$name
    [ -e "$folder/model" ] || "$smalti" train configs/factorized-cifar10.toml --out "$folder" \
        --set "data.source.path=$train" --set "data.eval_source.path=$test" \
        --set "data.train={kind='first', count=10000}" \
        --set "training.steps=$steps" --set "training.evaluate_every=$steps" \
        --set "model.quantizer.codebook_size=$codes" --set "model.quantizer.depth=$depth" "$@"
    "$smalti" evaluate --model "$folder" --st-lpips "$judge" --json "$out/test" > "$folder/evaluation.json"
}

losses='reconstruction=1.0, codebook=1.0, commitment=0.25'
# A transformer learns faster; branches and prediction heads are a convolutional encoder's.
vit="model.network={kind='vit', resolution=32, patch_size=4, width=128, layers=3, heads=4, output_width=512, z_channels=32}"
branches="model.network.branches={names=['vis', 'sem']}"
heads="model.representation=[{branch='sem', width=256, layers=1, heads=4}]"
target="representation={targets=[{file='$features'}]}"

for codes in 512 1024 2048; do
    run "one-$codes" $codes 1 --set "losses={$losses}" --set "$vit"
done
for depth in 2 3; do
    run "$depth-free" 512 $depth --set "losses={$losses, disentanglement=0.0}" --set "$vit"
    run "$depth-apart" 512 $depth --set "losses={$losses, disentanglement=0.1}" --set "$vit"
done
run branches 512 2 --set "losses={$losses, disentanglement=0.1}" --set "$branches"
run branches-guided 512 2 --set "losses={$losses, disentanglement=0.1, representation=0.05}" \
    --set "$branches" --set "$heads" --set "$target"
