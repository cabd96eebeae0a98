//! A trained generator: new images.

use std::ops::ControlFlow;
use std::path::Path;

use burn::tensor::Device;
use smalti_data::Image;
use smalti_models::generators::conditions::Wanted;
use smalti_models::generators::sampling::SamplingConfig;
use smalti_models::generators::{Conditions, GenerationRequest, Prefix, Progress};
use smalti_quantize::Codes;
use smalti_train::samples::to_images;
use smalti_train::{GeneratorModel, TrainError};

/// What to generate.
#[derive(Clone, Debug)]
pub struct Request {
    /// The class by its name or number; `None` for a generator without classes.
    pub class: Option<String>,
    /// How many images.
    pub count: usize,
    /// Determines the images.
    pub seed: u64,
    /// Number of the first image: an image depends on its number and the seed, not on which are made together.
    pub first: u64,
    /// How codes are drawn; `None` as the generator's description says.
    pub sampling: Option<SamplingConfig>,
    /// Images computed at a time.
    pub batch_size: usize,
}

/// A trained generator with its tokenizer.
#[derive(Debug)]
pub struct Generator {
    model: GeneratorModel,
    device: Device,
}

impl Generator {
    /// Reads the folder of a generator (or of the run that trained it).
    ///
    /// # Errors
    /// When it is missing, damaged or something else.
    pub fn load(folder: &Path, device: &Device) -> Result<Self, TrainError> {
        Ok(Self {
            model: GeneratorModel::load(folder, device)?,
            device: device.clone(),
        })
    }

    /// The network and its description.
    pub fn model(&self) -> &GeneratorModel {
        &self.model
    }

    /// Names of the classes; empty for a generator without classes, or whose classes have only numbers.
    pub fn classes(&self) -> &[String] {
        &self.model.description.classes
    }

    /// New images.
    ///
    /// # Errors
    /// When there is no such class, or `watch` stops.
    pub fn generate(
        &self,
        request: &Request,
        watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Vec<Image>, TrainError> {
        self.run(request, None, watch)
    }

    /// New images that go on from the upper part of a given one: its rows above `row` (of the code map)
    /// are kept.
    ///
    /// # Errors
    /// As [`generate`](Self::generate), or when the image does not have the generator's size.
    pub fn complete(
        &self,
        request: &Request,
        image: &Image,
        row: usize,
        watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Vec<Image>, TrainError> {
        let network = &self.model.tokenizer.network;
        let (layout, factor) = (
            self.model.description.model.layout(),
            network.config().factor(),
        );
        let (needed, got) = (
            (layout.width * factor, layout.height * factor),
            (image.width(), image.height()),
        );
        if got != needed {
            return Err(TrainError::Request(format!(
                "an image of {}x{} pixels is needed to go on from, got {}x{}",
                needed.0, needed.1, got.0, got.1
            )));
        }
        if row >= layout.height {
            return Err(TrainError::Request(format!(
                "nothing is left to generate when {row} rows are kept: the code map has {} rows",
                layout.height
            )));
        }
        let codes = network.encode(smalti_train::samples::to_tensor(
            std::slice::from_ref(image),
            &self.device,
        ))?;
        let [_, depth, height, width] = codes.dims();
        let repeated = codes.values().repeat(request.count);
        let codes = Codes::from_values(
            &repeated,
            [request.count, depth, height, width],
            &self.device,
        );
        self.run(
            request,
            Some(Prefix {
                codes,
                row,
                column: 0,
            }),
            watch,
        )
    }

    fn run(
        &self,
        request: &Request,
        prefix: Option<Prefix>,
        watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Vec<Image>, TrainError> {
        let full = GenerationRequest {
            conditions: self.conditions(request)?,
            sampling: request
                .sampling
                .clone()
                .unwrap_or_else(|| self.model.description.sampling.clone()),
            seed: request.seed,
            first_sample: request.first,
            batch_size: request.batch_size,
            prefix,
        };
        let codes = self.model.network.generate(&full, watch)?;
        let mut images = Vec::with_capacity(request.count);
        let [count, depth, height, width] = codes.dims();
        let values = codes.values();
        let step = depth * height * width;
        for start in (0..count).step_by(request.batch_size.max(1)) {
            let end = (start + request.batch_size).min(count);
            let part = Codes::from_values(
                &values[start * step..end * step],
                [end - start, depth, height, width],
                &self.device,
            );
            images.extend(to_images(self.model.tokenizer.network.decode(&part)?)?);
        }
        Ok(images)
    }

    fn conditions(&self, request: &Request) -> Result<Conditions, TrainError> {
        let refuse = |problem: String| Err(TrainError::Request(problem));
        match (self.model.description.model.wanted(), &request.class) {
            (Wanted::Nothing, None) => Ok(Conditions::Unconditional(request.count)),
            (Wanted::Nothing, Some(class)) => {
                refuse(format!("this generator has no classes, but class {class:?} was asked for"))
            }
            (Wanted::Classes(count), Some(class)) => match self.class_number(class, count) {
                Some(number) => Ok(Conditions::Classes(vec![number; request.count])),
                None => refuse(format!("there is no class {class:?}; the classes are: {}", self.class_names(count))),
            },
            (Wanted::Classes(count), None) => refuse(format!("a class is needed; the classes are: {}", self.class_names(count))),
            (Wanted::Texts { .. } | Wanted::Captions { .. }, _) => refuse("generators of images for texts are used through the library: they need text tokens, or features of them".into()),
        }
    }

    /// A class by its name, whatever its capitals, or by its number.
    fn class_number(&self, class: &str, count: usize) -> Option<u32> {
        let by_name = self
            .classes()
            .iter()
            .position(|name| name.eq_ignore_ascii_case(class));
        by_name
            .or_else(|| class.parse().ok().filter(|&number: &usize| number < count))
            .map(|number| number as u32)
    }

    /// What may be asked for; published generators have numbers for names.
    fn class_names(&self, count: usize) -> String {
        match self.classes() {
            [] => format!("numbers from 0 to {}", count.saturating_sub(1)),
            names => names.join(", "),
        }
    }
}
