//! Sample pictures as PNG files: images in rows and columns with a thin gap.

use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use smalti_data::{ByteRounding, Image, append_planes, from_planes};
use smalti_nn::state::host_values;

use crate::error::TrainError;

const GAP: usize = 2;

/// 8-bit images of one size as a tensor `[batch, 3, height, width]` in [−1, 1].
pub fn to_tensor(images: &[Image], device: &Device) -> Tensor<4> {
    let (width, height) = (images[0].width(), images[0].height());
    let mut planes = Vec::with_capacity(images.len() * 3 * width * height);
    images
        .iter()
        .for_each(|image| append_planes(image, &mut planes));
    Tensor::from_data(
        TensorData::new(planes, [images.len(), 3, height, width]),
        device,
    )
}

/// A tensor `[batch, 3, height, width]` in [−1, 1] as 8-bit images; what lies outside is clamped.
///
/// # Errors
/// When a value is NaN.
pub fn to_images(batch: Tensor<4>) -> Result<Vec<Image>, TrainError> {
    let [_, _, height, width] = batch.dims();
    let planes = host_values(batch);
    let images = planes
        .chunks_exact(3 * height * width)
        .map(|planes| from_planes(planes, width, height, ByteRounding::Nearest));
    Ok(images.collect::<Result<_, _>>()?)
}

/// `count` of the images, evenly spread over all.
pub(crate) fn spread(images: &[Image], count: usize) -> Vec<Image> {
    let count = count.min(images.len());
    (0..count)
        .map(|i| images[i * images.len() / count].clone())
        .collect()
}

/// One image of all `rows`, each a row of equally large images.
///
/// # Errors
/// When there is nothing to show.
pub fn grid(rows: &[Vec<Image>]) -> Result<Image, TrainError> {
    let size = |image: &Image| (image.width(), image.height());
    let (width, height) = rows.iter().flatten().next().map_or((1, 1), size);
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let side = |count: usize, size: usize| GAP + count * (size + GAP);
    let mut sheet = Image::filled(side(columns, width), side(rows.len(), height), [255; 3])?;
    for (r, row) in rows.iter().enumerate() {
        for (c, image) in row.iter().enumerate() {
            sheet.paste(image, side(c, width), side(r, height));
        }
    }
    Ok(sheet)
}

/// Writes a grid as PNG.
///
/// # Errors
/// When the file cannot be written.
pub fn save_grid(rows: &[Vec<Image>], path: &Path) -> Result<(), TrainError> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(TrainError::io("create", folder))?;
    }
    Ok(grid(rows)?.save_png(path)?)
}
