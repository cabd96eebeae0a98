use super::*;

fn golden(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../goldens")).join(name)
}

fn refused(path: &Path) -> String {
    Source::open(path, &Device::flex()).unwrap_err().to_string()
}

#[test]
fn published_vaes_are_read_whatever_their_layout() {
    for (name, channels, groups) in [
        ("vae_diffusers", 4, 1),
        ("vae_diffusers/ldm_f16.ckpt", 4, 1),
        ("gq_unet/config.yaml", 8, 2),
    ] {
        let source = Source::open(&golden(name), &Device::flex()).unwrap();
        assert_eq!(source.scheme.channels(), channels, "{name}");
        assert_eq!(source.scheme.groups.len(), groups, "{name}");
        assert!(
            source.name.ends_with(name.rsplit('/').next().unwrap()),
            "{}",
            source.name
        );
    }
    // diffusers tells the scale of the latents, a single file does not.
    let scale = |name: &str| {
        let source = Source::open(&golden(name), &Device::flex()).unwrap();
        source.scheme.normalization.map(|to| to.scale)
    };
    assert_eq!(scale("vae_diffusers"), Some(vec![0.18215; 4]));
    assert_eq!(scale("vae_diffusers/ldm_f16.ckpt"), None);
}

#[test]
fn what_is_no_vae_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    assert!(refused(here).contains("the folder has no image_tokenizer.json"));
    assert!(refused(&here.join("nowhere")).contains("there is no such folder"));
    std::fs::write(
        here.join("config.json"),
        "{\"_class_name\": \"UNet\", \"latent_channels\": 4}",
    )
    .unwrap();
    assert!(
        refused(here).contains("expected \"AutoencoderKL\""),
        "{}",
        refused(here)
    );
    // Means alone: the encoder and the decoder of an RQ-VAE.
    let error = refused(&golden("rqvae_stage1/model.pt"));
    assert!(error.contains("means and variances"), "{error}");
    std::fs::write(here.join("other.safetensors"), "no weights").unwrap();
    assert!(refused(&here.join("other.safetensors")).contains("other.safetensors"));
}

#[test]
fn weights_are_looked_for_beside_their_yaml() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let touch = |name: &str| std::fs::write(here.join(name), "").unwrap();
    let yaml = here.join("a.yaml");
    touch("a.yaml");
    let error = weights_beside(&yaml).unwrap_err().to_string();
    assert!(
        error.contains("a.ckpt") && error.contains("0 other"),
        "{error}"
    );
    touch("b.ckpt");
    assert_eq!(weights_beside(&yaml).unwrap(), here.join("b.ckpt"));
    touch("c.ckpt");
    assert!(
        weights_beside(&yaml)
            .unwrap_err()
            .to_string()
            .contains("2 other")
    );
    touch("a.ckpt");
    assert_eq!(weights_beside(&yaml).unwrap(), here.join("a.ckpt"));
}
