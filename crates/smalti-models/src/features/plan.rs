//! The layers of published trunks, numbered as in their files.
//!
//! VGG (Simonyan, Zisserman 2015, arXiv 1409.1556, table 1, columns D and E) and AlexNet (Krizhevsky 2014,
//! arXiv 1404.5997) in torchvision's form: the place of a layer in its list is the number in
//! `features.N.weight`. Every rectifier has a name: `relu{group}_{layer}` in VGG, `relu1` to `relu5` in AlexNet.

use serde::{Deserialize, Serialize};

/// A published network of convolutions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backbone {
    /// Five convolutions, the first of 11×11 at stride 4.
    Alexnet,
    /// Thirteen convolutions of 3×3 in five groups.
    Vgg16,
    /// Sixteen convolutions of 3×3 in five groups.
    Vgg19,
}

impl Backbone {
    /// The taps of perceptual distances: the last rectifier of each stage; in VGG-19 those that have the
    /// names of VGG-16's.
    pub fn default_taps(self) -> [&'static str; 5] {
        match self {
            Self::Alexnet => ["relu1", "relu2", "relu3", "relu4", "relu5"],
            Self::Vgg16 | Self::Vgg19 => ["relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3"],
        }
    }

    /// Its name in texts.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Alexnet => "AlexNet",
            Self::Vgg16 => "VGG-16",
            Self::Vgg19 => "VGG-19",
        }
    }

    /// Convolutions of each of VGG's groups.
    fn groups(self) -> [usize; 5] {
        match self {
            Self::Vgg19 => [2, 2, 4, 4, 4],
            _ => [2, 2, 3, 3, 3],
        }
    }
}

/// One layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A convolution with equal padding on all sides.
    Convolution {
        kernel: usize,
        stride: usize,
        padding: usize,
    },
    /// A rectifier, and its name.
    Rectifier(String),
    /// The largest under each window.
    Pool { kernel: usize, stride: usize },
    /// Halving with a filter of 1-2-1 and two reflected rows on each side.
    Blur,
}

impl Step {
    /// The side of its map for maps of `side`, if there is room.
    fn side_after(&self, side: usize) -> Option<usize> {
        let windows = |side: usize, kernel, stride| Some(side.checked_sub(kernel)? / stride + 1);
        match *self {
            Self::Convolution {
                kernel,
                stride,
                padding,
            } => windows(side + 2 * padding, kernel, stride),
            Self::Rectifier(_) => Some(side),
            Self::Pool { kernel, stride } => windows(side, kernel, stride),
            // Two rows can be reflected where there are three.
            Self::Blur => (side > 2).then(|| side.div_ceil(2) + 1),
        }
    }
}

/// The layers of a trunk up to the last tap, and which of them are taps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) steps: Vec<Step>,
    /// Places of the tapped layers, ascending.
    pub(crate) taps: Vec<usize>,
}

impl Plan {
    /// The trunk of `backbone` with the named taps, which come in the order of the layers.
    pub(crate) fn new(backbone: Backbone, taps: &[&str]) -> Result<Self, Vec<String>> {
        let steps = match backbone {
            Backbone::Alexnet => alexnet(4, &|steps| {
                steps.push(Step::Pool {
                    kernel: 3,
                    stride: 2,
                })
            }),
            _ => vgg(backbone.groups(), &|steps| {
                steps.push(Step::Pool {
                    kernel: 2,
                    stride: 2,
                });
            }),
        };
        Self::tapped(backbone, steps, taps)
    }

    /// The trunks of ST-LPIPS (Ghildyal, Liu, ECCV 2022, arXiv 2207.13686): pooling moves by one, and a
    /// blur does the halving; in AlexNet the first convolution moves by one as well, and blurs follow it
    /// before its rectifier.
    pub(crate) fn shift_tolerant(backbone: Backbone, taps: &[&str]) -> Result<Self, Vec<String>> {
        let pool = |kernel| {
            move |steps: &mut Vec<Step>| {
                steps.extend([Step::Pool { kernel, stride: 1 }, Step::Blur]);
            }
        };
        let steps = match backbone {
            Backbone::Alexnet => {
                let mut steps = alexnet(1, &pool(3));
                steps.insert(1, Step::Blur);
                steps
            }
            _ => vgg(backbone.groups(), &pool(2)),
        };
        Self::tapped(backbone, steps, taps)
    }

