#!/bin/sh
# Trains and measures every row of docs/regularized-study.md.
#
#   docs/regularized-study.sh cifar10-train.tar.gz cifar10-test.tar.gz alex_shift_tolerant.pth [ROW...]
#
# The first two are CIFAR-10 as WebDataset shards, the third is from the package stlpips-pytorch 0.0.2. Tokenizers and
# generators learn from the first 10,000 images and are measured on the first 1,000 for testing. What is finished is
# not repeated, so rows may be named to share them among machines. SMALTI names another program than the release
# build's; STEPS, GPT_STEPS and DIFFUSION_STEPS are other lengths of training.
set -eu
train=$1 test=$2 judge=$3
shift 3
rows=${*:-vq gumbel argmax prior mask-20 mask-40 mask-60 mask-100 contrastive probabilistic}
smalti=${SMALTI:-target/release/smalti}
steps=${STEPS:-600}
gpt_steps=${GPT_STEPS:-1000}
diffusion_steps=${DIFFUSION_STEPS:-300}
out=runs/regularized

if [ ! -e "$out/test" ]; then
    mkdir -p "$out/all" "$out/part"
    tar xzf "$test" -C "$out/all"
    for image in $(ls "$out/all" | grep '\.jpg$' | head -n 1000); do
        mv -f "$out/all/$image" "$out/part/"
    done
    mv "$out/part" "$out/test"
fi

# name, quantizer, losses, further settings
tokenizer() {
    name=$1 quantizer=$2 losses=$3
    shift 3
    folder=$out/$name
    [ -e "$folder/model" ] || "$smalti" train configs/regularized-cifar10.toml --out "$folder" \
        --set "data.source.path=$train" --set "data.eval_source.path=$test" \
        --set "data.train={kind='first', count=10000}" \
        --set "training.steps=$steps" --set "training.evaluate_every=$steps" \
        --set "model.quantizer={codebook_size=1024, code_dim=32, $quantizer}" \
        --set "losses={reconstruction=1.0, $losses}" "$@"
    [ -e "$folder/evaluation.json" ] || "$smalti" evaluate --model "$folder" --st-lpips "$judge" \
        --features "$judge" --network st-lpips --json "$out/test" > "$folder/evaluation.part"
    [ ! -e "$folder/evaluation.part" ] || mv "$folder/evaluation.part" "$folder/evaluation.json"
}

# A generator of the tokenizer's codes, and a hundred images of each class from it.
generator() {
    name=$1 kind=$2 config=$3 generator_steps=$4
    folder=$out/$name-$kind
    [ -e "$folder/model" ] || "$smalti" train "$config" --out "$folder" --set "tokenizer=$out/$name" \
        --set "data.source={kind='shards', path='$train'}" --set "data.train={kind='first', count=10000}" \
        --set "data.eval_source={kind='shards', path='$test'}" --set "data.eval={kind='first', count=1000}" \
        --set "training.steps=$generator_steps" --set "training.evaluate_every=$generator_steps"
    [ -e "$folder/distance.json" ] || {
        for class in 0 1 2 3 4 5 6 7 8 9; do
            "$smalti" generate --model "$folder" --class "$class" --count 100 -o "$folder/images/$class"
        done
        "$smalti" distance --features "$judge" --network st-lpips --json "$out/test" "$folder/images" \
            > "$folder/distance.part"
        mv "$folder/distance.part" "$folder/distance.json"
    }
}

judged="contrastive={network={kind='st_lpips', file='$judge'}"
for row in $rows; do
    case $row in
    vq) tokenizer vq "kind='vector', rule='gradient', learning={revival={kind='off'}, start={kind='normal'}}" \
        'commitment=0.25, codebook=1.0' ;;
    gumbel) tokenizer gumbel "kind='gumbel'" 'divergence=5e-4' ;;
    argmax) tokenizer argmax "kind='regularized', mask_ratio=0.0" 'prior=0.0' ;;
    prior) tokenizer prior "kind='regularized', mask_ratio=0.0" 'prior=0.02' ;;
    mask-*) tokenizer "$row" "kind='regularized', mask_ratio=$(echo "${row#mask-}" | awk '{print $1 / 100}')" 'prior=0.02' ;;
    contrastive) tokenizer contrastive "kind='regularized', mask_ratio=0.4" 'prior=0.02, contrastive=0.1' \
        --set "$judged, weighting='equal'}" ;;
    probabilistic) tokenizer probabilistic "kind='regularized', mask_ratio=0.4" 'prior=0.02, contrastive=0.1' \
        --set "$judged, weighting='probabilistic'}" ;;
    *) echo "no row is called $row" >&2; exit 2 ;;
    esac
    generator "$row" gpt configs/gpt-emoji.toml "$gpt_steps"
    generator "$row" diffusion configs/diffusion-emoji.toml "$diffusion_steps"
done
