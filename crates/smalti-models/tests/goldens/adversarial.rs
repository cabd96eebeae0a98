//! A step of VQGAN's training against taming-transformers: distances, logits, losses, the adaptive weight
//! and gradients.
//!
//! (What the case names the state after both passes of the discriminator is the state before them: its
//! counters are zero and its means the file's. Running statistics are held against PyTorch beside R1.)
//!
//! Activations to 2e-5 + 1e-4 relative, scalar losses to 1e-5 relative, as the case says. Gradients are sums
//! of many terms of both signs that meet rectifiers on the way: 1e-3 relative to the largest.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use smalti_models::autoencoder::{Autoencoder, AutoencoderConfig};
use smalti_models::discriminators::{
    AdversarialLoss, Discriminator, DiscriminatorConfig, PatchConfig, PatchNorm, adaptive_weight,
    published,
};
use smalti_models::features::Backbone;
use smalti_models::perceptual::{Lpips, PerceptualConfig};
use smalti_nn::state::{Weights, host_values};
use smalti_nn::{Init, Noise};
use smalti_quantize::{Quantized, Quantizer};

use crate::support::{Golden, close, same_codes};

const DISC_WEIGHT: f32 = 0.8;

const CONFIG: &str = r#"
[network]
resolution = 32
channels = 32
multipliers = [2, 1]
blocks = 1
attention_resolutions = [16]
z_channels = 24
[quantizer]
kind = "vector"
codebook_size = 96
code_dim = 16
rule = "gradient"
"#;

fn autoencoder(golden: &Golden, device: &Device) -> Autoencoder {
    let config: AutoencoderConfig = toml::from_str(CONFIG).unwrap();
    let model = config.build(&mut Init::blank(device)).unwrap();
    let mut fresh = Weights::of(&model);
    let file = golden.folder.join("last.ckpt");
    let wanted = |name: &str| !name.starts_with("loss.");
    let published = Weights::read_pytorch_where(&file, &["state_dict"], wanted).unwrap();
    let published = published.rename(|name| match name {
        "quantize.embedding.weight" => Some("quantizer.codebook.weight".into()),
        name => Some(name.into()),
    });
    // What the table's own state is does not matter here.
    fresh.0.retain(|name, _| name.starts_with("quantizer."));
    fresh.0.extend(published.unwrap().0);
    fresh.load_into(model).unwrap()
}

fn lpips(golden: &Golden, device: &Device) -> Lpips {
    let file = golden.folder.join("last.ckpt");
    let config = PerceptualConfig::Lpips {
        backbone: Backbone::Vgg16,
        trunk: file.clone(),
        heads: file,
    };
    config.load(device).unwrap()
}

fn discriminator(golden: &Golden, device: &Device) -> Discriminator {
    let config = DiscriminatorConfig::Patch(PatchConfig {
        channels: 8,
        layers: 2,
        norm: PatchNorm::Batch,
    });
    let file = golden.folder.join("last.ckpt");
    published::read(&config, &file, &mut Init::blank(device)).unwrap()
}

#[track_caller]
fn number(got: Tensor<1>, golden: &Golden, name: &str) {
    let (got, want): (f32, f32) = (got.into_scalar(), golden.number(name));
    assert!(
        (got - want).abs() <= 1e-5 * want.abs().max(0.1),
        "{name}: got {got}, expected {want}"
    );
}

#[test]
fn distances_are_the_published_ones() {
    let golden = Golden::open("taming_vqgan");
    let lpips = lpips(&golden, &Device::flex());
    let [images, made] = ["x", "recon"].map(|name| golden.tensor::<4>(name));
    let terms = lpips.terms(images.clone(), made.clone());
    let layers = Tensor::stack::<2>(terms, 1);
    close(layers, golden.tensor("lpips_layers"), "layers");
    let distances = lpips.distances(images, made).reshape([2, 1, 1, 1]);
    close(distances, golden.tensor("lpips"), "distances");
}

#[test]
fn the_discriminator_judges_as_published() {
    let golden = Golden::open("taming_vqgan");
    let network = discriminator(&golden, &Device::flex());
    let [images, made] = ["x", "recon"].map(|name| golden.tensor::<4>(name));
    for (images, name) in [(&images, "real"), (&made, "fake")] {
        let logits = network.forward(images.clone());
        close(
            logits,
            golden.tensor(&format!("logits_{name}_eval")),
            "by running statistics",
        );
    }
    let mut logits = Vec::new();
    for (images, name) in [(images, "real"), (made, "fake")] {
        let (batch, _) = network.forward_batch(images);
        close(
            batch.clone(),
            golden.tensor(&format!("logits_{name}_train")),
            "by the batch",
        );
        logits.push(batch);
    }
    let [real, fake]: [Tensor<4>; 2] = logits.try_into().unwrap();
    let hinge = AdversarialLoss::Hinge.discriminator(real.clone(), fake.clone());
    number(hinge.clone(), &golden, "hinge_train");
    number(hinge, &golden, "disc_after_start.disc_loss");
    let vanilla = AdversarialLoss::Vanilla.discriminator(real.clone(), fake.clone());
    number(vanilla, &golden, "vanilla_train");
    number(real.mean(), &golden, "disc_after_start.logits_real");
    number(fake.mean(), &golden, "disc_after_start.logits_fake");
}

