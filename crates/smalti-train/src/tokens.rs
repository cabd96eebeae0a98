//! Tokenizing a data set once, for stage 2 to read many times.

use std::path::Path;

use smalti_data::{
    Dataset, Image, ImageSource, Preprocess, TokenCacheSpec, TokenCacheWriter, Views,
};
use smalti_nn::state::host_values;
use smalti_quantize::Quantizer;
use smalti_quantize::folding::fold;

use crate::error::TrainError;
use crate::model_dir::TokenizerModel;
use crate::observer::Observer;
use crate::samples::to_tensor;
use crate::tokenizer::{require_one_size, require_whole_positions};

/// How a data set becomes codes.
#[derive(Clone, Debug)]
pub struct TokenizeConfig {
    /// What images go through; not random.
    pub preprocess: Preprocess,
    /// Whether every image is also tokenized mirrored, as an image of its own.
    pub mirror: bool,
    /// The views that are kept of every image, one behind the other.
    pub views: Views,
    /// Whether latents are kept, from which codes can be drawn anew at every visit.
    pub latents: bool,
    /// Images that pass the network together.
    pub batch_size: usize,
}

impl TokenizeConfig {
    /// Entries of the cache for each image.
    pub fn views_per_image(&self) -> usize {
        self.views.count() * if self.mirror { 2 } else { 1 }
    }
}

/// Writes the codes (and latents) of a data set to the token cache at `path`.
///
/// # Errors
/// When an image cannot be read, the cache cannot be written, or the observer asks to stop.
pub fn tokenize(
    tokenizer: &TokenizerModel,
    dataset: &Dataset,
    config: &TokenizeConfig,
    path: &Path,
    observer: &mut dyn Observer,
) -> Result<(), TrainError> {
    let network = &tokenizer.network;
    let (spec, device) = (network.quantizer().spec(), network.device());
    let views = config.views_per_image();
    let labels = dataset.labels();
    let mut writer = None;
    observer.begin("tokenizing", "image", (dataset.len() * views) as u64);
    let indices: Vec<usize> = (0..dataset.len()).collect();
    for (i, batch) in indices.chunks(config.batch_size).enumerate() {
        if observer.stop_requested() {
            return Err(TrainError::Stopped);
        }
        let images = batch.iter().map(|&index| view(dataset, index, config));
        let images: Vec<Image> = images
            .collect::<Result<Vec<_>, TrainError>>()?
            .into_iter()
            .flatten()
            .collect();
        require_one_size(&images, |i| dataset.name(batch[i / views]).into_owned())?;
        require_whole_positions(
            (images[0].width(), images[0].height()),
            network.config().factor(),
            "eval",
        )?;
        let latents = network.latents(to_tensor(&images, &device), None);
        let codes = network.quantizer().encode(latents.clone())?;
        // On the code grid, which is coarser than the latents' where those are folded.
        let latents = fold(latents, spec.fold)?;
        if writer.is_none() {
            let [_, depth, height, width] = codes.dims();
            writer = Some(TokenCacheWriter::create(
                path,
                TokenCacheSpec {
                    tokenizer: tokenizer.fingerprint.clone(),
                    codebook_sizes: spec
                        .codebook_sizes
                        .iter()
                        .map(|&size| size as u32)
                        .collect(),
                    shape: [dataset.len() * views, depth, height, width],
                    classes: if labels.is_some() {
                        dataset.classes().to_vec()
                    } else {
                        Vec::new()
                    },
                    code_dim: config.latents.then(|| latents.dims()[1]),
                    views: config.views,
                },
            )?);
        }
        let latents = if config.latents {
            host_values(latents)
        } else {
            Vec::new()
        };
        let labels = labels.iter().flat_map(|labels| {
            batch
                .iter()
                .flat_map(|&index| std::iter::repeat_n(labels[index], views))
        });
        let writer = writer.as_mut().expect("made with the first batch");
        writer.push(&codes.values(), &latents, &labels.collect::<Vec<_>>())?;
        observer.advance(((i * config.batch_size + batch.len()) * views) as u64, "");
    }
    observer.end();
    match writer {
        Some(writer) => Ok(writer.finish()?),
        None => Err(TrainError::layout(path, "there are no images to tokenize")),
    }
}

/// The views of an image, and its mirror image where asked for.
fn view(
    dataset: &Dataset,
    index: usize,
    config: &TokenizeConfig,
) -> Result<Vec<Image>, TrainError> {
    let mut views = config
        .views
        .of(&dataset.image(index)?, &config.preprocess)?;
    if config.mirror {
        views.extend(views.clone().iter().map(Image::flip_horizontal));
    }
    Ok(views)
}
