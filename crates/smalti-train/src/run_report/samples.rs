//! What a generator writes, shown in a run's report.

use smalti_models::generators::sampling::Guidance;
use smalti_models::generators::{Conditions, GenerationRequest, Writing};

use crate::error::TrainError;
use crate::model_dir::GeneratorModel;
use crate::report::{Picture, Report, SampleGrid};
use crate::samples::to_images;

/// Samples shown of each class.
const SAMPLES: usize = 10;
/// Guidance that is shown where the generator's own sampling has none.
const SHOWN_GUIDANCE: f32 = 2.0;

pub(super) fn sections(
    report: &mut Report,
    model: &GeneratorModel,
    seed: u64,
) -> Result<(), TrainError> {
    let section = report.section("Generated images");
    section.paragraph(match model.description.model.writing() {
        Writing::Raster => "New images, sampled code by code, one row for each class.",
        Writing::Denoised { .. } | Writing::Unmasked { .. } => {
            "New images, sampled in passes over all of their codes, one row for each class."
        }
    });
    if !model.description.model.can_be_guided() {
        section.add(samples(model, None, seed, "Samples, unselected.")?);
        return Ok(());
    }
    let own = model.description.sampling.guidance;
    let guidance = own.unwrap_or(Guidance::new(SHOWN_GUIDANCE));
    section.paragraph("Guidance leads samples away from what the generator would write without a class: clearer images of less variety. Both have the same random numbers.");
    let title = format!("Samples with guidance {}, unselected.", guidance.scale);
    section.add(samples(model, Some(guidance), seed, &title)?);
    section.add(samples(
        model,
        None,
        seed,
        "Samples without guidance, unselected.",
    )?);
    Ok(())
}

/// A row of samples for each class.
fn samples(
    model: &GeneratorModel,
    guidance: Option<Guidance>,
    seed: u64,
    title: &str,
) -> Result<SampleGrid, TrainError> {
    let mut grid = SampleGrid::new(title);
    let classes = &model.description.classes;
    let rows: Vec<(String, Conditions)> = match classes.is_empty() {
        true => (0..4)
            .map(|_| (String::new(), Conditions::Unconditional(SAMPLES)))
            .collect(),
        false => classes
            .iter()
            .enumerate()
            .map(|(c, name)| (name.clone(), Conditions::Classes(vec![c as u32; SAMPLES])))
            .collect(),
    };
    for (row, (name, conditions)) in rows.into_iter().enumerate() {
        let mut request = GenerationRequest {
            sampling: model.description.sampling.clone(),
            first_sample: (row * SAMPLES) as u64,
            ..GenerationRequest::new(conditions, seed)
        };
        request.sampling.guidance = guidance;
        let codes = model
            .network
            .generate(&request, &mut |_| std::ops::ControlFlow::Continue(()))?;
        let images = to_images(model.tokenizer.network.decode(&codes)?)?;
        grid.row(name, images.iter().map(Picture::from).collect::<Vec<_>>());
    }
    Ok(grid)
}