/// What a generator's step makes of the images.
struct Pass {
    quantized: Quantized,
    made: Tensor<4>,
    nll: Tensor<1>,
    generator: Tensor<1>,
}

struct Setting {
    model: Autoencoder,
    lpips: Lpips,
    network: Discriminator,
    images: Tensor<4>,
}

impl Setting {
    /// A graph of its own: a backward pass takes its graph apart.
    fn pass(&self) -> Pass {
        let latents = self.model.latents(self.images.clone(), None);
        let quantizer = self.model.quantizer();
        let noise = &mut Noise::from_seed(0);
        let quantized = quantizer.quantize(latents, noise).unwrap();
        let made = self.model.images(quantized.quantized.clone(), None);
        // The published nll is |x − x̂| with the distance added to every element, then averaged.
        let distance = self
            .lpips
            .distances(self.images.clone(), made.clone())
            .mean();
        let nll = (self.images.clone() - made.clone()).abs().mean() + distance;
        let (logits, _) = self.network.forward_batch(made.clone());
        Pass {
            quantized,
            made,
            nll,
            generator: AdversarialLoss::Hinge.generator(logits),
        }
    }

    /// The gradient of the decoder's last weight.
    fn pull(&self, loss: Tensor<1>) -> Vec<f32> {
        let gradients = loss.backward();
        host_values(conv_out(&self.model).grad(&gradients).unwrap())
    }
}

#[test]
fn the_generators_step_is_the_published_one() {
    let golden = Golden::open("taming_vqgan");
    let device = Device::flex().autodiff();
    let setting = Setting {
        model: autoencoder(&golden, &device),
        lpips: lpips(&golden, &device),
        network: discriminator(&golden, &device),
        images: golden.tensor::<4>("x").autodiff(),
    };
    let latents = setting.model.latents(setting.images.clone(), None);
    close(latents.inner(), golden.tensor("h"), "latents");
    let pass = setting.pass();
    let (_, codes) = golden.ids("codes");
    let (_, margins) = golden.floats("margin");
    same_codes(&pass.quantized.codes.values(), &codes, &margins, 1e-4);
    close(
        pass.made.clone().inner(),
        golden.tensor("recon"),
        "reconstruction",
    );
    number(pass.nll.clone(), &golden, "gen_after_start.nll_loss");
    number(pass.generator.clone(), &golden, "gen_after_start.g_loss");

    let norm = |values: Vec<f32>| values.iter().map(|v| v * v).sum::<f32>().sqrt();
    let pulls = [setting.pass().nll, setting.pass().generator].map(|loss| norm(setting.pull(loss)));
    let weight = adaptive_weight(pulls[0], pulls[1], DISC_WEIGHT);
    let published = golden.number("gen_after_start.d_weight");
    assert!(
        (weight - published).abs() < 1e-4 * published,
        "{weight} for {published}"
    );

    // The published code weighs the side of the loss that pulls the codes ("legacy").
    let loss = |name| {
        let found = pass.quantized.losses.iter().find(|loss| loss.0 == name);
        found.unwrap().1.clone()
    };
    let quantization = loss("commitment") + loss("codebook") * 0.25;
    number(quantization.clone(), &golden, "gen_after_start.quant_loss");
    let total = pass.nll.clone() + pass.generator.clone() * weight + quantization;
    number(total.clone(), &golden, "gen_after_start.total_loss");
    let gradient = setting.pull(total);
    let (_, want) = golden.floats("grad.decoder.conv_out.weight");
    let largest = want.iter().fold(0.0f32, |most, w| most.max(w.abs()));
    for (i, (got, want)) in gradient.iter().zip(&want).enumerate() {
        assert!(
            (got - want).abs() <= 1e-3 * largest,
            "gradient {i}: got {got}, expected {want}"
        );
    }
}

/// The weight of the decoder's last layer.
fn conv_out(model: &Autoencoder) -> Tensor<4> {
    struct Find(smalti_nn::state::ParameterPath, Option<Tensor<4>>);
    impl burn::module::ModuleVisitor for Find {
        fn visit_float<const D: usize>(&mut self, param: &burn::module::Param<Tensor<D>>) {
            if self.0.name() == "decoder.conv_out.weight" {
                let dispatch = param.val().into_dispatch();
                self.1 = Some(Tensor::from_dispatch(dispatch));
            }
        }
        fn enter_module(&mut self, name: &str, container: &str) {
            self.0.enter(name, container);
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.0.exit();
        }
    }
    let mut find = Find(Default::default(), None);
    model.visit(&mut find);
    find.1.unwrap()
}