    fn tapped(
        backbone: Backbone,
        mut steps: Vec<Step>,
        taps: &[&str],
    ) -> Result<Self, Vec<String>> {
        let is = |step: &Step, tap: &str| matches!(step, Step::Rectifier(name) if name == tap);
        let unknown = taps
            .iter()
            .filter(|tap| !steps.iter().any(|step| is(step, tap)));
        let mut problems: Vec<String> = unknown
            .map(|tap| format!("{} has no layer {tap}", backbone.name()))
            .collect();
        if taps.is_empty() {
            problems.push("a trunk needs at least one tap".into());
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let tapped = |i: &usize| taps.iter().any(|tap| is(&steps[*i], tap));
        let taps: Vec<usize> = (0..steps.len()).filter(tapped).collect();
        steps.truncate(taps.last().expect("checked above") + 1);
        Ok(Self { steps, taps })
    }

    /// The smallest side of an image that every layer has room for, with maps of at least `least` positions on a
    /// side at the taps.
    pub(crate) fn smallest_side(&self, least: usize) -> usize {
        let fits = |side: &usize| {
            let maps = self.map_sides(*side);
            maps.is_some_and(|maps| maps.iter().all(|&map| map >= least))
        };
        (1..)
            .find(fits)
            .expect("a large enough image passes every layer")
    }

    /// The sides of the maps at the taps for images of `side`, if they pass.
    fn map_sides(&self, side: usize) -> Option<Vec<usize>> {
        let mut maps = Vec::new();
        let mut side = side;
        for (place, step) in self.steps.iter().enumerate() {
            side = step.side_after(side)?;
            if self.taps.contains(&place) {
                maps.push(side);
            }
        }
        Some(maps)
    }

    /// The names of the tapped layers.
    pub(crate) fn tap_names(&self) -> Vec<&str> {
        let name = |&tap: &usize| match &self.steps[tap] {
            Step::Rectifier(name) => name.as_str(),
            _ => unreachable!("taps are rectifiers"),
        };
        self.taps.iter().map(name).collect()
    }
}

/// The layers of AlexNet, whose first convolution moves by `stride`.
fn alexnet(stride: usize, pool: &dyn Fn(&mut Vec<Step>)) -> Vec<Step> {
    let mut steps = Vec::new();
    let kernels = [11, 5, 3, 3, 3];
    for (i, kernel) in kernels.into_iter().enumerate() {
        if (1..3).contains(&i) {
            pool(&mut steps);
        }
        steps.push(Step::Convolution {
            kernel,
            stride: if i == 0 { stride } else { 1 },
            padding: (kernel / 2).min(2),
        });
        steps.push(Step::Rectifier(format!("relu{}", i + 1)));
    }
    steps
}

/// The layers of VGG with the given groups.
fn vgg(groups: [usize; 5], pool: &dyn Fn(&mut Vec<Step>)) -> Vec<Step> {
    let mut steps = Vec::new();
    for (group, convolutions) in groups.into_iter().enumerate() {
        if group > 0 {
            pool(&mut steps);
        }
        for i in 0..convolutions {
            steps.push(Step::Convolution {
                kernel: 3,
                stride: 1,
                padding: 1,
            });
            steps.push(Step::Rectifier(format!("relu{}_{}", group + 1, i + 1)));
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(backbone: Backbone) -> Plan {
        Plan::new(backbone, &backbone.default_taps()).unwrap()
    }

    fn shift_tolerant(backbone: Backbone) -> Plan {
        Plan::shift_tolerant(backbone, &backbone.default_taps()).unwrap()
    }

    fn convolutions(plan: &Plan) -> Vec<usize> {
        let is = |i: &usize| matches!(plan.steps[*i], Step::Convolution { .. });
        (0..plan.steps.len()).filter(is).collect()
    }

    #[test]
    fn layers_have_the_published_numbers() {
        assert_eq!(plan(Backbone::Vgg16).taps, [3, 8, 15, 22, 29]);
        assert_eq!(plan(Backbone::Vgg19).taps, [3, 8, 15, 24, 33]);
        assert_eq!(plan(Backbone::Alexnet).taps, [1, 4, 7, 9, 11]);
        assert_eq!(convolutions(&plan(Backbone::Alexnet)), [0, 3, 6, 8, 10]);
        let first = Plan::new(Backbone::Vgg19, &["relu5_1", "relu1_1"]).unwrap();
        assert_eq!((first.taps, first.steps.len()), (vec![1, 29], 30));
    }

    #[test]
    fn shift_tolerant_layers_have_the_published_numbers() {
        let alexnet = shift_tolerant(Backbone::Alexnet);
        assert_eq!(alexnet.taps, [2, 6, 10, 12, 14]);
        assert_eq!(convolutions(&alexnet), [0, 5, 9, 11, 13]);
        let vgg = shift_tolerant(Backbone::Vgg16);
        assert_eq!(vgg.taps, [3, 9, 17, 25, 33]);
        assert_eq!(convolutions(&vgg)[2..5], [6, 8, 12]);
    }

    #[test]
    fn the_smallest_image_is_known() {
        assert_eq!(plan(Backbone::Vgg16).smallest_side(1), 16);
        assert_eq!(plan(Backbone::Alexnet).smallest_side(1), 31);
        assert_eq!(shift_tolerant(Backbone::Alexnet).smallest_side(1), 21);
    }

    #[test]
    fn so_are_the_maps() {
        let vgg = plan(Backbone::Vgg19);
        assert_eq!(vgg.map_sides(32).unwrap(), [32, 16, 8, 4, 2]);
        assert_eq!((vgg.smallest_side(2), vgg.map_sides(15)), (32, None));
        let shallow = Plan::new(Backbone::Vgg19, &["relu3_3", "relu1_2"]).unwrap();
        assert_eq!(shallow.smallest_side(2), 8);
        assert_eq!(shallow.tap_names(), ["relu1_2", "relu3_3"]);
    }

    #[test]
    fn unknown_taps_are_listed() {
        let problems = Plan::new(Backbone::Vgg16, &["relu3_4", "relu1_1", "pool5"]).unwrap_err();
        assert_eq!(
            problems,
            ["VGG-16 has no layer relu3_4", "VGG-16 has no layer pool5"]
        );
    }
}
